"""
Writing tar archives as layers are: ustar headers, with PAX records for what does not fit into them.

The same input gives the same bytes.
"""

import os
import stat
from collections.abc import Iterator

import attrs

from wherry_images import tree
from wherry_images.tar_reader import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    REGULAR,
    SYMLINK,
)

_PIECE = 1 << 20
_NS = 1_000_000_000
_MAX_OCTAL_ID = 0o7777777
_MAX_OCTAL_SIZE = 0o77777777777
_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
END = bytes(2 * BLOCK)


@attrs.frozen(kw_only=True)
class Member:
    """One entry to be written; `size` is of the data that follows its header."""

    name: bytes
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # ns
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = attrs.field(factory=dict)
    sparse: tuple[tuple[int, int], ...] | None = None  # (offset, length) of what is stored
    real_size: int = 0  # of a sparse file


def member_of(name: bytes, status: os.stat_result, *, link: bytes = b"") -> Member | None:
    """The entry for a file, without its data; None for a socket, which no archive can hold."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return Member(
        name=name + b"/" if kind == DIRECTORY else name,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        size=status.st_size if kind == REGULAR else 0,
        link=link,
        major=os.major(status.st_rdev) if kind in (CHARACTER, BLOCK_DEVICE) else 0,
        minor=os.minor(status.st_rdev) if kind in (CHARACTER, BLOCK_DEVICE) else 0,
    )


def header(member: Member) -> bytes:
    """The blocks before an entry's data."""
    records = _records(member)
    prefix, name = _split(member.name)
    sparse_map = b""
    size = member.size
    if member.sparse is not None:
        sparse_map = _sparse_map(member.sparse)
        size = len(sparse_map) + sum(length for _, length in member.sparse)
        if size > _MAX_OCTAL_SIZE:
            records["size"] = str(size).encode()
    extended = b""
    if records:
        body = b"".join(
            _record(key.encode("utf-8", "surrogateescape"), value) for key, value in sorted(records.items())
        )
        extended = _ustar(b"PaxHeaders/" + name[-80:].rstrip(b"/"), b"", b"x", 0o644, 0, 0, len(body), 0, b"", 0, 0)
        extended += body + bytes(-len(body) % BLOCK)
    return (
        extended
        + _ustar(
            name,
            prefix,
            member.type,
            member.mode,
            min(member.uid, _MAX_OCTAL_ID) if member.uid <= _MAX_OCTAL_ID else 0,
            member.gid if member.gid <= _MAX_OCTAL_ID else 0,
            size if size <= _MAX_OCTAL_SIZE else 0,
            max(0, min(member.mtime // _NS, _MAX_OCTAL_SIZE)),
            member.link[:100],
            member.major,
            member.minor,
        )
        + sparse_map
    )


def padding(size: int) -> bytes:
    """What fills *size* bytes of data up to a block."""
    return bytes(-size % BLOCK)


def file_pieces(member: Member, descriptor: int) -> Iterator[bytes]:
    """
    An entry's header and the data of the file open as *descriptor*, whose holes are not stored.

    A file that shrinks meanwhile is filled with zeros, one that grows is cut: the archive stays well formed.
    """
    sparse = tree.data_ranges(descriptor, member.size)
    if sparse is not None:
        member = attrs.evolve(member, sparse=sparse, real_size=member.size)
    yield header(member)
    ranges = sparse if sparse is not None else ((0, member.size),)
    for start, length in ranges:
        position, end = start, start + length
        while position < end:
            count = min(_PIECE, end - position)
            piece = os.pread(descriptor, count, position) or bytes(count)
            position += len(piece)
            yield piece
    total = sum(length for _, length in ranges)
    if total % BLOCK:
        yield padding(total)


def _records(member: Member) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    prefix, name = _split(member.name)
    joined = prefix + b"/" + name if prefix else name
    if joined != member.name or not member.name.isascii():
        records["path"] = member.name
    if len(member.link) > 100 or not member.link.isascii():
        records["linkpath"] = member.link
    if member.uid > _MAX_OCTAL_ID:
        records["uid"] = str(member.uid).encode()
    if member.gid > _MAX_OCTAL_ID:
        records["gid"] = str(member.gid).encode()
    if member.size > _MAX_OCTAL_SIZE and member.sparse is None:
        records["size"] = str(member.size).encode()
    if member.mtime % _NS or not 0 <= member.mtime // _NS <= _MAX_OCTAL_SIZE:
        records["mtime"] = _time(member.mtime)
    for key, value in member.xattrs.items():
        records["SCHILY.xattr." + key.decode("utf-8", "surrogateescape")] = value
    if member.sparse is not None:
        records |= {
            "GNU.sparse.major": b"1",
            "GNU.sparse.minor": b"0",
            "GNU.sparse.name": member.name,
            "GNU.sparse.realsize": str(member.real_size).encode(),
        }
        records.pop("path", None)
    return records


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _time(ns: int) -> bytes:
    sign = "-" if ns < 0 else ""
    whole, fraction = divmod(abs(ns), _NS)
    return f"{sign}{whole}{f'.{fraction:09d}'.rstrip('0') if fraction else ''}".encode()


def _sparse_map(ranges: tuple[tuple[int, int], ...]) -> bytes:
    numbers = [len(ranges), *(number for piece in ranges for number in piece)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """*name* over ustar's two fields; cut if it does not fit, which a PAX record then mends."""
    if len(name) <= 100:
        return b"", name
    cut = name.find(b"/", len(name.rstrip(b"/")) - 101 if len(name) > 101 else 0)
    if 0 < cut <= 155 and 0 < len(name) - cut - 1 <= 100:
        return name[:cut], name[cut + 1 :]
    return b"", name[:100]


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _ustar(
    name: bytes,
    prefix: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    major: int,
    minor: int,
) -> bytes:
    fields = [
        name.ljust(100, b"\0"),
        _octal(mode, 8),
        _octal(uid, 8),
        _octal(gid, 8),
        _octal(size, 12),
        _octal(mtime, 12),
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        _octal(major, 8),
        _octal(minor, 8),
        prefix.ljust(155, b"\0"),
        bytes(12),
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
