"""
A container's output on disk by the driver "local": the bytes as they came, and an index of times, streams and lengths.

The log is in segments, numbered from 0; the last one grows. `data.N` holds the bytes of both streams in the order of
their arrival; `index.N` holds one record of 24 bytes for each piece: time (u64, nanoseconds since 1970), offset into
the data (u64), length (u32), stream (u8, 1 or 2), three zeros, little-endian. A piece is what one read(2) gave, not a
line: lines are the reader's to find. Data is written before its record, so what has a record is whole, whoever is
killed when. A segment that is full may become `data.N.gz`, and the oldest go when there are too many.
"""

import os
from struct import Struct

from wherry_shim.connection import STDERR, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Idle = Callable[[Callable[[], bool]], None]

__all__ = ["STDERR", "STDOUT", "LogWriter", "NoLog", "data_name", "index_name", "segments"]

RECORD = Struct("<QQIBxxx")
COMPRESSED = ".gz"
MAX_SIZE, MAX_FILES = 20_000_000, 5  # bytes of a segment with its index, and segments: Docker's 20m and 5
_REPLAY_LIMIT = 1 << 20
_AT_ONCE = 1 << 16  # bytes that are compressed before somebody else gets a turn
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31  # fast; and zlib's way to ask for a gzip header


def data_name(number: int) -> str:
    return f"data.{number}"


def index_name(number: int) -> str:
    return f"index.{number}"


def segments(directory: str) -> list[int]:
    """The numbers of those that are there, the oldest first."""
    names = [name[len("index.") :] for name in os.listdir(directory) if name.startswith("index.")]
    return sorted(int(name) for name in names if name.isdigit())


