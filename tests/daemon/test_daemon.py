"""The daemon by its real clients: the docker command and docker-py."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import docker
import pexpect
import pytest
import requests
import requests_unixsocket  # type: ignore[import-untyped] # it has no types

import wherry
from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.errors import ContainerNotFound

pytestmark = pytest.mark.e2e

PATIENCE_S = 30.0


@attrs.define
class Daemon:
    """A daemon of the test's own, and a docker command that talks to it."""

    world: World
    process: "subprocess.Popen[bytes]"
    socket: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.world.path / "docker")}

    def run(self, *arguments: str, input: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            input=input or "",
        )

    def docker(self, *arguments: str, input: str | None = None) -> str:
        done = self.run(*arguments, input=input)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def request(self, method: str, path: str, data: str | None = None) -> requests.Response:
        with requests_unixsocket.Session() as session:
            address = f"http+unix://{str(self.socket).replace('/', '%2F')}{path}"
            answer: requests.Response = session.request(method, address, timeout=30, data=data)
            return answer

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


def start(world: World, *arguments: str) -> Daemon:
    place = world.path / "docker.sock"
    # Doors are opened in this order, so the others are open when the last one is.
    command = [sys.executable, "-m", "wherry_daemon", "--log-level", "warning", *arguments, "-H", f"unix://{place}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert settled(lambda: [] if process.poll() is None and _answers(place) else ["no answer"]) == []
    return Daemon(world, process, place)


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as end:
        return end.connect_ex(str(place)) == 0


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    """With busybox in its registry; its containers are removed at the end."""
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed")
    world.push("busybox")
    made = start(world)
    yield made
    made.stop()
    assert made.process.stderr is not None
    made.process.stderr.close()
    with Client() as client:
        for container in client.containers.list(all=True):
            with suppress(ContainerNotFound):  # it removes itself just now
                container.remove(force=True, v=True)


def test_run_pulls_runs_and_gives_streams_and_exit_code(daemon: Daemon) -> None:
    """Both streams apart, stdin to its end, the program's own exit code, and the container gone with --rm."""
    assert daemon.docker("run", "--rm", "busybox", "echo", "hello") == "hello\n"
    done = daemon.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert daemon.docker("run", "--rm", "-i", "busybox", "wc", "-c", input="x" * 100_000) == "100000\n"
    assert daemon.docker("ps", "--all", "--quiet") == ""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("run", "--rm", "busybox", "nosuch"), 127, "executable file not found"),
        (("run", "--rm", "busybox", "/etc"), 126, "permission denied"),
        (("run", "--rm", "--pull=never", "nosuch"), 125, "No such image: nosuch:latest"),
        (("rm", "nosuch"), 1, "No such container: nosuch"),
        (("volume", "rm", "nosuch"), 1, "no such volume"),
        (("swarm", "init"), 1, "wherry has no swarm"),
        (("run", "--rm", "--log-driver", "nosuch", "busybox"), 125, "no log driver named 'nosuch'"),
    ],
)
def test_errors_have_dockers_words_and_exit_codes(
    daemon: Daemon, command: tuple[str, ...], code: int, said: str
) -> None:
    """What scripts look for."""
    daemon.docker("pull", "busybox")
    done = daemon.run(*command)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert daemon.docker("ps", "--all", "--quiet") == ""


