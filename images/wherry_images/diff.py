"""What a container changed in its rootfs, as a list and as the tar of a new layer."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import attrs

from wherry_images import tar_writer
from wherry_images.lower import Found, Lower, LowerLayer
from wherry_images.merged import names, walk
from wherry_images.tar_reader import DIRECTORY, HARD_LINK
from wherry_images.whiteout import OPAQUE, PREFIX, RESERVED_XATTRS, is_opaque, is_whiteout

_KEPT_XATTRS = (b"security.capability", b"user.", b"system.posix_acl_")  # what layers carry, and other engines take


@attrs.frozen(kw_only=True)
class Change:
    """One changed file, with a path as the container sees it."""

    kind: Literal["added", "modified", "deleted"]
    path: str


@attrs.frozen
class _Piece:
    path: bytes
    status: os.stat_result | None  # None: it was deleted
    opaque: bool = False


def overlay_diff(upper: str, lower: Sequence[LowerLayer] = ()) -> Iterator[bytes]:
    """
    The layer, as an uncompressed tar, that is overlayfs' upper directory *upper*.

    With the layers below, the root is part of it only if its mode or owner was changed.
    """
    return _tar(upper, _upper_pieces(upper, lower))


def native_diff(root: str, lower: Sequence[LowerLayer]) -> Iterator[bytes]:
    """The layer that makes the tree *root* out of the layers *lower*, the topmost first."""
    return _tar(root, _compared(root, lower))


def overlay_changes(upper: str, lower: Sequence[LowerLayer]) -> list[Change]:
    return _changes(_upper_pieces(upper, lower), Lower(tuple(lower)))


def native_changes(root: str, lower: Sequence[LowerLayer]) -> list[Change]:
    return _changes(_compared(root, lower), Lower(tuple(lower)))


def export(layers: Sequence[LowerLayer]) -> Iterator[bytes]:
    """The whole tree that *layers* show, the topmost first, as one uncompressed tar (docker export)."""
    links: dict[tuple[int, int], bytes] = {}
    for seen in walk(layers):
        if seen.path:
            yield from _entry(seen.path, seen.status, seen.source, links)
    yield tar_writer.END


def _upper_pieces(upper: str, lower: Sequence[LowerLayer]) -> Iterator[_Piece]:
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(root)
        if lower and not _same_root(status, lower):
            yield _Piece(b"", status)
    finally:
        os.close(root)
    layer = LowerLayer(upper)
    todo = sorted(_raw_names(layer, b""), reverse=True)
    while todo:
        path = todo.pop()
        found = _raw(layer, path)
        if found is None:
            continue
        try:
            if is_whiteout(found.status):
                yield _Piece(path, None)
                continue
            is_directory = stat.S_ISDIR(found.status.st_mode)
            yield _Piece(path, found.status, is_directory and is_opaque(found.descriptor))
        finally:
            found.close()
        if is_directory:
            todo += [path + b"/" + name for name in sorted(_raw_names(layer, path), reverse=True)]


def _same_root(status: os.stat_result, lower: Sequence[LowerLayer]) -> bool:
    mode, uid, gid = 0o755, 0, 0
    for layer in lower:
        top = os.stat(layer.path)
        mode, uid, gid = stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid
        if (mode, uid, gid) == (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid):
            return True
    return (mode, uid, gid) == (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _raw(layer: LowerLayer, path: bytes) -> Found | None:
    """A file of one layer, whiteouts included."""
    parent, _, name = path.rpartition(b"/")
    folder = Lower((layer,)).find(parent)
    if folder is None:
        return None
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.descriptor)
    except FileNotFoundError:
        return None
    finally:
        folder.close()
    return Found(descriptor, os.fstat(descriptor))


def _raw_names(layer: LowerLayer, path: bytes) -> list[bytes]:
    folder = Lower((layer,)).find(path)
    if folder is None:
        return []
    try:
        readable = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return [os.fsencode(name) for name in os.listdir(readable)]
        finally:
            os.close(readable)
    finally:
        folder.close()


def _compared(root: str, lower: Sequence[LowerLayer]) -> Iterator[_Piece]:
    below = Lower(tuple(lower))
    tree = [LowerLayer(root)]
    for seen in walk(tree):
        found = below.find(seen.path)
        try:
            if seen.path and (found is None or not _same(seen.status, seen.source, found)):
                yield _Piece(seen.path, seen.status)
            was_directory = found is not None and stat.S_ISDIR(found.status.st_mode)
        finally:
            if found is not None:
                found.close()
        if was_directory and stat.S_ISDIR(seen.status.st_mode):
            for name in sorted(names(lower, seen.path) - names(tree, seen.path)):
                yield _Piece(seen.path + b"/" + name if seen.path else name, None)


def _same(status: os.stat_result, source: Found, other: Found) -> bool:
    one, two = status, other.status
    same = (one.st_mode, one.st_uid, one.st_gid, one.st_rdev) == (two.st_mode, two.st_uid, two.st_gid, two.st_rdev)
    if not same or stat.S_ISDIR(one.st_mode):
        return same and _xattrs(source) == _xattrs(other)
    if stat.S_ISLNK(one.st_mode):
        return os.readlink(b"", dir_fd=source.descriptor) == os.readlink(b"", dir_fd=other.descriptor)
    return (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns) and _xattrs(source) == _xattrs(other)


def _changes(pieces: Iterable[_Piece], lower: Lower) -> list[Change]:
    changes = []
    for piece in pieces:
        found = lower.find(piece.path)
        existed = found is not None
        if found is not None:
            found.close()
        if piece.status is None:
            if existed:
                changes.append(Change(kind="deleted", path="/" + os.fsdecode(piece.path)))
            continue
        changes.append(Change(kind="modified" if existed else "added", path="/" + os.fsdecode(piece.path)))
    return changes


def _tar(root: str, pieces: Iterable[_Piece]) -> Iterator[bytes]:
    layer = LowerLayer(root)
    links: dict[tuple[int, int], bytes] = {}
    for piece in pieces:
        if piece.status is None:
            parent, _, name = piece.path.rpartition(b"/")
            hidden = PREFIX + name
            yield tar_writer.header(tar_writer.Member(name=parent + b"/" + hidden if parent else hidden))
            continue
        found = _raw(layer, piece.path) if piece.path else Lower((layer,)).find(b"")
        if found is None:
            continue  # it was removed meanwhile
        try:
            yield from _entry(piece.path or b".", found.status, found, links)
        finally:
            found.close()
        if piece.opaque:
            yield tar_writer.header(tar_writer.Member(name=piece.path + b"/" + OPAQUE))
    yield tar_writer.END


def _entry(path: bytes, status: os.stat_result, source: Found, links: dict[tuple[int, int], bytes]) -> Iterator[bytes]:
    number = (status.st_dev, status.st_ino)
    target = os.readlink(b"", dir_fd=source.descriptor) if stat.S_ISLNK(status.st_mode) else b""
    member = tar_writer.member_of(path, status, link=target)
    if member is None:
        return
    if status.st_nlink > 1 and member.type != DIRECTORY:
        if number in links:
            yield tar_writer.header(attrs.evolve(member, type=HARD_LINK, size=0, link=links[number]))
            return
        links[number] = path
    member = attrs.evolve(member, xattrs=_xattrs(source))
    if stat.S_ISREG(status.st_mode):
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from tar_writer.file_pieces(member, descriptor)
        finally:
            os.close(descriptor)
    else:
        yield tar_writer.header(member)


def _xattrs(source: Found) -> dict[bytes, bytes]:
    if stat.S_ISLNK(source.status.st_mode):
        return {}
    found = {}
    try:
        for name in map(os.fsencode, os.listxattr(source.path)):
            if name.startswith(_KEPT_XATTRS) and not name.startswith(RESERVED_XATTRS):
                found[name] = os.getxattr(source.path, name)
    except OSError:
        return {}  # a file system without attributes has none
    return found
