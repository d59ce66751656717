"""Mounts: mount(2) and its kin, and the descriptor-based calls that replace it (Linux 5.2 and up)."""

import os
from errno import ENOSYS

from wherry_oci.linux._libc import address, path_bytes, syscall
from wherry_oci.linux.numbers import NUMBERS

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
PROC_SUPER_MAGIC = 0x9FA0
_STATFS_BYTES = 120
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40


def mount(
    source: str | bytes,
    target: "str | bytes | os.PathLike[str]",
    filesystem: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """mount(2). Raises OSError with errno and target."""
    try:
        syscall(
            NUMBERS["mount"],
            path_bytes(source),
            path_bytes(target),
            filesystem.encode() if filesystem is not None else None,
            flags,
            path_bytes(data) if data is not None else None,
        )
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from None


def umount2(target: "str | bytes | os.PathLike[str]", flags: int = 0) -> None:
    """umount2(2). Raises OSError with errno and target."""
    try:
        syscall(NUMBERS["umount2"], path_bytes(target), flags)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from None


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError."""
    syscall(NUMBERS["pivot_root"], path_bytes(new_root), path_bytes(put_old))


def fsopen(filesystem: str) -> int:
    """fsopen(2): a context in which a file system is configured. Raises OSError with the file system's name."""
    try:
        return syscall(NUMBERS["fsopen"], filesystem.encode(), FSOPEN_CLOEXEC)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, filesystem) from None


def fsconfig_set_string(context: int, key: str, value: str) -> None:
    """fsconfig(2), FSCONFIG_SET_STRING; *value* is at most 255 bytes. Raises OSError with the kernel's own words."""
    _fsconfig(context, _FSCONFIG_SET_STRING, key, path_bytes(value))


def fsconfig_set_flag(context: int, key: str) -> None:
    """fsconfig(2), FSCONFIG_SET_FLAG. Raises OSError with the kernel's own words."""
    _fsconfig(context, _FSCONFIG_SET_FLAG, key, None)


def fsconfig_create(context: int) -> None:
    """fsconfig(2), FSCONFIG_CMD_CREATE: make the superblock. Raises OSError with the kernel's own words."""
    _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None)


def _fsconfig(context: int, command: int, key: str | None, value: bytes | None) -> None:
    try:
        syscall(NUMBERS["fsconfig"], context, command, key.encode() if key is not None else None, value, 0)
    except OSError as error:
        said = _messages(context)
        raise type(error)(error.errno, f"{error.strerror} ({said})" if said else error.strerror, key) from None


def _messages(context: int) -> str:
    """What the kernel logged on the context: lines such as `e overlay: …` (read(2) gives one at a time)."""
    said = []
    for _ in range(8):
        try:
            said.append(os.read(context, 1024)[2:].decode("utf-8", "replace").strip())
        except OSError:
            break
    return "; ".join(said)


def fsmount(context: int, attributes: int = 0) -> int:
    """fsmount(2): a descriptor of the new, detached mount. Raises OSError."""
    return syscall(NUMBERS["fsmount"], context, FSMOUNT_CLOEXEC, attributes)


def open_tree(dirfd: int, path: "str | bytes | os.PathLike[str]", flags: int = 0) -> int:
    """open_tree(2); with OPEN_TREE_CLONE a detached bind mount of *path*. Raises OSError with errno and path."""
    try:
        return syscall(NUMBERS["open_tree"], dirfd, path_bytes(path), flags | OPEN_TREE_CLOEXEC)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None


def move_mount(mount_fd: int, target_fd: int) -> None:
    """move_mount(2): attach a detached mount on the very file or directory that *target_fd* is. Raises OSError."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(NUMBERS["move_mount"], mount_fd, b"", target_fd, b"", flags)


_known: list[bool] = []


def has_mount_setattr() -> bool:
    """Whether the kernel has mount_setattr(2), which came with 5.12."""
    if not _known:
        try:
            mount_setattr(-1, "", 0)  # which changes nothing
            _known.append(True)
        except OSError as error:
            _known.append(error.errno != ENOSYS)
    return _known[0]


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    set_attributes: int = 0,
    clear_attributes: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2); *flags* take AT_EMPTY_PATH and AT_RECURSIVE. Raises OSError with errno and path."""
    attributes = bytearray(32)  # struct mount_attr: set, clear, propagation, userns_fd
    for index, value in enumerate((set_attributes, clear_attributes, propagation, userns_fd)):
        attributes[index * 8 : index * 8 + 8] = value.to_bytes(8, "little")
    try:
        syscall(NUMBERS["mount_setattr"], dirfd, path_bytes(path), flags, address(attributes), len(attributes))
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None


def fstatfs_type(fd: int) -> int:
    """fstatfs(2): the magic number of the file system that *fd* is on. Raises OSError."""
    status = bytearray(_STATFS_BYTES)
    syscall(NUMBERS["fstatfs"], fd, address(status))
    return int.from_bytes(status[:8], "little")