def test_a_container_goes_through_its_life(daemon: Daemon) -> None:
    """The verbs of every day, on one container."""
    daemon.docker("run", "-d", "--name", "web", "-p", "80", "-v", "vol:/data", "-l", "a=b", "busybox", "sleep", "1000")
    assert re.fullmatch(r"0\.0\.0\.0:\d+\n", daemon.docker("port", "web", "80").splitlines(keepends=True)[0])
    assert daemon.docker("exec", "web", "sh", "-c", "echo $$ > /data/pid; cat /data/pid").strip().isdigit()
    assert daemon.run("exec", "web", "sh", "-c", "exit 4").returncode == 4
    assert daemon.run("exec", "web", "nosuch").returncode == 127
    assert "sleep 1000" in daemon.docker("top", "web")
    assert "GiB" in daemon.docker("stats", "--no-stream", "web")
    daemon.docker("pause", "web")
    assert "(Paused)" in daemon.docker("ps")
    daemon.docker("unpause", "web")
    daemon.docker("update", "--memory", "100m", "--memory-swap", "200m", "web")
    daemon.docker("rename", "web", "site")
    daemon.docker("restart", "--timeout", "0", "site")
    [found] = json.loads(daemon.docker("inspect", "site"))
    assert (found["State"]["Status"], found["HostConfig"]["Memory"]) == ("running", 100 << 20)
    assert found["Config"]["Labels"]["a"] == "b"
    daemon.docker("kill", "site")
    assert daemon.docker("wait", "site") == "137\n"
    daemon.docker("rm", "--volumes", "site")
    assert daemon.docker("volume", "ls", "--quiet") == "vol\n"
    daemon.docker("volume", "rm", "vol")


