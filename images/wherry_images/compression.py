"""Decompressing a layer as it arrives: by what its bytes are, in pieces of bounded size."""

from collections.abc import Iterator
from typing import IO, Protocol, cast

from wherry_images.errors import InvalidLayer

PIECE = 1 << 20  # bytes given out at a time
_INPUT = 256 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2, _XZ = b"BZh", b"\xfd7zXZ\0"
_MAX_ZSTD_WINDOW = 128 << 20  # bytes; what zstd itself decodes without being asked to use more


class Source(Protocol):
    """Where compressed bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Up to *size* bytes, none only at the end."""
        ...


class _Peeked:
    """A source whose first bytes have been looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.head = b""
        while len(self.head) < 6 and (more := source.read(_INPUT)):
            self.head += more

    def read(self, size: int, /) -> bytes:
        if self.head:
            piece, self.head = self.head[:size], self.head[size:]
            return piece
        return self._source.read(size)


def decompressed(source: Source) -> Iterator[bytes]:
    """
    The bytes of *source*, gzip, zstd or not compressed, in pieces of at most PIECE bytes.

    Raises InvalidLayer for what cannot be decompressed, also where it ends too early.
    """
    peeked = _Peeked(source)
    head = peeked.head
    if head.startswith(_GZIP):
        return _gzip(peeked)
    if head.startswith(_ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return _zstd(peeked)
    if head.startswith((_BZIP2, _XZ)):
        raise InvalidLayer("the layer is compressed by bzip2 or xz; only gzip, zstd and none are for images")
    return iter(lambda: peeked.read(PIECE), b"")


def _gzip(source: Source) -> Iterator[bytes]:
    from isal import igzip_lib

    given = b""
    while True:
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while not member.eof:
            if member.needs_input:
                given = given or source.read(_INPUT)
                if not given:
                    raise InvalidLayer("the gzip stream ends too early")
            try:
                piece = member.decompress(given, PIECE)
            except igzip_lib.IsalError as error:  # type: ignore[misc] # its stub forgets the base class
                raise InvalidLayer(f"the gzip stream is broken: {error}") from error
            given = b""
            if piece:
                yield piece
        given = member.unused_data
        while len(given) < 2 and (more := source.read(_INPUT)):
            given += more
        if not given.startswith(_GZIP):
            break
    while given:  # zeros fill the last block of some media, as gzip(1) accepts it
        if given.strip(b"\0"):
            raise InvalidLayer("there is something else after the gzip stream")
        given = source.read(_INPUT)


def _zstd(source: Source) -> Iterator[bytes]:
    import zstandard

    # A stream cut inside its last frame just ends here: the digest of what came out tells.
    reader = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).stream_reader(
        cast("IO[bytes]", source), read_size=_INPUT, read_across_frames=True
    )
    with reader:
        try:
            while piece := reader.read(PIECE):
                yield piece
        except zstandard.ZstdError as error:
            raise InvalidLayer(f"the zstd stream is broken: {error}") from error
