"""
Control groups: one container's group in every hierarchy there is, v1, v2 or both at once.

A host may have all controllers on v1 hierarchies, all on the unified one (v2), or a mix ("hybrid"), so a group is a
list of directories and each limit is written where its controller lives. Spec: runtime-spec config-linux.md, "Control
groups"; the kernel's admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import os
from errno import EBUSY, EINVAL, ENODEV, ENOENT, EPERM

from wherry_oci.linux.ids import is_host_root
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Writes = Callable[[dict[str, Any]], list[tuple[str, str]]]

DEFAULT_ROOT = "/sys/fs/cgroup"

_PIDS_OF_A_GROUP = "cgroup.procs"
_SIGKILL = 9
_FREEZE_TRIES, _FREEZE_PAUSE_S = 1000, 0.005
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc")


class Hierarchies:
    """Where each controller of this host lives: `{"memory": "/sys/fs/cgroup/memory", …}`; v2's root under ""."""

    def __init__(self, v1: dict[str, str], unified: str | None) -> None:
        self.v1, self.unified = v1, unified

    @classmethod
    def find(cls, root: str = DEFAULT_ROOT, mountinfo: str = "/proc/self/mountinfo") -> "Hierarchies":
        """Read them from *mountinfo*; only mounts at or below *root* count."""
        v1: dict[str, str] = {}
        unified = None
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                filesystem, _, options = after.rstrip("\n").split(" ")[:3]
                if filesystem not in ("cgroup", "cgroup2"):
                    continue
                fields = before.split(" ")
                where = fields[4].replace("\\040", " ")
                if where != root and not where.startswith(root + "/"):
                    continue
                if filesystem == "cgroup2":
                    unified = where
                else:
                    for option in options.split(","):
                        if option in _V1_CONTROLLERS or option.startswith("name="):
                            v1[option] = where
        return cls(v1, unified)

    @classmethod
    def own(cls) -> "Hierarchies":
        """Those in which this process may make groups: root everywhere, an ordinary user where some are delegated."""
        found = cls.find()
        return found if is_host_root() else found.delegated()

    def delegated(self, cgroups: str = "/proc/self/cgroup") -> "Hierarchies":
        """
        Below the topmost of this process's own groups that it may write to, of v2 alone.

        v1 is not for users (the kernel's cgroup-v1 has no safe delegation). A group with processes in it hands no
        limits down (cgroup-v2, "No Internal Process Constraint"), and whoever put them there is not moved.
        """
        if self.unified is None or self.has_v1_controllers:
            return Hierarchies({}, None)
        own = next((line[3:] for line in _read(cgroups).splitlines() if line.startswith("0::")), "/")
        place = self.unified + own.rstrip("/")
        found = None
        while place.startswith(self.unified) and os.access(f"{place}/{_PIDS_OF_A_GROUP}", os.W_OK):
            found, place = place, os.path.dirname(place)
        if found is not None and found != self.unified and _read(f"{found}/{_PIDS_OF_A_GROUP}"):
            return Hierarchies({}, None)
        return Hierarchies({}, found)

    def directories(self) -> list[str]:
        """Every hierarchy's root, each once."""
        found = list(dict.fromkeys(self.v1.values()))
        return [*found, self.unified] if self.unified is not None else found

    @property
    def has_v1_controllers(self) -> bool:
        return any(not name.startswith("name=") for name in self.v1)


_V1_CONTROLLERS = frozenset(
    ("cpu cpuacct cpuset memory devices freezer blkio pids net_cls net_prio hugetlb perf_event rdma misc").split()
)


