"""Reading tar archives: every form of headers, and nothing but InvalidLayer for what is broken."""

import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from images.build import directory, entry, hard_link, symlink, tar
from images.mounting import describe
from wherry_images.errors import InvalidLayer
from wherry_images.layer import Limits, apply
from wherry_images.lower import Lower
from wherry_images.tar_reader import MAX_HEADER, Entry, TarReader

pytestmark = pytest.mark.root


UTF_8 = {"LC_ALL": "C.UTF-8"}


def examples(count: int) -> settings:
    """The same examples in every run; no time is promised."""
    return settings(
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
        max_examples=count,
    )


def read(content: bytes, size: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    """All entries of an archive that comes in pieces of *size* bytes."""
    reader = TarReader(content[start : start + size] for start in range(0, len(content), size))
    found = []
    while (one := reader.next()) is not None:
        found.append((one, b"".join(map(bytes, reader.read_data()))))
    reader.drain()
    return found


def header(name: bytes = b"f", kind: bytes = b"0", **fields: bytes) -> bytes:
    """One ustar header, with raw bytes in the fields that are named; its checksum is right."""
    block = bytearray(tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT))
    places = {
        "name": (0, 100),
        "mode": (100, 8),
        "uid": (108, 8),
        "gid": (116, 8),
        "size": (124, 12),
        "mtime": (136, 12),
        "type": (156, 1),
        "link": (157, 100),
        "magic": (257, 8),
        "prefix": (345, 155),
    }
    for field, value in {"name": name, "type": kind, **fields}.items():
        start, length = places[field]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


# -- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000])
def test_the_pieces_that_the_input_comes_in_do_not_matter(size: int) -> None:
    """Headers and data may be cut anywhere."""
    content = tar(entry("a", data=b"1" * 1000), entry("b" * 150, data=b"2" * 513), symlink("c", "d" * 120))
    assert [(one.name, one.link, data) for one, data in read(content, size)] == [
        (b"a", b"", b"1" * 1000),
        (b"b" * 150, b"", b"2" * 513),
        (b"c", b"d" * 120, b""),
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_format(format: int) -> None:
    """Prefixes, GNU's long names and links, and PAX records."""
    name = "/".join(["n" * 60] * 2) if format == tarfile.USTAR_FORMAT else "/".join(["n" * 60] * 9)
    link = "l" * (100 if format == tarfile.USTAR_FORMAT else 300)
    ((one, data),) = read(tar(entry(name, data=b"x"), format=format))
    assert (one.name, data) == (name.encode(), b"x")
    ((one, _),) = read(tar(symlink("s", link), format=format))
    assert one.link == link.encode()


def test_numbers_in_base_256() -> None:
    """GNU's way beyond octal digits, negative ones too."""
    content = header(
        uid=b"\x80\0\0\0" + (2**32 - 2).to_bytes(4, "big"),
        mtime=(-5).to_bytes(12, "big", signed=True),
        size=b"\x80" + (3).to_bytes(11, "big"),
    )
    ((one, data),) = read(content + b"abc".ljust(512, b"\0") + bytes(1024))
    assert (one.uid, one.mtime, data) == (2**32 - 2, -5 * 10**9, b"abc")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", b"\xff" * 12),  # -1
        ("size", b"\x80" + b"\xff" * 11),
        ("size", b"0000000009\0"),
        ("size", b"-0000000001\0"),
        ("size", b"0x1"),
        ("size", b"1_0"),
        ("uid", b"\xff" * 8),
        ("uid", b"\x80" + b"\xff" * 7),
        ("gid", b"\x80\0\0\0\xff\xff\xff\xff"),
        ("mode", b"rwxr"),
    ],
)
def test_numbers_that_are_none_are_refused(field: str, value: bytes) -> None:
    """Negative sizes and owners, digits of other systems, more than Linux has."""
    with pytest.raises(InvalidLayer):
        read(header(**{field: value}) + bytes(1024))


def test_a_pax_size_overrides_the_headers() -> None:
    """An archive that is read with the wrong one shows other entries."""
    hidden = header(b"hidden")
    records = b"13 size=1024\n"
    content = header(b"pax", b"x", size=b"%011o" % len(records)) + records.ljust(512, b"\0")
    content += header(b"f", size=b"%011o" % 0) + hidden + bytes(512) + bytes(1024)
    assert [(one.name, len(data)) for one, data in read(content)] == [(b"f", 1024)]


def test_header_only_types_have_no_data() -> None:
    """Whatever size they claim."""
    for kind in b"123456":
        content = header(b"x", bytes([kind]), size=b"%011o" % 1024, link=b"y") + header(b"next") + bytes(1024)
        assert [one.name for one, _ in read(content)] == [b"x", b"next"]


def test_old_archives_mark_directories_by_a_slash() -> None:
    """Version 7 had no type for them."""
    ((one, _),) = read(header(b"d/", b"\0", magic=bytes(8)) + bytes(1024))
    assert one.type == b"5"


