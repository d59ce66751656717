"""What is measured, and how much wherry may take of it."""

import itertools
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from bench.measure import Case
from bench.rivals import Command, NoRival, Runtime
from support import host as hosts
from support.registry import Registry

_ids = itertools.count()


@attrs.frozen(kw_only=True)
class Field:
    """Who takes part."""

    folder: Path  # for what a case makes
    registry: Registry
    ending: ExitStack  # what a case starts, and does not end itself
    wherry: Command
    docker: Command | None = None
    podman: Command | None = None
    oci: Runtime  # wherry-oci
    runc: Runtime | None = None
    crun: Runtime | None = None

    def commands(self) -> dict[str, Command]:
        """The engines' command lines."""
        named = {"wherry": self.wherry, "docker": self.docker, "podman": self.podman}
        return {name: command for name, command in named.items() if command is not None}


def all_cases(field: Field) -> dict[str, Callable[[], Case]]:
    """The cases by the names that `--case` takes; a case is made when its turn comes."""
    from bench import doors, idle, life, runtimes, transfers

    return {
        **idle.cases(field),
        **life.cases(field),
        **transfers.cases(field),
        **doors.cases(field),
        **runtimes.cases(field),
        "cli-none": lambda: _command_line(field, "none", 0.5),
        "cli-bridge": lambda: _command_line(field, "bridge", 0.45),
        "sdk-none": lambda: _warm(field, "none"),
        "sdk-bridge": lambda: _warm(field, "bridge"),
        "throughput": lambda: _throughput(field, "published"),
        "throughput-loopback": lambda: _throughput(field, "loopback"),
        "shim": lambda: _shims(field, "Rss"),
        "shim-pss": lambda: _shims(field, "Pss"),
        "import": _importing,
    }


def _command_line(field: Field, network: str, limit: float) -> Case:
    def once(command: Command) -> Callable[[], None]:
        def run() -> None:
            command("run", "--rm", "--network", network, "busybox", "true")

        return run

    return Case(
        name=f"`run --rm --network {network} busybox true`",
        contenders={name: once(command) for name, command in field.commands().items()},
        limit=limit,
    )


def _warm(field: Field, network: str) -> Case:
    """The container's whole life, called from a process that has done it before."""
    from wherry import Client

    client = Client()

    def ours() -> None:
        client.run("busybox", "true", network=network, auto_remove=True).wait()

    contenders: dict[str, Callable[[], None]] = {"wherry": ours}
    if field.docker:
        contenders["docker"] = _docker_py(field.docker, network)
    return Case(name=f"`client.run(…).wait()`, warm, {network}", contenders=contenders, limit=0.2)


def _docker_py(command: Command, network: str) -> Callable[[], None]:
    import docker

    theirs: Any = docker.DockerClient(base_url=command.environment["DOCKER_HOST"])

    def run() -> None:
        theirs.containers.run("busybox", "true", network_mode=network, remove=True)

    return run


_BIG = 512 << 20  # bytes
_SERVE = f"truncate -s {_BIG} /big; exec httpd -f -p 80"


def _throughput(field: Field, way: str) -> Case:
    """
    Megabytes out of a container by a published port: a neighbour's client through the kernel's translation, or one on
    loopback by [::1], where wherry's proxy and docker's stand between.
    """
    _let_through()
    contenders: dict[str, Callable[[], float]] = {}
    for name in ("wherry", "docker"):
        command = field.commands().get(name)
        if command is not None:
            contenders[name] = _fetching(command, way)
    # Both are times for the same bytes: at least 0.9 and 0.5 of docker's throughput.
    return Case(
        name=f"{_BIG >> 20} MiB by a port, {way}", contenders=contenders, limit=1 / (0.9 if way == "published" else 0.5)
    )


def _let_through() -> None:
    """dockerd's firewall drops what others forward, on whose host it runs: do what the doctor says."""
    from wherry import Client

    for check in Client().doctor():
        if check.name == "firewall":
            subprocess.run(["sh", "-c", check.remedy], check=True)


def _fetching(command: Command, way: str) -> Callable[[], float]:
    network = f"bench-{next(_ids)}"

    def run() -> float:
        _make_network(command, network, ipv6=way == "loopback")
        container = f"bench-{next(_ids)}"
        command("run", "-d", "--name", container, "--network", network, "-p", "80", "busybox", "sh", "-c", _SERVE)
        try:
            port = int(command("port", container, "80").split()[0].rpartition(":")[2])
            return _fetch_time(way, port)
        finally:
            command("rm", "--force", container)
            command("network", "rm", network)

    return run


def _make_network(command: Command, name: str, *, ipv6: bool) -> None:
    subnet = ["--ipv6", "--subnet", "10.87.0.0/24", "--subnet", "fd00:87::/64"] if ipv6 else []
    command("network", "create", *subnet, name)


def _fetch_time(way: str, port: int) -> float:
    """Milliseconds from the question to the last byte."""
    host = hosts.entered()
    assert host is not None
    if way == "loopback":
        return host.network.call(lambda: _timed("::1", port))
    return host.neighbour.call(lambda: _timed(host.address, port))


def _timed(address: str, port: int) -> float:
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection((address, port), timeout=30) as client:
                client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
                start = time.perf_counter()
                received, buffer = 0, bytearray(1 << 20)
                while size := client.recv_into(buffer):
                    received += size
                elapsed = (time.perf_counter() - start) * 1000
        except OSError:
            received = 0
        if received >= _BIG:
            return elapsed
        if time.monotonic() > deadline:
            raise NoRival(f"{received} bytes came of {_BIG}")
        time.sleep(0.05)


def _shims(field: Field, kind: str) -> Case:
    """Memory of the process that stays with a container which sleeps, in MB."""
    companions = {"wherry": "", "docker": "containerd-shim", "podman": "conmon"}

    def once(name: str, command: Command) -> Callable[[], float]:
        def run() -> float:
            container = f"bench-{name}-{next(_ids)}"
            command("run", "--detach", "--name", container, "--network", "none", "busybox", "sleep", "1000")
            try:
                pid = json.loads(command("inspect", container))[0]["State"]["Pid"]
                return _memory(_companion(pid, companions[name]), kind)
            finally:
                command("rm", "--force", container)

        return run

    return Case(
        name=f"the shim's memory ({kind.upper()})",
        contenders={name: once(name, command) for name, command in field.commands().items()},
        unit="MB",
        limit=1.0 if kind == "Rss" else None,
    )


def _companion(pid: int, name: str) -> int:
    """The container's parent; conmon may have let a helper between them go."""
    parent = int(_status(pid, "PPid"))
    if name and not _status(parent, "Name").startswith(name[:15]):
        raise NoRival(f"the parent of {pid} is {_status(parent, 'Name')}, not {name}")
    return parent


def _status(pid: int, key: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition(f"{key}:")[2].split("\n")[0].strip()


def _memory(pid: int, kind: str) -> float:
    """Megabytes (10^6)."""
    found = re.search(rf"^{kind}:\s*(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if not found:
        raise NoRival(f"process {pid} shows no {kind}")
    return int(found[1]) * 1024 / 1e6


def _importing() -> Case:
    """What `import wherry` adds to the start of an interpreter, in ms: the difference of two starts side by side."""

    def start(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - begin) * 1000

    def added() -> float:
        pairs = [(start("import wherry"), start("pass")) for _ in range(5)]
        return statistics.median(ours - bare for ours, bare in pairs)

    return Case(
        name="`import wherry`, added to the interpreter's start", contenders={"wherry": added}, rival="", limit=30
    )
