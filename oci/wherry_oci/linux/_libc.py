"""
One way into the kernel: syscall(2), with errno kept.

It stands on `_ctypes`, the C half of ctypes: the Python half costs a starting shim 2.5 ms, more than all the mounts of
a container, and nothing of it is needed to call one function. Raw numbers instead of libc's wrappers also give the
system calls for which the oldest supported libc has none (openat2, mount_setattr, …).
"""

import os
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    dlopen,
    dlsym,
    get_errno,
)

Argument = int | bytes | None  # what one argument of a system call may be; a bytearray goes by address()


class _Long(_SimpleCData):  # type: ignore[type-arg] # generic in the stubs alone
    _type_ = "l"


class _Pointer(_SimpleCData):  # type: ignore[type-arg] # generic in the stubs alone
    _type_ = "P"  # its from_param takes an int (unsigned, 64 bits), bytes or None


class _Object(_SimpleCData):  # type: ignore[type-arg] # generic in the stubs alone
    _type_ = "O"


class _Call(CFuncPtr):
    """A C function called with the GIL released, so a system call that waits holds up nobody."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _CallUnderGIL(CFuncPtr):
    """A C function called with the GIL held: the only safe way to clone(2), whose child must own it too."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
    _restype_ = _Long


class _AddressOf(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI
    _restype_ = _Pointer


_program = dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type] # None is dlopen(3)'s NULL: the program itself
_SYSCALL_ARGUMENTS = (_Long, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer, _Pointer)

_syscall = _Call(dlsym(_program, "syscall"))
_syscall.argtypes = _SYSCALL_ARGUMENTS
_syscall_under_gil = _CallUnderGIL(dlsym(_program, "syscall"))
_syscall_under_gil.argtypes = _SYSCALL_ARGUMENTS
_bytearray_address = _AddressOf(dlsym(_program, "PyByteArray_AsString"))
_bytearray_address.argtypes = (_Object,)


def address(buffer: bytearray) -> int:
    """Where *buffer*'s bytes are; true for as long as it lives and is not resized."""
    found: int = _bytearray_address(buffer)
    return found


def syscall(
    number: int,
    a: Argument = 0,
    b: Argument = 0,
    c: Argument = 0,
    d: Argument = 0,
    e: Argument = 0,
    f: Argument = 0,
) -> int:
    """
    syscall(2). Paths are bytes without NUL; a buffer to be filled is passed by `address()`.

    Raises OSError with errno; the wrapper that knows the path adds it.
    """
    result: int = _syscall(number, a, b, c, d, e, f)
    if result == -1:
        error = get_errno()
        raise OSError(error, os.strerror(error))
    return result


def syscall_under_gil(number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0) -> int:
    """As `syscall`, without giving the GIL up in between."""
    result: int = _syscall_under_gil(number, a, b, c, d, e, 0)
    if result == -1:
        error = get_errno()
        raise OSError(error, os.strerror(error))
    return result


def path_bytes(path: "str | bytes | os.PathLike[str]") -> bytes:
    """*path* as the kernel takes it; a NUL inside would silently cut it short, so it is refused."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"embedded null byte in path {path!r}")
    return encoded