def test_global_headers_say_nothing_here() -> None:
    """As docker takes them: a path for all files would be nonsense."""
    records = b"11 path=xx\n"
    content = header(b"g", b"g", size=b"%011o" % len(records)) + records.ljust(512, b"\0") + header(b"f") + bytes(1024)
    assert [one.name for one, _ in read(content)] == [b"f"]


def test_the_end_of_the_archive() -> None:
    """Two zero blocks, one at the very end, or none; what follows them is not looked at."""
    one = header(b"f")
    for end in (b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"garbage" * 100):
        assert [entry.name for entry, _ in read(one + end)] == [b"f"]
    assert read(b"") == []
    with pytest.raises(InvalidLayer, match="zero block"):
        read(bytes(512) + one)


def test_long_checksums_of_signed_characters_are_taken() -> None:
    """Some old archivers summed them so."""
    block = bytearray(header("ü".encode()))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(byte - 256 if byte > 127 else byte for byte in block))
    assert [one.name for one, _ in read(bytes(block) + bytes(1024))] == ["ü".encode()]


def test_broken_archives_are_refused() -> None:
    """Cut at any place, or with a bit turned in the header."""
    content = tar(entry("a" * 120, data=b"1" * 700), format=tarfile.PAX_FORMAT)[: 512 * 5]
    for cut in (1, 511, 513, 1024, 1100, 1537, 512 * 5 - 1):
        with pytest.raises(InvalidLayer):
            read(content[:cut])
    for place in (0, 100, 130, 151, 156, 257):
        broken = bytearray(content)
        broken[place] ^= 0x10
        with pytest.raises(InvalidLayer):
            read(bytes(broken))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K", b"g"])
def test_extended_headers_have_a_limit(kind: bytes) -> None:
    """A PAX header of 1 GiB is not kept in memory."""

    def endless() -> Iterator[bytes]:
        yield header(b"x", kind, size=b"%011o" % (1 << 30))
        while True:
            yield bytes(1 << 20)

    with pytest.raises(InvalidLayer, match=f"more than the {MAX_HEADER}"):
        TarReader(endless()).next()


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\n",
        b"99 a=b\n",
        b"6 a=b",
        b"x a=b\n",
        b"0 a=b\n",
        b"3 \n",
        b"5 ab\n",
        b"5 =b\n",
        b"-6 a=b\n",
        b"1" * 600,
        b"18 size=000000x10\n",
        b"13 uid=4294967295\n",
        b"14 path=a\0b/c\n",
    ],
)
def test_broken_records_are_refused(records: bytes) -> None:
    """Lengths that lie, keys without values, numbers that are none."""
    content = header(b"pax", b"x", size=b"%011o" % len(records)) + records + bytes(-len(records) % 512)
    with pytest.raises(InvalidLayer):
        read(content + header() + bytes(1024))


def test_an_empty_value_changes_nothing() -> None:
    """PAX: it takes back what a global header said."""
    records = b"8 path=\n"
    content = (
        header(b"pax", b"x", size=b"%011o" % len(records)) + records.ljust(512, b"\0") + header(b"f") + bytes(1024)
    )
    assert [one.name for one, _ in read(content)] == [b"f"]


# -- sparse files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with holes: at the beginning, at the end, many, only one, none."""
    folder = tmp_path_factory.mktemp("holes")
    for name, pieces, size in (
        ("start", [(1 << 20, b"x" * 5000)], (1 << 20) + 5000),
        ("end", [(0, b"y" * 5000)], 1 << 21),
        ("many", [(number * 65536, b"z" * 4096) for number in range(60)], 60 * 65536),
        ("all", [], 1 << 20),
        ("none", [(0, b"n" * 9000)], 9000),
        ("empty", [], 0),
    ):
        with open(folder / name, "wb") as file:
            for offset, piece in pieces:
                file.seek(offset)
                file.write(piece)
            file.truncate(size)
    return folder


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))],
)
def test_sparse_files_in_every_form(holes: Path, tmp_path: Path, options: list[str]) -> None:
    """GNU's old header and the three in PAX: same bytes, and the holes stay holes."""
    archive = subprocess.run(["tar", "-cS", *options, "-C", str(holes), "."], check=True, capture_output=True).stdout
    target = tmp_path / "out"
    target.mkdir()
    _unpack(archive, target)
    for path in holes.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes(), path.name
    assert (target / "all").stat().st_blocks == 0
    assert (target / "many").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    "fields",
    [
        {"GNU.sparse.map": "0,4,2,4", "GNU.sparse.size": "10"},  # overlap
        {"GNU.sparse.map": "8,4", "GNU.sparse.size": "10"},  # outside
        {"GNU.sparse.map": "0,9", "GNU.sparse.size": "10"},  # more than is stored
        {"GNU.sparse.map": "0,8,9", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "-1,8", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,8", "GNU.sparse.size": "x"},
        {"GNU.sparse.map": "0,8", "GNU.sparse.size": str(2**63)},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},  # the map is no map
    ],
)
def test_sparse_maps_that_lie_are_refused(fields: dict[str, str]) -> None:
    """Pieces that overlap, lie outside or do not fit what is stored."""
    with pytest.raises(InvalidLayer):
        read(tar(entry("f", data=b"12345678", pax_headers=fields)))


