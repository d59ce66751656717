"""Unpacking one layer from a stream: one thread decompresses, one writes files, and one hashes."""

import os
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256

import attrs

from wherry_images import tree
from wherry_images.compression import Source, decompressed
from wherry_images.errors import DigestMismatch, LimitExceeded
from wherry_images.layer import Applied, Limits, apply
from wherry_images.layout import Layout, no_space
from wherry_images.lower import Lower
from wherry_images.pipe import Closed, Pipe
from wherry_images.tar_reader import TarReader
from wherry_oci.spec.digest import DiffID

_ROOM = 8  # pieces between the two threads
_FREE_BYTES = 1 << 30  # up to here a layer may grow however small it was sent
_CLONE_FS = 0x00000200


@attrs.define
class Staged:
    """A directory below snapshots/ that becomes a snapshot when it is recorded."""

    directory: str
    applied: Applied


def stage_directory(layout: Layout, announce: Callable[[str], None]) -> str:
    """
    Make a new, empty directory below snapshots/; its name was never used and is announced before it exists.

    Names are short: overlayfs' classic mount takes the names of all layers on one page.
    """
    while True:
        name = os.urandom(4).hex()
        announce(name)
        try:
            with no_space(layout.snapshots, "a layer"):
                os.mkdir(f"{layout.snapshots}/{name}", 0o700)
            # "/" of a layer that does not say how it is: as in every image whose layers do
            os.chmod(f"{layout.snapshots}/{name}", 0o755)
            return name
        except FileExistsError:
            continue


def discard(layout: Layout, name: str) -> None:
    """Remove a directory below snapshots/ with all its files."""
    parent = os.open(layout.snapshots, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree.remove(parent, name)
    finally:
        os.close(parent)


def unpack(
    source: Source,
    target: str,
    diff_id: DiffID,
    *,
    lower: Lower | None,
    limits: Limits,
    compressed_size: int,
    progress: Callable[[int], None] | None = None,
) -> Applied:
    """
    Unpack *source* into the empty directory *target* and check that its tar is *diff_id*.

    As `layer.apply`, whose NeedsLower also comes out here; DigestMismatch if it is another tar. The source is read
    only as far as needed.
    """
    pipe = Pipe(_ROOM)
    worker, digest = _Worker(pipe, target, lower, limits, progress), _Digest()
    worker.start()
    digest.start()
    try:
        total, most = 0, max(_FREE_BYTES, limits.ratio * compressed_size)
        for piece in decompressed(source):
            total += len(piece)
            if total > most:
                raise LimitExceeded(f"bytes out of a blob of {compressed_size}", most)
            pipe.put(piece)
            digest.pipe.put(piece)
        pipe.end()
    except Closed:
        pass  # the worker knows why
    except BaseException as error:
        pipe.end(error)
        raise
    finally:
        digest.pipe.end()
        worker.join()
        digest.join()
    if worker.failure is not None:
        raise worker.failure
    assert worker.applied is not None
    actual = f"sha256:{digest.hash.hexdigest()}"
    if actual != diff_id:
        raise DigestMismatch(diff_id, actual, "the layer's tar")
    return worker.applied


class _Worker(threading.Thread):
    """The thread that makes the files."""

    def __init__(
        self,
        pipe: Pipe,
        target: str,
        lower: Lower | None,
        limits: Limits,
        progress: Callable[[int], None] | None,
    ) -> None:
        super().__init__(name="wherry-unpack", daemon=True)
        self._pipe, self._target = pipe, target
        self._lower, self._limits, self._progress = lower, limits, progress
        self.applied: Applied | None = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.applied = self._unpack()
        except BaseException as error:  # it is raised again by the thread that waits
            self.failure = error
        finally:
            self._pipe.close()

    def _unpack(self) -> Applied:
        keeps_modes = own_umask()
        reader = TarReader(self._counted())
        descriptor = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            applied = apply(reader, descriptor, lower=self._lower, limits=self._limits, keeps_modes=keeps_modes)
        finally:
            os.close(descriptor)
        reader.drain()
        return applied

    def _counted(self) -> Iterator[bytes]:
        total = 0
        for piece in self._pipe:
            total += len(piece)
            if self._progress is not None:
                self._progress(total)
            yield piece


class _Digest(threading.Thread):
    """The thread that hashes what comes through its pipe."""

    def __init__(self) -> None:
        super().__init__(name="wherry-digest", daemon=True)
        self.pipe = Pipe(_ROOM)
        self.hash = sha256()

    def run(self) -> None:
        for piece in self.pipe:
            self.hash.update(piece)


def own_umask() -> bool:
    """
    Give the calling thread a umask of its own, 0; the process keeps its one.

    False where the thread may not have one: then nothing has changed.
    """
    from wherry_oci.linux.namespaces import unshare

    try:
        unshare(_CLONE_FS)
    except OSError:
        return False
    os.umask(0)
    return True
