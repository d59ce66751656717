"""Who makes a container's first process, seen from outside."""

import os
import signal
from pathlib import Path

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.errors import StartFailed

pytestmark = pytest.mark.e2e


def test_a_shims_memory_is_not_the_containers(client: Client) -> None:
    """Neither as it counts, nor against its limit: who makes it allocates elsewhere."""
    with client.run("busybox", "sleep 1000", mem_limit="6m") as container:
        sample = container.stats(stream=False)
        assert sample.memory_limit == 6 << 20
        assert sample.memory_usage < 2 << 20


def test_a_maker_that_is_killed_takes_the_container_along(client: Client, world: World) -> None:
    """The one who asked is told, and nothing is left."""
    with client.pool("busybox", size=1, network="none") as pool:
        assert settled(lambda: [] if pool.waiting == 1 else ["none waits"]) == []
        (maker,) = _makers(world)
        os.kill(maker, signal.SIGKILL)
        assert settled(lambda: [str(pid) for pid in _makers(world)]) == []
        with pytest.raises(StartFailed, match="killed"):
            pool.run("true")
    assert client.containers.list(all=True) == []
    assert client.check() == []


def _makers(world: World) -> list[int]:
    """Those who make containers of this world just now: a shim's children, other than what they have made."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text()
            status = Path(f"/proc/{pid}/status").read_text()
            parent = int(status.partition("\nPPid:")[2].split()[0])
            if _name(pid) == "wherry-maker" and _name(parent) == "wherry-shim" and f"{world.path}/" in words:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
