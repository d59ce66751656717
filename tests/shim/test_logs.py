"""The log on disk: what was appended is read again, whoever was killed meanwhile."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wherry.logreader import LogReader, Reader, last, lines
from wherry_shim.logs import RECORD, STDERR, STDOUT, LogWriter, data_name, index_name, segments

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
    with (tmp_path / data_name(0)).open("ab") as data, (tmp_path / index_name(0)).open("ab") as index:
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
    replayed = [content[0] for _, _, content in writer.replay()]
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


def _contents(reader: Reader) -> list[bytes]:
    return [piece.content for piece in reader.pieces()]


def test_segments_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    """The last ones stay, whole; a writer that comes later goes on in the last one."""
    for part in (range(60), range(60, 100)):
        writer = LogWriter(str(tmp_path), max_size=1000, max_files=3)
        for number in part:
            writer.append(STDOUT, b"%099d\n" % number, number)
        writer.close()
    assert len(segments(str(tmp_path))) == 3
    sizes = [
        sum((tmp_path / name(n)).stat().st_size for name in (data_name, index_name)) for n in segments(str(tmp_path))
    ]
    assert max(sizes) <= 1000
    kept = [int(content) for _, _, content in _pieces(tmp_path)]
    assert kept == list(range(100))[-len(kept) :]
    assert len(kept) > 16


def test_a_reader_goes_on_over_segments_and_loses_nothing_that_it_was_in(tmp_path: Path) -> None:
    """Its own segment may be rotated away, and its directory removed: what is open is read to the end."""
    writer = LogWriter(str(tmp_path), max_size=1000, max_files=2)
    writer.append(STDOUT, b"first\n", 0)
    with LogReader(tmp_path) as reader:
        for number in range(20):
            writer.append(STDOUT, b"%099d\n" % number, number)
        found = _contents(reader)
        assert found[:2] == [b"first\n", b"%099d\n" % 0]
        assert found[-1] == b"%099d\n" % 19
        writer.append(STDOUT, b"last\n", 0)
        writer.close()
        shutil.rmtree(tmp_path)
        assert _contents(reader) == [b"last\n"]


def test_full_segments_are_compressed_when_there_is_nothing_else_to_do(tmp_path: Path) -> None:
    """A bit at a time; read as before, from every place, also while it happens."""
    steps: list[Callable[[], bool]] = []
    writer = LogWriter(str(tmp_path), max_size=200_000, max_files=9, when_idle=steps.append)
    pieces = [(STDOUT if n % 3 else STDERR, b"%d %s\n" % (n, b"x" * (n % 500))) for n in range(2000)]
    for time, (stream, content) in enumerate(pieces):
        writer.append(stream, content, time)
    assert len(steps) == 2
    with LogReader(tmp_path) as early:
        got = early.pieces()
        first = next(got).content
        assert steps[0]()
        assert not any(name.suffix == ".gz" and not name.name.startswith(".") for name in tmp_path.iterdir())
        for step in steps:
            while step():
                pass
        assert [first, *(piece.content for piece in got)] == [content for _, content in pieces]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"data.0.gz", "data.1.gz", "data.2", "index.0", "index.1", "index.2"}
    assert [content for _, _, content in _pieces(tmp_path)] == [content for _, content in pieces]
    for count in (1, 5, 1500, 1999, 5000):
        with LogReader(tmp_path) as reader:
            found = [line.content for line in last(reader, count, _BOTH)]
        assert found == [content for _, content in pieces][-count:]
    with LogReader(tmp_path) as reader:
        reader.skip_all()
        assert _contents(reader) == []
        writer.append(STDOUT, b"more", 1)
        assert _contents(reader) == [b"more"]
    writer.close()


def test_a_segment_that_is_removed_while_it_is_compressed_leaves_nothing(tmp_path: Path) -> None:
    """Neither does one whose compression was killed, once it goes."""
    steps: list[Callable[[], bool]] = []
    writer = LogWriter(str(tmp_path), max_size=100_000, max_files=2, when_idle=steps.append)
    for number in range(4):
        writer.append(STDOUT, bytes([number]) * 90_000, number)
        if number == 1:
            assert steps[0]()  # it has begun, and never comes to its end
    for step in steps[1:]:
        while step():
            pass
    writer.close()
    while steps[0]():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.2.gz", "data.3", "index.2", "index.3"]


def test_replay_goes_over_a_rotation(tmp_path: Path) -> None:
    """What this run wrote, in both segments."""
    writer = LogWriter(str(tmp_path), max_size=1000, compress=False)
    writer.append(STDOUT, b"before", 1)
    writer.begin_run()
    for number in range(15):
        writer.append(STDOUT, b"%099d\n" % number, number)
    replayed = [int(content) for _, _, content in writer.replay()]
    writer.close()
    assert replayed == list(range(15))
