"""Limits, devices, signals and counts where control groups are v2's alone; `nox -s vm` has such a machine."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import bundles
from support.bundles import Runtime
from support.layout import Layout
from wherry_oci.linux import bpf
from wherry_oci.runtime.cgroups import DEFAULT_ROOT, Hierarchies

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        Hierarchies.find().has_v1_controllers or Hierarchies.find().unified is None,
        reason="this host's control groups are not v2's alone: nox -s vm",
    ),
]
_MIB = 1 << 20


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    made = bundles.prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _running(runtime: Runtime, *arguments: str, resources: dict[str, Any] | None = None) -> Path:
    """Start it detached as `one`: its group's directory."""
    config = runtime.configure(*(arguments or ("sleep", "1000")), linux={"resources": resources or {}})
    started = runtime("run", "--detach", "one")
    assert started.returncode == 0, started.stderr
    return Path(DEFAULT_ROOT + config["linux"]["cgroupsPath"])


def test_limits_are_in_the_groups_files(runtime: Runtime) -> None:
    """memory, swap, reservation, weight, quota, pids; and `unified` keys, which the spec passes on as they are."""
    group = _running(
        runtime,
        resources={
            "memory": {"limit": 64 * _MIB, "swap": 96 * _MIB, "reservation": 32 * _MIB},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
            "pids": {"limit": 20},
            "unified": {"memory.high": str(48 * _MIB)},
        },
    )
    found = {
        name: (group / name).read_text().strip()
        for name in ("memory.max", "memory.low", "memory.high", "cpu.weight", "cpu.max", "pids.max")
    }
    assert found == {
        "memory.max": str(64 * _MIB),
        "memory.low": str(32 * _MIB),
        "memory.high": str(48 * _MIB),
        "cpu.weight": "39",
        "cpu.max": "50000 100000",
        "pids.max": "20",
    }
    assert (group / "memory.swap.max").read_text().strip() == str(32 * _MIB)
    stats = json.loads(runtime("events", "--stats", "one").stdout)["data"]
    assert stats["memory"]["usage"]["limit"] == 64 * _MIB
    assert stats["memory"]["usage"]["usage"] > 0
    assert stats["memory"]["swap"]["limit"] == 96 * _MIB
    assert stats["pids"] == {"current": 1, "limit": 20}
    assert stats["cpu"]["usage"]["total"] > 0


def _needs(controller: str, *files: str) -> None:
    """Skip where the kernel has not the controller, or none of *files* in a group of it."""
    top = Path(DEFAULT_ROOT)
    if controller not in (top / "cgroup.controllers").read_text().split():
        pytest.skip(f"this kernel has no {controller} controller for control groups v2")
    made = top / "wherry-oci-tests" / "probe"
    made.mkdir(parents=True, exist_ok=True)
    try:
        for parent in (top, made.parent):
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        if files and not any((made / file).exists() for file in files):
            pytest.skip(f"this kernel has none of {', '.join(files)}")
    finally:
        made.rmdir()


def _disk() -> tuple[int, int]:
    """Major and minor of a whole disk of this machine."""
    for disk in Path("/sys/block").iterdir():
        if not disk.name.startswith(("loop", "ram", "zram")):
            major, minor = (disk / "dev").read_text().split(":")
            return int(major), int(minor)
    pytest.skip("this machine has no disk")


def test_disks_are_throttled_by_bytes_and_operations(runtime: Runtime) -> None:
    """io.max; what is not named is not limited."""
    _needs("io", "io.max")
    major, minor = _disk()
    device = {"major": major, "minor": minor}
    block = {
        "throttleReadBpsDevice": [{**device, "rate": 10 * _MIB}],
        "throttleWriteBpsDevice": [{**device, "rate": 5 * _MIB}],
        "throttleReadIOPSDevice": [{**device, "rate": 100}],
    }
    group = _running(runtime, resources={"blockIO": block})
    limits = f"{major}:{minor} rbps={10 * _MIB} wbps={5 * _MIB} riops=100 wiops=max"
    assert (group / "io.max").read_text().strip() == limits


def test_disks_are_shared_by_weight(runtime: Runtime) -> None:
    """io.bfq.weight counts as the specification does, io.weight ten times finer."""
    _needs("io", "io.weight", "io.bfq.weight")
    group = _running(runtime, resources={"blockIO": {"weight": 500}})
    if (group / "io.bfq.weight").exists():
        assert (group / "io.bfq.weight").read_text().splitlines()[0] in ("500", "default 500")
    else:
        assert (group / "io.weight").read_text().splitlines()[0] == "default 4950"
    assert runtime("update", "--blkio-weight", "10", "one").returncode == 0


def test_processors_and_memory_nodes_are_chosen(runtime: Runtime) -> None:
    """cpuset."""
    _needs("cpuset")
    group = _running(runtime, resources={"cpu": {"cpus": "0", "mems": "0"}})
    assert (group / "cpuset.cpus").read_text().strip() == "0"
    assert (group / "cpuset.mems").read_text().strip() == "0"
    seen = runtime("exec", "one", "grep", "Cpus_allowed_list", "/proc/self/status")
    assert seen.stdout.split() == ["Cpus_allowed_list:", "0"]


