"""Reading the log of the driver "json-file" (wherry_shim.jsonfile), over its rotated files."""

import json
import os
from calendar import timegm
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import strptime
from typing import Any

from wherry.logreader import Piece

_READ_SIZE = 1 << 20
_NANO = 1_000_000_000
_STREAMS = {"stdout": 1, "stderr": 2}


class JsonFileReader:
    """See `wherry.logreader.Reader`. Raises FileNotFoundError where there is no log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        older = sorted(path.parent.glob(f"{path.name}.*"), key=lambda one: -int(one.suffix[1:]))
        self._files = deque(_open(one) for one in (*older, path))  # the one that is read, then those after it
        self._rest = b""

    def __enter__(self) -> "JsonFileReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Once."""
        for file in self._files:
            os.close(file)

    def pieces(self) -> Iterator[Piece]:
        """All that is there and was not given yet."""
        while True:
            following = len(self._files) > 1 or self._open_later()  # looked at first: then this one does not grow
            while found := os.read(self._files[0], _READ_SIZE):
                *lines, self._rest = (self._rest + found).split(b"\n")
                for line in lines:
                    yield _piece(json.loads(line))
            if not following:
                return
            os.close(self._files.popleft())

    def _open_later(self) -> bool:
        """The files that came after the one that is open, when that one has been renamed."""
        here = os.fstat(self._files[0]).st_ino
        later: list[Path] = []
        for path in (self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, 1000))):
            try:
                if path.stat().st_ino == here:
                    break
            except FileNotFoundError:
                break
            later.append(path)
        self._files.extend(_open(path) for path in reversed(later))
        return len(self._files) > 1

    def skip_all(self) -> None:
        """Go to the end of what is there."""
        while len(self._files) > 1 or self._open_later():
            os.close(self._files.popleft())
        os.lseek(self._files[0], 0, os.SEEK_END)
        self._rest = b""

    def skip_to_tail(self, lines: int, streams: frozenset[int]) -> None:
        """Nothing: where the last lines begin, who reads all of them finds."""


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _piece(line: dict[str, Any]) -> Piece:
    moment, _, fraction = line["time"].rstrip("Z").partition(".")
    time = timegm(strptime(moment, "%Y-%m-%dT%H:%M:%S")) * _NANO + int(fraction.ljust(9, "0"))
    return Piece(time, _STREAMS[line["stream"]], line["log"].encode("utf-8", "surrogatepass"))
