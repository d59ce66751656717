"""What an ordinary user's config.json has otherwise: what the kernel gives to the host's root alone is left out."""

import os
import warnings
from typing import TYPE_CHECKING, Any

from wherry_oci.linux import ids
from wherry_oci.runtime.cgroups import Hierarchies

if TYPE_CHECKING:
    from wherry.options import Options


class LimitWarning(UserWarning):
    """A limit of resources that was asked for cannot be set, and is not: an ordinary user has no control groups."""


def adapt(spec: dict[str, Any], options: "Options") -> None:
    """
    Change *spec* to what can be had in a user namespace.

    Devices are the host's, bound, and the user's own rights on them count; so no rules of control groups guard them.
    Limits are for who has control groups; others are warned by `warn_of_limits`.
    """
    linux = spec["linux"]
    resources = linux.get("resources") or {}
    resources.pop("devices", None)
    if not Hierarchies.own().directories():
        linux["resources"] = {}
    # A device is bound, and so is the host's own: it keeps its owner.
    linux["devices"] = [
        {key: value for key, value in device.items() if key not in ("uid", "gid")} for device in linux["devices"]
    ]
    shared = {"network"} if options.network == "host" else set()
    mounts = [_bound(mount, shared | set(options.isolation.shared)) for mount in spec["mounts"]]
    spec["mounts"] = [mount for mount in mounts if mount["source"] != _QUEUES or os.path.isdir(_QUEUES)]
    if "pid" in options.isolation.shared:  # without a procfs of the container's own none can be set
        linux["sysctl"] = dict(options.sysctls)
    if "sysctl" in linux:
        linux["sysctl"] = {name: _mapped_groups(name, value) for name, value in linux["sysctl"].items()}


def warn_of_limits(options: "Options", stacklevel: int) -> None:
    """A warning when *options* ask for limits that cannot be set."""
    from wherry import specification

    asked = options.isolation.complete({"devices": [], **specification.limits(options)})
    named = sorted(name for name, value in asked.items() if value)
    if named and not Hierarchies.own().directories():
        warnings.warn(
            f"limits of {', '.join(named)} are not set: this user has no control group of its own, or one with other "
            "processes in it; have one delegated (cgroup v2: systemd-run --user --scope -p Delegate=yes …), or leave "
            "the limits away",
            LimitWarning,
            stacklevel=stacklevel,
        )


def warn_of_pause(name: str, stacklevel: int) -> bool:
    """Whether containers can be frozen; a warning when they cannot."""
    if Hierarchies.own().directories():
        return True
    warnings.warn(
        f"container {name} is not paused: this user has no control group of its own; what it writes meanwhile may be "
        "there in part",
        LimitWarning,
        stacklevel=stacklevel,
    )
    return False


# What only the owner of a namespace may mount, by the namespace that it shows
_QUEUES = "/dev/mqueue"  # which a host may have mounted, or not
_SHOWN = {"sysfs": "network", "proc": "pid", "mqueue": "ipc", "cgroup": "cgroup"}


def _bound(mount: dict[str, Any], shared: set[str]) -> dict[str, Any]:
    """Of a namespace that is the host's, the host's own mount is shown."""
    kind = mount["type"]
    if _SHOWN.get(kind) in shared:
        return {**mount, "type": "bind", "source": mount["destination"], "options": ["rbind", *mount["options"]]}
    if kind == "devpts" and ids.mapped() == 1:  # there is no group of terminals
        return {**mount, "options": [option for option in mount["options"] if not option.startswith("gid=")]}
    return mount


def _mapped_groups(name: str, value: str) -> str:
    """The kernel takes only groups that the user namespace has (net.ipv4.ping_group_range)."""
    if name != "net.ipv4.ping_group_range":
        return value
    first, last = value.split()
    return f"{first} {min(int(last), _last_of_first_range())}"


def _last_of_first_range() -> int:
    """The largest group, from 0 up without a gap."""
    ranges = []
    with open("/proc/self/gid_map", encoding="ascii") as lines:
        for line in lines:
            start, _, size = map(int, line.split())
            ranges.append((start, size))
    following = 0
    for start, size in sorted(ranges):
        if start != following:
            break
        following += size
    return following - 1