def test_huge_pages_are_limited(runtime: Runtime) -> None:
    """hugetlb; a size that the kernel has not is an error with the file's name."""
    _needs("hugetlb", "hugetlb.2MB.max")
    group = _running(runtime, resources={"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * _MIB}]})
    assert (group / "hugetlb.2MB.max").read_text().strip() == str(4 * _MIB)
    runtime.configure("true", linux={"resources": {"hugepageLimits": [{"pageSize": "3MB", "limit": 3 * _MIB}]}})
    assert "hugetlb.3MB.max" in runtime("run", "two").stderr


def test_remote_memory_is_limited_where_there_is_a_device(runtime: Runtime) -> None:
    """rdma; no machine of ours has one, so that the kernel's refusal is what shows that it was asked."""
    _needs("rdma")
    runtime.configure("true", linux={"resources": {"rdma": {"nosuch0": {"hcaHandles": 3, "hcaObjects": 10000}}}})
    done = runtime("run", "one")
    assert done.returncode == 1
    assert "rdma.max" in done.stderr
    assert "nosuch0 hca_handle=3 hca_object=10000" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("pids.nosuch", "1", "this kernel has no"),
        ("../pids.max", "1", "is no file of a group"),
        ("pids.max", "x", "'x'"),
    ],
)
def test_a_unified_key_that_cannot_be_set_is_an_error(runtime: Runtime, name: str, value: str, said: str) -> None:
    """config-linux.md "Unified": it must fail; nothing is left."""
    runtime.configure("true", linux={"resources": {"unified": {name: value}}})
    done = runtime("run", "one")
    assert done.returncode == 1
    assert said in done.stderr
    assert os.listdir(runtime.root) == []


def test_update_changes_what_is_there(runtime: Runtime) -> None:
    """Up and down; what is not named stays."""
    group = _running(runtime, resources={"memory": {"limit": 64 * _MIB}, "pids": {"limit": 20}})
    changed = runtime("update", "--memory", str(128 * _MIB), "--pids-limit", "-1", "--cpu-share", "2", "one")
    assert changed.returncode == 0, changed.stderr
    assert (group / "memory.max").read_text().strip() == str(128 * _MIB)
    assert (group / "pids.max").read_text().strip() == "max"
    assert (group / "cpu.weight").read_text().strip() == "1"
    assert runtime("update", "--cpu-quota", "20000", "one").returncode == 0
    assert (group / "cpu.max").read_text().split() == ["20000", "100000"]
    assert runtime("update", "--cpu-period", "50000", "one").returncode == 0
    assert (group / "cpu.max").read_text().split() == ["20000", "50000"]
    assert runtime("update", "--memory-swap", str(160 * _MIB), "one").returncode == 0
    assert (group / "memory.max").read_text().strip() == str(128 * _MIB)
    assert (group / "memory.swap.max").read_text().strip() == str(32 * _MIB)


def test_a_fork_beyond_the_limit_fails(runtime: Runtime) -> None:
    """It is the kernel that counts."""
    runtime.configure("sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000", linux={"resources": {"pids": {"limit": 2}}})
    done = runtime("run", "one")
    assert done.returncode != 0
    assert "can't fork" in done.stderr


def test_who_takes_more_memory_than_allowed_is_killed_and_it_is_told(runtime: Runtime) -> None:
    """`events` says oom for each kill."""
    _running(runtime, resources={"memory": {"limit": 16 * _MIB, "swap": 16 * _MIB}})
    with subprocess.Popen(
        runtime.words("events", "--interval", "100ms", "one"), stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert json.loads(watcher.stdout.readline())["type"] == "stats"  # so it has counted the kills until now
        greedy = runtime("exec", "one", "sh", "-c", "x=a; while true; do x=$x$x; done")
        killed = greedy.returncode
        found = next((event for event in map(json.loads, watcher.stdout) if event["type"] == "oom"), None)
        assert runtime("delete", "--force", "one").returncode == 0
        watcher.stdout.read()
        assert watcher.wait(30) == 0
    assert killed == 137, greedy.stderr
    assert found == {"type": "oom", "id": "one"}


def test_everything_in_it_is_killed_at_once_with_what_is_in_groups_below(runtime: Runtime) -> None:
    """kill --all; the paused too."""
    group = _running(runtime, "sh", "-c", "sleep 1000 & sleep 1000")
    _until(lambda: len((group / "cgroup.procs").read_text().split()) >= 2)
    assert runtime("pause", "one").returncode == 0
    assert "frozen 1" in (group / "cgroup.events").read_text()
    assert runtime("kill", "--all", "one", "KILL").returncode == 0
    _until(lambda: not (group / "cgroup.procs").read_text())
    assert runtime("delete", "one").returncode == 0
    assert not group.exists()


def _filters() -> bool:
    """Whether this kernel has BPF programs for devices."""
    group = os.open(DEFAULT_ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for fd in bpf.device_programs(group):
            os.close(fd)
    except OSError:
        return False
    finally:
        os.close(group)
    return True


@pytest.mark.skipif(os.geteuid() != 0 or not _filters(), reason="this kernel filters no devices by BPF")
def test_a_device_that_no_rule_allows_cannot_be_opened(runtime: Runtime) -> None:
    """Though the container may make its node; a rule for reading does not allow to write."""
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
    ]
    script = (
        "mknod /k c 1 11; mknod /m c 1 1; true < /k && echo read; true > /k || echo kept; "
        "true < /m || echo refused; true > /dev/null && echo null"
    )
    rights = ["CAP_MKNOD"]
    runtime.configure(
        "sh",
        "-c",
        script,
        linux={"resources": {"devices": rules}},
        root={"readonly": False},
        process={"capabilities": {"bounding": rights, "effective": rights, "permitted": rights}},
    )
    done = runtime("run", "one")
    assert done.stdout.split() == ["read", "kept", "refused", "null"], done.stderr
