"""The user's terminal or pipe, joined to a process in a container through its shim."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from wherry.cli.foreground import signals_go_to, write
from wherry.client import Client
from wherry.detachkeys import DetachKeys
from wherry_oci.runtime import quickjson
from wherry_shim.client import Conversation, ShimGone
from wherry_shim.connection import CONTROL

_PIECE = 1 << 16
_LOST_EXIT_CODE = 137
_STDIN = 0


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


def join(conversation: Conversation, *, terminal: bool, stdin: bool, keys: DetachKeys) -> int:
    """Carry both directions until the process ends. Returns its exit code; raises Detached when *keys* are typed."""
    sys.stdout.flush()
    with raw_terminal(terminal and stdin), _window_size(conversation, terminal):
        return _carry(conversation, stdin, keys if terminal and stdin else None)


def attend(
    client: Client,
    container_id: str,
    conversation: Conversation,
    *,
    terminal: bool,
    stdin: bool,
    keys: DetachKeys,
    signals: bool = True,
) -> int:
    """
    Carry a container's own streams until it is down. Returns its exit code; 0 when the user detaches.

    With *signals* it gets those that are for us.
    """
    try:
        with signals_go_to(client, container_id) if signals else nullcontext():
            code = join(conversation, terminal=terminal, stdin=stdin, keys=keys)
    except Detached:
        return 0
    ended = client._engine.wait(container_id, gone=True)
    return ended.exit_code if ended is not None else code


@contextmanager
def _window_size(conversation: Conversation, terminal: bool) -> Iterator[None]:
    """The container's terminal has the size of ours, and changes with it."""
    if not terminal or not os.isatty(1):
        yield
        return

    def resize(*_: object) -> None:
        size = os.get_terminal_size(1)
        try:
            conversation.control(rows=size.lines, columns=size.columns)
        except ShimGone:
            pass

    before = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _carry(conversation: Conversation, stdin: bool, keys: DetachKeys | None) -> int:
    waiting = select.poll()
    waiting.register(conversation.fileno(), select.POLLIN)
    if stdin:
        waiting.register(_STDIN, select.POLLIN)
    while True:
        ready = [conversation.fileno()] if conversation.pending else [fd for fd, _ in waiting.poll()]
        if conversation.fileno() in ready:
            frame = conversation.frame()
            if frame is None:
                return _LOST_EXIT_CODE
            if frame[0] == CONTROL:
                return int(quickjson.loads(frame[1])["exit_code"])
            write(*frame)
        if _STDIN in ready:
            typed = os.read(_STDIN, _PIECE)
            if not typed:
                waiting.unregister(_STDIN)
            try:
                if not typed:
                    conversation.end_input()
                elif _pass_on(conversation, typed, keys):
                    raise Detached
            except ShimGone:  # it has ended; what it still wrote, and how it ended, is on its way
                continue


def _pass_on(conversation: Conversation, typed: bytes, keys: DetachKeys | None) -> bool:
    """Whether the user leaves."""
    leaves = False
    if keys is not None:
        typed, leaves = keys.pass_on(typed)
    if typed:
        conversation.write_input(typed)
    return leaves
