"""The judges of seccomp filters: the kernel's filter machine in Python, and libseccomp itself."""

import ctypes
import errno
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

NATIVE = {"x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}

_LOAD, _AND, _GO, _RETURN = 0x20, 0x54, 0x05, 0x06
_EQUAL, _GREATER, _GREATER_EQUAL, _ANY_BIT = 0x15, 0x25, 0x35, 0x45


def run(program: bytes, audit: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The action that *program* returns for a system call; asserts what the kernel's checker demands."""
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, audit, 0, *padded)
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert 0 < len(instructions) <= 4096
    at = accumulator = 0
    while True:
        code, true, false, value = instructions[at]
        at += 1
        if code == _LOAD:
            assert value % 4 == 0
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == _AND:
            accumulator &= value
        elif code == _GO:
            at += value
        elif code == _RETURN:
            return int(value)
        else:
            test = {
                _EQUAL: accumulator == value,
                _GREATER: accumulator > value,
                _GREATER_EQUAL: accumulator >= value,
                _ANY_BIT: bool(accumulator & value),
            }[code]
            at += true if test else false


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_TOKENS = {
    "x86_64": 0xC000003E,
    "x86": 0x40000003,
    "x32": 0x4000003E,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
_UNKNOWN = -1


def library() -> ctypes.CDLL | None:
    """libseccomp, or None where it is not installed."""
    try:
        found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return found


class Refused(Exception):
    """libseccomp does not take this profile."""


def resolve(lib: ctypes.CDLL, architecture: str, name: str) -> int:
    """The number by libseccomp's table, negative if it has none."""
    return int(lib.seccomp_syscall_resolve_name_arch(_TOKENS[architecture], name.encode()))


def export(lib: ctypes.CDLL, section: Mapping[str, Any], machine: str, architectures: Sequence[str]) -> bytes:
    """The program that libseccomp makes of *section*, used as runc uses it. Raises Refused."""
    default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
    context = lib.seccomp_init(default)
    assert context
    try:
        for architecture in (machine, *architectures):
            _check(lib.seccomp_arch_add(context, _TOKENS[architecture]), errno.EEXIST)
        if os.uname().machine != machine:
            _check(lib.seccomp_arch_remove(context, _TOKENS[os.uname().machine]))
        for syscall in section["syscalls"]:
            action = _action(syscall["action"], syscall.get("errnoRet"))
            if action != default:
                for name in syscall["names"]:
                    _add(lib, context, action, name, syscall.get("args") or ())
        return _exported(lib, context)
    finally:
        lib.seccomp_release(context)


def _add(lib: ctypes.CDLL, context: int, action: int, name: str, arguments: Sequence[Mapping[str, Any]]) -> None:
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return
    comparisons = [
        _Comparison(one["index"], _OPERATORS[one["op"]], one.get("value", 0), one.get("valueTwo", 0))
        for one in arguments
    ]
    together = len({one.argument for one in comparisons}) == len(comparisons)
    for these in [comparisons] if together else [[one] for one in comparisons]:
        array = (_Comparison * len(these))(*these)
        _check(lib.seccomp_rule_add_array(context, action, number, len(these), array))


def _exported(lib: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("program")
    try:
        _check(lib.seccomp_export_bpf(context, fd))
        size = os.fstat(fd).st_size
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _action(name: str, number: int | None) -> int:
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return _ACTIONS[name] | (1 if number is None else number)
    return _ACTIONS[name]


def _check(result: int, *fine: int) -> None:
    if result < 0 and -result not in fine:
        raise Refused(errno.errorcode.get(-result, str(result)))
