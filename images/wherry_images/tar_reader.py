"""
A streaming reader of the tar archives that layers are: ustar, PAX, GNU and star headers, sparse files in every form.

It trusts nothing: numbers, names and lengths are checked before they are used, and memory is bounded by the length of
one chunk of input plus MAX_HEADER, whatever the archive says. Where archivers disagree it does as Go's archive/tar,
which is what Docker reads layers with.
"""

import os
from collections.abc import Iterable, Iterator

from wherry_images.errors import InvalidLayer

BLOCK = 512
MAX_HEADER = 1 << 20  # bytes of one extended header, long name or sparse map

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_HEADER_ONLY = frozenset({HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})
_KNOWN = _HEADER_ONLY | {REGULAR}

_ZERO = bytes(BLOCK)
_OCTAL = frozenset(b"01234567")
_NS = 1_000_000_000
_MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave it" to chown(2)
_MAX_OFFSET = (1 << 63) - 1


class Entry:
    """One entry; times in ns since the epoch, `size` in bytes (a sparse file's with its holes)."""

    __slots__ = (
        "gid",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "sparse",
        "stored",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.name = b""
        self.type = REGULAR
        self.mode = self.uid = self.gid = self.mtime = self.size = self.stored = self.major = self.minor = 0
        self.link = b""
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: list[tuple[int, int]] | None = None  # (offset, length) of what is stored, in order


class TarReader:
    """
    Reads the archive that *chunks* (non-empty pieces of any length) make up.

    `next()` gives the entries in order; between two calls `write_data` may put the entry's data into a file, once.
    All that is wrong with the archive is an InvalidLayer.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._position = 0
        self._left = 0  # bytes of the present entry's data, with padding, that nobody has read
        self._padding = 0
        self._ended = False
        self.offset = 0  # bytes of the archive before the present chunk

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _more(self) -> bool:
        """Go on to the next chunk, when the present one is used up; False at the end of the archive."""
        for chunk in self._chunks:
            if chunk:
                self.offset += len(self._chunk)
                self._chunk = memoryview(chunk)
                self._position = 0
                return True
        return False

    def _read(self, count: int, what: str) -> bytes:
        """Exactly *count* bytes, a small number."""
        end = self._position + count
        if end <= len(self._chunk):
            piece = self._chunk[self._position : end].tobytes()
            self._position = end
            return piece
        pieces = []
        while count:
            if self._position == len(self._chunk) and not self._more():
                raise InvalidLayer(f"the archive ends inside {what}")
            part = self._chunk[self._position : self._position + count]
            pieces.append(part.tobytes())
            self._position += len(part)
            count -= len(part)
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        while count:
            if self._position == len(self._chunk) and not self._more():
                raise InvalidLayer("the archive ends inside an entry's data")
            step = min(count, len(self._chunk) - self._position)
            self._position += step
            count -= step

    def drain(self) -> None:
        """Read on to the end of the input, past the end of the archive: the digest is of all of it."""
        self._position = len(self._chunk)
        while self._more():
            self._position = len(self._chunk)

    # -- entries ---------------------------------------------------------------------------------------------------

    def next(self) -> Entry | None:
        """The next entry, None after the last."""
        if self._ended:
            return None
        if self._left or self._padding:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
        pax: dict[bytes, bytes] = {}
        sparse_records: list[tuple[bytes, bytes]] = []
        long_name = long_link = b""
        while True:
            header = self._header()
            if header is None:
                if pax or long_name or long_link:
                    raise InvalidLayer("the archive ends after an extended header")
                self._ended = True
                return None
            kind = header[156:157]
            if kind in b"xXLKg" and kind != b"":
                content = self._extension(header)
                if kind in b"xX":
                    pax, sparse_records = _pax_records(content)
                elif kind == b"L":
                    long_name = content.split(b"\0", 1)[0]
                elif kind == b"K":
                    long_link = content.split(b"\0", 1)[0]
                continue  # a global header ("g") says nothing that Docker would heed
            return self._entry(header, kind, pax, sparse_records, long_name, long_link)

    def _header(self) -> bytes | None:
        """The next block that is not zero, checked; None at the end of the archive."""
        if self._position == len(self._chunk) and not self._more():
            return None
        header = self._read(BLOCK, "a header")
        if header == _ZERO:
            if self._position == len(self._chunk) and not self._more():
                return None
            if self._read(BLOCK, "the archive's end") != _ZERO:
                raise InvalidLayer("one zero block is followed by something else")
            return None
        # the sum is of the header with its own field as blanks
        total = sum(header) - sum(header[148:156]) + 256
        stored = _number(header[148:156], "checksum")
        if total != stored:
            signed = total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
            if signed != stored:  # some old archivers summed signed characters
                raise InvalidLayer(f"a header's checksum is {total}, not {stored}")
        return header

    def _extension(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size")
        if not 0 <= size <= MAX_HEADER:
            raise InvalidLayer(f"an extended header of {size} bytes, more than the {MAX_HEADER} that are taken")
        content = self._read(size, "an extended header")
        self._skip(-size % BLOCK)
        return content

    def _entry(
        self,
        header: bytes,
        kind: bytes,
        pax: dict[bytes, bytes],
        sparse_records: list[tuple[bytes, bytes]],
        long_name: bytes,
        long_link: bytes,
    ) -> Entry:
        entry = Entry()
        magic = header[257:265]
        name = header[:100].split(b"\0", 1)[0]
        if magic == b"ustar\x0000":
            star = header[508:512] == b"tar\0"
            prefix = header[345 : 476 if star else 500].split(b"\0", 1)[0]
            if prefix:
                name = prefix + b"/" + name
        elif magic[:6] == b"ustar\0":  # POSIX says "00"; some leave the version empty, and mean the same
            prefix = header[345:500].split(b"\0", 1)[0]
            if prefix:
                name = prefix + b"/" + name
        entry.mode = _number(header[100:108], "mode") & 0o7777
        entry.uid = _number(header[108:116], "uid")
        entry.gid = _number(header[116:124], "gid")
        size = _number(header[124:136], "size")
        entry.mtime = _number(header[136:148], "mtime") * _NS
        entry.link = header[157:257].split(b"\0", 1)[0]
        sparse_old = kind == b"S"
        if kind in (b"3", b"4"):
            entry.major = _number(header[329:337], "major")
            entry.minor = _number(header[337:345], "minor")
        if pax:
            name, size = _apply_pax(entry, pax, name, size)
        if long_name:
            name = long_name
        if long_link:
            entry.link = long_link
        if kind in (b"\0", b"0", b"7", b"S"):
            kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else REGULAR
        elif kind not in _KNOWN:
            raise InvalidLayer(f"an entry of the unknown type {kind!r}", entry=_text(name))
        _check(entry, name, size)
        entry.name, entry.type = name, kind
        if kind in _HEADER_ONLY:
            return entry
        self._left, self._padding = size, -size % BLOCK
        entry.size = entry.stored = size
        if sparse_old:
            self._old_sparse(entry, header)
        elif pax:
            self._pax_sparse(entry, pax, sparse_records)
        return entry

    # -- data ------------------------------------------------------------------------------------------------------

    def write_data(self, descriptor: int, entry: Entry) -> None:
        """Write the present entry's data to the new, empty file open as *descriptor*."""
        size = self._left
        if entry.sparse is None:
            end = self._position + size
            if end <= len(self._chunk):  # most files lie in one chunk: one write, no copy
                if size:
                    _write(descriptor, self._chunk[self._position : end])
                    self._position = end
                self._left = 0
                return
            self._copy(descriptor, size)
            return
        for offset, length in entry.sparse:
            os.lseek(descriptor, offset, os.SEEK_SET)
            self._copy(descriptor, length)
        os.ftruncate(descriptor, entry.size)

    def _copy(self, descriptor: int, count: int) -> None:
        for piece in self._pieces(count):
            _write(descriptor, piece)

    def _pieces(self, count: int) -> Iterator[memoryview]:
        while count:
            if self._position == len(self._chunk) and not self._more():
                raise InvalidLayer("the archive ends inside a file")
            piece = self._chunk[self._position : self._position + count]
            self._position += len(piece)
            self._left -= len(piece)
            count -= len(piece)
            yield piece

    def read_data(self) -> Iterator[memoryview]:
        """The present entry's stored data, holes left out."""
        return self._pieces(self._left)

    # -- sparse files ----------------------------------------------------------------------------------------------

    def _old_sparse(self, entry: Entry, header: bytes) -> None:
        """GNU's own form: four pieces in the header, more in blocks after it."""
        real_size = _number(header[483:495], "real size")
        pieces = _sparse_pieces(header[386:482])
        extended = header[482]
        while extended:
            block = self._read(BLOCK, "a sparse map")
            pieces += _sparse_pieces(block[:504])
            extended = block[504]
            if len(pieces) * 24 > MAX_HEADER:
                raise InvalidLayer("a sparse map of more pieces than are taken", entry=_text(entry.name))
        self._set_sparse(entry, pieces, real_size)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes], records: list[tuple[bytes, bytes]]) -> None:
        version = (pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            real_size = pax.get(b"GNU.sparse.realsize", b"")
            pieces = self._sparse_map_in_data(entry)
        elif b"GNU.sparse.map" in pax:
            real_size = pax.get(b"GNU.sparse.size", b"")
            pieces = _pairs(pax[b"GNU.sparse.map"].split(b",") if pax[b"GNU.sparse.map"] else [])
        elif records:
            real_size = pax.get(b"GNU.sparse.size", b"")
            expected = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
            if any(key != expected[position % 2] for position, (key, _) in enumerate(records)):
                raise InvalidLayer("a sparse map out of order", entry=_text(entry.name))
            pieces = _pairs([value for _, value in records])
        elif b"GNU.sparse.numblocks" in pax and b"GNU.sparse.size" in pax:
            real_size, pieces = pax[b"GNU.sparse.size"], []  # a file that is one hole
        else:
            return
        self._set_sparse(entry, pieces, _decimal(real_size, "sparse size"))

    def _sparse_map_in_data(self, entry: Entry) -> list[tuple[int, int]]:
        """Version 1.0: the count, then offsets and lengths, one a line, padded to a block, before the data."""
        text = bytearray()
        taken = 0

        def line() -> bytes:
            nonlocal taken
            while True:
                end = text.find(b"\n")
                if end >= 0:
                    found = bytes(text[:end])
                    del text[: end + 1]
                    return found
                if self._left < BLOCK or taken >= MAX_HEADER:
                    raise InvalidLayer("a sparse map without an end", entry=_text(entry.name))
                text.extend(self._read(BLOCK, "a sparse map"))
                self._left -= BLOCK
                taken += BLOCK

        count = _decimal(line(), "number of sparse pieces")
        if count > MAX_HEADER // 4:
            raise InvalidLayer("a sparse map of more pieces than are taken", entry=_text(entry.name))
        pieces = _pairs([line() for _ in range(2 * count)])
        entry.stored = self._left
        return pieces

    def _set_sparse(self, entry: Entry, pieces: list[tuple[int, int]], real_size: int) -> None:
        end = 0
        for offset, length in pieces:
            if offset < end or length < 0 or offset + length > real_size:
                raise InvalidLayer("a sparse map whose pieces overlap or lie outside", entry=_text(entry.name))
            end = offset + length
        if sum(length for _, length in pieces) != entry.stored:
            raise InvalidLayer("a sparse map that does not fit the stored data", entry=_text(entry.name))
        if not 0 <= real_size <= _MAX_OFFSET:
            raise InvalidLayer(f"a sparse file of {real_size} bytes", entry=_text(entry.name))
        entry.sparse, entry.size = pieces, real_size


def _write(descriptor: int, piece: memoryview) -> None:
    while True:
        written = os.write(descriptor, piece)
        if written == len(piece):
            return
        piece = piece[written:]


def _text(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")


def _number(field: bytes, what: str) -> int:
    """A number field: octal digits, or base 256 where the first bit is set."""
    digits = field[:-1]
    if digits.isdigit() and field[-1] in b"\0 " and 0x38 not in digits and 0x39 not in digits:
        return int(digits, 8)
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:  # the sign, in two's complement of all but the marking bit
            value -= 1 << (8 * len(field) - 1)
        return value
    digits = field.strip(b" \0").split(b"\0", 1)[0]
    if not _OCTAL.issuperset(digits):
        raise InvalidLayer(f"a header's {what} {field!r} is no number")
    return int(digits or b"0", 8)


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise InvalidLayer(f"{what} {value[:40]!r} is no number")
    return int(value)


def _seconds(value: bytes, what: str) -> int:
    """PAX decimal seconds, as ns, cut toward the past as Go does it."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or len(digits) > 20 or (fraction and not fraction.isdigit()):
        raise InvalidLayer(f"{what} {value[:40]!r} is no time")
    ns = int(digits) * _NS + int(fraction[:9].ljust(9, b"0"))
    return -ns if negative else ns


def _pax_records(content: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """The records of an extended header: the last of each key, and all of the repeated ones of sparse format 0.0."""
    records: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(content):
        if not content[position]:  # some pad with NUL
            if content[position:].strip(b"\0"):
                raise InvalidLayer("an extended header with bytes between its records")
            break
        space = content.find(b" ", position, position + 12)
        length = _decimal(content[position:space] if space > 0 else b"", "an extended record's length")
        end = position + length
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(content) or content[end - 1] != 0x0A or not equals or not key:
            raise InvalidLayer("an extended header with a broken record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append((key, value))
        else:
            records[key] = value
        position = end
    return records, sparse


def _apply_pax(entry: Entry, pax: dict[bytes, bytes], name: bytes, size: int) -> tuple[bytes, int]:
    """Put what the extended header says in the place of what the header says; an empty value changes nothing."""
    for key, value in pax.items():
        if key.startswith((b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")):
            _add_xattr(entry, key, value)
        elif not value:
            continue
        elif key == b"path":
            name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            size = _decimal(value, "size")
        elif key == b"uid":
            entry.uid = _decimal(value, "uid")
        elif key == b"gid":
            entry.gid = _decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime = _seconds(value, "mtime")
    sparse_name = pax.get(b"GNU.sparse.name")
    return sparse_name or name, size


def _add_xattr(entry: Entry, key: bytes, value: bytes) -> None:
    if entry.xattrs is None:
        entry.xattrs = {}
    if key.startswith(b"SCHILY.xattr."):
        entry.xattrs[key[13:]] = value
        return
    from base64 import b64decode
    from urllib.parse import unquote_to_bytes

    name = unquote_to_bytes(key[17:])
    try:
        entry.xattrs.setdefault(name, b64decode(value + b"=" * (-len(value) % 4)))
    except ValueError as error:
        raise InvalidLayer(f"the extended attribute {_text(name)!r} is not in base 64") from error


def _check(entry: Entry, name: bytes, size: int) -> None:
    if b"\0" in name or b"\0" in entry.link:
        raise InvalidLayer("a name with a NUL byte", entry=_text(name))
    if not 0 <= size <= _MAX_OFFSET - BLOCK:
        raise InvalidLayer(f"a size of {size} bytes", entry=_text(name))
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise InvalidLayer(f"an owner {entry.uid}:{entry.gid} that Linux does not have", entry=_text(name))


def _sparse_pieces(fields: bytes) -> list[tuple[int, int]]:
    pieces = []
    for position in range(0, len(fields) - 23, 24):
        if not fields[position]:
            break
        offset = _number(fields[position : position + 12], "sparse offset")
        pieces.append((offset, _number(fields[position + 12 : position + 24], "sparse length")))
    return pieces


def _pairs(values: list[bytes]) -> list[tuple[int, int]]:
    if len(values) % 2:
        raise InvalidLayer("a sparse map with half a piece")
    numbers = [_decimal(value, "sparse map") for value in values]
    return list(zip(numbers[::2], numbers[1::2], strict=True))