class LogWriter:
    """
    Appends to the log in a directory; owned by the shim alone.

    *max_size* -1 is no limit. *when_idle* is told what may be done, bit by bit, when there is nothing else to do.
    """

    def __init__(
        self,
        directory: str,
        *,
        max_size: int = MAX_SIZE,
        max_files: int = MAX_FILES,
        compress: bool = True,
        when_idle: "Idle | None" = None,
    ) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        self._directory = directory
        self._max_size, self._max_files = max_size, max_files
        self._when_idle = when_idle if compress else None
        self.lost = 0  # bytes that the disk did not take
        there = segments(directory)
        self._number = there[-1] if there else 0
        self._data, self._index = self._open(self._number)
        self._records = os.fstat(self._index).st_size // RECORD.size
        self._offset = self._end_of_last_record()
        self._first = (self._number, self._records)  # of this run
        for number in there[:-1]:
            self._compress_later(number)

    def _open(self, number: int) -> tuple[int, int]:
        """The index last: with it the segment is there."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        data = os.open(f"{self._directory}/{data_name(number)}", flags, 0o600)
        try:
            return data, os.open(f"{self._directory}/{index_name(number)}", flags, 0o600)
        except BaseException:
            os.close(data)
            raise

    def _end_of_last_record(self) -> int:
        """Where the next piece goes: what lies beyond is of a writer that was killed before it wrote the record."""
        if self._records == 0:
            return 0
        _, offset, length, _ = RECORD.unpack(os.pread(self._index, RECORD.size, (self._records - 1) * RECORD.size))
        end: int = offset + length
        return end

    def append(self, stream: int, piece: bytes, time_ns: int) -> None:
        """Write *piece*; when the disk is full it is counted in `lost`, and the container goes on."""
        try:
            if self._is_full(len(piece)):
                self._rotate()
            self._write(self._data, piece, self._offset)
            self._write(
                self._index, RECORD.pack(time_ns, self._offset, len(piece), stream), self._records * RECORD.size
            )
        except OSError:
            self.lost += len(piece)
            return
        self._offset += len(piece)
        self._records += 1

    def _is_full(self, more: int) -> bool:
        size = self._offset + more + (self._records + 1) * RECORD.size
        return 0 < self._max_size < size and self._records > 0

    def _rotate(self) -> None:
        data, index = self._open(self._number + 1)
        os.close(self._data)
        os.close(self._index)
        self._data, self._index = data, index
        full, self._number = self._number, self._number + 1
        self._offset = self._records = 0
        for number in segments(self._directory)[: -self._max_files]:
            self._remove(number)
        self._compress_later(full)

    def _remove(self, number: int) -> None:
        """The index first: without it the segment is not there."""
        data = data_name(number)
        for name in (index_name(number), data, data + COMPRESSED, f".{data}{COMPRESSED}"):
            try:
                os.unlink(f"{self._directory}/{name}")
            except FileNotFoundError:
                continue

    def _compress_later(self, number: int) -> None:
        if self._when_idle is not None and os.path.exists(f"{self._directory}/{data_name(number)}"):
            self._when_idle(_Compression(self._directory, number).step)

    def begin_run(self) -> None:
        """What is appended from here on is another run's."""
        self._first = (self._number, self._records)

    def replay(self) -> "Iterator[tuple[int, int, bytes]]":
        """
        The pieces (time, stream, content) of this run; of more than a MiB, the last ones.

        What has been compressed meanwhile is left out: that is where the log is, for who wants more.
        """
        number, first = self._first
        if self._number > number + 1:
            number, first = self._number - 1, 0
        found = [*self._read(number, first), *(self._read(number + 1, 0) if self._number > number else ())]
        left = _REPLAY_LIMIT
        for at in range(len(found) - 1, -1, -1):
            left -= len(found[at][2])
            if left < 0:
                del found[: at + 1]
                break
        yield from found

    def _read(self, number: int, first: int) -> "list[tuple[int, int, bytes]]":
        try:
            with (
                open(f"{self._directory}/{index_name(number)}", "rb") as index,
                open(f"{self._directory}/{data_name(number)}", "rb") as data,
            ):
                index.seek(first * RECORD.size)
                whole = index.read()
                records = list(RECORD.iter_unpack(whole[: len(whole) // RECORD.size * RECORD.size]))
                end = records[-1][1] + records[-1][2] if records else 0
                found = []
                for time, offset, length, stream in records:
                    if offset + length > end - _REPLAY_LIMIT:
                        data.seek(offset)
                        found.append((time, stream, data.read(length)))
                return found
        except FileNotFoundError:
            return []

    @staticmethod
    def _write(fd: int, content: bytes, offset: int) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(fd, view, offset)
            offset += written
            view = view[written:]

    def close(self) -> None:
        os.close(self._data)
        os.close(self._index)


class _Compression:
    """Makes `data.N` into `data.N.gz`, a little in each step; a killed one leaves all as it was."""

    def __init__(self, directory: str, number: int) -> None:
        self._directory, self._number = directory, number
        self._source = self._target = -1

    def step(self) -> bool:
        """Whether there is more to do. A full disk ends it: the segment stays as it is."""
        data = f"{self._directory}/{data_name(self._number)}"
        new = f"{self._directory}/.{data_name(self._number)}{COMPRESSED}"
        try:
            if self._source < 0:
                self._begin(data, new)
            piece = os.read(self._source, _AT_ONCE)
            packed = self._packer.compress(piece) if piece else self._packer.flush()
            while packed:
                packed = packed[os.write(self._target, packed) :]
            if piece:
                return True
            if os.path.exists(f"{self._directory}/{index_name(self._number)}"):
                os.rename(new, data + COMPRESSED)
                os.unlink(data)
            else:  # it has been rotated away meanwhile
                os.unlink(new)
        except OSError:
            pass
        self._end()
        return False

    def _begin(self, data: str, new: str) -> None:
        import zlib

        self._source = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        self._target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def _end(self) -> None:
        for fd in (self._source, self._target):
            if fd >= 0:
                os.close(fd)


def keep_tail(directory: str, pieces: "Iterator[tuple[int, int, bytes]]", limit: int) -> None:
    """Put the last of *pieces* (time, stream, content), *limit* bytes of them, into a log of its own in *directory*."""
    tail, size = [], 0
    for time, stream, content in reversed(list(pieces)):
        tail.append((time, stream, content[max(0, len(content) + size - limit) :]))
        size += len(content)
        if size >= limit:
            break
    log = LogWriter(directory, max_size=-1)
    for time, stream, content in reversed(tail):
        log.append(stream, content, time)
    log.close()


class NoLog:
    """The driver "none"."""

    lost = 0

    def append(self, stream: int, piece: bytes, time_ns: int) -> None:
        """Nothing is kept."""

    def begin_run(self) -> None:
        """Nothing is kept of any run."""

    def replay(self) -> "Iterator[tuple[int, int, bytes]]":
        """Nothing was kept."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""
