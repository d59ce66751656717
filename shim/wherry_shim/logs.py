"""
A container's output on disk: the bytes as they came, and beside them an index that says when, whence and how many.

`data` holds the bytes of both streams in the order of their arrival; `index` holds one record of 24 bytes for each
piece: time (u64, nanoseconds since 1970), offset into `data` (u64), length (u32), stream (u8, 1 or 2), three zeros,
little-endian. A piece is what one read(2) gave, not a line: lines are the reader's to find. Data is written before its
record, so what has a record is whole, whoever is killed when.
"""

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT, STDERR = 1, 2
RECORD = Struct("<QQIBxxx")
DATA = "data"
INDEX = "index"
_REPLAY_LIMIT = 1 << 20


class LogWriter:
    """Appends to the log in a directory; owned by the shim alone."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._data = os.open(f"{directory}/{DATA}", flags, 0o600)
        self._index = os.open(f"{directory}/{INDEX}", flags, 0o600)
        self.lost = 0  # bytes that the disk did not take
        self._records = os.fstat(self._index).st_size // RECORD.size
        self._first = self._records  # of this run
        self._offset = self._end_of_last_record(directory)
        self._directory = directory

    def _end_of_last_record(self, directory: str) -> int:
        """Where the next piece goes: what lies beyond is of a writer that was killed before it wrote the record."""
        if self._records == 0:
            return 0
        fd = os.open(f"{directory}/{INDEX}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _, offset, length, _ = RECORD.unpack(os.pread(fd, RECORD.size, (self._records - 1) * RECORD.size))
        finally:
            os.close(fd)
        end: int = offset + length
        return end

    def append(self, stream: int, piece: bytes, time_ns: int) -> None:
        """Write *piece*; when the disk is full it is counted in `lost`, and the container goes on."""
        try:
            self._write(self._data, piece, self._offset)
            self._write(
                self._index, RECORD.pack(time_ns, self._offset, len(piece), stream), self._records * RECORD.size
            )
        except OSError:
            self.lost += len(piece)
            return
        self._offset += len(piece)
        self._records += 1

    def begin_run(self) -> None:
        """What is appended from here on is another run's."""
        self._first = self._records

    def replay(self) -> "Iterator[tuple[int, bytes]]":
        """The pieces (stream, content) of this run; of more than a MiB, the last ones."""
        with open(f"{self._directory}/{INDEX}", "rb") as index, open(f"{self._directory}/{DATA}", "rb") as data:
            index.seek(self._first * RECORD.size)
            for _, offset, length, stream in RECORD.iter_unpack(index.read()):
                if offset + length > self._offset - _REPLAY_LIMIT:
                    data.seek(offset)
                    yield stream, data.read(length)

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


class NoLog:
    """The driver "none"."""

    lost = 0

    def append(self, stream: int, piece: bytes, time_ns: int) -> None:
        """Nothing is kept."""

    def begin_run(self) -> None:
        """Nothing is kept of any run."""

    def replay(self) -> "Iterator[tuple[int, bytes]]":
        """Nothing was kept."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""
