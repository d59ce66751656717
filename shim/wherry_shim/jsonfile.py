"""
A container's output by the driver "json-file", byte for byte as Docker writes it, for those who read Docker's files.

Each line is one object, `{"log":"…\\n","stream":"stdout","time":"…"}`; a line of more than 16 KiB is several, of which
only the last one ends with the newline. `ID-json.log` grows; `.1` is the one before it, and so on.
"""

import os
from time import gmtime, strftime

from wherry_shim.outputlines import LineSplitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_REPLAY_LIMIT = 1 << 20
_NANO = 1_000_000_000
_NAMES = {1: "stdout", 2: "stderr"}
# Go's escapes, which are safe in HTML, too; and its replacement for each byte that is no UTF-8 (here a lone surrogate)
_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), 0x26, 0x3C, 0x3E, 0x2028, 0x2029)},
    **dict.fromkeys(range(0xDC80, 0xDD00), "\\ufffd"),
    0x0A: "\\n",
    0x0D: "\\r",
    0x22: '\\"',
    0x5C: "\\\\",
}


def object_line(stream: int, text: bytes, time_ns: int) -> bytes:
    """One line of the file."""
    escaped = text.decode("utf-8", "surrogateescape").translate(_ESCAPES)
    return f'{{"log":"{escaped}","stream":"{_NAMES[stream]}","time":"{_time(time_ns)}"}}\n'.encode()


def _time(time_ns: int) -> str:
    """Go's RFC3339Nano: no zeros at the end of the fraction, and no fraction of nothing."""
    seconds, rest = divmod(time_ns, _NANO)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}{fraction}Z"


class JsonFileWriter:
    """Appends to the file *path*; owned by the shim alone. *max_size* -1 is no limit."""

    def __init__(self, path: str, *, max_size: int = -1, max_files: int = 1) -> None:
        self._path, self._max_size, self._max_files = path, max_size, max_files
        self.lost = 0  # bytes that the disk did not take
        self._open()
        self._splitter = LineSplitter()
        self._written: list[tuple[int, int, bytes]] = []  # of this run, the last MiB
        self._kept = 0

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._file).st_size

    def append(self, stream: int, piece: bytes, time_ns: int) -> None:
        """Write the lines that *piece* completes; when the disk is full it is counted in `lost`."""
        self._keep(time_ns, stream, piece)
        objects = bytearray()
        for line in self._splitter.feed(stream, piece, time_ns):
            objects += object_line(line.stream, line.text, line.time_ns)
        self._write(objects, len(piece))

    def _keep(self, time_ns: int, stream: int, piece: bytes) -> None:
        self._written.append((time_ns, stream, piece))
        self._kept += len(piece)
        while self._kept > _REPLAY_LIMIT:
            self._kept -= len(self._written.pop(0)[2])

    def _write(self, objects: "bytearray | bytes", costs: int) -> None:
        if not objects:
            return
        try:
            if 0 < self._max_size <= self._size + len(objects) and self._size:
                self._rotate()
            written = os.write(self._file, objects)
            if written != len(objects):  # the disk is full: half an object is none
                os.ftruncate(self._file, self._size)
                self.lost += costs
                return
            self._size += written
        except OSError:
            self.lost += costs

    def _rotate(self) -> None:
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            try:
                os.rename(older, f"{self._path}.{number}")
            except FileNotFoundError:
                continue
        if self._max_files == 1:
            os.unlink(self._path)
        os.close(self._file)
        self._open()

    def begin_run(self) -> None:
        """What is appended from here on is another run's."""
        self._flush()
        self._written.clear()
        self._kept = 0

    def _flush(self) -> None:
        """What ended without a newline."""
        for line in self._splitter.rest():
            self._write(object_line(line.stream, line.text, line.time_ns), len(line.text))

    def replay(self) -> "Iterator[tuple[int, int, bytes]]":
        """The pieces (time, stream, content) of this run; of more than a MiB, the last ones."""
        return iter(list(self._written))

    def close(self) -> None:
        self._flush()
        os.close(self._file)
