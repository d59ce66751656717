"""Control groups: found wherever the host has them, written where the controller lives."""

from pathlib import Path

import pytest

from wherry_oci.runtime.cgrouplimits import writes
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_oci.runtime.failure import RuntimeFailure

_HYBRID = """25 24 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
30 24 0:27 / /elsewhere/cgroup rw - cgroup2 cgroup2 rw
"""
_PURE = "25 24 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def _found(tmp_path: Path, mountinfo: str) -> Hierarchies:
    (tmp_path / "mountinfo").write_text(mountinfo)
    return Hierarchies.find(mountinfo=str(tmp_path / "mountinfo"))


@pytest.mark.unit
def test_hybrid_hierarchies_are_found_each_once(tmp_path: Path) -> None:
    """Two controllers on one mount, a named one, and v2 beside; what is mounted elsewhere does not count."""
    found = _found(tmp_path, _HYBRID)
    assert found.v1["cpu"] == found.v1["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found.unified == "/sys/fs/cgroup/unified"
    assert len(found.directories()) == 4
    assert found.has_v1_controllers


@pytest.mark.unit
def test_limits_go_where_the_controller_lives(tmp_path: Path) -> None:
    """The same section, in v1's files and in v2's."""
    resources = {
        "memory": {"limit": 100, "swap": 150, "reservation": 50},
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
    }
    hybrid = dict(writes(Cgroup("/a/b", _found(tmp_path, _HYBRID)), resources))
    assert hybrid == {
        "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "100",
        "/sys/fs/cgroup/memory/a/b/memory.memsw.limit_in_bytes": "150",
        "/sys/fs/cgroup/memory/a/b/memory.soft_limit_in_bytes": "50",
        "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.shares": "1024",
        "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
        "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "50000",
    }
    pure = dict(writes(Cgroup("a/b", _found(tmp_path, _PURE)), {**resources, "pids": {"limit": 7}}))
    assert pure == {
        "/sys/fs/cgroup/a/b/memory.max": "100",
        "/sys/fs/cgroup/a/b/memory.low": "50",
        "/sys/fs/cgroup/a/b/memory.swap.max": "50",
        "/sys/fs/cgroup/a/b/cpu.weight": "39",
        "/sys/fs/cgroup/a/b/cpu.max": "50000 100000",
        "/sys/fs/cgroup/a/b/pids.max": "7",
    }


@pytest.mark.unit
def test_a_limit_that_no_hierarchy_can_hold_is_an_error(tmp_path: Path) -> None:
    """It is never passed over in silence."""
    only_memory = Hierarchies({"memory": "/sys/fs/cgroup/memory"}, None)
    with pytest.raises(RuntimeFailure, match=r"pids\.max=7 needs the pids controller"):
        writes(Cgroup("/a", only_memory), {"pids": {"limit": 7}})
    assert writes(Cgroup("/a", only_memory), {}) == []


@pytest.mark.unit
def test_a_path_does_not_lead_out(tmp_path: Path) -> None:
    """cgroupsPath comes from a config that somebody else wrote."""
    with pytest.raises(RuntimeFailure, match="upwards"):
        Cgroup("/a/../../b", _found(tmp_path, _PURE))


@pytest.mark.root
def test_a_group_is_made_and_removed_with_what_is_below_it() -> None:
    """Twice is fine, and so are groups that the container made itself."""
    group = Cgroup("/wherry/test-cgroups/one", Hierarchies.find())
    group.create()
    group.create()
    for directory in group.directories:
        (Path(directory) / "inner" / "most").mkdir(parents=True)
    assert group.pids() == []
    group.remove()
    group.remove()
    assert not any(Path(directory).exists() for directory in group.directories)
    Cgroup("/wherry/test-cgroups", Hierarchies.find()).remove()
