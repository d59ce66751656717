"""
Kill -9 of clients and shims, at one system call after the other.

`WHERRY_KILL_POINTS` is how many points the five operations get together (CI takes a sample); two of three are spread
evenly over the steps, the third is drawn by `WHERRY_KILL_SEED`, which a run shows.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import leftovers
from support.world import World
from wherry import Client
from wherry.errors import ContainerNotFound

pytestmark = pytest.mark.e2e

_STARTER = """
from wherry import Client
client = Client()
with client.run("busybox", "true", ports={80: 8080}):  # all is imported, all that is made once is made
    pass
print("ready", flush=True)
input()
client.run("busybox", "sleep 1000", name="victim", ports={80: 8080})
print("done", flush=True)
"""
_CALL = re.compile(r"(?:\d+ +)?(\w+)\(")
_PARTS = 6
_POINTS = 96
_ENOUGH = 60
# Calls that change nothing for anybody else: to be killed at one of them is to be killed at the next that does.
_WITHOUT_EFFECT = frozenset(
    "access brk epoll_wait fcntl fstat futex getcwd getdents64 geteuid getpid getrandom gettid gettimeofday ioctl "
    "lseek lstat madvise mmap mprotect munmap newfstatat poll pread64 prctl read readlink rt_sigaction rt_sigprocmask "
    "stat statx uname".split()
)


def _traced(log: Path, *options: str) -> bool:
    """Start a container under strace with *options*, which count from the run's first call; whether it came back."""
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdin is not None
    assert starter.stdout is not None
    with starter:
        assert starter.stdout.readline() == "ready\n"
        with subprocess.Popen(
            ["strace", "-qq", "-o", str(log), "-p", str(starter.pid), *options], stdin=subprocess.DEVNULL
        ):
            assert leftovers.settled(lambda: _untraced(starter.pid)) == []
            try:
                starter.stdin.write("\n")
                starter.stdin.close()
            except BrokenPipeError:  # killed at the very first call
                pass
            return starter.stdout.readline() == "done\n"


def _untraced(pid: int) -> list[str]:
    return ["not yet"] if b"TracerPid:\t0\n" in leftovers._read(pid, "status") else []


def _steps(log: Path) -> list[tuple[str, int]]:
    """Every system call of the run that has an effect: its name, and the how-manieth of that name it is."""
    counts: dict[str, int] = {}
    steps = []
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name = call[1]
        counts[name] = counts.get(name, 0) + 1
        if name not in _WITHOUT_EFFECT:
            steps.append((name, counts[name]))
    return steps


def _what_is_left(world: World) -> list[str]:
    """Of containers; the database, the network's bridge, caches and images stay."""
    containers = world.root / "containers"
    return [
        *(f"directory {path}" for path in (containers.iterdir() if containers.exists() else ())),
        *leftovers.containers(world.run),
        *leftovers.processes(f"{world.path}/"),
        *leftovers.published(),
        *(f"device {line}" for line in leftovers.devices() if "veth" in line),
    ]


