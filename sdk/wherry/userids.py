"""
User namespaces of root's containers (docker's `userns_mode`): which of the host's ids a container's are.

Its files lie on the disk as if it had none: layers, what it writes and volumes are shown to it with ids moved, by
id-mapped mounts, so images and volumes are shared with others, and nothing is ever chowned.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from wherry.mounts import VOLUME
from wherry_oci.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from wherry.mounts import MountPoint
    from wherry.options import Options

DEFAULT_SIZE = 65_536
_AUTO = re.compile(r"auto(?::size=(?P<size>\d+))?")
# Where nobody's accounts are, unless /etc/subuid keeps ids for this name, which podman uses, too.
_KEEPER, _FIRST, _LAST = "containers", 1 << 31, (1 << 32) - 2
_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"
_LEAST, _MOST = 1, 1 << 24


def parse(value: str) -> int:
    """How many ids `userns_mode` asks for; 0 for the host's own. Raises InvalidArgument."""
    if value in ("", "host"):
        return 0
    found = _AUTO.fullmatch(value)
    size = int(found["size"] or DEFAULT_SIZE) if found is not None else 0
    if not _LEAST <= size <= _MOST:
        raise InvalidArgument(f"userns_mode={value!r}: host, auto, or auto:size=N with at most {_MOST} ids")
    return size


def check(options: "Options") -> None:
    """Raise InvalidArgument for what needs the host's own user namespace, as Docker does."""
    shared = [f"{kind} namespace" for kind in options.isolation.shared]
    if options.network == "host" or options.network.startswith("container:"):
        shared.append(f"network {options.network!r}")
    if options.privileged:
        shared.append("privileged")
    if shared:
        raise InvalidArgument(f"userns_mode does not go with {shared[0]}: that needs the host's user namespace")


def free(size: int, taken: Iterable[Sequence[int]], pools: Sequence[tuple[int, int]] = ()) -> tuple[int, int]:
    """The first of *size* ids in *pools* (else the default one) that overlap none of *taken* (first, size)."""
    pools = pools or _kept() or [(_FIRST, _LAST - _FIRST)]
    used = sorted((first, first + count) for first, count in taken)
    for start, count in pools:
        at = start
        for first, end in used:
            if end > at and first < at + size:
                at = end
        if at + size <= start + count:
            return at, size
    raise Unavailable(f"no {size} ids are free for a user namespace: remove containers, or ask for fewer (auto:size=N)")


def _kept() -> list[tuple[int, int]]:
    from wherry.rootless.holder import ranges

    groups = ranges(_SUBGID, _KEEPER, -1)
    return [pool for pool in ranges(_SUBUID, _KEEPER, -1) if pool in groups]


def apply(spec: dict[str, Any], ids: Sequence[int], points: Sequence["MountPoint"]) -> None:
    """Give the container of config.json *spec* a user namespace with the host's *ids* (first, size)."""
    first, size = ids
    linux = spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": first, "size": size}]
    ours = {point.target for point in points if point.kind == VOLUME}
    ours |= {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    for mount in spec["mounts"]:
        if mount["destination"] in ours and mount["type"] == "bind":
            mount["options"] = [*mount["options"], "idmap"]
        if mount["type"] == "devpts" and size <= _TERMINALS:
            mount["options"] = [option for option in mount["options"] if not option.startswith("gid=")]
    for device in linux["devices"]:  # the host's own are bound, and keep their owners
        device.pop("uid", None)
        device.pop("gid", None)
    if "net.ipv4.ping_group_range" in linux.get("sysctl", {}):
        linux["sysctl"]["net.ipv4.ping_group_range"] = f"0 {size - 1}"


_TERMINALS = 5  # the group of terminals, as Debian numbers it
