"""The log on disk: what was appended is read again, whoever was killed meanwhile."""

import os
from pathlib import Path

import pytest

from wherry.logreader import LogReader, last, lines
from wherry_shim.logs import DATA, INDEX, RECORD, STDERR, STDOUT, LogWriter

pytestmark = pytest.mark.unit

_BOTH = frozenset((STDOUT, STDERR))


def _pieces(directory: Path) -> list[tuple[int, int, bytes]]:
    with LogReader(directory) as reader:
        return [(piece.time, piece.stream, piece.content) for piece in reader.pieces()]


def test_pieces_are_read_as_they_were_appended(tmp_path: Path) -> None:
    """Times, streams and bytes, in order; a reader that came before sees what comes later."""
    writer = LogWriter(str(tmp_path))
    with LogReader(tmp_path) as early:
        assert list(early.pieces()) == []
        writer.append(STDOUT, b"one", 1)
        writer.append(STDERR, b"\0\xff", 2)
        assert [piece.content for piece in early.pieces()] == [b"one", b"\0\xff"]
        writer.append(STDOUT, b"three", 3)
        assert [piece.content for piece in early.pieces()] == [b"three"]
    writer.close()
    assert _pieces(tmp_path) == [(1, STDOUT, b"one"), (2, STDERR, b"\0\xff"), (3, STDOUT, b"three")]


def test_what_a_killed_writer_left_half_is_written_over(tmp_path: Path) -> None:
    """Data without a record, and half a record, are nobody's."""
    writer = LogWriter(str(tmp_path))
    writer.append(STDOUT, b"whole\n", 1)
    writer.close()
    with (tmp_path / DATA).open("ab") as data, (tmp_path / INDEX).open("ab") as index:
        data.write(b"half of something")
        index.write(b"\1" * (RECORD.size - 1))
    assert _pieces(tmp_path) == [(1, STDOUT, b"whole\n")]
    writer = LogWriter(str(tmp_path))
    writer.append(STDOUT, b"next\n", 2)
    writer.close()
    assert _pieces(tmp_path) == [(1, STDOUT, b"whole\n"), (2, STDOUT, b"next\n")]


def test_replay_gives_what_this_writer_appended(tmp_path: Path) -> None:
    """Not what was there before; of much, the end."""
    writer = LogWriter(str(tmp_path))
    writer.append(STDOUT, b"before", 1)
    writer.close()
    writer = LogWriter(str(tmp_path))
    for number in range(40):
        writer.append(STDOUT, bytes([number]) * 65536, 2)
    replayed = [content[0] for _, content in writer.replay()]
    writer.close()
    assert replayed == list(range(24, 40))


def test_a_full_disk_costs_output_and_counts_it(tmp_path: Path) -> None:
    """The writer goes on; what fits again is written."""
    writer = LogWriter(str(tmp_path))
    writer.append(STDOUT, b"a", 1)
    descriptor, writer._data = writer._data, os.open("/dev/full", os.O_WRONLY)
    writer.append(STDOUT, b"lost", 2)
    os.close(writer._data)
    writer._data = descriptor
    writer.append(STDOUT, b"b", 3)
    assert writer.lost == 4
    writer.close()
    assert [content for _, _, content in _pieces(tmp_path)] == [b"a", b"b"]


def _log(directory: Path, *pieces: tuple[int, bytes]) -> LogReader:
    writer = LogWriter(str(directory))
    for time, (stream, content) in enumerate(pieces):
        writer.append(stream, content, time)
    writer.close()
    return LogReader(directory)


def test_lines_are_put_together_for_each_stream(tmp_path: Path) -> None:
    """A line's time is its first byte's; a carriage return is part of it; the last needs no newline."""
    pieces = ((STDOUT, b"a\nb"), (STDERR, b"x\r\ny"), (STDOUT, b"c\n\n"), (STDERR, b"z"))
    with _log(tmp_path, *pieces) as reader:
        found = [(line.time, line.stream, line.content) for line in lines(reader.pieces(), streams=_BOTH)]
    assert found == [
        (0, STDOUT, b"a\n"),
        (1, STDERR, b"x\r\n"),
        (0, STDOUT, b"bc\n"),
        (2, STDOUT, b"\n"),
        (1, STDERR, b"yz"),
    ]


def test_the_last_lines_are_found_from_the_end(tmp_path: Path) -> None:
    """As many as asked for, of the streams asked for."""
    pieces = [(STDOUT if n % 2 else STDERR, b"%d\n" % n) for n in range(1000)]
    for count in (0, 1, 3, 999, 1000, 5000):
        with _log(tmp_path / str(count), *pieces) as reader:
            found = [int(line.content) for line in last(reader, count, _BOTH)]
            assert found == list(range(1000))[max(0, 1000 - count) :]
    with _log(tmp_path / "one", *pieces) as reader:
        assert [int(line.content) for line in last(reader, 2, frozenset((STDERR,)))] == [996, 998]