@pytest.mark.parametrize("part", range(_PARTS))
def test_a_container_is_whole_or_gone_whenever_its_starter_is_killed(world: World, tmp_path: Path, part: int) -> None:
    """
    After each kill the next call of anybody finds the container running and listed, or nothing of it; its name is free
    once it is removed.
    """
    world.push("busybox")
    log = tmp_path / "trace"
    with Client() as client:
        assert _traced(log)
        client.containers.get("victim").remove(force=True)
        steps = _steps(log)
        assert len(steps) >= _POINTS
        killed = 0
        for name, count in [steps[number * len(steps) // _POINTS] for number in range(_POINTS)][part::_PARTS]:
            killed += not _traced(log, "-e", f"inject={name}:signal=KILL:when={count}")
            _settle(client, world, f"{name} number {count}")
            client.create("busybox", "true", name="victim").remove()
    assert killed >= _ENOUGH // _PARTS  # calls differ a little from run to run: the last ones may not be reached


def _settle(client: Client, world: World, where: str) -> None:
    """Wait until the container runs, or nothing is left of it; remove what runs."""

    def undecided() -> list[str]:
        found = client.containers.list(all=True)
        if not found:
            return _what_is_left(world)
        return [f"{container.name} is {container.status}" for container in found if container.status != "running"]

    left = leftovers.settled(undecided, patience_s=20)
    assert left == [], f"killed at {where}: {left}"
    for container in client.containers.list(all=True):
        assert container.exec(["echo", "alive"]).stdout == b"alive\n"
        container.remove(force=True)


# --- create, start, exec, stop, remove: the client's steps and the shim's ------------------------------------------

_CLIENT = """
import sys
from wherry import Client
from wherry.errors import WherryError
operation = sys.argv[1]
client = Client()
container = None if operation == "create" else client.containers.get("victim")
client.create("busybox", "true", network="none").remove()  # all is imported, all that is made once is made
print("ready", flush=True)
input()
try:
    if operation == "create":
        client.create("busybox", "sleep 1000", name="victim", ports={80: 8080})
    elif operation == "start":
        container.start()
    elif operation == "exec":
        container.exec("true")
    elif operation == "stop":
        container.stop(timeout=0)
    else:
        container.remove(force=True)
except WherryError as error:
    print(type(error).__name__, flush=True)
else:
    print("done", flush=True)
"""
_OPERATIONS = ("create", "start", "exec", "stop", "remove")
_WHOM = [
    (operation, whom)
    for operation in _OPERATIONS
    for whom in ("client", "shim")
    if (operation, whom) != ("create", "shim")
]
_ALL_POINTS = int(os.environ.get("WHERRY_KILL_POINTS", "27"))
_SEED = int(os.environ.get("WHERRY_KILL_SEED") or random.randrange(1 << 32))
_TRACED = re.compile(r"(\d+) +(.*)")


def _prepare(client: Client, operation: str) -> int:
    """The container that the operation needs; its shim's number, or 0."""
    if operation == "create":
        return 0
    container = client.create("busybox", "sleep 1000", name="victim", ports={80: 8080})
    if operation == "start":
        return 0
    container.start()
    return client._engine.state(container._record).shim


def _operate(operation: str, whom: str, shim: int, log: Path, *options: str) -> None:
    """Do it in another process, under strace: the client with what it starts, or the shim that is there."""
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, operation], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    with client:
        assert client.stdout.readline() == "ready\n"
        traced = shim if whom == "shim" and shim else client.pid
        follow = ["-f"] if whom == "shim" and not shim else []
        with subprocess.Popen(
            ["strace", "-q", *follow, "-o", str(log), "-p", str(traced), *options], stdin=subprocess.DEVNULL
        ) as strace:
            assert leftovers.settled(lambda: _untraced(traced)) == []
            try:
                client.stdin.write("\n")
                client.stdin.close()
            except BrokenPipeError:
                pass
            client.stdout.read()
            if traced != client.pid or follow:  # it outlives the operation
                strace.terminate()


def _steps_of(log: Path, client_pid_first: bool) -> list[tuple[str, int]]:
    """The steps of one process; of several, those of the shim, where nobody else has as many calls of that name."""
    if not client_pid_first:
        return _steps(log)
    lines: dict[str, list[str]] = {}
    for line in log.read_text(errors="replace").splitlines():
        if found := _TRACED.match(line):
            lines.setdefault(found[1], []).append(found[2])
    shim = next(pid for pid, said in lines.items() if any("wherry-shim" in line for line in said))
    counts: dict[str, dict[str, int]] = {}
    steps = []
    for pid, said in lines.items():
        own = counts.setdefault(pid, {})
        for line in said:
            if call := _CALL.match(line):
                own[call[1]] = own.get(call[1], 0) + 1
                if pid == shim and call[1] not in _WITHOUT_EFFECT:
                    steps.append((call[1], own[call[1]]))
    others = [own for pid, own in counts.items() if pid != shim]
    return [(name, count) for name, count in steps if all(own.get(name, 0) < count for own in others)]


def _chosen(steps: list[tuple[str, int]], points: int, seed: str) -> list[tuple[str, int]]:
    """So many of *steps*: most of them spread evenly, every third one drawn from all."""
    drawn = points // 3
    even = points - drawn
    chance = random.Random(seed)
    return [
        *(steps[number * len(steps) // even] for number in range(even)),
        *(chance.choice(steps) for _ in range(drawn)),
    ]


@pytest.mark.parametrize(("operation", "whom"), _WHOM)
def test_whoever_is_killed_at_whatever_step_the_next_call_finds_order(
    world: World, tmp_path: Path, operation: str, whom: str
) -> None:
    """
    The container is there or not; it can be stopped and removed, nothing of it is left then, `system check` has nothing
    to say, and its name is free.
    """
    world.push("busybox")
    log = tmp_path / "trace"
    points = max(1, round(_ALL_POINTS / len(_WHOM)))
    with Client() as client:
        client.create("busybox", "true", network="none").remove()
        shim = _prepare(client, operation)
        _operate(operation, whom, shim, log)
        _clear(client, world, f"{operation} undisturbed")
        steps = _steps_of(log, client_pid_first=whom == "shim" and operation == "start")
        assert steps
        killed = 0
        print(f"seed {_SEED}")
        for name, count in _chosen(steps, points, f"{_SEED} {operation} {whom}"):
            shim = _prepare(client, operation)
            _operate(operation, whom, shim, log, "-e", f"inject={name}:signal=KILL:when={count}")
            killed += "+++ killed by SIGKILL" in log.read_text(errors="replace")
            _clear(client, world, f"{operation}, {whom} killed at {name} number {count} (seed {_SEED})")
    print(f"{operation}, {whom}: killed at {killed} of {len(steps)} steps, {points} tried")
    assert killed > points // 2  # calls differ a little from run to run: the last ones may not be reached


def _clear(client: Client, world: World, where: str) -> None:
    """Stop and remove what is there; it must go, and leave nothing."""
    for container in client.containers.list(all=True):
        try:
            container.stop(timeout=0)
            assert container.status in ("created", "exited"), f"{where}: {container.status}"
            container.remove(force=True)
        except ContainerNotFound:  # it went by itself
            continue
    left = leftovers.settled(lambda: [*_what_is_left(world), *client.check()], patience_s=20)
    assert left == [], f"{where}: {left}"
    client.create("busybox", "true", name="victim", network="none").remove()
