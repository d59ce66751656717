"""A person at a terminal, and a process at another: what one writes the other reads."""

import os
import select
import termios
from _signal import SIGWINCH, set_wakeup_fd, signal  # type: ignore[import-not-found]
from fcntl import ioctl

_SIZE_BYTES = 8  # struct winsize
_PIECE = 1 << 16


class Relay:
    """It takes the master of the process's terminal, and `run` stays until that is closed on the other side."""

    def __init__(self) -> None:
        self._master = -1

    def take(self, master: int) -> None:
        """The master is this relay's from here on."""
        self._master = master
        self._resize()

    def _resize(self) -> None:
        try:
            ioctl(self._master, termios.TIOCSWINSZ, ioctl(0, termios.TIOCGWINSZ, bytes(_SIZE_BYTES)))
        except OSError:  # standard input is no terminal
            return

    def run(self, pid: int) -> None:
        """Copy both ways until process *pid* and all others that have the terminal have let it go."""
        saved = _make_raw(0)
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal(SIGWINCH, lambda *_: self._resize())
        try:
            self._copy(reader)
        finally:
            set_wakeup_fd(-1)
            for fd in (reader, writer, self._master):
                os.close(fd)
            if saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def _copy(self, wakeup: int) -> None:
        poll = select.poll()
        for fd in (0, self._master, wakeup):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                piece = _read(fd)
                if fd == self._master:
                    if not piece:
                        return
                    _write(1, piece)
                elif fd == 0:
                    if piece:
                        _write(self._master, piece)
                    else:
                        poll.unregister(0)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _PIECE)
    except OSError:  # EIO: the other side of a terminal is closed
        return b""


def _write(fd: int, piece: bytes) -> None:
    while piece:
        try:
            piece = piece[os.write(fd, piece) :]
        except OSError:
            return


def _make_raw(fd: int) -> "list[int | list[bytes | int]] | None":
    """Let every key through; what was set before, or None when it is no terminal."""
    try:
        saved = termios.tcgetattr(fd)
        mode = termios.tcgetattr(fd)
    except termios.error:
        return None
    mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    mode[0] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    return saved
