"""
The limits of a control group: what runtime-spec's linux.resources are in the files of v1 and v2 (config-linux.md,
"Control groups"; the kernel's admin-guide/cgroup-v1 and cgroup-v2.rst).
"""

import os
from errno import EBUSY, EINVAL, ENODEV, ENOENT, EPERM

from wherry_oci.runtime.cgroups import Cgroup, read, write
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Writes = Callable[[dict[str, Any]], list[tuple[str, str]]]


def apply(group: Cgroup, resources: "dict[str, Any]") -> None:
    """
    Write runtime-spec's linux.resources. Raises RuntimeFailure with the file and the value.

    Some values bound each other (memory and swap, period and quota), so that the right order depends on what is
    there: what is refused is tried once more after the rest.
    """
    later = []
    for path, value in writes(group, resources):
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
    if resources.get("devices") and "devices" not in group.hierarchies.v1 and group.hierarchies.unified is not None:
        _filter_devices(group, resources["devices"])


def _filter_devices(group: Cgroup, rules: "list[dict[str, Any]]") -> None:
    from wherry_oci.runtime import devicefilter

    assert group.hierarchies.unified is not None
    try:
        devicefilter.attach(group.hierarchies.unified + group.path, rules)
    except OSError as error:
        if error.errno == EPERM and os.geteuid() != 0:  # who is not root has no devices to keep others from
            return
        raise RuntimeFailure.from_os_error("filter devices (bpf)", error) from None


def writes(group: Cgroup, resources: "dict[str, Any]") -> list[tuple[str, str]]:
    """What to write where, in order, for *resources*; raises RuntimeFailure when a controller is nowhere."""
    found: list[tuple[str, str]] = []
    for controller, v1_writes, v2_writes in _LIMITS:
        if controller in group.hierarchies.v1:
            directory = group.hierarchies.v1[controller] + group.path
            found += [(f"{directory}/{name}", value) for name, value in v1_writes(resources)]
        elif group.hierarchies.unified is not None:
            directory = group.hierarchies.unified + group.path
            found += [(f"{directory}/{name}", value) for name, value in v2_writes(resources)]
        elif asked := v1_writes(resources):
            raise RuntimeFailure(
                "unsupported",
                "limit resources",
                f"{asked[0][0]}={asked[0][1]} needs the {controller} controller, which no hierarchy here has",
            )
    return found + _unified_writes(group, resources.get("unified") or {})


def _unified_writes(group: Cgroup, asked: dict[str, str]) -> list[tuple[str, str]]:
    if asked and group.hierarchies.unified is None:
        raise RuntimeFailure("unsupported", "limit resources", "`unified` needs a cgroup v2 hierarchy: there is none")
    for name in asked:
        if "/" in name or name.startswith("."):
            raise RuntimeFailure("invalid", "limit resources", f"{name!r} in `unified` is no file of a group")
    return [(f"{group.hierarchies.unified}{group.path}/{name}", value) for name, value in asked.items()]


def update(group: Cgroup, resources: "dict[str, Any]") -> None:
    """Change limits of a group that has some. Raises RuntimeFailure, also for a limit below what is in use."""
    memory = resources.get("memory") or {}
    limit = memory.get("limit")
    if memory.get("checkBeforeUpdate") and limit is not None and limit > 0:
        used = (group.stats().get("memory") or {}).get("usage", {}).get("usage", 0)
        if used > limit:
            raise RuntimeFailure(
                "conflict", "limit resources", f"{used} bytes of memory are in use, more than the limit {limit}"
            )
    _raise_swap_first(group, memory)
    group.apply(completed(group, resources))


def completed(group: Cgroup, resources: "dict[str, Any]") -> "dict[str, Any]":
    """
    *resources* with what they leave as it is, where v2's files need both: quota and period share one, and swap is
    what goes beyond the limit of memory.
    """
    if group.hierarchies.unified is None:
        return resources
    directory = group.hierarchies.unified + group.path
    cpu, memory = dict(resources.get("cpu") or {}), dict(resources.get("memory") or {})
    try:
        if "cpu" not in group.hierarchies.v1 and (cpu.get("quota") or cpu.get("period")):
            quota, period = read(f"{directory}/cpu.max").split()
            cpu["quota"] = cpu.get("quota") or (-1 if quota == "max" else int(quota))
            cpu["period"] = cpu.get("period") or int(period)
        if "memory" not in group.hierarchies.v1 and (memory.get("swap") or 0) > 0 and memory.get("limit") is None:
            limit = read(f"{directory}/memory.max").strip()
            memory["limit"] = -1 if limit == "max" else int(limit)
    except FileNotFoundError:  # the group lacks the controller, which `apply` will say
        return resources
    return {**resources, "cpu": cpu, "memory": memory}


def _raise_swap_first(group: Cgroup, memory: "dict[str, Any]") -> None:
    """v1 holds memory below memory and swap together at every moment: to raise both the second goes first."""
    limit, swap = memory.get("limit"), memory.get("swap")
    if "memory" not in group.hierarchies.v1 or not limit or not swap or limit < 0 or swap < 0:
        return
    path = f"{group.hierarchies.v1['memory']}{group.path}/memory.memsw.limit_in_bytes"
    if limit > int(read(path)):
        write(path, str(swap))


# state


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
            write(f"{directory}/{name}", values[0])
            return
        except FileNotFoundError:
            continue
    write(f"{directory}/{last}", values[-1])


def _not_applied(path: str, value: str, error: OSError) -> RuntimeFailure:
    if error.errno in (ENOENT, ENODEV):
        return RuntimeFailure(
            "unsupported", "limit resources", f"this kernel has no {path}, to which {value!r} should go", path
        )
    failure = RuntimeFailure.from_os_error("limit resources", error)
    text = f"{failure.message} (value {value!r})"
    return RuntimeFailure("system", "limit resources", text, failure.path, failure.errno)


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
