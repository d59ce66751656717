"""Lines out of what a container writes, for the log drivers that Docker gives lines."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 16384  # bytes; of a longer line there are several, of which only the last one is `whole`, as Docker has it


class OutputLine:
    """`text` with its newline, if it has one; `time_ns` is when its first byte came."""

    __slots__ = ("stream", "text", "time_ns", "whole")

    def __init__(self, stream: int, text: bytes, time_ns: int, whole: bool) -> None:
        self.stream, self.text, self.time_ns, self.whole = stream, text, time_ns, whole


class LineSplitter:
    """The streams do not mix within a line."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[int, bytearray]] = {}

    def feed(self, stream: int, piece: bytes, time_ns: int) -> "Iterator[OutputLine]":
        """What *piece* completes."""
        for part in _parts(piece):
            time, line = self._pending.setdefault(stream, (time_ns, bytearray()))
            line += part
            while len(line) > LONGEST:
                yield OutputLine(stream, bytes(line[:LONGEST]), time, whole=False)
                del line[:LONGEST]
            if line.endswith(b"\n"):
                del self._pending[stream]
                yield OutputLine(stream, bytes(line), time, whole=True)

    def rest(self) -> "list[OutputLine]":
        """What ended without a newline."""
        found = [OutputLine(stream, bytes(line), time, whole=True) for stream, (time, line) in self._pending.items()]
        self._pending.clear()
        return sorted(found, key=lambda line: line.stream)


def _parts(content: bytes) -> list[bytes]:
    """Split after newlines alone: a carriage return is part of a line."""
    *lines, rest = content.split(b"\n")
    return [*(line + b"\n" for line in lines), *([rest] if rest else [])]
