"""The user's terminal or pipe, joined to a process in a container."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from wherry.cli.foreground import signals_go_to, write
from wherry.container import Container
from wherry.detachkeys import DetachKeys
from wherry.errors import WherryError
from wherry.execution import Process
from wherry_shim.client import ShimGone

_PIECE = 1 << 16
_STDIN = 0
_NUMBERS = {"stdout": 1, "stderr": 2}


class Detached(Exception):
    """The user typed the detach keys."""


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the container as they are typed."""
    if not wanted or not os.isatty(_STDIN):
        yield
        return
    before = termios.tcgetattr(_STDIN)
    tty.setraw(_STDIN, termios.TCSADRAIN)  # the default would throw away what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)


def join(process: Process, *, terminal: bool, stdin: bool, keys: DetachKeys) -> int:
    """Carry both directions until *process* ends. Returns its exit code; raises Detached when *keys* are typed."""
    sys.stdout.flush()
    process._begin()
    with raw_terminal(terminal and stdin), _window_size(process, terminal):
        return _carry(process, stdin, keys if terminal and stdin else None)


def attend(
    container: Container,
    process: Process,
    ended: Callable[[], int | None],
    *,
    terminal: bool,
    stdin: bool,
    keys: DetachKeys,
    signals: bool = True,
) -> int:
    """
    Carry a container's own streams, *process*, until it is down. Returns its exit code; 0 when the user detaches.

    With *signals* it gets those that are for us. *ended* is what `Container._ending` gives.
    """
    try:
        with signals_go_to(container) if signals else nullcontext():
            code = join(process, terminal=terminal, stdin=stdin, keys=keys)
    except Detached:
        return 0
    known = ended()
    return code if known is None else known


@contextmanager
def _window_size(process: Process, terminal: bool) -> Iterator[None]:
    """The container's terminal has the size of ours, and changes with it."""
    if not terminal or not os.isatty(1):
        yield
        return

    def resize(*_: object) -> None:
        size = os.get_terminal_size(1)
        try:
            process.resize(size.lines, size.columns)
        except (ShimGone, WherryError):  # it has ended
            pass

    before = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _carry(process: Process, stdin: bool, keys: DetachKeys | None) -> int:
    waiting = select.poll()
    waiting.register(process.fileno(), select.POLLIN)
    if stdin:
        waiting.register(_STDIN, select.POLLIN)
    while True:
        ready = [process.fileno()] if process.pending else [fd for fd, _ in waiting.poll()]
        if process.fileno() in ready:
            piece = process.read()
            if piece is None:
                assert process.exit_code is not None
                return process.exit_code
            write(_NUMBERS[piece[0]], piece[1])
        if _STDIN in ready:
            typed = os.read(_STDIN, _PIECE)
            if not typed:
                waiting.unregister(_STDIN)
                process.close_stdin()
            elif _pass_on(process, typed, keys):
                raise Detached


def _pass_on(process: Process, typed: bytes, keys: DetachKeys | None) -> bool:
    """Whether the user leaves."""
    leaves = False
    if keys is not None:
        typed, leaves = keys.pass_on(typed)
    if typed:
        try:
            process.write(typed)
        except BrokenPipeError:  # it has ended; what it still wrote, and how it ended, is on its way
            pass
    return leaves