def test_files_go_in_and_out(daemon: Daemon, tmp_path: Path) -> None:
    """cp both ways, diff, export, commit, save and load."""
    daemon.docker("run", "--name", "c", "busybox", "touch", "/made")
    (tmp_path / "in").write_text("content")
    daemon.docker("cp", str(tmp_path / "in"), "c:/etc/in")
    daemon.docker("cp", "c:/etc/in", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "content"
    assert daemon.docker("diff", "c") == "C /etc\nA /etc/in\nA /made\n"
    daemon.docker("commit", "--change", 'CMD ["cat", "/etc/in"]', "c", "copy:1")
    assert daemon.docker("run", "--rm", "copy:1") == "content"
    daemon.docker("save", "--output", str(tmp_path / "copy.tar"), "copy:1")
    daemon.docker("rmi", "copy:1")
    assert "Loaded image: copy:1" in daemon.docker("load", "--input", str(tmp_path / "copy.tar"))
    assert daemon.docker("images", "--quiet", "copy") != ""


def test_logs_are_told_by_time_and_followed(daemon: Daemon) -> None:
    """--tail, --timestamps, --since, and --follow until the end."""
    daemon.docker("run", "-d", "--name", "c", "busybox", "sh", "-c", "echo one; echo two; sleep 0.3; echo three")
    assert daemon.docker("logs", "--follow", "c") == "one\ntwo\nthree\n"
    assert daemon.docker("logs", "--tail", "1", "c") == "three\n"
    stamp, _, text = daemon.docker("logs", "--timestamps", "--tail", "1", "c").partition(" ")
    assert text == "three\n"
    assert daemon.docker("logs", "--since", stamp, "c") == "three\n"


def test_a_terminal_works(daemon: Daemon) -> None:
    """A shell in a pty: echo, the window's size, the detach keys, and being attached to again."""
    child = pexpect.spawn(
        "docker",
        ["run", "-it", "--name", "c", "busybox", "sh"],
        env=daemon.environment,
        encoding="utf-8",
        timeout=PATIENCE_S,
        dimensions=(33, 99),
    )
    child.expect("/ #")
    child.sendline("stty size")
    child.expect("33 99")
    child.send("\x10\x11")
    child.expect(pexpect.EOF)
    child.close()
    assert daemon.docker("ps", "--quiet") != ""
    again = pexpect.spawn("docker", ["attach", "c"], env=daemon.environment, encoding="utf-8", timeout=PATIENCE_S)
    again.sendline("exit 7")
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus == 7


def test_networks_find_names(daemon: Daemon) -> None:
    """A network of its own, an alias, connect and disconnect."""
    daemon.docker("network", "create", "--subnet", "10.123.0.0/24", "net")
    daemon.docker(
        "run", "-d", "--name", "server", "--network", "net", "--network-alias", "other", "busybox", "sleep", "100"
    )
    assert "10.123.0." in daemon.docker("run", "--rm", "--network", "net", "busybox", "nslookup", "other")
    daemon.docker("network", "disconnect", "net", "server")
    daemon.docker("network", "connect", "--ip", "10.123.0.77", "net", "server")
    assert "10.123.0.77" in daemon.docker("network", "inspect", "net")
    daemon.docker("rm", "--force", "server")
    daemon.docker("network", "rm", "net")


def test_events_are_told_since_and_until(daemon: Daemon) -> None:
    """Also what happened before the daemon was asked."""
    daemon.docker("run", "--rm", "--name", "c", "busybox", "true")
    told = daemon.docker(
        "events", "--since", "5m", "--until", f"{time.time():.6f}", "--filter", "container=c", "--format", "{{.Action}}"
    )
    assert {"create", "start", "die", "destroy"} <= set(told.split())


def test_the_daemon_may_be_killed_and_another_goes_on(daemon: Daemon) -> None:
    """A container of the first is the second's, with its log, and never noticed."""
    daemon.docker("run", "-d", "--name", "c", "busybox", "sh", "-c", "echo begun; sleep 1000")
    pid = daemon.docker("inspect", "--format", "{{.State.Pid}}", "c")
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.process.stderr is not None
    daemon.process.stderr.close()
    daemon.process = start(daemon.world).process  # the dead one's socket is replaced
    assert daemon.docker("inspect", "--format", "{{.State.Pid}}", "c") == pid
    assert daemon.docker("logs", "c") == "begun\n"


def test_the_door_is_for_root_and_the_group(daemon: Daemon) -> None:
    """Mode 0660; a second daemon on the same path is refused, and does not take it away."""
    assert daemon.socket.stat().st_mode & 0o777 == 0o660
    second = subprocess.run(
        [sys.executable, "-m", "wherry_daemon", "-H", f"unix://{daemon.socket}"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (second.returncode, "another daemon answers there" in second.stderr) == (1, True)
    assert daemon.docker("ps", "--quiet") == ""


def test_tcp_needs_certificates_or_loopback_and_consent(daemon: Daemon) -> None:
    """CVE-2024-41110's neighbours: who reaches the door is root."""
    for host in ("tcp://0.0.0.0:0", "tcp://127.0.0.1:0"):
        done = subprocess.run(
            [sys.executable, "-m", "wherry_daemon", "-H", host], capture_output=True, check=False, text=True
        )
        assert (done.returncode, "--tlsverify" in done.stderr) == (1, True), host
    insecure = [sys.executable, "-m", "wherry_daemon", "-H", "tcp://0.0.0.0:0", "--insecure-loopback"]
    assert subprocess.run(insecure, check=False, capture_output=True).returncode == 1


def test_a_web_page_is_refused_on_loopback(world: World) -> None:
    """DNS rebinding shows in Host, another site's page in Origin."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    made = start(world, "-H", f"tcp://127.0.0.1:{port}", "--insecure-loopback")
    try:
        address = f"http://127.0.0.1:{port}/containers/json"
        assert requests.get(address, timeout=30).json() == []
        for headers in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Origin": "http://evil.example"}):
            assert requests.get(address, headers=headers, timeout=30).status_code == 403
    finally:
        made.stop()
        assert made.process.stderr is not None
        made.process.stderr.close()


def test_a_daemon_that_is_stopped_at_once_ends(world: World) -> None:
    """Whatever it is at when the signal comes."""
    for _ in range(5):
        made = start(world)
        assert made.process.stderr is not None
        made.process.stderr.close()
        made.stop()


def test_versions_are_negotiated(daemon: Daemon) -> None:
    """With and without a version, ping for everybody, an error for those that there are not."""
    assert daemon.request("HEAD", "/_ping").headers["Api-Version"] == "1.51"
    assert daemon.request("GET", "/_ping").text == "OK"
    for path in ("/version", "/v1.24/version", "/v1.51/version"):
        assert daemon.request("GET", path).json()["MinAPIVersion"] == "1.24"
    for path in ("/v1.23/version", "/v1.99/version"):
        answer = daemon.request("GET", path)
        assert (answer.status_code, "client version" in answer.json()["message"]) == (400, True)
    assert daemon.request("GET", "/nosuch").json() == {"message": "page not found"}
    assert daemon.request("POST", "/services/create").status_code == 501


def test_what_makes_no_sense_is_refused_and_the_connection_lives(daemon: Daemon) -> None:
    """Wrong JSON, wrong types, wrong HTTP: 400 each, and no traceback."""
    for body in ("{", "[]", '"x"', '{"Image": "busybox", "HostConfig": []}', '{"Image": "busybox", "Env": [1]}'):
        answer = daemon.request("POST", "/containers/create", data=body)
        assert answer.status_code in (400, 501), (body, answer.text)
        assert "Traceback" not in answer.text
    for query in ("filters=x", "filters=[]", "limit=x", 'filters={"nosuch":["a"]}'):
        assert daemon.request("GET", f"/containers/json?{query}").status_code == 400, query
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(daemon.socket))
        end.sendall(b"nonsense\r\n\r\n")
        assert end.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_follower_that_leaves_leaves_no_thread(daemon: Daemon) -> None:
    """Twenty clients follow a silent container's log, wait for it, and hang up."""
    daemon.docker("run", "-d", "--name", "c", "busybox", "sleep", "1000")

    def threads() -> int:
        return len(os.listdir(f"/proc/{daemon.process.pid}/task"))

    before = threads()
    ends = []
    for path in ("GET /containers/c/logs?follow=1&stdout=1", "POST /containers/c/wait", "GET /events") * 7:
        end = socket.socket(socket.AF_UNIX)
        end.connect(str(daemon.socket))
        end.sendall(f"{path} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        assert end.recv(1000).startswith(b"HTTP/1.1 200 ")
        ends.append(end)
    assert threads() >= before + len(ends)
    for end in ends:
        end.close()
    assert settled(lambda: ["a thread"] * max(0, threads() - before - 1)) == []


def test_docker_py_works_unchanged(daemon: Daemon) -> None:
    """Run, exec with both streams, logs, networks, volumes, attrs."""
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    try:
        assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
        container = client.containers.run("busybox", "sleep 1000", detach=True, environment={"A": "b"}, mem_limit="64m")
        code, (out, err) = container.exec_run(["sh", "-c", "echo $A; echo e >&2; exit 5"], demux=True)
        assert (code, out, err) == (5, b"b\n", b"e\n")
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
        container.remove()
        with pytest.raises(docker.errors.NotFound):
            client.containers.get(container.id)
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get("nosuch")
    finally:
        client.close()


def test_the_door_opens_inside_a_program(world: World) -> None:
    """`wherry.docker_host()`: docker-py with no daemon; threads and socket are gone afterwards, containers are not."""
    world.push("busybox")
    before = threading.active_count()
    with Client() as client:
        client.images.pull("busybox")
        with wherry.docker_host(client) as address:
            other = docker.DockerClient(base_url=address)
            made = other.containers.run("busybox", "sleep 1000", detach=True)
            other.close()
        assert threading.active_count() == before
        assert not Path(address.removeprefix("unix://")).exists()
        with client.containers.get(made.id) as container:
            assert container.status == "running"


def test_wherry_daemon_is_a_verb(world: World) -> None:
    """`wherry daemon`, on the root of the command."""
    assert "--tlsverify" in world.wherry("daemon", "--help").stdout


def test_a_wait_ends_with_the_first_end_of_one_that_is_restarted(daemon: Daemon) -> None:
    """As Docker does it; the next one takes the next end."""
    daemon.docker("run", "-d", "--name", "one", "--restart", "always", "busybox", "sh", "-c", "sleep 0.3; exit 4")
    assert daemon.docker("wait", "one") == "4\n"
    assert daemon.docker("wait", "one") == "4\n"
    daemon.docker("rm", "-f", "one")
