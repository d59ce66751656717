"""openat2(2): opening a path that somebody hostile may have prepared."""

import os

from wherry_oci.linux._libc import address, path_bytes, syscall
from wherry_oci.linux.numbers import NUMBERS

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

_EAGAIN_TRIES = 128


def openat2(dirfd: int, path: "str | bytes | os.PathLike[str]", flags: int, mode: int = 0, resolve: int = 0) -> int:
    """
    openat2(2). The descriptor is close-on-exec.

    With RESOLVE_BENEATH or RESOLVE_IN_ROOT the kernel answers EAGAIN when a rename raced with the look-up; that is
    tried again a bounded number of times. Raises OSError with errno and path.
    """
    how = bytearray(24)  # struct open_how: flags, mode, resolve
    how[0:8] = (flags | os.O_CLOEXEC).to_bytes(8, "little")
    how[8:16] = mode.to_bytes(8, "little")
    how[16:24] = resolve.to_bytes(8, "little")
    encoded = path_bytes(path)
    for attempt in range(_EAGAIN_TRIES):
        try:
            return syscall(NUMBERS["openat2"], dirfd, encoded, address(how), len(how))
        except BlockingIOError:
            if attempt == _EAGAIN_TRIES - 1:
                raise
        except OSError as error:
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    raise AssertionError("unreachable")
