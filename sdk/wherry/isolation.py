"""How far a container is apart from the host: namespaces that it shares, and the finer limits of its resources."""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wherry_oci.errors import InvalidArgument, NotFound, Unsupported

_RULE = re.compile(r"(?P<type>[acb]) (?P<major>\d+|\*):(?P<minor>\d+|\*) (?P<access>[rwm]{1,3})")
# option: how runtime-spec's config-linux.md, "Block IO", names it
_THROTTLES = {
    "device_read_bps": "throttleReadBpsDevice",
    "device_write_bps": "throttleWriteBpsDevice",
    "device_read_iops": "throttleReadIOPSDevice",
    "device_write_iops": "throttleWriteIOPSDevice",
}
_SHARED = {"ipc_mode": "ipc", "pid_mode": "pid", "uts_mode": "uts", "cgroupns": "cgroup"}  # option: namespace
_OWN = {
    "ipc_mode": ("private", "shareable", "none"),
    "pid_mode": ("private",),
    "uts_mode": ("private",),
    "cgroupns": ("private",),
}


@attrs.frozen(kw_only=True)
class Isolation:
    """The options of this module, checked. A value: how it was asked for, ready for config.json."""

    shared: tuple[str, ...] = ()  # namespaces that are the host's
    without_shm: bool = False
    device_rules: tuple[Mapping[str, Any], ...] = ()
    block_io: Mapping[str, Any] = attrs.field(factory=dict)
    swappiness: int | None = None
    oom_kill_disable: bool = False
    realtime_period: int | None = None  # microseconds
    realtime_runtime: int | None = None

    def namespaces(self, kinds: Sequence[str]) -> list[str]:
        """Those of *kinds* that are the container's own."""
        return [kind for kind in kinds if kind not in self.shared]

    def complete(self, resources: dict[str, Any]) -> dict[str, Any]:
        """config.json's `linux.resources` with these limits in it."""
        memory = {"swappiness": self.swappiness, "disableOOMKiller": self.oom_kill_disable or None}
        cpu = {"realtimePeriod": self.realtime_period, "realtimeRuntime": self.realtime_runtime}
        for part, values in (("memory", memory), ("cpu", cpu)):
            given = {name: value for name, value in values.items() if value is not None}
            if given:
                resources[part] = {**resources.get(part, {}), **given}
        if self.block_io:
            resources["blockIO"] = dict(self.block_io)
        resources["devices"] = [*resources["devices"], *self.device_rules]
        return resources


OPTIONS = (
    *_SHARED,
    *_THROTTLES,
    "blkio_weight",
    "blkio_weight_device",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "device_cgroup_rules",
    "mem_swappiness",
    "oom_kill_disable",
)


def parse_isolation(given: Mapping[str, Any]) -> Isolation:
    """What docker-py's options named in `OPTIONS` ask for. Raises InvalidArgument, Unsupported, NotFound."""
    swappiness = given.get("mem_swappiness")
    if swappiness is not None and not 0 <= int(swappiness) <= 100:
        raise InvalidArgument(f"mem_swappiness={swappiness!r}: 0 to 100")
    return Isolation(
        shared=tuple(kind for option, kind in _SHARED.items() if _is_shared(option, given.get(option) or "private")),
        without_shm=given.get("ipc_mode") == "none",
        device_rules=tuple(map(_device_rule, given.get("device_cgroup_rules") or ())),
        block_io=_block_io(given),
        swappiness=None if swappiness is None else int(swappiness),
        oom_kill_disable=bool(given.get("oom_kill_disable")),
        realtime_period=given.get("cpu_rt_period"),
        realtime_runtime=given.get("cpu_rt_runtime"),
    )


def _is_shared(option: str, mode: str) -> bool:
    if mode == "host":
        return True
    if mode in _OWN[option]:
        return False
    if mode.startswith("container:"):
        raise Unsupported(f"{option}={mode!r}: only the host's namespace can be shared, not another container's")
    raise InvalidArgument(f"{option}={mode!r}: one of host, {', '.join(_OWN[option])}")


def _device_rule(text: str) -> dict[str, Any]:
    """`c 1:3 rwm` (cgroup v1's devices.allow)."""
    found = _RULE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"device_cgroup_rules: {text!r} is not TYPE MAJOR:MINOR ACCESS, as in 'c 1:3 rwm'")
    rule: dict[str, Any] = {"allow": True, "type": found["type"], "access": found["access"]}
    for name in ("major", "minor"):
        if found[name] != "*":
            rule[name] = int(found[name])
    return rule


def _block_io(given: Mapping[str, Any]) -> dict[str, Any]:
    from wherry.options import size_in_bytes

    found: dict[str, Any] = {}
    if weight := given.get("blkio_weight"):
        found["weight"] = _weight(int(weight), "blkio_weight")
    if devices := given.get("blkio_weight_device"):
        found["weightDevice"] = [
            {**_device(one["Path"]), "weight": _weight(int(one["Weight"]), "blkio_weight_device")} for one in devices
        ]
    for option, key in _THROTTLES.items():
        if devices := given.get(option):
            found[key] = [{**_device(one["Path"]), "rate": size_in_bytes(one["Rate"], option)} for one in devices]
    return found


def _weight(weight: int, option: str) -> int:
    if not 10 <= weight <= 1000:
        raise InvalidArgument(f"{option}={weight}: 10 to 1000")
    return weight


def _device(path: str) -> dict[str, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"the host has no device {path}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"{path} is no block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
