"""System-call numbers (asm/unistd.h), for what `os` does not offer."""

import os

# name: (x86_64, the generic table that aarch64 uses)
_TABLE = {
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "fchmodat2": (452, 452),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fstatfs": (138, 44),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "quotactl": (179, 60),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "setns": (308, 268),
    "statx": (332, 291),
    "syncfs": (306, 267),
    "umount2": (166, 39),
    "unshare": (272, 97),
}

_MACHINES = {"x86_64": 0, "aarch64": 1}


def _column() -> int:
    machine = os.uname().machine
    try:
        return _MACHINES[machine]
    except KeyError:
        raise ImportError(f"wherry runs on x86_64 and aarch64, this machine is {machine}") from None


NUMBERS = {name: row[_column()] for name, row in _TABLE.items()}