def _write(path: str, value: str) -> None:
    """Raises OSError with the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while chunk := os.read(fd, 65536):
            parts.append(chunk)
        return b"".join(parts).decode()
    finally:
        os.close(fd)


def _write_first(path: str, value: str) -> None:
    """
    To the first that exists of several names, separated by `|`, the value in the same place: kernels call one thing by
    several names and in several units. Raises OSError.
    """
    directory, _, names = path.rpartition("/")
    *others, last = names.split("|")
    values = value.split("|")
    for name in others:
        try:
            _write(f"{directory}/{name}", values[0])
            return
        except FileNotFoundError:
            continue
    _write(f"{directory}/{last}", values[-1])


def _not_applied(path: str, value: str, error: OSError) -> RuntimeFailure:
    if error.errno in (ENOENT, ENODEV):
        return RuntimeFailure(
            "unsupported", "limit resources", f"this kernel has no {path}, to which {value!r} should go", path
        )
    failure = RuntimeFailure.from_os_error("limit resources", error)
    text = f"{failure.message} (value {value!r})"
    return RuntimeFailure("system", "limit resources", text, failure.path, failure.errno)


class Cgroup:
    """The group *path* (such as `/wherry/ID`) in each of *hierarchies*."""

    unit: str | None = None  # systemd's, where that makes it (systemdscope)

    def __init__(self, path: str, hierarchies: Hierarchies) -> None:
        self.path = "/" + path.strip("/")
        if ".." in self.path.split("/"):
            raise RuntimeFailure("invalid", "create cgroup", f"cgroupsPath {path!r} leads upwards")
        self.hierarchies = hierarchies
        self.directories = [root + self.path for root in hierarchies.directories()]

    def mounted(self) -> list[tuple[str, str]]:
        """Its directory in each hierarchy, with the hierarchy's root."""
        return list(zip(self.hierarchies.directories(), self.directories, strict=True))

    def create(self) -> None:
        """Make it wherever it is missing. Safe to repeat. Raises OSError with the path."""
        for root in self.hierarchies.directories():
            self._make_below(root)

    def _make_below(self, root: str) -> None:
        directory = root + self.path
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:  # perhaps made a moment ago, by somebody who has not come to the rest yet
            pass
        except FileNotFoundError:
            self._make_parents(root)
            self._mkdir(directory)
        if root == self.hierarchies.unified:
            self._delegate_controllers(root)
        if root == self.hierarchies.v1.get("cpuset"):
            self._inherit_cpuset(root)

    def _parents(self, root: str) -> list[str]:
        parts = self.path.strip("/").split("/")[:-1]
        return [root + "/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))]

    def _make_parents(self, root: str) -> None:
        for parent in self._parents(root):
            self._mkdir(parent)

    @staticmethod
    def _mkdir(directory: str) -> None:
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            return

    def _delegate_controllers(self, root: str) -> None:
        """v2 gives a group its controllers' files only when each parent hands them down (subtree_control)."""
        for parent in [root, *self._parents(root)]:
            available = _read(f"{parent}/cgroup.controllers").split()
            given = _read(f"{parent}/cgroup.subtree_control").split()
            for name in _V2_CONTROLLERS:
                if name in available and name not in given:
                    try:
                        _write(f"{parent}/cgroup.subtree_control", f"+{name}")
                    except OSError as error:
                        if error.errno not in (EBUSY, ENOENT):  # EBUSY: the parent itself has processes
                            raise

    def _inherit_cpuset(self, root: str) -> None:
        """A new v1 cpuset is empty and takes no process until it has processors and memory nodes."""
        if all(_read(f"{root}{self.path}/{name}").strip() for name in _CPUSET_FILES):
            return
        for directory in [*self._parents(root), root + self.path]:
            for name in _CPUSET_FILES:
                if not _read(f"{directory}/{name}").strip():
                    _write(f"{directory}/{name}", _read(f"{os.path.dirname(directory)}/{name}").strip())

    def add(self, pid: int) -> None:
        """
        Move process *pid* into it, everywhere. Raises OSError with the path.

        The first move of any process on the machine waits for an RCU grace period (6 to 15 ms); those that follow
        within some milliseconds take microseconds. A child made later is born in the group, at no cost.
        """
        for directory in self.directories:
            _write(f"{directory}/{_PIDS_OF_A_GROUP}", str(pid))

    def stay(self, pid: int) -> None:
        """Move *pid*, which is in it, to where it is: later moves are free for some milliseconds more."""
        for directory in self.directories[:1]:
            _write(f"{directory}/{_PIDS_OF_A_GROUP}", str(pid))

    def pids(self) -> list[int]:
        """The processes in it; empty when it is gone."""
        for directory in self.directories:
            try:
                return [int(pid) for pid in _read(f"{directory}/{_PIDS_OF_A_GROUP}").split()]
            except OSError as error:
                if error.errno not in (ENOENT, ENODEV):  # ENODEV: removed between open(2) and read(2)
                    raise
        return []

    def remove(self) -> None:
        """
        Take it away, everywhere, with the groups that the container made below. Safe to repeat.

        Raises OSError (EBUSY) while processes are in it.
        """
        for directory in self.directories:
            _remove_tree(directory)

    # limits

    def apply(self, resources: "dict[str, Any]") -> None:
        """
        Write runtime-spec's linux.resources. Raises RuntimeFailure with the file and the value.

        Some values bound each other (memory and swap, period and quota), so that the right order depends on what is
        there: what is refused is tried once more after the rest.
        """
        later = []
        for path, value in self.writes(resources):
            try:
                _write_first(path, value)
            except OSError as error:
                if error.errno not in (EINVAL, EBUSY):
                    raise _not_applied(path, value, error) from None
                later.append((path, value))
        for path, value in later:
            try:
                _write_first(path, value)
            except OSError as error:
                raise _not_applied(path, value, error) from None
        if resources.get("devices") and "devices" not in self.hierarchies.v1 and self.hierarchies.unified is not None:
            self._filter_devices(resources["devices"])

    def _filter_devices(self, rules: "list[dict[str, Any]]") -> None:
        from wherry_oci.runtime import devicefilter

        assert self.hierarchies.unified is not None
        try:
            devicefilter.attach(self.hierarchies.unified + self.path, rules)
        except OSError as error:
            if error.errno == EPERM and os.geteuid() != 0:  # who is not root has no devices to keep others from
                return
            raise RuntimeFailure.from_os_error("filter devices (bpf)", error) from None

    def writes(self, resources: "dict[str, Any]") -> list[tuple[str, str]]:
        """What to write where, in order, for *resources*; raises RuntimeFailure when a controller is nowhere."""
        found: list[tuple[str, str]] = []
        for controller, v1_writes, v2_writes in _LIMITS:
            if controller in self.hierarchies.v1:
                directory = self.hierarchies.v1[controller] + self.path
                found += [(f"{directory}/{name}", value) for name, value in v1_writes(resources)]
            elif self.hierarchies.unified is not None:
                directory = self.hierarchies.unified + self.path
                found += [(f"{directory}/{name}", value) for name, value in v2_writes(resources)]
            elif asked := v1_writes(resources):
                raise RuntimeFailure(
                    "unsupported",
                    "limit resources",
                    f"{asked[0][0]}={asked[0][1]} needs the {controller} controller, which no hierarchy here has",
                )
        return found + self._unified_writes(resources.get("unified") or {})

    def _unified_writes(self, asked: dict[str, str]) -> list[tuple[str, str]]:
        if asked and self.hierarchies.unified is None:
            raise RuntimeFailure(
                "unsupported", "limit resources", "`unified` needs a cgroup v2 hierarchy: there is none"
            )
        for name in asked:
            if "/" in name or name.startswith("."):
                raise RuntimeFailure("invalid", "limit resources", f"{name!r} in `unified` is no file of a group")
        return [(f"{self.hierarchies.unified}{self.path}/{name}", value) for name, value in asked.items()]

    def update(self, resources: "dict[str, Any]") -> None:
        """Change limits of a group that has some. Raises RuntimeFailure, also for a limit below what is in use."""
        memory = resources.get("memory") or {}
        limit = memory.get("limit")
        if memory.get("checkBeforeUpdate") and limit is not None and limit > 0:
            used = (self.stats().get("memory") or {}).get("usage", {}).get("usage", 0)
            if used > limit:
                raise RuntimeFailure(
                    "conflict", "limit resources", f"{used} bytes of memory are in use, more than the limit {limit}"
                )
        self._raise_swap_first(memory)
        self.apply(self._completed(resources))

    def _completed(self, resources: "dict[str, Any]") -> "dict[str, Any]":
        """
        *resources* with what they leave as it is, where v2's files need both: quota and period share one, and swap is
        what goes beyond the limit of memory.
        """
        if self.hierarchies.unified is None:
            return resources
        directory = self.hierarchies.unified + self.path
        cpu, memory = dict(resources.get("cpu") or {}), dict(resources.get("memory") or {})
        try:
            if "cpu" not in self.hierarchies.v1 and (cpu.get("quota") or cpu.get("period")):
                quota, period = _read(f"{directory}/cpu.max").split()
                cpu["quota"] = cpu.get("quota") or (-1 if quota == "max" else int(quota))
                cpu["period"] = cpu.get("period") or int(period)
            if "memory" not in self.hierarchies.v1 and (memory.get("swap") or 0) > 0 and memory.get("limit") is None:
                limit = _read(f"{directory}/memory.max").strip()
                memory["limit"] = -1 if limit == "max" else int(limit)
        except FileNotFoundError:  # the group lacks the controller, which `apply` will say
            return resources
        return {**resources, "cpu": cpu, "memory": memory}

    def _raise_swap_first(self, memory: "dict[str, Any]") -> None:
        """v1 holds memory below memory and swap together at every moment: to raise both the second goes first."""
        limit, swap = memory.get("limit"), memory.get("swap")
        if "memory" not in self.hierarchies.v1 or not limit or not swap or limit < 0 or swap < 0:
            return
        path = f"{self.hierarchies.v1['memory']}{self.path}/memory.memsw.limit_in_bytes"
        if limit > int(_read(path)):
            _write(path, str(swap))

    # state

    def freeze(self, frozen: bool) -> None:
        """Ask the kernel to stop, or let run, every process in it; `is_frozen` tells when that is done."""
        if "freezer" in self.hierarchies.v1:
            _write(f"{self.hierarchies.v1['freezer']}{self.path}/freezer.state", "FROZEN" if frozen else "THAWED")
        elif self.hierarchies.unified is not None:
            _write(f"{self.hierarchies.unified}{self.path}/cgroup.freeze", "1" if frozen else "0")
        else:
            raise RuntimeFailure(
                "unsupported", "pause", "no cgroup hierarchy that this user may use has a freezer: see wherry doctor"
            )

    def freeze_and_wait(self, frozen: bool) -> None:
        """The same, until it is so. Raises RuntimeFailure when some process does not follow."""
        from time import sleep

        for _ in range(_FREEZE_TRIES):
            self.freeze(frozen)  # v1 may miss a process that is being made: it is to be asked again
            if self.is_frozen() == frozen:
                return
            sleep(_FREEZE_PAUSE_S)
        raise RuntimeFailure("system", "pause" if frozen else "resume", "not every process followed")

    def stats(self) -> "dict[str, Any]":
        """What it uses, in the words of runc's `events --stats`."""
        from wherry_oci.runtime.cgroupstats import stats

        return stats(self)

    def is_frozen(self) -> bool:
        """Whether every process in it is stopped."""
        if "freezer" in self.hierarchies.v1:
            return _read(f"{self.hierarchies.v1['freezer']}{self.path}/freezer.state").strip() == "FROZEN"
        if self.hierarchies.unified is not None:
            return "frozen 1" in _read(f"{self.hierarchies.unified}{self.path}/cgroup.events").splitlines()
        return False

    def is_freezing(self) -> bool:
        """Whether who enters it stops, whether or not everybody in it has stopped already; not one that is gone."""
        try:
            if "freezer" in self.hierarchies.v1:
                return _read(f"{self.hierarchies.v1['freezer']}{self.path}/freezer.state").strip() != "THAWED"
            if self.hierarchies.unified is not None:
                asked = _read(f"{self.hierarchies.unified}{self.path}/cgroup.freeze").strip() == "1"
                return asked or self.is_frozen()
        except FileNotFoundError:
            pass
        return False

    def oom_kills(self) -> int:
        """How often the kernel killed in it because memory ran out; 0 when nothing counts that."""
        if "memory" in self.hierarchies.v1:
            path = f"{self.hierarchies.v1['memory']}{self.path}/memory.oom_control"
        elif self.hierarchies.unified is not None:
            path = f"{self.hierarchies.unified}{self.path}/memory.events"
        else:
            return 0
        try:
            for line in _read(path).splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        except OSError:  # the group is gone, or memory is not counted
            pass
        return 0

    def kill(self, signal: int) -> None:
        """Send *signal* to every process in it; those that are made meanwhile are met by another call."""
        for pid in self.pids():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                continue

    def signal(self, signal: int) -> None:
        """Send *signal* to every process in it and in the groups below; SIGKILL at once where the kernel can."""
        if signal == _SIGKILL and self.hierarchies.unified is not None and not self.hierarchies.has_v1_controllers:
            try:
                _write(f"{self.hierarchies.unified}{self.path}/cgroup.kill", "1")
                return
            except OSError:  # Kernel < 5.14 lacks the file, or the group is gone.
                pass
        for directory in self.directories:
            for pid in _pids_below(directory):
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    continue

    def all_pids(self) -> list[int]:
        """The processes in it and in the groups below; empty when it is gone."""
        for directory in self.directories:
            found = _pids_below(directory)
            if found:
                return sorted(found)
        return []

    def has_processes(self) -> bool:
        """Whether any process is in it or in a group below."""
        return any(_pids_below(directory) for directory in self.directories)

    def thaw(self) -> None:
        """Let it run if it is frozen; that it is gone is fine."""
        try:
            if self.is_frozen():
                self.freeze(False)
        except OSError:
            return


def _pids_below(directory: str) -> list[int]:
    found: list[int] = []
    for folder, _, names in os.walk(directory):
        if _PIDS_OF_A_GROUP in names:
            try:
                found += map(int, _read(f"{folder}/{_PIDS_OF_A_GROUP}").split())
            except OSError:  # it has been removed, or is a threaded one
                continue
    return found


def _remove_tree(directory: str) -> None:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != EBUSY:
            raise
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
        if not below:
            raise
        for child in below:
            _remove_tree(child)
        os.rmdir(directory)


# each controller: from linux.resources to (file, value) pairs, on v1 and on v2


def _memory_v1(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    memory = resources.get("memory") or {}
    writes = []
    limit, swap = memory.get("limit"), memory.get("swap")
    pair = []
    if limit is not None:
        pair.append(("memory.limit_in_bytes", str(limit)))
    if swap is not None:
        pair.append(("memory.memsw.limit_in_bytes", str(swap)))
    if swap == -1:  # memsw may never be below the limit: when it is raised, it goes first
        pair.reverse()
    writes += pair
    if (memory.get("kernel") or 0) > 0:
        writes.append(("memory.kmem.limit_in_bytes", str(memory["kernel"])))
    for key, name in (
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
        ("swappiness", "memory.swappiness"),
    ):
        if memory.get(key) is not None:
            writes.append((name, str(memory[key])))
    if memory.get("disableOOMKiller"):
        writes.append(("memory.oom_control", "1"))
    return writes


def _memory_v2(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    memory = resources.get("memory") or {}
    writes = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        writes.append(("memory.max", _or_max(limit)))
    if memory.get("reservation") is not None:
        writes.append(("memory.low", _or_max(memory["reservation"])))
    if swap is not None:  # runtime-spec counts memory and swap together, v2 swap alone
        writes.append(("memory.swap.max", _or_max(swap_alone(swap, limit))))
    return writes


def swap_alone(swap: int, limit: int | None) -> int:
    """What of *swap*, memory and swap together, is beyond the *limit* of memory; -1 for any."""
    return swap if swap < 0 or limit is None or limit < 0 else max(swap - limit, 0)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _cpu_v1(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    cpu = resources.get("cpu") or {}
    return [
        (name, str(cpu[key]))
        for key, name in (
            ("shares", "cpu.shares"),
            ("period", "cpu.cfs_period_us"),
            ("quota", "cpu.cfs_quota_us"),
            ("burst", "cpu.cfs_burst_us"),
            ("realtimePeriod", "cpu.rt_period_us"),
            ("realtimeRuntime", "cpu.rt_runtime_us"),
            ("idle", "cpu.idle"),
        )
        if cpu.get(key)
    ]


def cpu_weight(shares: int) -> int:
    """v1's 2..262144 onto v2's 1..10000, as runc and crun agree on it."""
    return 1 + (shares - 2) * 9999 // 262142


def _cpu_v2(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    cpu = resources.get("cpu") or {}
    writes = []
    if cpu.get("shares"):
        writes.append(("cpu.weight", str(cpu_weight(cpu["shares"]))))
    if cpu.get("quota") or cpu.get("period"):
        writes.append(("cpu.max", f"{_or_max(cpu.get('quota') or -1)} {cpu.get('period') or 100000}"))
    if cpu.get("burst"):
        writes.append(("cpu.max.burst", str(cpu["burst"])))
    if cpu.get("idle"):
        writes.append(("cpu.idle", str(cpu["idle"])))
    return writes


def _cpuset(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    cpu = resources.get("cpu") or {}
    return [(f"cpuset.{key}", cpu[key]) for key in ("cpus", "mems") if cpu.get(key)]


def _pids(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    limit = (resources.get("pids") or {}).get("limit")
    return [("pids.max", _or_max(limit if limit > 0 else -1))] if limit is not None else []


def _devices_v1(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    writes = []
    for rule in resources.get("devices") or ():
        numbers = ":".join("*" if rule.get(part) in (None, -1) else str(rule[part]) for part in ("major", "minor"))
        kind = rule.get("type") or "a"
        access = rule.get("access") or "rwm"
        whole = kind == "a" and numbers == "*:*" and set(access) == set("rwm")
        value = "a" if whole else f"{kind} {numbers} {access}"
        writes.append(("devices.allow" if rule["allow"] else "devices.deny", value))
    return writes


_THROTTLES = (
    ("throttleReadBpsDevice", "read_bps", "rbps"),
    ("throttleWriteBpsDevice", "write_bps", "wbps"),
    ("throttleReadIOPSDevice", "read_iops", "riops"),
    ("throttleWriteIOPSDevice", "write_iops", "wiops"),
)


def _device(entry: "dict[str, Any]") -> str:
    return f"{entry['major']}:{entry['minor']}"


def _block_v1(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    block = resources.get("blockIO") or {}
    writes = []
    if block.get("weight"):
        writes.append(("blkio.weight|blkio.bfq.weight", str(block["weight"])))
    if block.get("leafWeight"):
        writes.append(("blkio.leaf_weight", str(block["leafWeight"])))
    for entry in block.get("weightDevice") or ():
        if entry.get("weight"):
            writes.append(("blkio.weight_device|blkio.bfq.weight_device", f"{_device(entry)} {entry['weight']}"))
        if entry.get("leafWeight"):
            writes.append(("blkio.leaf_weight_device", f"{_device(entry)} {entry['leafWeight']}"))
    for key, name, _ in _THROTTLES:
        writes += [(f"blkio.throttle.{name}_device", f"{_device(e)} {e['rate']}") for e in block.get(key) or ()]
    return writes


def _block_v2(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    block = resources.get("blockIO") or {}
    writes = []
    if block.get("weight"):
        writes.append(("io.bfq.weight|io.weight", _io_weight("default", block["weight"])))
    writes += [
        ("io.bfq.weight|io.weight", _io_weight(_device(entry), entry["weight"]))
        for entry in block.get("weightDevice") or ()
        if entry.get("weight")
    ]
    for key, _, name in _THROTTLES:
        writes += [("io.max", f"{_device(e)} {name}={e['rate'] or 'max'}") for e in block.get(key) or ()]
    return writes


def io_weight(weight: int) -> int:
    """v1's 10..1000 onto v2's 1..10000."""
    return 1 + (weight - 10) * 9999 // 990


def _io_weight(whose: str, weight: int) -> str:
    """io.bfq.weight counts as v1 did, from 10 to 1000, io.weight from 1 to 10000."""
    return f"{whose} {weight}|{whose} {io_weight(weight)}"


def _huge_pages_v1(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    return [(f"hugetlb.{e['pageSize']}.limit_in_bytes", str(e["limit"])) for e in resources.get("hugepageLimits") or ()]


def _huge_pages_v2(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    return [(f"hugetlb.{e['pageSize']}.max", str(e["limit"])) for e in resources.get("hugepageLimits") or ()]


def _rdma(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    writes = []
    for device, limits in (resources.get("rdma") or {}).items():
        names = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        parts = [f"{name}={limits[key]}" for key, name in names if limits.get(key) is not None]
        writes.append(("rdma.max", " ".join([device, *parts])))
    return writes


def _network_class(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    number = (resources.get("network") or {}).get("classID")
    return [("net_cls.classid", str(number))] if number else []


def _network_priorities(resources: "dict[str, Any]") -> list[tuple[str, str]]:
    asked = (resources.get("network") or {}).get("priorities") or ()
    return [("net_prio.ifpriomap", f"{each['name']} {each['priority']}") for each in asked]


_LIMITS: "tuple[tuple[str, _Writes, _Writes], ...]" = (
    ("devices", _devices_v1, lambda resources: []),  # v2 filters devices by a BPF program: see devicefilter
    ("cpuset", _cpuset, _cpuset),
    ("memory", _memory_v1, _memory_v2),
    ("cpu", _cpu_v1, _cpu_v2),
    ("pids", _pids, _pids),
    ("blkio", _block_v1, _block_v2),
    ("hugetlb", _huge_pages_v1, _huge_pages_v2),
    ("rdma", _rdma, _rdma),
    ("net_cls", _network_class, _network_class),  # v2 has no such files, which the error then says
    ("net_prio", _network_priorities, _network_priorities),
)
