"""What a maker does (maker.py): it has all the modules that a shim goes without."""

import os

from wherry_oci.linux.process import SECCOMP_FILTER_FLAG_SPEC_ALLOW
from wherry_oci.runtime import container
from wherry_oci.runtime.init import Entry
from wherry_oci.runtime.prepared import Process
from wherry_oci.runtime.usernamespace import setgroups_denied
from wherry_shim import shimgroup
from wherry_shim.shimgroup import Birthplace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make(job: "dict[str, Any]", stdio: "tuple[int, int, int] | None", place: Birthplace) -> Process:
    """As `Maker.make`."""
    config = job["config"]
    group = place.group

    def confine() -> None:
        """The process is born, and waits: leave its group to it, then set the limits, which are not for this one."""
        shimgroup.leave(group.hierarchies)
        group.apply((config.get("linux") or {}).get("resources") or {})

    place.enter()
    entry = Entry(
        config["process"],
        **job["entry"],
        seccomp=_read(job["seccomp"]) if job["seccomp"] else None,
        seccomp_flags=SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        stdio=stdio,
        setgroups_denied=setgroups_denied(),
    )
    return container.create(
        config,
        entry,
        rootfs_path=job["rootfs"]["path"],
        rootfs_mounts=job["rootfs"]["mounts"],
        rootfs_tree=_mapped_root(config["linux"], job["rootfs"]["mounts"], stdio),
        cgroup=group,
        born_in_cgroup=True,
        on_born=confine,
    )


def _mapped_root(
    linux: "dict[str, Any]", mounts: "list[dict[str, Any]]", stdio: "tuple[int, int, int] | None"
) -> int | None:
    """The rootfs with ids as the container's user namespace has them; None where it has none of its own."""
    path = next((one["path"] for one in linux["namespaces"] if one["type"] == "user"), None)
    if path is None:
        return None
    from wherry_oci.runtime.idmap import mapped_root

    uid, gid = linux["uidMappings"][0]["hostID"], linux["gidMappings"][0]["hostID"]
    for fd in stdio or ():
        os.fchown(fd, uid, gid)  # whoever opens /dev/stdout anew must be somebody in there
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mapped_root(mounts, namespace, uid, gid)
    finally:
        os.close(namespace)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
