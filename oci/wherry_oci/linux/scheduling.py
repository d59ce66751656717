"""How a process is scheduled, where its memory lies, and how it seems: sched_setattr(2), ioprio_set(2) and others."""

from wherry_oci.linux._libc import address, syscall
from wherry_oci.linux.numbers import NUMBERS

SCHED_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_POLICIES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_POLICY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
PERSONALITIES = {"LINUX": 0, "LINUX32": 8}

_SCHED_ATTR_SIZE = 48  # struct sched_attr, first version
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


def sched_setattr(
    pid: int,
    policy: int,
    flags: int = 0,
    *,
    nice: int = 0,
    priority: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """sched_setattr(2); times are in nanoseconds. Raises OSError."""
    attributes = bytearray(_SCHED_ATTR_SIZE)
    fields = ((0, 4, _SCHED_ATTR_SIZE), (4, 4, policy), (8, 8, flags), (16, 4, nice & 0xFFFFFFFF), (20, 4, priority))
    for at, size, value in (*fields, (24, 8, runtime), (32, 8, deadline), (40, 8, period)):
        attributes[at : at + size] = value.to_bytes(size, "little")
    syscall(NUMBERS["sched_setattr"], pid, address(attributes), 0)


def ioprio_set(pid: int, io_class: int, priority: int) -> None:
    """ioprio_set(2) for one process. Raises OSError."""
    syscall(NUMBERS["ioprio_set"], _IOPRIO_WHO_PROCESS, pid, io_class << _IOPRIO_CLASS_SHIFT | priority)


def personality(persona: int) -> None:
    """personality(2), for this process and those that it becomes. Raises OSError."""
    syscall(NUMBERS["personality"], persona)


def set_mempolicy(mode: int, nodes: list[int]) -> None:
    """set_mempolicy(2): *mode* with its flags, on the memory nodes *nodes*. Raises OSError."""
    mask = bytearray(8 * (max(nodes, default=0) // 64 + 1))
    for node in nodes:
        mask[node // 8] |= 1 << node % 8
    # The kernel reads one bit less than it is told of.
    syscall(NUMBERS["set_mempolicy"], mode, address(mask) if nodes else None, len(mask) * 8 + 1 if nodes else 0)
