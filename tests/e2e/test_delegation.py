"""Limits of an ordinary user's containers, on a host with cgroup v2 alone that has delegated a group to the user."""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support import users
from support import world as worlds
from support.host import Host
from support.layout import Layout
from support.leftovers import settled
from support.registry import Registry
from support.users import User
from support.world import World
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies

_ROOT = Path("/sys/fs/cgroup")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(Hierarchies.find().has_v1_controllers, reason="needs a host with cgroup v2 alone (nox -s vm)"),
]


@pytest.fixture
def world(ordinary_user: User, host: Host, registry: Registry, image: Callable[[str], Layout]) -> Iterator[World]:
    """The user's."""
    with users.being(ordinary_user), worlds.made(host, registry, image) as made:
        made.push("busybox")
        yield made
        left = settled(made.left_over)
        assert not left, "the test left over:\n" + "\n".join(left)


@pytest.fixture
def delegated(world: World, ordinary_user: User) -> Iterator[Path]:
    """A group with the controllers of limits that is the user's, as user@.service is; with one of its own below it."""
    group = _ROOT / f"user-{ordinary_user.uid}"
    with users.as_root():
        group.mkdir()
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "."):
            os.chown(group / name, ordinary_user.uid, ordinary_user.uid)
    (group / "session").mkdir()
    yield group
    with users.as_root():
        users.end_holder(ordinary_user.holder)  # it is where it was made
        cgroup = Cgroup(f"/{group.name}", Hierarchies.find())
        settled(lambda: [str(pid) for place in _groups(group) for pid in Cgroup(place, Hierarchies.find()).pids()])
        cgroup.remove()


def _groups(top: Path) -> list[str]:
    return [f"/{Path(place).relative_to(_ROOT)}" for place, _, _ in os.walk(top)]


def _join(group: Path) -> None:
    """In a process that is about to become another program."""
    with users.as_root():
        (group / "cgroup.procs").write_text(str(os.getpid()))


_LIMITED = """
import json, warnings
from pathlib import Path
from wherry import Client

warnings.simplefilter("error")
with Client() as client:
    checks = {check.name: check.status for check in client.doctor()}
    fork = "n=0; while [ $n -lt 40 ]; do sleep 20 & n=$((n + 1)); done; echo all"
    limits = {"mem_limit": "64m", "pids_limit": 20, "nano_cpus": 500_000_000}
    with client.run("busybox", "sleep 1000", network="none", **limits) as one:
        own = Path("/proc", str(one.pid), "cgroup").read_text().partition("::")[2].strip()
        group = Path("/sys/fs/cgroup" + own)
        limits = {name: (group / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")}
        forked = one.exec(["sh", "-c", fork])
        one.pause()
        paused = (one.status, "frozen 1" in (group / "cgroup.events").read_text())
        one.unpause()
        used = one.stats(stream=False)["memory_stats"]["usage"] > 0
        one.update(mem_limit="96m")
        raised = (group / "memory.max").read_text().strip()
    print(json.dumps([checks["cgroups"], own, limits, forked.stderr.decode()[:80], "all" in forked.stdout.decode(),
                      paused, used, raised, group.exists()]))
"""


def test_limits_are_set_in_the_group_that_is_delegated(world: World, delegated: Path) -> None:
    """Memory, processes and processors; what is used is counted, a pause pauses, and the group goes in the end."""
    done = world.python(_LIMITED, preexec_fn=partial(_join, delegated / "session"))
    status, own, limits, said, all_forked, paused, used, raised, left = json.loads(done.stdout)
    assert status == "ok"
    assert own.startswith(f"/{delegated.name}/wherry/")
    assert limits == {"memory.max": str(64 << 20), "pids.max": "20", "cpu.max": "50000 100000"}
    assert "fork" in said
    assert not all_forked
    assert paused == ["paused", True]
    assert (used, raised, left) == (True, str(96 << 20), False)


_WARNED = """
import warnings
from wherry import Client

with Client() as client, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    client.run("busybox", "true", network="none", mem_limit="64m", pids_limit=20).remove(force=True)
    print(*(f"{one.category.__name__} {one.filename} {one.message}" for one in caught), sep="\\n")
"""


def test_without_a_group_of_its_own_the_user_is_warned(world: World) -> None:
    """Once for each call, on the caller's line, with the limits that are not set and what to do."""
    _check_warned(world.python(_WARNED).stdout)


def test_a_group_with_the_users_own_processes_in_it_is_as_good_as_none(world: World, delegated: Path) -> None:
    """The kernel hands no limits down from there, and nobody's process is moved."""
    _check_warned(world.python(_WARNED, preexec_fn=partial(_join, delegated)).stdout)


def _check_warned(shown: str) -> None:
    [said] = shown.splitlines()
    assert said.startswith("LimitWarning <string> limits of memory, pids are not set")
    assert "Delegate=yes" in said
