"""What containers cost while they do nothing: memory and processes of those who watch over them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.life import docker_py
from bench.measure import Case
from bench.rivals import NoRival

if TYPE_CHECKING:
    from bench.cases import Field

_START = """
import sys
from wherry import Client
for _ in range(int(sys.argv[1])):
    Client().run("busybox", "sleep 10000", network="none")
"""
_STARTERS = 4
_WATCHERS = ("wherry-shim", "dockerd", "containerd", "containerd-shim")
_told: set[tuple[str, int]] = set()


def cases(field: "Field") -> dict[str, Callable[[], Case]]:
    """By the names that `--case` takes."""
    return {
        "idle": lambda: _idle(field, 100),
        "idle-shim": lambda: _idle(field, 10, each=True),
    }


def _idle(field: "Field", count: int, *, each: bool = False) -> Case:
    """
    What *count* containers that sleep cost, in MB of memory (PSS): all that is there for them, the daemons too, or with
    *each* one shim alone. Their own processes are left out; they are the same.
    """
    from wherry import Client

    shares = [str(count // _STARTERS + (number < count % _STARTERS)) for number in range(_STARTERS)]
    _together([[sys.executable, "-c", _START, share] for share in shares])
    folder = str(Path(os.environ["WHERRY_ROOT"]).parent)
    contenders: dict[str, Callable[[], float]] = {"wherry": lambda: _cost("wherry", folder, count, each)}
    theirs = docker_py(field)
    if theirs is not None:
        assert field.docker is not None
        place = str(Path(field.docker.environment["DOCKER_CONFIG"]).parent)
        for _ in range(count):
            theirs.containers.run("busybox", "sleep 10000", network_mode="none", detach=True)
        contenders["docker"] = lambda: _cost("docker", place, count, each)

    def close() -> None:
        for container in Client().containers.list():
            container.remove(force=True)
        for container in theirs.containers.list() if theirs is not None else ():
            container.remove(force=True)

    what = f"one shim of {count} (PSS)" if each else f"all that watches over {count} containers (PSS)"
    return Case(name=what, contenders=contenders, unit="MB", limit=1.0, close=close)


def _together(commands: list[list[str]]) -> None:
    running = [subprocess.Popen(command) for command in commands]
    if sum(one.wait() != 0 for one in running):  # wait for each
        raise NoRival("not all of them could be started")


def _cost(who: str, folder: str, count: int, each: bool) -> float:
    """MB of who works in *folder*; how many they are is said once."""
    found = _working_in(folder)
    shims = [pid for pid, name in found if name.endswith("-shim")]
    if len(shims) != count:
        raise NoRival(f"{len(shims)} shims, for {count} containers")
    if (who, count) not in _told:
        _told.add((who, count))
        print(f"\n{who}: {len(found)} processes for {count} containers", file=sys.stderr)
    if each:
        return sum(_pss(pid) for pid in shims) / count
    return sum(_pss(pid) for pid, _ in found)


def _working_in(folder: str) -> list[tuple[int, str]]:
    """Those who watch whose command line has a path in *folder*: number and name."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words, name = (entry / "cmdline").read_bytes(), (entry / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = next((full for full in _WATCHERS if full[:15] == name), "")
        if name and f"{folder}/".encode() in words:
            found.append((int(entry.name), name))
    return found


def _pss(pid: int) -> float:
    """MB (10^6) of its memory, with its part of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
