"""bpf(2): programs that filter a control group's access to devices (linux/bpf.h)."""

import os

from wherry_oci.linux._libc import address, syscall
from wherry_oci.linux.numbers import NUMBERS

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
_MOST_PROGRAMS = 64
_LICENSE = bytearray(b"Apache-2.0\0")


def _attributes(*fields: tuple[int, int, int]) -> bytearray:
    """union bpf_attr from (offset, size, value)."""
    attributes = bytearray(128)
    for at, size, value in fields:
        attributes[at : at + size] = value.to_bytes(size, "little")
    return attributes


def _bpf(command: int, attributes: bytearray) -> int:
    return syscall(NUMBERS["bpf"], command, address(attributes), len(attributes))


def load_device_program(instructions: bytes) -> int:
    """BPF_PROG_LOAD of a BPF_PROG_TYPE_CGROUP_DEVICE program: its descriptor. Raises OSError."""
    code = bytearray(instructions)
    attributes = _attributes(
        (0, 4, _PROG_TYPE_CGROUP_DEVICE), (4, 4, len(code) // 8), (8, 8, address(code)), (16, 8, address(_LICENSE))
    )
    return _bpf(_PROG_LOAD, attributes)


def attach_device_program(cgroup: int, program: int, flags: int = BPF_F_ALLOW_MULTI) -> None:
    """BPF_PROG_ATTACH to the group of which *cgroup* is a descriptor. Raises OSError."""
    _bpf(_PROG_ATTACH, _attributes((0, 4, cgroup), (4, 4, program), (8, 4, _CGROUP_DEVICE), (12, 4, flags)))


def detach_device_program(cgroup: int, program: int) -> None:
    """BPF_PROG_DETACH. Raises OSError."""
    _bpf(_PROG_DETACH, _attributes((0, 4, cgroup), (4, 4, program), (8, 4, _CGROUP_DEVICE)))


def device_programs(cgroup: int) -> list[int]:
    """Descriptors of the programs attached to the very group, the caller's to close. Raises OSError."""
    ids = bytearray(4 * _MOST_PROGRAMS)
    attributes = _attributes((0, 4, cgroup), (4, 4, _CGROUP_DEVICE), (16, 8, address(ids)), (24, 4, _MOST_PROGRAMS))
    _bpf(_PROG_QUERY, attributes)
    count = int.from_bytes(attributes[24:28], "little")
    found: list[int] = []
    try:
        for index in range(count):
            number = int.from_bytes(ids[index * 4 : index * 4 + 4], "little")
            found.append(_bpf(_PROG_GET_FD_BY_ID, _attributes((0, 4, number))))
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return found
