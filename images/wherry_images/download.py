"""Fetching one blob: from where the last try ended, hashed and kept as it comes."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from wherry_images.content import Content
from wherry_images.errors import BlobUnknown, DigestMismatch, RegistryUnreachable, SizeMismatch
from wherry_images.layout import no_space
from wherry_images.registry import Cancelled, Registry
from wherry_oci.spec.digest import hasher
from wherry_oci.spec.manifest import Descriptor

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_WRITE_BACK = 8 << 20  # bytes
_WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Download:
    """
    The bytes of a blob as a source: first those of an earlier try, then the registry's, which are kept for the next.

    Whoever has it holds the blob's lock. At its end the digest has been checked: a mismatch is a DigestMismatch, and
    nothing is kept then. A broken connection is made again and goes on after the last byte.
    """

    def __init__(
        self,
        registry: Registry,
        repository: str,
        descriptor: Descriptor,
        content: Content,
        *,
        retries: int,
        retry_wait: float,
        foreign: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._registry, self._repository, self._descriptor = registry, repository, descriptor
        self._content, self._progress = content, progress
        self._retries, self._retry_wait = retries, retry_wait
        self._foreign = foreign
        self._hash = hasher(descriptor.digest)
        self._file = os.open(content.partial_path(descriptor.digest), _WRITE, 0o600)
        self._kept = os.fstat(self._file).st_size  # bytes of an earlier try
        self._position = self._written_back = 0
        self._exchange: AbstractContextManager[tuple[BaseHTTPResponse, int]] | None = None
        self._response: BaseHTTPResponse | None = None
        self._skip = 0  # bytes of the response that are known already
        self._fruitless = 0  # tries in a row that brought nothing
        self._broken = False  # whether a connection ever failed
        self._verified = False

    def close(self) -> None:
        """Idempotent; what has come stays for the next try."""
        self._disconnect()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, size: int, /) -> bytes:
        """Up to *size* bytes; b"" once, when all are there and are the right ones."""
        if self._verified:
            return b""
        if self._registry.cancelled.is_set():
            raise Cancelled("given up")
        if self._position < self._kept:
            piece = os.pread(self._file, min(size, self._kept - self._position), self._position)
        else:
            piece = self._receive(size)
            if piece:
                with no_space(self._content.partial_path(self._descriptor.digest), f"blob {self._descriptor.digest}"):
                    _write_all(self._file, piece, self._position)
                self._write_back(self._position + len(piece))
        if not piece:
            self._verify()
            return b""
        self._hash.update(piece)
        self._position += len(piece)
        if self._position > self._descriptor.size:
            self._reject(SizeMismatch(self._descriptor.digest, self._descriptor.size, self._position))
        if self._progress is not None:
            self._progress(self._position)
        return piece

    def _write_back(self, end: int) -> None:
        """Let the disk begin with what has come, instead of with all of it at the end; nobody reads it soon."""
        if end - self._written_back >= _WRITE_BACK:
            with suppress(OSError):
                os.posix_fadvise(self._file, self._written_back, end - self._written_back, os.POSIX_FADV_DONTNEED)
            self._written_back = end

    def drain(self) -> None:
        """Fetch what is left."""
        while self.read(1 << 20):
            pass

    # -- the network ---------------------------------------------------------------------------------------------------

    def _receive(self, size: int) -> bytes:
        while self._position < self._descriptor.size:
            failure: Exception | None = None
            try:
                if self._response is None:
                    self._connect()
                assert self._response is not None
                # A read that waits for all of *size* loses what had come when it fails: not twice.
                read = self._response.read1 if self._broken else self._response.read
                piece = read(size, decode_content=False)
                if self._skip:
                    skipped, piece = len(piece), piece[self._skip :]
                    self._skip = max(0, self._skip - skipped)
                    if skipped and not piece:
                        continue
                if piece:
                    self._fruitless = 0
                    return piece
            except (HTTPError, OSError) as error:
                failure = error
            self._try_again(failure)
        return self._surplus(size)

    def _surplus(self, size: int) -> bytes:
        """Whether the server has more than it should: a byte too many is reported, not waited for."""
        if self._response is None or self._skip:
            return b""
        try:
            return self._response.read(1, decode_content=False)
        except (HTTPError, OSError):
            return b""

    def _connect(self) -> None:
        self._disconnect()
        digest = self._descriptor.digest
        try:
            self._exchange = self._registry.blob(self._repository, digest, self._position)
            self._response, start = self._exchange.__enter__()
        except BlobUnknown:
            self._exchange = None
            if not self._foreign or not self._descriptor.urls:
                raise
            self._exchange = self._registry.foreign(self._descriptor.urls[0], self._position)
            self._response, start = self._exchange.__enter__()
        except BaseException:
            self._exchange = None
            raise
        if self._response.status == 416:
            self._reject(SizeMismatch(digest, self._descriptor.size, self._position))
        whole = _whole_size(self._response)
        if whole is not None and whole != self._descriptor.size:
            self._reject(SizeMismatch(digest, self._descriptor.size, whole))
        if start > self._position:
            raise RegistryUnreachable(
                f"blob {digest}: the answer begins at byte {start} instead of {self._position}",
                registry=self._registry.name,
            )
        self._skip = self._position - start

    def _disconnect(self) -> None:
        exchange, self._exchange, self._response = self._exchange, None, None
        if exchange is not None:
            exchange.__exit__(None, None, None)

    def _try_again(self, failure: Exception | None) -> None:
        self._disconnect()
        if self._registry.cancelled.is_set():
            raise Cancelled("given up")
        self._fruitless += 1
        self._broken = True
        if self._fruitless > self._retries:
            why = str(failure) if failure is not None else "the connection ends early"
            raise RegistryUnreachable(
                f"blob {self._descriptor.digest} breaks off at byte {self._position} of {self._descriptor.size}: {why}",
                registry=self._registry.name,
            ) from failure
        if self._fruitless > 1:  # the first new try is at once
            self._registry.pause(self._retry_wait * 2 ** (self._fruitless - 2))

    # -- the digest ----------------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        if self._position != self._descriptor.size:
            self._reject(SizeMismatch(self._descriptor.digest, self._descriptor.size, self._position))
        actual = f"{self._descriptor.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if actual != self._descriptor.digest:
            self._reject(DigestMismatch(self._descriptor.digest, actual, f"blob from {self._registry.name}"))
        self._verified = True
        self.close()

    def _reject(self, error: DigestMismatch) -> None:
        """What has come is worthless, whichever of its bytes are wrong."""
        self.close()
        self._content.remove_partial(self._descriptor.digest)
        raise error


def _whole_size(response: "BaseHTTPResponse") -> int | None:
    """How many bytes the blob has, as an answer that has all or a part of it says."""
    said = response.headers.get("Content-Length", "")
    if response.status == 206:
        said = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(said) if said.isdigit() else None


def _write_all(descriptor: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
