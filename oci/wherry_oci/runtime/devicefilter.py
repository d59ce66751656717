"""
Device rules for cgroup v2, which has no files for them: a BPF program that the kernel asks at each mknod and open.

The rules mean what they mean in v1's devices.allow and devices.deny (the kernel's admin-guide/cgroup-v1/devices.rst): a
default, and exceptions from it. Spec: config-linux.md "Allowed Device List".
"""

import os

from wherry_oci.linux import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_EVERYTHING = 7

# instructions: operation codes, and registers by number; 1 holds the context at the beginning
_LOAD_WORD, _AND, _SHIFT_RIGHT, _MOVE, _SET, _UNEQUAL, _EQUAL, _EXIT = 0x61, 0x57, 0x77, 0xBF, 0xB7, 0x55, 0x15, 0x95
_RESULT, _SCRATCH, _KIND, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5

_Exception = tuple[int, "int | None", "int | None"]  # kind, major and minor; None is any


def exceptions(rules: "list[dict[str, Any]]") -> tuple[bool, dict[_Exception, int]]:
    """Whether all is allowed (else denied) but for the exceptions; and these, with the access that they are for."""
    allowed, found = True, dict[_Exception, int]()
    for rule in rules:
        kind, access = rule.get("type") or "a", _mask(rule.get("access") or "rwm")
        major, minor = (None if rule.get(part) in (None, -1) else rule[part] for part in ("major", "minor"))
        if kind == "a" and major is None and minor is None and access == _EVERYTHING:
            allowed, found = rule["allow"], {}
            continue
        for each in _KINDS if kind == "a" else ("c" if kind == "u" else kind,):
            key = (_KINDS[each], major, minor)
            if rule["allow"] != allowed:
                found[key] = found.get(key, 0) | access
            elif key in found:
                found[key] &= ~access
    return allowed, {key: access for key, access in found.items() if access}


def _mask(access: str) -> int:
    mask = 0
    for letter in access:
        mask |= _ACCESS[letter]
    return mask


def program(rules: "list[dict[str, Any]]") -> bytes:
    """The program (an array of struct bpf_insn) for linux.resources.devices: 1 lets an access through, 0 does not."""
    allowed, found = exceptions(rules)
    code = [
        _instruction(_LOAD_WORD, _KIND, _SCRATCH, offset=0),  # struct bpf_cgroup_dev_ctx: access << 16 | kind,
        _instruction(_LOAD_WORD, _MAJOR, _SCRATCH, offset=4),  # major,
        _instruction(_LOAD_WORD, _MINOR, _SCRATCH, offset=8),  # minor
        _instruction(_MOVE, _WANTED, _KIND),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
    ]
    for (kind, major, minor), access in found.items():
        code += _one_exception(kind, major, minor, access, allowed)
    code += [_instruction(_SET, _RESULT, value=int(allowed)), _instruction(_EXIT)]
    return b"".join(code)


def _one_exception(kind: int, major: int | None, minor: int | None, access: int, allowed: bool) -> list[bytes]:
    """An allowance must cover all that is wanted; a denial needs a part of it."""
    last = [_instruction(_SET, _RESULT, value=int(not allowed)), _instruction(_EXIT)]
    tests: list[tuple[int, int, int]] = [(_UNEQUAL, _KIND, kind)]
    tests += [
        (_UNEQUAL, register, number) for register, number in ((_MAJOR, major), (_MINOR, minor)) if number is not None
    ]
    mask: list[bytes] = []
    if access != _EVERYTHING:
        wrong = access if allowed else _EVERYTHING & ~access
        mask = [_instruction(_MOVE, _SCRATCH, _WANTED), _instruction(_AND, _SCRATCH, value=wrong)]
    code: list[bytes] = []
    after_tests = len(mask) + bool(mask) + len(last)
    for index, (operation, register, number) in enumerate(tests):
        code.append(_instruction(operation, register, value=number, offset=len(tests) - index - 1 + after_tests))
    if mask:
        skip = _EQUAL if allowed else _UNEQUAL
        code += [*mask, _instruction(skip, _SCRATCH, value=0, offset=len(last))]
    return code + last


def _instruction(operation: int, target: int = 0, source: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    registers = source << 4 | target
    return bytes((operation, registers)) + offset.to_bytes(2, "little", signed=True) + value.to_bytes(4, "little")


def attach(directory: str, rules: "list[dict[str, Any]]") -> None:
    """Put *rules* in the place of those that the cgroup v2 group *directory* has. Raises OSError."""
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old = bpf.device_programs(group)
        made = bpf.load_device_program(program(rules))
        try:
            bpf.attach_device_program(group, made)
            for each in old:
                bpf.detach_device_program(group, each)
        finally:
            for fd in (made, *old):
                os.close(fd)
    finally:
        os.close(group)
