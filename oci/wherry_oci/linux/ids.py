"""Which users this process can act for: all of the host's, those that its user namespace maps, or itself alone."""

import os

_FIRST = "user:[4026531837]"  # PROC_USER_INIT_INO: the host's own, in every kernel


def in_first_namespace() -> bool:
    """Whether this process is in the host's own user namespace, not in one that somebody has made."""
    return os.readlink("/proc/self/ns/user") == _FIRST


def mapped() -> int:
    """How many users the user namespace of this process has (user_namespaces(7), "uid_map")."""
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        return sum(int(line.split()[2]) for line in lines)


def may_chown() -> bool:
    """Whether files can be given to others: to root, where there are any others."""
    return os.geteuid() == 0 and (in_first_namespace() or mapped() > 1)


def is_host_root() -> bool:
    """Whether this process is root where the kernel means the host's by it: it may make devices, and set trusted.*."""
    return os.geteuid() == 0 and in_first_namespace()
