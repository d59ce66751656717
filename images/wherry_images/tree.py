"""Whole directory trees, by descriptor: nothing here follows a symbolic link or keeps more than a few files open."""

import errno
import os
import stat
from itertools import count

from wherry_oci.linux.ids import may_chown

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEP = 32  # how deep a tree is walked down before its parts are brought to the top


def remove(parent: int, name: bytes | str) -> None:
    """
    Remove *name* in the directory *parent* with all below it; safe to repeat, and beside others who do the same.

    A tree deeper than the stack or the descriptor table allows is no obstacle.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    try:
        top = _open_directory(parent, name)
    except FileNotFoundError:
        return
    try:
        _empty(top, top, 0, count())
    finally:
        os.close(top)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _open_directory(parent: int, name: bytes | str) -> int:
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except PermissionError:  # not root, and the directory's own mode forbids it
        chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def _empty(top: int, directory: int, depth: int, numbers: "count[int]") -> None:
    again = True
    while again:  # the top gets new entries while deep trees are brought to it
        again = False
        with os.scandir(directory) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in names:
            try:
                if not is_directory:
                    os.unlink(name, dir_fd=directory)
                    continue
                if depth >= _DEEP:
                    os.rename(name, f".deep-{os.getpid()}-{next(numbers)}", src_dir_fd=directory, dst_dir_fd=top)
                    continue
                child = _open_directory(directory, name)
                try:
                    _empty(top, child, depth + 1, numbers)
                finally:
                    os.close(child)
                os.rmdir(name, dir_fd=directory)
            except FileNotFoundError:
                continue
        again = bool(names) and depth == 0


def chmod(path: bytes | str, mode: int, *, dir_fd: int | None = None) -> None:
    """chmod(2) that follows no link at the end of *path*: there it fails."""
    # Only fchmodat2(2) of Linux 6.6 can be told that; a descriptor of the place itself does as well.
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{place}", mode)
    finally:
        os.close(place)


def copy_attributes(source: int, target: str, status: os.stat_result, *, reserved: tuple[bytes, ...] = ()) -> None:
    """
    Give *target* (a path whose last link is not followed) the owner, mode, extended attributes and times of *source*,
    an O_PATH descriptor whose fstat is *status*; attributes that begin with one of *reserved* stay behind.
    """
    if may_chown():
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        chmod(target, stat.S_IMODE(status.st_mode))
        origin = f"/proc/self/fd/{source}"
        for name in _xattrs(origin):
            if not os.fsencode(name).startswith(reserved or (b"\0",)):
                set_xattr(target, name, os.getxattr(origin, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _xattrs(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return []
        raise


def set_xattr(target: str | int, name: bytes | str, value: bytes) -> bool:
    """Set an attribute, not following a link; False where the file system or the caller's rights have no such."""
    try:
        if isinstance(target, int):
            os.setxattr(target, name, value)
        else:
            os.setxattr(target, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return False
        raise
    return True


def copy_file(source: int, target: int, size: int) -> int:
    """Copy *size* bytes at most into the empty file *target*, holes as holes; how many bytes of data they were."""
    ranges = data_ranges(source, size)
    if ranges is None:
        return copy_bytes(source, target, size)
    copied = 0
    for start, length in ranges:
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        copied += copy_bytes(source, target, length)
    os.ftruncate(target, size)
    return copied


def data_ranges(descriptor: int, size: int) -> tuple[tuple[int, int], ...] | None:
    """Where a file has data, None if it has no holes worth the trouble."""
    status = os.fstat(descriptor)
    if size == 0 or status.st_blocks * 512 >= size:
        return None
    ranges = []
    position = 0
    try:
        while position < size:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            ranges.append((start, min(end, size) - start))
            position = end
    except OSError:  # ENXIO: nothing but a hole after this
        pass
    if len(ranges) > 10_000 or sum(length for _, length in ranges) >= size:
        return None
    return tuple((start, length) for start, length in ranges if length > 0)


def copy_bytes(source: int, target: int, size: int) -> int:
    """Copy *size* bytes at most between two files, in the kernel, sharing their blocks where the file system can."""
    copied = 0
    while copied < size:
        try:
            step = os.copy_file_range(source, target, size - copied)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            step = os.sendfile(target, source, None, min(size - copied, 1 << 30))
        if not step:
            break
        copied += step
    return copied
