"""A bounded pipe of pieces between the thread that fetches a layer and the one that unpacks it."""

import threading
from collections import deque
from collections.abc import Iterator


class Closed(Exception):
    """The reader has no use for more."""


class Pipe:
    """At most *room* pieces lie in it; both ends may be closed from either side at any time."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._changed = threading.Condition()  # guards all below
        self._pieces: deque[bytes] = deque()
        self._ended = self._closed = False
        self._failure: BaseException | None = None

    def put(self, piece: bytes) -> None:
        """Raises Closed once the reader is gone."""
        with self._changed:
            while len(self._pieces) >= self._room and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Closed
            self._pieces.append(piece)
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """Say that no more comes; *failure* is raised at the reader's end, at once."""
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def close(self) -> None:
        """The reader goes away."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._pieces and not self._ended:
                    self._changed.wait()
                if self._failure is not None:
                    raise self._failure
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
                self._changed.notify_all()
            yield piece
