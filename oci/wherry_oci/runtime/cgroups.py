"""
Control groups: one container's group in every hierarchy there is, v1, v2 or both at once.

A host may have all controllers on v1 hierarchies, all on the unified one (v2), or a mix ("hybrid"), so a group is a
list of directories and each limit is written where its controller lives. Spec: runtime-spec config-linux.md, "Control
groups"; the kernel's admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import os
from errno import EBUSY, ENODEV, ENOENT

from wherry_oci.linux.ids import is_host_root
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
        own = next((line[3:] for line in read(cgroups).splitlines() if line.startswith("0::")), "/")
        place = self.unified + own.rstrip("/")
        found = None
        while place.startswith(self.unified) and os.access(f"{place}/{_PIDS_OF_A_GROUP}", os.W_OK):
            found, place = place, os.path.dirname(place)
        if found is not None and found != self.unified and read(f"{found}/{_PIDS_OF_A_GROUP}"):
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


def write(path: str, value: str) -> None:
    """Put *value* into a file of a group. Raises OSError with the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """A file of a group. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while chunk := os.read(fd, 65536):
            parts.append(chunk)
        return b"".join(parts).decode()
    finally:
        os.close(fd)


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
            available = read(f"{parent}/cgroup.controllers").split()
            given = read(f"{parent}/cgroup.subtree_control").split()
            for name in _V2_CONTROLLERS:
                if name in available and name not in given:
                    try:
                        write(f"{parent}/cgroup.subtree_control", f"+{name}")
                    except OSError as error:
                        if error.errno not in (EBUSY, ENOENT):  # EBUSY: the parent itself has processes
                            raise

    def _inherit_cpuset(self, root: str) -> None:
        """A new v1 cpuset is empty and takes no process until it has processors and memory nodes."""
        if all(read(f"{root}{self.path}/{name}").strip() for name in _CPUSET_FILES):
            return
        for directory in [*self._parents(root), root + self.path]:
            for name in _CPUSET_FILES:
                if not read(f"{directory}/{name}").strip():
                    write(f"{directory}/{name}", read(f"{os.path.dirname(directory)}/{name}").strip())

    def add(self, pid: int) -> None:
        """
        Move process *pid* into it, everywhere. Raises OSError with the path.

        The first move of any process on the machine waits for an RCU grace period (6 to 15 ms); those that follow
        within some milliseconds take microseconds. A child made later is born in the group, at no cost.
        """
        for directory in self.directories:
            write(f"{directory}/{_PIDS_OF_A_GROUP}", str(pid))

    def stay(self, pid: int) -> None:
        """Move *pid*, which is in it, to where it is: later moves are free for some milliseconds more."""
        for directory in self.directories[:1]:
            write(f"{directory}/{_PIDS_OF_A_GROUP}", str(pid))

    def pids(self) -> list[int]:
        """The processes in it; empty when it is gone."""
        for directory in self.directories:
            try:
                return [int(pid) for pid in read(f"{directory}/{_PIDS_OF_A_GROUP}").split()]
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
        """Write runtime-spec's linux.resources. Raises RuntimeFailure with the file and the value."""
        from wherry_oci.runtime import cgrouplimits

        cgrouplimits.apply(self, resources)

    def update(self, resources: "dict[str, Any]") -> None:
        """Change limits of a group that has some. Raises RuntimeFailure, also for a limit below what is in use."""
        from wherry_oci.runtime import cgrouplimits

        cgrouplimits.update(self, resources)

    def freeze(self, frozen: bool) -> None:
        """Ask the kernel to stop, or let run, every process in it; `is_frozen` tells when that is done."""
        if "freezer" in self.hierarchies.v1:
            write(f"{self.hierarchies.v1['freezer']}{self.path}/freezer.state", "FROZEN" if frozen else "THAWED")
        elif self.hierarchies.unified is not None:
            write(f"{self.hierarchies.unified}{self.path}/cgroup.freeze", "1" if frozen else "0")
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
            return read(f"{self.hierarchies.v1['freezer']}{self.path}/freezer.state").strip() == "FROZEN"
        if self.hierarchies.unified is not None:
            return "frozen 1" in read(f"{self.hierarchies.unified}{self.path}/cgroup.events").splitlines()
        return False

    def is_freezing(self) -> bool:
        """Whether who enters it stops, whether or not everybody in it has stopped already; not one that is gone."""
        try:
            if "freezer" in self.hierarchies.v1:
                return read(f"{self.hierarchies.v1['freezer']}{self.path}/freezer.state").strip() != "THAWED"
            if self.hierarchies.unified is not None:
                asked = read(f"{self.hierarchies.unified}{self.path}/cgroup.freeze").strip() == "1"
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
            for line in read(path).splitlines():
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
                write(f"{self.hierarchies.unified}{self.path}/cgroup.kill", "1")
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
                found += map(int, read(f"{folder}/{_PIDS_OF_A_GROUP}").split())
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
