"""Blobs: the content-addressed half of the store, an OCI image layout (image-spec image-layout.md)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from wherry_images.errors import DigestMismatch, InvalidImage
from wherry_images.layout import FileLock, Layout, make_directory, no_space, replace_file
from wherry_oci.errors import NotFound
from wherry_oci.spec.digest import Digest, digest_of, hasher, parse_digest

_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


class Content:
    """The blobs below one root. A blob's file appears whole, under its digest, or not at all."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def make(self) -> None:
        """Make the layout's fixed parts; safe to repeat."""
        top = self._layout.content
        for algorithm in ("sha256", "sha512"):
            make_directory(f"{top}/blobs/{algorithm}")
        if not os.path.exists(f"{top}/oci-layout"):
            replace_file(f"{top}/oci-layout", _LAYOUT_FILE)

    def path(self, digest: Digest) -> str:
        algorithm, _, encoded = parse_digest(digest).partition(":")
        return f"{self._layout.content}/blobs/{algorithm}/{encoded}"

    def partial_path(self, digest: Digest) -> str:
        """Where the first bytes of a blob lie until all have come."""
        return f"{self._layout.ingest}/{digest.replace(':', '-')}.partial"

    def lock(self, digest: Digest) -> FileLock:
        """Who holds it fetches, or removes, the blob."""
        return FileLock(f"{self._layout.ingest}/{digest.replace(':', '-')}.lock")

    def size(self, digest: Digest) -> int | None:
        """The blob's size in bytes, None if it is not there."""
        with suppress(FileNotFoundError):
            return os.stat(self.path(digest)).st_size
        return None

    def open(self, digest: Digest) -> BinaryIO:
        try:
            return open(self.path(digest), "rb", buffering=0)  # the caller closes it
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the store") from None

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob, checked. Raises NotFound, DigestMismatch, InvalidImage if it has more than *limit* bytes."""
        with self.open(digest) as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise InvalidImage(f"blob {digest} has more than {limit} bytes")
            content = b"".join(iter(lambda: file.read(1 << 20), b""))
        check_digest(content, digest)
        return content

    def add(self, content: bytes, digest: Digest | None = None) -> Digest:
        """Store a small blob; on the disk with the layout's next sync. Raises DigestMismatch if it is not *digest*."""
        if digest is None:
            digest = digest_of(content)
        else:
            check_digest(content, digest)
        path = self.path(digest)
        if self.size(digest) != len(content):
            replace_file(path, content, durable=False)
        return digest

    def commit(self, digest: Digest) -> None:
        """Give the partial blob, now whole and checked, its name."""
        with no_space(self._layout.root, f"blob {digest}"):
            os.rename(self.partial_path(digest), self.path(digest))

    def remove(self, digest: Digest) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def remove_partial(self, digest: Digest) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.partial_path(digest))

    def folders(self) -> list[str]:
        """The folders that have files of ours."""
        return [self._layout.content, *(f"{self._layout.content}/blobs/{name}" for name in ("sha256", "sha512"))]

    def digests(self) -> Iterator[Digest]:
        """All blobs that are there."""
        for algorithm in ("sha256", "sha512"):
            with suppress(FileNotFoundError):
                for name in os.listdir(f"{self._layout.content}/blobs/{algorithm}"):
                    with suppress(ValueError):
                        yield parse_digest(f"{algorithm}:{name}")


def check_digest(content: bytes, expected: Digest, what: str = "") -> None:
    """Raises DigestMismatch, which names *what*, unless *content* has the digest *expected*."""
    found = hasher(expected)
    found.update(content)
    actual = f"{expected.partition(':')[0]}:{found.hexdigest()}"
    if actual != expected:
        raise DigestMismatch(expected, actual, what)
