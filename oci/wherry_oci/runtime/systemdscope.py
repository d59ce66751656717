"""
A control group that systemd makes: a transient scope, with the limits as properties of the unit, too.

systemd owns the tree of groups; what it does not know of, it may take away, and what differs from a unit's properties
it may set back. So the group is a unit of its own, delegated (systemd's CGROUP_DELEGATION), and each limit is told to
systemd as well as written to the group's files, which have more of them. The properties are those that runc and crun
set. `linux.cgroupsPath` is `slice:prefix:name` then.
"""

from wherry_oci.errors import Unavailable
from wherry_oci.runtime import systemdbus
from wherry_oci.runtime.cgrouplimits import completed, cpu_weight, io_weight, swap_alone
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from wherry_oci.runtime.systemdbus import Property

_PREFIX = "wherry-oci"
_UNLIMITED = (1 << 64) - 1
_SECOND_US, _QUOTA_STEP_US = 1_000_000, 10_000
_DEFAULT_PERIOD_US = 100_000
_FILL_TRIES = 10
# systemd's version from which on it has
_QUOTA_PERIOD, _CPUSETS = 242, 244


class Unit:
    """What a `cgroupsPath` of the form `slice:prefix:name` names."""

    def __init__(self, path: str, id: str, *, user: bool) -> None:
        """*path* may be empty, *user* says whose manager it is. Raises RuntimeFailure."""
        fields = path.split(":") if path else ["", _PREFIX, id]
        if len(fields) != 3 or not fields[2] or "/" in path:
            raise RuntimeFailure(
                "invalid",
                "create cgroup",
                f"$.linux.cgroupsPath {path!r} is not slice:prefix:name, as systemd wants it",
            )
        slice, prefix, name = fields
        self.slice = slice or ("user.slice" if user else "system.slice")
        if not self.slice.endswith(".slice"):
            raise RuntimeFailure("invalid", "create cgroup", f"$.linux.cgroupsPath {path!r}: {slice!r} is no slice")
        if name.endswith(".slice"):
            raise RuntimeFailure("invalid", "create cgroup", f"$.linux.cgroupsPath {path!r}: a container needs a scope")
        self.name = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"

    def cgroup(self, manager: str) -> str:
        """Its path below *manager*'s own group."""
        return f"{manager}{slice_path(self.slice)}/{self.name}"


