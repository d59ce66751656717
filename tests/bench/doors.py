"""The same docker command and the same requests through wherry's daemon and through dockerd."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from bench.measure import Case
from bench.rivals import Command, NoRival

if TYPE_CHECKING:
    from bench.cases import Field

_LISTED, _REQUESTS = 100, 1000


def cases(field: "Field") -> dict[str, Callable[[], Case]]:
    """By the names that `--case` takes."""
    return {
        "daemon-run": lambda: _runs(field),
        "daemon-list": lambda: _lists(field),
        "daemon-memory": lambda: _memory(field),
    }


@attrs.frozen
class _Door:
    """A daemon of wherry, and the docker command that talks to it; it ends with the bench's process."""

    command: Command
    socket: str
    pid: int


def _wherry(field: "Field") -> _Door:
    path = field.folder / "wherry.sock"
    if field.docker is None:
        raise NoRival("the docker command is not installed")
    if not path.exists():
        log = (field.folder / "wherry.log").open("wb")
        command = [sys.executable, "-m", "wherry_daemon", "-H", f"unix://{path}", "--log-level", "error"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        field.ending.callback(_end, process)
        (field.folder / "wherry.pid").write_text(str(process.pid))
    environment = {"DOCKER_HOST": f"unix://{path}", "DOCKER_CONFIG": field.docker.environment["DOCKER_CONFIG"]}
    door = _Door(Command(field.docker.words, environment), str(path), int((field.folder / "wherry.pid").read_text()))
    _answering(door.command)
    return door


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()


def _answering(command: Command) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            command("version")
            return
        except NoRival:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _doors(field: "Field") -> dict[str, Command]:
    found = {"wherry": _wherry(field).command}
    if field.docker is not None:
        found["docker"] = field.docker
    return found


def _runs(field: "Field") -> Case:
    def once(command: Command) -> Callable[[], None]:
        def run() -> None:
            command("run", "--rm", "busybox", "true")

        return run

    contenders = {name: once(command) for name, command in _doors(field).items()}
    return Case(name="`docker run --rm busybox true` through the daemon", contenders=contenders, limit=0.6)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _lists(field: "Field") -> Case:
    def asking(command: Command) -> Callable[[], None]:
        for _ in range(_LISTED):
            command("create", "busybox", "true")
        path = command.environment["DOCKER_HOST"].removeprefix("unix://")

        def ask() -> None:
            connection = _UnixConnection(path)
            for _ in range(_REQUESTS):
                connection.request("GET", "/v1.41/containers/json?all=1")
                assert connection.getresponse().read().count(b'"Id"') >= _LISTED
            connection.close()

        return ask

    contenders = {name: asking(command) for name, command in _doors(field).items()}
    return Case(name=f"{_REQUESTS} × `GET /containers/json` of {_LISTED}", contenders=contenders, limit=1.5)


def _memory(field: "Field") -> Case:
    """Of the idle daemon; dockerd's with containerd's, which is its child."""
    ours = _wherry(field).pid
    contenders: dict[str, Callable[[], float]] = {"wherry": lambda: _resident([ours])}
    if field.docker is not None:
        pid = int((Path(field.docker.environment["DOCKER_HOST"].removeprefix("unix://")).parent / "pid").read_text())
        contenders["docker"] = lambda: _resident([pid, *_children(pid)])
    return Case(name="the idle daemon's memory (RSS)", contenders=contenders, unit="MB", limit=1.0)


def _children(pid: int) -> Iterator[int]:
    for thread in os.listdir(f"/proc/{pid}/task"):
        yield from map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())


def _resident(pids: list[int]) -> float:
    """Megabytes (10^6)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6
