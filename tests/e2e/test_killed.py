"""Kill -9 of the process that starts a container, at one system call after the other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import leftovers
from support.world import World
from wherry import Client

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
