"""
Flags of mounts that are attached already, for kernels before 5.12, which have no mount_setattr(2).

Between attaching and these calls nobody of the container's is there yet to use the mount.
"""

import os
from errno import ELOOP

from wherry_oci.linux import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_oci.runtime.mountoptions import MountOptions

# fstatvfs(3)'s flags have the values of mount(2)'s but for this one.
_SAME = m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC | m.MS_NOATIME | m.MS_NODIRATIME
_ST_RELATIME = 0x1000
_FLAGS = (
    (m.MOUNT_ATTR_RDONLY, m.MS_RDONLY),
    (m.MOUNT_ATTR_NOSUID, m.MS_NOSUID),
    (m.MOUNT_ATTR_NODEV, m.MS_NODEV),
    (m.MOUNT_ATTR_NOEXEC, m.MS_NOEXEC),
    (m.MOUNT_ATTR_NODIRATIME, m.MS_NODIRATIME),
    (m.MOUNT_ATTR_NOSYMFOLLOW, m.MS_NOSYMFOLLOW),
)
_ATIME = {
    m.MOUNT_ATTR_RELATIME: m.MS_RELATIME,
    m.MOUNT_ATTR_NOATIME: m.MS_NOATIME,
    m.MOUNT_ATTR_STRICTATIME: m.MS_STRICTATIME,
}


def mount_points(mountinfo: str = "/proc/self/mountinfo") -> list[tuple[str, str]]:
    """Mount point and file system of each mount of this namespace, in the kernel's order. Raises OSError."""
    found = []
    with open(mountinfo, "rb") as lines:
        for line in lines:
            before, _, after = line.partition(b" - ")
            found.append((os.fsdecode(_plain(before.split(b" ")[4])), os.fsdecode(after.split(b" ")[0])))
    return found


def _plain(escaped: bytes) -> bytes:
    """\\040 is a space. By no codec: it would be imported, perhaps by a user who may not read the host's modules."""
    first, *others = escaped.split(b"\\")
    return first + b"".join(bytes((int(other[:3], 8),)) + other[3:] for other in others)


def make_read_only(fd: int) -> None:
    """The attached mount that *fd* is on, and none below it. Raises OSError."""
    if m.has_mount_setattr():
        m.mount_setattr(fd, "", m.AT_EMPTY_PATH, set_attributes=m.MOUNT_ATTR_RDONLY)
    else:
        _remount(fd, m.MOUNT_ATTR_RDONLY, 0)


def catch_up(tree: int, options: "MountOptions") -> None:
    """Give the attached mount *tree* the flags that could not be given before it was attached. Raises OSError."""
    if m.has_mount_setattr():
        return
    if options.set or options.clear:
        _remount(tree, options.set, options.clear)
    if options.recursive_set or options.recursive_clear:
        top = os.readlink(f"/proc/self/fd/{tree}")
        for point, _ in mount_points():
            if point == top or point.startswith(top.rstrip("/") + "/"):
                below = point[len(top) :].lstrip("/") or "."
                # From the mount itself: the way to it may be closed to the user of a user namespace.
                fd = os.open(below, os.O_PATH | os.O_CLOEXEC, dir_fd=tree) if below != "." else os.dup(tree)
                try:
                    if os.readlink(f"/proc/self/fd/{fd}") != point:  # a link took a directory's place
                        raise OSError(ELOOP, os.strerror(ELOOP), point)
                    _remount(fd, options.recursive_set, options.recursive_clear)
                finally:
                    os.close(fd)


def _remount(fd: int, added: int, removed: int) -> None:
    """mount(2) sets all flags at once, so those that shall stay are read before."""
    found = os.fstatvfs(fd).f_flag
    flags = found & _SAME | (m.MS_RELATIME if found & _ST_RELATIME else 0)
    for attribute, flag in _FLAGS:
        if removed & attribute:
            flags &= ~flag
        if added & attribute:
            flags |= flag
    if (added | removed) & m.MOUNT_ATTR__ATIME:
        flags &= ~(m.MS_NOATIME | m.MS_RELATIME)
        flags |= _ATIME[added & m.MOUNT_ATTR__ATIME]
    m.mount("none", f"/proc/self/fd/{fd}", None, m.MS_REMOUNT | m.MS_BIND | flags)
