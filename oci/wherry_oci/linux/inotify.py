"""inotify(7): being told that a directory has changed, instead of looking again and again."""

import os

from wherry_oci.linux._libc import path_bytes, syscall
from wherry_oci.linux.numbers import NUMBERS

IN_MODIFY = 0x002
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200


def inotify_init1(flags: int = os.O_CLOEXEC | os.O_NONBLOCK) -> int:
    """inotify_init1(2). Raises OSError."""
    return syscall(NUMBERS["inotify_init1"], flags)


def inotify_add_watch(fd: int, path: "str | bytes | os.PathLike[str]", mask: int) -> int:
    """inotify_add_watch(2). Raises OSError with errno and path."""
    try:
        return syscall(NUMBERS["inotify_add_watch"], fd, path_bytes(path), mask)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
