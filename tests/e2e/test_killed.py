"""Kill -9 of the process that starts a container, at one system call after the other."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import leftovers
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e

_STARTER = """
import os
from wherry import Client
client = Client()
with client.run("busybox", "true", ports={80: 8080}):  # all is imported, all that is made once is made
    pass
for marker in ("/begin-of-the-run", "/end-of-the-run"):
    os.path.exists(marker)
    if marker.startswith("/begin"):
        client.run("busybox", "sleep 1000", name="victim", ports={80: 8080})
"""
_CALL = re.compile(r"(?:\d+ +)?(\w+)\(")
_PARTS = 6
_POINTS = 72


def _traced(world: World, log: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = ["strace", "-qq", "-o", str(log), *options, sys.executable, "-c", _STARTER]
    environment = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["env", *(f"{name}={value}" for name, value in environment.items()), *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _steps(log: Path) -> list[tuple[str, int]]:
    """Every system call of the run: its name, and the how-manieth of that name it is in the process."""
    counts: dict[str, int] = {}
    steps, inside = [], False
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name = call[1]
        counts[name] = counts.get(name, 0) + 1
        if "-of-the-run" in line:
            inside = "/begin" in line
        elif inside:
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
    done = _traced(world, log)
    assert done.returncode == 0, done.stderr
    steps = _steps(log)
    assert len(steps) > 100
    chosen = [steps[number * len(steps) // _POINTS] for number in range(_POINTS)][part::_PARTS]
    with Client() as client:
        client.containers.get("victim").remove(force=True)
        _kill_at(chosen, client, world, log)


def _kill_at(chosen: list[tuple[str, int]], client: Client, world: World, log: Path) -> None:
    killed = 0
    for name, count in chosen:
        done = _traced(world, log, "-e", f"inject={name}:signal=KILL:when={count}")
        if done.returncode == 0:  # counts of calls differ a little from run to run: the last ones may not be reached
            client.containers.get("victim").remove(force=True)
            continue
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        killed += 1
        _settle(client, world, f"{name} number {count}")
        client.create("busybox", "true", name="victim").remove()
    assert killed >= len(chosen) * 3 // 4


def _settle(client: Client, world: World, where: str) -> None:
    """Wait until the container runs, or nothing is left of it; remove what runs."""

    def undecided() -> list[str]:
        found = client.containers.list(all=True)
        if not found:
            return _what_is_left(world)
        [container] = found
        return [] if container.status == "running" else [f"{container.name} is {container.status}"]

    left = leftovers.settled(undecided, patience_s=20)
    assert left == [], f"killed at {where}: {left}"
    for container in client.containers.list(all=True):
        assert container.exec(["echo", "alive"]).stdout == b"alive\n"
        container.remove(force=True)
