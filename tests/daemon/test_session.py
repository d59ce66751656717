"""The first session that anybody tries, through the docker command; and many clients at once."""

import hashlib
import os
import re
import resource
import selectors
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from daemon.test_daemon import Daemon, daemon, start
from support.leftovers import settled
from wherry import Client

__all__ = ["daemon"]  # the fixture

pytestmark = pytest.mark.e2e

_SIZE = 64 << 20  # bytes of the download
_FOLLOWERS, _ATTACHED = 200, 50
_LINES = 300


def test_the_seeds_session_and_an_upgrade_in_the_middle_of_a_download(daemon: Daemon) -> None:
    """Run nginx, look at it, and stop the daemon while a client downloads: no parent of nginx's, no break."""
    daemon.world.push("nginx")
    host = daemon.world.host
    daemon.docker("run", "--name", "docker-nginx", "-p", "80:80", "-d", "nginx")
    shown = daemon.docker("ps", "--format", "{{.Names}} {{.Image}} {{.Ports}} {{.Status}}")
    assert re.fullmatch(r"docker-nginx nginx 0\.0\.0\.0:80->80/tcp\S* Up .*\n", shown)
    pid = int(daemon.docker("inspect", "--format", "{{.State.Pid}}", "docker-nginx"))
    ancestors = _ancestors(pid)
    assert daemon.process.pid not in [number for number, _ in ancestors]
    assert [number for number, _ in ancestors][-1] == 1
    assert len(ancestors) == 2, ancestors  # its shim, and init
    tree = subprocess.run(["ps", "fxa", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert "nginx: master process" in tree
    daemon.docker("exec", "docker-nginx", "sh", "-c", f"head -c {_SIZE} /dev/zero > /usr/share/nginx/html/big")

    got: list[bytes] = []
    upgraded = threading.Event()
    downloading = threading.Thread(
        target=lambda: got.append(host.neighbour.call(lambda: _download(host.address, upgraded)))
    )
    downloading.start()
    try:
        for _ in range(2):
            daemon.stop()
            assert daemon.process.stderr is not None
            daemon.process.stderr.close()
            daemon.process = start(daemon.world).process
            assert daemon.docker("ps", "--format", "{{.Names}}") == "docker-nginx\n"
            assert downloading.is_alive()
    finally:
        upgraded.set()
        downloading.join()
    assert got == [hashlib.sha256(bytes(_SIZE)).digest()]
    assert int(daemon.docker("inspect", "--format", "{{.State.Pid}}", "docker-nginx")) == pid


def _ancestors(pid: int) -> list[tuple[int, str]]:
    """Of a process, up to init: number and name."""
    found: list[tuple[int, str]] = []
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)[1])  # type: ignore[index] # every process has it
        if not pid:
            return found
        found.append((pid, Path(f"/proc/{pid}/comm").read_text().strip()))


def _download(address: str, upgraded: threading.Event) -> bytes:
    """The digest of what one connection brings: a part of it, and the rest once the daemon is another one."""
    digest = hashlib.sha256()
    with socket.create_connection((address, 80), timeout=30) as client:
        client.sendall(b"GET /big HTTP/1.0\r\nHost: x\r\n\r\n")
        with client.makefile("rb") as file:
            while file.readline().strip():
                continue
            digest.update(file.read(1 << 20))
            assert upgraded.wait(60)
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.digest()


def test_many_clients_and_one_that_does_not_read(daemon: Daemon) -> None:
    """
    200 follow a log and 50 are attached; one of them reads nothing: the others have every line, and others are served.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        _crowd(daemon)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _crowd(daemon: Daemon) -> None:
    line = f"line $i {'x' * 1000}"
    script = f"read begin; i=0; while [ $i -lt {_LINES} ]; do echo {line}; i=$((i+1)); done"
    daemon.docker("create", "-i", "--name", "c", "busybox", "sh", "-c", script)
    attach = "/containers/c/attach?stream=1&stdout=1&stderr=1"
    deaf = _client(daemon, "POST", attach)
    attached = [_client(daemon, "POST", attach) for _ in range(_ATTACHED)]
    daemon.docker("start", "c")
    followers = [_client(daemon, "GET", "/containers/c/logs?follow=1&stdout=1") for _ in range(_FOLLOWERS)]
    before = _resident(daemon.process.pid)
    with Client() as client, client.containers.get("c").attach() as attachment:
        attachment.write(b"go\n")
    counts = _lines([*attached, *followers])
    deaf.close()
    assert counts == [_LINES] * (_ATTACHED + _FOLLOWERS)
    assert daemon.docker("ps", "--all", "--format", "{{.Names}}") == "c\n"
    assert _resident(daemon.process.pid) - before < 64 << 20

    def threads() -> list[str]:
        count = len(os.listdir(f"/proc/{daemon.process.pid}/task"))
        return [] if count < 20 else [f"{count} threads"]

    assert settled(threads) == []


def _client(daemon: Daemon, method: str, path: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(60)
    end.connect(str(daemon.socket))
    end.sendall(f"{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += end.recv(1)
    assert head.startswith(b"HTTP/1.1 200 "), head
    return end


def _lines(ends: list[socket.socket]) -> list[int]:
    """How many lines come out of each until its end; all are read as they come."""
    contents = {end: bytearray() for end in ends}
    with selectors.DefaultSelector() as waiting:
        for end in ends:
            waiting.register(end, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(60)
            assert ready, "nothing comes any more"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                piece = key.fileobj.recv(1 << 16)
                contents[key.fileobj] += piece
                if not piece:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
    return [content.count(b"line ") for content in contents.values()]


def _resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
