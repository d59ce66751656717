"""A container in the foreground of a terminal or a pipe."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wherry import logreader
from wherry.container import Container
from wherry.errors import WherryError
from wherry.logreader import Reader

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def write(stream: int, content: bytes) -> None:
    """To our own stdout (1) or stderr (2), at once."""
    view = memoryview(content)
    while view:
        view = view[os.write(stream, view) :]


@contextmanager
def signals_go_to(container: Container) -> Iterator[None]:
    """What would end us goes to the container instead, as docker does; it ends, and so do we."""

    def forward(number: int, frame: FrameType | None) -> None:
        try:
            container.kill(number)
        except WherryError:  # it has ended meanwhile
            pass

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_to_the_end(container: Container, reader: Reader) -> int:
    """
    Show what it writes, by its log on disk: however slow we are, it does not wait and nothing is lost.

    Returns its exit code, once everything of it is down.
    """
    sys.stdout.flush()
    with signals_go_to(container), container._ending() as ended:
        for piece in logreader.follow(reader, container._engine.store.run_directory(container.id)):
            write(piece.stream, piece.content)
        code = ended()
    assert code is not None
    return code
