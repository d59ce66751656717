"""Terminals: a pair out of a devpts mount that is known by descriptor, and ioctl_tty(2)."""

import os
from fcntl import ioctl

_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_terminal(devpts: int) -> tuple[int, int, int]:
    """
    A new terminal of the devpts mount *devpts*: master, slave, and its number there.

    The slave comes from the master itself, by no path, so that nobody can put another file in between
    (CVE-2025-52565). Raises OSError.
    """
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts)
    ioctl(master, _TIOCSPTLCK, bytes(4))
    number = int.from_bytes(ioctl(master, _TIOCGPTN, bytes(4)), "little")
    slave = ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave, number


def set_window_size(terminal: int, rows: int, columns: int) -> None:
    """Raises OSError."""
    ioctl(terminal, _TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4))


def set_controlling_terminal(terminal: int) -> None:
    """Make it the session's; the caller leads a session that has none. Raises OSError."""
    ioctl(terminal, _TIOCSCTTY, 0)
