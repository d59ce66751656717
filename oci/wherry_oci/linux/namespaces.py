"""Namespaces: unshare(2), setns(2) and the clone(2) that makes a container's first process."""

import os

from wherry_oci.linux._libc import syscall, syscall_under_gil
from wherry_oci.linux.numbers import NUMBERS

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_SIGCHLD = 17

# runtime-spec config-linux.md "Namespaces": its names for them
BY_NAME = {
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "mount": CLONE_NEWNS,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}

# and /proc/PID/ns's
PROC_NAMES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}


def unshare(flags: int) -> None:
    """unshare(2): for the calling thread only, but CLONE_NEWUSER needs a process of one thread. Raises OSError."""
    syscall(NUMBERS["unshare"], flags)


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2). Raises OSError."""
    syscall(NUMBERS["setns"], fd, nstype)


def clone(flags: int) -> int:
    """
    fork(2) whose child begins in new namespaces: the child's pid, and 0 in the child.

    Python's own after-fork work is left out (it is for threads, and the caller has none): the child may use what is
    already loaded, and must end in execve or `os._exit`. Raises OSError.
    """
    return syscall_under_gil(NUMBERS["clone"], flags | _SIGCHLD)


def open_namespace(pid: "int | str", name: str) -> int:
    """A descriptor of *pid*'s namespace; *name* is the specification's. Raises OSError."""
    return os.open(f"/proc/{pid}/ns/{PROC_NAMES[name]}", os.O_RDONLY | os.O_CLOEXEC)