def test_a_sparse_map_has_a_limit() -> None:
    """Neither in the data nor in blocks after the header."""
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"}
    with pytest.raises(InvalidLayer, match="sparse"):
        read(tar(entry("f", data=b"99999999\n" + b"0\n" * 2_000_000, pax_headers=fields)))


def _unpack(archive: bytes, target: Path, limits: Limits | None = None) -> None:
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reader = TarReader(archive[start : start + 4093] for start in range(0, len(archive), 4093))
        apply(reader, descriptor, lower=Lower(), limits=limits, keeps_modes=False)
    finally:
        os.close(descriptor)


# -- against other readers -------------------------------------------------------------------------------------------

_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)
_name = _names.filter(lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) < 200)
_mode = st.integers(0, 0o7777)
_id = st.sampled_from([0, 1, 65534, 2097151, 2097152, 2**31, 2**32 - 2])
_time = st.one_of(st.integers(-(2**31), 2**33), st.sampled_from([0, 1.5, 123456789.25]))


@st.composite
def archives(draw: st.DrawFn) -> tuple[bytes, int]:
    """An archive that no reader can have two opinions of, and the format that it is in."""
    format = draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    folders, files = [""], []
    entries = []
    seen: set[str] = set()
    for _ in range(draw(st.integers(1, 12))):
        name = draw(st.sampled_from(folders)) + draw(_name)
        if name in seen:
            continue
        seen.add(name)
        fields: dict[str, Any] = {"mode": draw(_mode), "uid": draw(_id), "gid": draw(_id), "mtime": draw(_time)}
        if format == tarfile.GNU_FORMAT:
            fields["mtime"] = max(0, int(fields["mtime"]))
        kind = draw(st.sampled_from("ffffddlhpc"))
        if kind == "f":
            entries.append(entry(name, data=draw(st.binary(max_size=2000)), **fields))
            files.append(name)
        elif kind == "d":
            entries.append(directory(name, **fields))
            folders.append(name + "/")
        elif kind == "l":
            fields.pop("mode")
            entries.append(symlink(name, draw(_name), **fields))
        elif kind == "h" and files:
            entries.append(hard_link(name, draw(st.sampled_from(files))))
        elif kind == "p":
            entries.append(entry(name, tarfile.FIFOTYPE, **fields))
        elif kind == "c":
            entries.append(entry(name, tarfile.CHRTYPE, devmajor=1, devminor=draw(st.integers(1, 300)), **fields))
    return tar(*entries, format=format), format


@pytest.mark.parametrize(
    "judge",
    [
        ["tar", "-xp", "--numeric-owner", "--same-owner", "--xattrs", "--delay-directory-restore"],
        ["bsdtar", "-xpf", "-", "--numeric-owner"],
    ],
    ids=["gnu tar", "libarchive"],
)
@examples(40)
@given(archive=archives())
def test_trees_are_as_other_readers_make_them(judge: list[str], archive: tuple[bytes, int]) -> None:
    """Type, mode, owner, size, time, device, link and hard links of each file, for archives by chance."""
    if shutil.which(judge[0]) is None:
        pytest.skip(f"{judge[0]} is not installed")
    content, _ = archive
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        _unpack(content, Path(ours))
        subprocess.run(
            [*judge, "-C", theirs], input=content, check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"}
        )
        mine, other = describe(ours), describe(theirs)
        del mine["."], other["."]
        assert mine == other


@examples(150)
@given(
    archive=archives(),
    damage=st.lists(st.tuples(st.integers(0, 8000), st.binary(min_size=1, max_size=12)), max_size=6),
    seed=st.integers(0, 2**32),
)
@example(archive=(b"", 0), damage=[], seed=0)
def test_nothing_but_invalid_layer_comes_of_damage(
    archive: tuple[bytes, int], damage: list[tuple[int, bytes]], seed: int
) -> None:
    """Bytes turned at random, with and without a right checksum: an error of ours, or a tree inside the target."""
    content = bytearray(archive[0])
    for place, value in damage:
        if content:
            start = place % len(content)
            content[start : start + len(value)] = value
    if random.Random(seed).random() < 0.7:
        _mend_checksums(content)
    with tempfile.TemporaryDirectory() as parent:
        target = Path(parent, "target")
        target.mkdir()
        try:
            _unpack(bytes(content), target, Limits(size=1 << 20, file_size=1 << 20, entries=100))
        except InvalidLayer:
            pass
        assert os.listdir(parent) == ["target"]


def _mend_checksums(content: bytearray) -> None:
    for start in range(0, len(content) - 511, 512):
        block = content[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(block)