def slice_path(slice: str) -> str:
    """Where a slice is: `a-b.slice` in `a.slice` (systemd.slice(5)); `-.slice` is the root. Raises RuntimeFailure."""
    stem = slice.removesuffix(".slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        raise RuntimeFailure("invalid", "create cgroup", f"{slice!r} is no slice's name")
    return "".join(f"/{'-'.join(parts[: depth + 1])}.slice" for depth in range(len(parts)))


class Scope(Cgroup):
    """
    The group of a scope. A new one is made by `add` with its first process, for systemd makes no empty one: what
    `create` and `apply` are told before is done then.
    """

    def __init__(self, path: str, hierarchies: Hierarchies, unit: str, *, user: bool) -> None:
        super().__init__(path, hierarchies)
        self.unit: str = unit
        self._user = user
        self._new: Unit | None = None
        self._waiting: dict[str, Any] = {}
        self._stopped = False

    @classmethod
    def planned(cls, cgroups_path: str, id: str, hierarchies: Hierarchies, *, user: bool) -> "Scope":
        """One that is not there yet. Raises RuntimeFailure, Unavailable when there is no systemd to ask."""
        unit = Unit(cgroups_path, id, user=user)
        with systemdbus.Manager() as manager:
            scope = cls(unit.cgroup(manager.cgroup), hierarchies, unit.name, user=user)
        scope._new = unit
        return scope

    def create(self) -> None:
        if self._new is None:
            super().create()

    def apply(self, resources: "dict[str, Any]") -> None:
        if self._new is None:
            super().apply(resources)
        else:
            self._waiting = resources

    def add(self, pid: int) -> None:
        if self._new is not None:
            unit, self._new = self._new, None
            self._start(unit, pid)
            self._fill(pid)
            super().apply(self._waiting)  # after the process is there: it waits, and keeps systemd from a clearing
        else:
            super().add(pid)

    def _fill(self, pid: int) -> None:
        """On v1 systemd clears empty groups of a unit that it needs no longer, one made just now for *pid*, too."""
        for _ in range(_FILL_TRIES):
            try:
                super().create()
                super().add(pid)
                return
            except FileNotFoundError:
                continue
        super().add(pid)

    def _start(self, unit: Unit, pid: int) -> None:
        with systemdbus.Manager() as manager:
            properties = [
                *_of_scope(unit, pid),
                *self._properties(self._waiting, manager.version),
                *device_properties(self._waiting.get("devices") or []),
            ]
            try:
                manager.start_transient(unit.name, properties)
            except systemdbus.CallFailed as failure:
                if failure.name != systemdbus.UNIT_EXISTS:
                    raise
                manager.reset_failed(unit.name)  # one of that name that has failed is kept until then
                manager.start_transient(unit.name, properties)

    def _properties(self, resources: "dict[str, Any]", version: int) -> "list[Property]":
        return properties(resources, unified=not self.hierarchies.has_v1_controllers, version=version)

    def _delegate_controllers(self, root: str) -> None:
        if not self._user:  # a user's manager has done what the user may
            super()._delegate_controllers(root)

    def update(self, resources: "dict[str, Any]") -> None:
        super().update(resources)
        with systemdbus.Manager() as manager:
            changed = self._properties(completed(self, resources), manager.version)
            if changed:
                manager.set_properties(self.unit, changed)

    def remove(self) -> None:
        """Stop the unit, which has no process any more, and take away what systemd does not know of."""
        if not self._stopped:
            try:
                with systemdbus.Manager() as manager:
                    manager.stop(self.unit)
            except Unavailable:  # without its group the unit goes by itself
                pass
            self._stopped = True
        super().remove()


def _of_scope(unit: Unit, pid: int) -> "Iterator[Property]":
    """What every container's scope has."""
    yield "Description", ("s", f"OCI container {unit.name.removesuffix('.scope')}")
    yield "Slice", ("s", unit.slice)
    yield "PIDs", ("au", [pid])
    yield "Delegate", ("b", True)
    yield "DefaultDependencies", ("b", False)  # or a shutdown stops it before who takes care of it
    for controller in ("CPU", "IO", "Memory", "Tasks"):
        yield f"{controller}Accounting", ("b", True)


def properties(resources: "dict[str, Any]", *, unified: bool, version: int) -> "list[Property]":
    """What systemd of *version* has properties for (systemd.resource-control(5)) of *resources* (config-linux.md)."""
    return [
        *_memory(resources.get("memory") or {}, unified),
        *_cpu(resources.get("cpu") or {}, unified, version),
        *_pids(resources.get("pids") or {}),
        *_block(resources.get("blockIO") or {}, unified),
    ]


def _memory(memory: "dict[str, Any]", unified: bool) -> "Iterator[Property]":
    limit = memory.get("limit")
    if limit is not None:
        yield "MemoryMax" if unified else "MemoryLimit", ("t", _count(limit))
    if unified and memory.get("reservation") is not None:
        yield "MemoryLow", ("t", _count(memory["reservation"]))
    if unified and memory.get("swap") is not None:
        yield "MemorySwapMax", ("t", _count(swap_alone(memory["swap"], limit)))


def _count(value: int) -> int:
    return _UNLIMITED if value < 0 else value


def _cpu(cpu: "dict[str, Any]", unified: bool, version: int) -> "Iterator[Property]":
    if cpu.get("shares"):
        if unified:
            yield "CPUWeight", ("t", cpu_weight(cpu["shares"]))
        else:
            yield "CPUShares", ("t", cpu["shares"])
    quota, period = cpu.get("quota"), cpu.get("period")
    if period and version >= _QUOTA_PERIOD:
        yield "CPUQuotaPeriodUSec", ("t", period)
    if quota or period:
        yield "CPUQuotaPerSecUSec", ("t", _quota_per_second(quota or -1, period or _DEFAULT_PERIOD_US))
    if unified and version >= _CPUSETS:
        for member, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
            if cpu.get(member):
                yield name, ("ay", bits_of(cpu[member]))


def _quota_per_second(quota: int, period: int) -> int:
    """In whole steps of systemd's, rounded up, so that it never is the tighter one."""
    if quota < 0:
        return _UNLIMITED
    return -(-quota * _SECOND_US // period // _QUOTA_STEP_US) * _QUOTA_STEP_US


def bits_of(numbers: str) -> bytes:
    """`0-2,8` as a mask, the lowest byte first. Raises RuntimeFailure."""
    mask = 0
    for item in numbers.split(","):
        first, dash, last = item.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise RuntimeFailure("invalid", "limit resources", f"{numbers!r} is no list of numbers such as 0-2,8")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _pids(pids: "dict[str, Any]") -> "Iterator[Property]":
    limit = pids.get("limit")
    if limit is not None:
        yield "TasksMax", ("t", limit if limit > 0 else _UNLIMITED)


def _block(block: "dict[str, Any]", unified: bool) -> "Iterator[Property]":
    if block.get("weight"):
        yield ("IOWeight", ("t", io_weight(block["weight"]))) if unified else ("BlockIOWeight", ("t", block["weight"]))


def device_properties(rules: "list[dict[str, Any]]", devices: str = "/proc/devices") -> "list[Property]":
    """
    The list of allowed devices as systemd has it: what is not on it is denied.

    Rules that do not begin with a general denial, or that deny again later, are no such list: then systemd lets all
    devices through, and the group's own filter, which is exact, is the only one.
    """
    everything = [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]
    if not rules or rules[0]["allow"] or rules[0].get("type") not in (None, "a"):
        return list(everything)
    allowed: list[tuple[str, str]] = []
    for rule in rules[1:]:
        if not rule["allow"] or rule.get("type") in (None, "a"):
            return list(everything)
        allowed += [(name, rule.get("access") or "rwm") for name in _device_names(rule, devices)]
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", allowed))]


def _device_names(rule: "dict[str, Any]", devices: str) -> "Iterable[str]":
    """What systemd calls them: a node, a driver's, or all of a kind; none for what this kernel has no driver of."""
    kind = "block" if rule["type"] == "b" else "char"
    major, minor = ((None if rule.get(part) in (None, -1) else rule[part]) for part in ("major", "minor"))
    if major is not None and minor is not None:
        return [f"/dev/{kind}/{major}:{minor}"]
    if major is None:
        return [f"{kind}-*"]
    return [f"{kind}-{name}" for name in _drivers(kind, major, devices)]


def _drivers(kind: str, major: int, devices: str) -> "Iterator[str]":
    section = ""
    with open(devices, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if line.startswith(("Character", "Block")):
                section = "char" if words[0] == "Character" else "block"
            elif section == kind and len(words) == 2 and words[0] == str(major):
                yield words[1]
