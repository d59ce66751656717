"""Reading a container's log (wherry_shim.logs, wherry_shim.jsonfile) over its files, while it is written or after."""

import os
from collections.abc import Iterator
from pathlib import Path
from select import POLLIN, POLLRDHUP, poll
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import attrs

from wherry_oci.errors import Unsupported
from wherry_shim.client import Conversation, ShimGone
from wherry_shim.logs import COMPRESSED, RECORD, data_name, index_name, segments

if TYPE_CHECKING:
    from wherry.containerstore import Record

_RECORDS_AT_ONCE = 4096


@attrs.frozen
class Piece:
    """What came at once: `time` in nanoseconds since 1970, `stream` 1 or 2."""

    time: int
    stream: int
    content: bytes


class Reader(Protocol):
    """
    The pieces of one log, in order, each once. The files stay open, so a removed container's can be read to the end.

    A context manager.
    """

    def __enter__(self) -> "Reader": ...
    def __exit__(self, *exc: object) -> None: ...

    def pieces(self) -> Iterator[Piece]:
        """All that is there and was not given yet."""
        ...

    def skip_all(self) -> None:
        """Go to the end of what is there."""
        ...

    def skip_to_tail(self, lines: int, streams: frozenset[int]) -> None:
        """Go to the piece in which the last *lines* lines of *streams* begin; it may begin with lines before those."""
        ...


def open_log(directory: Path, record: "Record") -> Reader:
    """The log of the container in *directory*. Raises Unsupported when its driver keeps none, FileNotFoundError."""
    driver = record.settings["log"]["driver"]
    if driver == "none":
        raise Unsupported(f"container {record.name} keeps no log (log driver none): attach to it instead")
    if driver in ("syslog", "journald"):
        raise Unsupported(f"configured logging driver does not support reading: {record.name}'s log went to {driver}")
    if driver == "json-file":
        from wherry.jsonfilereader import JsonFileReader

        return JsonFileReader(directory / f"{record.id}-json.log")
    return LogReader(directory / "log")


class _Segment:
    """One file of data with its index, which stay open."""

    def __init__(self, directory: Path, number: int) -> None:
        """Raises FileNotFoundError when it has been rotated away."""
        self.number = number
        self._index = os.open(directory / index_name(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._data = self._open_data(directory / data_name(number))
        except BaseException:
            os.close(self._index)
            raise

    def _open_data(self, path: Path) -> BinaryIO:
        compressed = path.with_name(path.name + COMPRESSED)
        try:
            return path.open("rb", buffering=0)
        except FileNotFoundError:  # it is compressed, or just becomes so
            import gzip

            return cast("BinaryIO", gzip.open(compressed))

    def close(self) -> None:
        os.close(self._index)
        self._data.close()

    @property
    def count(self) -> int:
        """How many pieces there are now."""
        return os.fstat(self._index).st_size // RECORD.size

    def pieces(self, first: int) -> Iterator[Piece]:
        """From the number *first* on, all that are there."""
        while True:
            found = os.pread(self._index, _RECORDS_AT_ONCE * RECORD.size, first * RECORD.size)
            whole = len(found) // RECORD.size
            if not whole:
                return
            for at in range(whole):
                time, offset, length, stream = RECORD.unpack_from(found, at * RECORD.size)
                yield Piece(time, stream, self._read(offset, length))
            first += whole

    def _read(self, offset: int, length: int) -> bytes:
        self._data.seek(offset)
        parts = []
        while length > 0 and (part := self._data.read(length)):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def tail(self, wanted: int, streams: frozenset[int]) -> tuple[int, int]:
        """From which piece on there are *wanted* newlines, and how many of them are not in this segment at all."""
        found = [piece.content.count(b"\n") if piece.stream in streams else 0 for piece in self.pieces(0)]
        at = len(found)
        while at > 0 and wanted > 0:
            at -= 1
            wanted -= found[at]
        return at, max(wanted, 0)


class LogReader:
    """The driver "local"'s log (see `Reader`). Raises FileNotFoundError where there is none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment = self._open_from(0)
        self._next = 0  # piece of it

    def _open_from(self, number: int) -> _Segment:
        """The first one that is there of those from *number* on; the oldest may go at any moment."""
        while True:
            there = [one for one in segments(str(self._directory)) if one >= number]
            if not there:
                raise FileNotFoundError(self._directory)
            try:
                return _Segment(self._directory, there[0])
            except FileNotFoundError:
                continue

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Once."""
        self._segment.close()

    def pieces(self) -> Iterator[Piece]:
        """All that is there and was not given yet."""
        while True:
            later = self._has_later()  # looked at first: then this one will not grow any more
            for piece in self._segment.pieces(self._next):
                self._next += 1
                yield piece
            if not later or not self._go_on():
                return

    def _has_later(self) -> bool:
        try:
            return any(number > self._segment.number for number in segments(str(self._directory)))
        except FileNotFoundError:  # the container has been removed: what is open is all there is
            return False

    def _go_on(self) -> bool:
        try:
            following = self._open_from(self._segment.number + 1)
        except FileNotFoundError:
            return False
        self._segment.close()
        self._segment, self._next = following, 0
        return True

    def skip_all(self) -> None:
        """Go to the end of what is there."""
        self._go_to(segments(str(self._directory))[-1])
        self._next = self._segment.count

    def _go_to(self, number: int) -> None:
        if number != self._segment.number:
            following = self._open_from(number)
            self._segment.close()
            self._segment = following

    def skip_to_tail(self, lines: int, streams: frozenset[int]) -> None:
        """Go to the piece in which the last *lines* lines of *streams* begin; it may begin with lines before those."""
        wanted = lines + 1  # the newline before the first wanted line
        for number in reversed(segments(str(self._directory))):
            try:
                self._go_to(number)
            except FileNotFoundError:
                return
            self._next, wanted = self._segment.tail(wanted, streams)
            if not wanted:
                return


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


def follow(reader: Reader, run_directory: Path, client: int | None = None) -> Iterator[Piece]:
    """
    All pieces, those to come included, until the container's end; or until whoever holds the other end of the socket
    *client* hangs up.
    """
    yield from reader.pieces()
    try:
        with Conversation(str(run_directory), "follow") as conversation:
            conversation.answer()
            while True:
                yield from reader.pieces()
                if not conversation.has_line and _has_hung_up(client, conversation):
                    return
                if conversation.line() in (None, b"end"):
                    break
    except ShimGone:
        pass
    yield from reader.pieces()


def _has_hung_up(client: int | None, conversation: Conversation) -> bool:
    """Waits for the shim, and tells whether *client* went before it spoke."""
    if client is None:
        return False
    waiting = poll()
    waiting.register(client, POLLRDHUP)
    waiting.register(conversation.fileno(), POLLIN)
    return client in dict(waiting.poll())


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


def last(reader: Reader, count: int, streams: frozenset[int]) -> Iterator[Line]:
    """The last *count* lines of *streams* that are there; what is written meanwhile is left in *reader*."""
    from collections import deque

    reader.skip_to_tail(count, streams)
    kept: deque[Line] = deque(maxlen=count)
    kept.extend(lines(reader.pieces(), streams=streams))
    yield from kept
