"""Reading a container's log (wherry_shim.logs), while it is written or after."""

import os
from collections.abc import Iterator
from pathlib import Path

import attrs

from wherry_shim.client import Conversation, ShimGone
from wherry_shim.logs import DATA, INDEX, RECORD

_RECORDS_AT_ONCE = 4096
_PIECE = 1 << 20


@attrs.frozen
class Piece:
    """What came at once: `time` in nanoseconds since 1970, `stream` 1 or 2."""

    time: int
    stream: int
    content: bytes


class LogReader:
    """
    The pieces of one log, in order, each once. The files stay open, so a removed container's can be read to the end.

    A context manager. Raises FileNotFoundError where there is no log.
    """

    def __init__(self, directory: Path) -> None:
        self._data = os.open(directory / DATA, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._index = os.open(directory / INDEX, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(self._data)
            raise
        self._next = 0  # record

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Once."""
        os.close(self._data)
        os.close(self._index)

    def pieces(self) -> Iterator[Piece]:
        """All that is there and was not given yet."""
        while True:
            size = RECORD.size
            found = os.pread(self._index, _RECORDS_AT_ONCE * size, self._next * size)
            whole = len(found) // size
            if not whole:
                return
            for at in range(whole):
                time, offset, length, stream = RECORD.unpack_from(found, at * size)
                self._next += 1
                yield Piece(time, stream, self._read(offset, length))

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        while length > 0 and (part := os.pread(self._data, min(length, _PIECE), offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def skip_all(self) -> None:
        """Go to the end of what is there."""
        self._next = os.fstat(self._index).st_size // RECORD.size

    def skip_to_tail(self, lines: int, streams: frozenset[int]) -> None:
        """Go to the piece in which the last *lines* lines of *streams* begin; it may begin with lines before those."""
        count = os.fstat(self._index).st_size // RECORD.size
        wanted = lines + 1  # the newline before the first wanted line
        at = count
        while at > 0 and wanted > 0:
            at -= 1
            _, offset, length, stream = RECORD.unpack(os.pread(self._index, RECORD.size, at * RECORD.size))
            if stream in streams:
                wanted -= self._read(offset, length).count(b"\n")
        self._next = at


@attrs.frozen
class Line:
    """A line with its newline, if it has one; `time` is when its first byte came."""

    time: int
    stream: int
    content: bytes


class LineAssembler:
    """Lines out of pieces; the streams do not mix within a line."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[int, bytearray]] = {}

    def feed(self, piece: Piece) -> Iterator[Line]:
        """The lines that *piece* completes."""
        for part in _lines(piece.content):
            time, line = self._pending.setdefault(piece.stream, (piece.time, bytearray()))
            line += part
            if part.endswith(b"\n"):
                del self._pending[piece.stream]
                yield Line(time, piece.stream, bytes(line))

    def rest(self) -> Iterator[Line]:
        """What ended without a newline."""
        for stream, (time, line) in sorted(self._pending.items()):
            yield Line(time, stream, bytes(line))
        self._pending.clear()


def _lines(content: bytes) -> list[bytes]:
    """Split after newlines alone: a carriage return is part of a line."""
    parts = content.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def follow(reader: LogReader, run_directory: Path) -> Iterator[Piece]:
    """All pieces, those to come included, until the container's end."""
    yield from reader.pieces()
    try:
        with Conversation(str(run_directory), "follow") as conversation:
            conversation.answer()
            while True:
                yield from reader.pieces()
                if conversation.line() in (None, b"end"):
                    break
    except ShimGone:
        pass
    yield from reader.pieces()


def lines(
    pieces: Iterator[Piece], *, streams: frozenset[int], since: int = 0, until: int | None = None
) -> Iterator[Line]:
    """The lines of *streams* that began at or after *since* and not after *until*, both in nanoseconds since 1970."""
    assembler = LineAssembler()
    for piece in pieces:
        if until is not None and piece.time > until:
            break
        if piece.stream in streams:
            for line in assembler.feed(piece):
                if line.time >= since:
                    yield line
    for line in assembler.rest():
        if line.time >= since:
            yield line


def last(reader: LogReader, count: int, streams: frozenset[int]) -> Iterator[Line]:
    """The last *count* lines of *streams* that are there; what is written meanwhile is left in *reader*."""
    from collections import deque

    reader.skip_to_tail(count, streams)
    kept: deque[Line] = deque(maxlen=count)
    kept.extend(lines(reader.pieces(), streams=streams))
    yield from kept
