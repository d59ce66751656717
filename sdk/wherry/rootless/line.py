"""
The line between an engine outside and its worker inside: Python's values, whole, with descriptors beside them.

Both ends are one user's own processes, and nobody else's: so values go as pickles. What cannot go (a callable, or
something to read from) stays where it is and goes as a `Reference`; the other end calls it over the same line, while
this one waits for its answer.
"""

import io
import pickle
import select
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

import attrs

_HEADER = struct.Struct("<QI")  # bytes, descriptors
_PIECE = 1 << 20
_DESCRIPTORS = 8

# Kinds of messages: (kind, value)
CALL = "call"  # Request
BEGUN = "begun"  # the request has come: whoever loses the other end after this does not know what was done
VALUE = "value"  # what it returned; ends it
ERROR = "error"  # what it raised; ends it
ITEM = "item"  # of an iterator, one of many
END = "end"  # of an iterator: what it returned; ends it
ASK = "ask"  # the one who is called asks the caller: (reference's number, arguments)


class Closed(Exception):
    """The other end is gone."""


@attrs.frozen
class Request:
    """A call: *function* is called with the engine before *arguments*; *outside* in the host's network."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    outside: bool = False


@attrs.frozen
class Reference:
    """A callable of the other end's, by number."""

    number: int


@attrs.frozen
class Descriptor:
    """An open descriptor, which the receiver closes; on its way, its place among those beside the message."""

    number: int


class Line:
    """One end. Used by one thread at a time; ended by `close`."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def close(self) -> None:
        """Safe to repeat."""
        self._end.close()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come, nor the end."""
        try:
            waiting = select.poll()
            waiting.register(self._end, select.POLLIN)
            return not waiting.poll(0)
        except ValueError:  # closed
            return False

    def has_message(self, within_s: float) -> bool:
        """Whether something comes, or the end, within that time."""
        waiting = select.poll()
        waiting.register(self._end, select.POLLIN)
        return bool(waiting.poll(within_s * 1000))

    def wait_for_end(self) -> None:
        """Return when the other end is closed, whatever comes before; beside another thread that uses the line."""
        waiting = select.poll()
        waiting.register(self._end, select.POLLRDHUP)
        waiting.poll()

    def send(self, kind: str, value: object) -> None:
        """Raises Closed, or what pickle raises for what cannot go."""
        content = io.BytesIO()
        pickler = _Pickler(content)
        pickler.dump((kind, value))
        data = content.getvalue()
        try:
            socket.send_fds(self._end, [_HEADER.pack(len(data), len(pickler.descriptors))], pickler.descriptors)
            self._end.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def receive(self) -> tuple[str, Any]:
        """The next message. Raises Closed."""
        try:
            header, descriptors, _, _ = socket.recv_fds(self._end, _HEADER.size, _DESCRIPTORS)
            if len(header) < _HEADER.size:
                header += self._receive(_HEADER.size - len(header))
            size, _ = _HEADER.unpack(header)
            data = self._receive(size)
        except ConnectionResetError:
            raise Closed from None
        kind, value = _Unpickler(io.BytesIO(data), descriptors).load()
        return kind, value

    def _receive(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            piece = self._end.recv(min(_PIECE, size - len(parts)))
            if not piece:
                raise Closed
            parts += piece
        return bytes(parts)


class _Pickler(pickle.Pickler):
    """An error goes as its class and attributes, whatever its constructor takes, and without what caused it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.descriptors: list[int] = []

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Descriptor):
            self.descriptors.append(value.number)
            return _Unpickler.descriptor, (len(self.descriptors) - 1,)
        if isinstance(value, BaseException) and not isinstance(value, OSError):
            return _error, (type(value), value.args, vars(value))
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, descriptors: list[int]) -> None:
        super().__init__(file)
        self._descriptors = descriptors

    @staticmethod
    def descriptor(place: int) -> int:
        """Stands for a descriptor in a pickle; `find_class` puts this message's in its place."""
        raise NotImplementedError(place)

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == "_Unpickler.descriptor":
            return self._descriptors.__getitem__
        return super().find_class(module, name)


def _error(kind: type[BaseException], arguments: tuple[Any, ...], facts: Mapping[str, Any]) -> BaseException:
    made = kind.__new__(kind)
    made.args = arguments
    made.__dict__.update(facts)
    return made
