"""Docker's json-file, held to the rules of its format; no line here was written by a dockerd."""

from pathlib import Path

import pytest

from wherry.jsonfilereader import JsonFileReader
from wherry.logreader import last, lines
from wherry_shim.jsonfile import JsonFileWriter, object_line

pytestmark = pytest.mark.unit

_SECOND = 10**9
_BOTH = frozenset((1, 2))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (b"plain\n", r"plain\n"),
        (b'\t\r"\\\x00\x1b[0m\n', r"\u0009\r\"\\\u0000\u001b[0m\n"),
        (b"<a href='x'>&</a>", r"\u003ca href='x'\u003e\u0026\u003c/a\u003e"),
        ("grüße \u2028\u2029 😀".encode(), "grüße " + r"\u2028\u2029" + " 😀"),
        (b"\xff\xe2\x82", r"\ufffd\ufffd\ufffd"),
        ("\ufffd".encode(), "\ufffd"),
    ],
)
def test_text_is_escaped_as_go_does_it(text: bytes, escaped: str) -> None:
    """Docker's jsonlog: safe in HTML, one replacement for each byte that is no UTF-8."""
    line = object_line(1, text, 1_700_000_000 * _SECOND)
    assert line.decode() == f'{{"log":"{escaped}","stream":"stdout","time":"2023-11-14T22:13:20Z"}}\n'


def test_times_have_no_zeros_at_their_end() -> None:
    """Go's RFC3339Nano."""
    assert b"20.1205Z" in object_line(2, b"", 1_700_000_000 * _SECOND + 120_500_000)


def _written(path: Path, *pieces: tuple[int, bytes], **limits: int) -> None:
    writer = JsonFileWriter(str(path), **limits)
    for time, (stream, content) in enumerate(pieces):
        writer.append(stream, content, time * _SECOND)
    writer.close()


def test_one_object_is_one_line_or_16_kib_of_one(tmp_path: Path) -> None:
    """Put together of pieces, each stream's apart; the end needs no newline."""
    path = tmp_path / "x-json.log"
    _written(path, (1, b"a\nb"), (2, b"err\n"), (1, b"c\n" + b"x" * 16385 + b"\n"), (1, b"end"))
    with JsonFileReader(path) as reader:
        assert [(piece.stream, piece.content) for piece in reader.pieces()] == [
            (1, b"a\n"),
            (2, b"err\n"),
            (1, b"bc\n"),
            (1, b"x" * 16384),
            (1, b"x\n"),
            (1, b"end"),
        ]


def test_files_are_rotated_and_read_as_one(tmp_path: Path) -> None:
    """As many as asked for; a reader that is in one of them goes on into the next."""
    path = tmp_path / "x-json.log"
    writer = JsonFileWriter(str(path), max_size=2000, max_files=3)
    writer.append(1, b"first\n", 0)
    with JsonFileReader(path) as early:
        assert [piece.content for piece in early.pieces()] == [b"first\n"]
        for number in range(100):
            writer.append(1, b"%d\n" % number, number)
            if number % 10 == 0:
                assert [piece.content for piece in early.pieces()][-1] == b"%d\n" % number
    writer.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"x-json.log{end}" for end in ("", ".1", ".2")]
    assert all(one.stat().st_size <= 2000 for one in tmp_path.iterdir())
    with JsonFileReader(path) as reader:
        found = [int(line.content) for line in lines(reader.pieces(), streams=_BOTH)]
    assert found == list(range(100))[-len(found) :]
    assert len(found) > 60
    with JsonFileReader(path) as reader:
        assert [line.content for line in last(reader, 2, _BOTH)] == [b"98\n", b"99\n"]


def test_one_file_begins_anew_when_it_is_full(tmp_path: Path) -> None:
    """max-file 1, which is Docker's own."""
    path = tmp_path / "x-json.log"
    _written(path, *((1, b"%d\n" % number) for number in range(100)), max_size=1000)
    assert [one.name for one in tmp_path.iterdir()] == ["x-json.log"]
    assert path.stat().st_size <= 1000
