"""The user's terminal or pipe, joined to a process in a container through its shim."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from wherry.cli.foreground import signals_go_to, write
from wherry.client import Client
from wherry_oci.runtime import quickjson
from wherry_shim.client import Conversation, ShimGone
from wherry_shim.connection import CONTROL

_PIECE = 1 << 16
_DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q
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


def join(conversation: Conversation, *, terminal: bool, stdin: bool) -> int:
    """Carry both directions until the process ends. Returns its exit code; raises Detached."""
    sys.stdout.flush()
    with raw_terminal(terminal and stdin), _window_size(conversation, terminal):
        return _carry(conversation, stdin, detachable=terminal and stdin)


def attend(client: Client, container_id: str, conversation: Conversation, *, terminal: bool, stdin: bool) -> int:
    """Carry a container's own streams until it is down. Returns its exit code; 0 when the user detaches."""
    try:
        with signals_go_to(client, container_id):
            code = join(conversation, terminal=terminal, stdin=stdin)
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


def _carry(conversation: Conversation, stdin: bool, detachable: bool) -> int:
    waiting = select.poll()
    waiting.register(conversation.fileno(), select.POLLIN)
    if stdin:
        waiting.register(_STDIN, select.POLLIN)
    keys = _Keys()
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
                else:
                    conversation.write_input(keys.pass_on(typed) if detachable else typed)
            except ShimGone:  # it has ended; what it still wrote, and how it ended, is on its way
                continue


class _Keys:
    """Finds the detach keys; the first of them is held back until it is clear that the second does not follow."""

    def __init__(self) -> None:
        self._held = False

    def pass_on(self, typed: bytes) -> bytes:
        out = bytearray()
        for value in typed:
            if self._held:
                self._held = False
                if value == _DETACH_KEYS[1]:
                    raise Detached
                out.append(_DETACH_KEYS[0])
            if value == _DETACH_KEYS[0]:
                self._held = True
            else:
                out.append(value)
        return bytes(out)
