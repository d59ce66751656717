"""
Pulling an image: each layer is fetched, checked, kept and unpacked in one stream, several layers at a time.

Nothing is visible before both of a layer's digests match and its files are on the disk; the image itself becomes
visible in one transaction at the end. What was fetched of a pull that failed is there for the next one.
"""

import os
import queue
import threading
from collections.abc import Generator
from contextlib import suppress
from typing import BinaryIO

import attrs

from wherry_images.content import Content
from wherry_images.database import Database
from wherry_images.documents import check_image, check_layers, is_attestation, parse_config, parse_manifest
from wherry_images.download import Download
from wherry_images.errors import (
    DigestMismatch,
    InvalidImage,
    InvalidLayer,
    LimitExceeded,
    NoSpace,
    PlatformNotFound,
)
from wherry_images.hosts import RegistryConfig
from wherry_images.image import Image
from wherry_images.layer import Applied, Limits, NeedsLower
from wherry_images.layout import Layout
from wherry_images.lower import Lower
from wherry_images.platform import best, suits
from wherry_images.progress import Phase, PullEvent, Throttle
from wherry_images.records import Lease, Snapshot, add_blobs, find_snapshot, load_images, lower_layers
from wherry_images.reference import Reference
from wherry_images.registry import Cancelled, Fetched, Registry
from wherry_images.unpack import discard, stage_directory, unpack
from wherry_oci.spec.digest import ChainID, DiffID, Digest, chain_ids, hasher
from wherry_oci.spec.image import Platform
from wherry_oci.spec.manifest import MAX_DOCUMENT, Descriptor, ImageDocument, Index, Manifest

_MAX_NESTED = 4  # indexes in indexes
_SYNC_AHEAD = 80 << 20  # bytes of layers


@attrs.frozen(kw_only=True)
class Found:
    """An image that a registry or an archive has, with the documents that lead to it."""

    manifest: Manifest
    document: ImageDocument
    config: bytes
    top: Digest  # what the name stands for: an index or the manifest itself
    digest: Digest  # the manifest's
    media_type: str
    documents: dict[Digest, bytes]  # indexes and the manifest


@attrs.frozen(kw_only=True)
class Stores:
    """What an operation works on."""

    layout: Layout
    database: Database
    content: Content
    limits: Limits


def resolve(registry: Registry, reference: Reference, wanted: Platform, *, explicit: bool) -> Found:
    """
    Ask what *reference* stands for and choose the manifest for *wanted*.

    Raises what Registry.manifest raises, PlatformNotFound, InvalidImage and UnsupportedImage.
    """
    what = str(reference)
    fetched = registry.manifest(reference.repository, reference.target)
    top, documents = fetched.digest, {fetched.digest: fetched.content}
    parsed = fetched.parse(what)
    for _ in range(_MAX_NESTED):
        if isinstance(parsed, Manifest):
            return _with_config(registry, reference, wanted, explicit, fetched, parsed, top, documents)
        chosen = choose(parsed, wanted, what)
        fetched = registry.manifest(reference.repository, chosen.digest)
        if len(fetched.content) != chosen.size:
            raise InvalidImage(f"{what}: manifest {chosen.digest} has {len(fetched.content)} bytes, not {chosen.size}")
        documents[fetched.digest] = fetched.content
        parsed = parse_manifest(fetched.content, fetched.media_type or chosen.media_type, what)
    raise InvalidImage(f"{what} is an index in an index in an index")


def choose(index: Index, wanted: Platform, what: str) -> Descriptor:
    """The entry of *index* for *wanted*. Raises PlatformNotFound."""
    offers = [entry for entry in index.manifests if not is_attestation(entry)]
    position = best([entry.platform for entry in offers], wanted)
    if position is None and len(offers) == 1 and offers[0].platform is None:
        position = 0  # its configuration will tell
    if position is None:
        raise PlatformNotFound(what, str(wanted), tuple(str(entry.platform) for entry in offers if entry.platform))
    return offers[position]


def _with_config(
    registry: Registry,
    reference: Reference,
    wanted: Platform,
    explicit: bool,
    fetched: Fetched,
    manifest: Manifest,
    top: Digest,
    documents: dict[Digest, bytes],
) -> Found:
    what = str(reference)
    check_image(manifest, what)
    if manifest.config.size > MAX_DOCUMENT:
        raise InvalidImage(f"{what} has a configuration of {manifest.config.size} bytes")
    config = registry.small_blob(reference.repository, manifest.config.digest, manifest.config.size)
    document = parse_config(config, f"the configuration of {what}")
    check_layers(manifest, document, what)
    if (explicit or document.os not in ("", "linux")) and not suits(document.platform, wanted):
        raise PlatformNotFound(what, str(wanted), (str(document.platform),))
    return Found(
        manifest=manifest,
        document=document,
        config=config,
        top=top,
        digest=fetched.digest,
        media_type=manifest.media_type or fetched.media_type.partition(";")[0].strip(),
        documents=documents,
    )


class _Ahead:
    """
    Brings what the layers write to the disk while they are being unpacked: at the end little is left to wait for.

    What went wrong is kept, since the kernel tells of an error once: `check` raises it.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()  # guards all below
        self._waiting = 0  # bytes since the last time
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def written(self, size: int) -> None:
        """Said after each piece; it does not wait."""
        with self._lock:
            self._waiting += size
            if self._waiting < _SYNC_AHEAD or (self._thread is not None and self._thread.is_alive()):
                return
            self._waiting = 0
            self._thread = threading.Thread(target=self._sync, name="wherry-sync", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Wait for what is under way."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def check(self) -> None:
        """Raises what `Layout.sync` has raised here until now."""
        self.join()
        if self._failure is not None:
            raise self._failure

    def _sync(self) -> None:
        try:
            self._layout.sync()
        except Exception as error:
            self._failure = error


class Pull:
    """One pull under way: `run` is its life, in the caller's thread; the layers have threads that end with it."""

    def __init__(
        self,
        stores: Stores,
        config: RegistryConfig,
        found: Found,
        lease: Lease,
        registry: Registry | None = None,
        repository: str = "",
    ) -> None:
        """Without a *registry* all blobs must be in the store."""
        self._stores, self._config = stores, config
        self._registry, self._repository = registry, repository
        self._found, self._lease = found, lease
        self._cancelled = registry.cancelled if registry is not None else threading.Event()
        self._diff_ids = found.document.rootfs.diff_ids
        self._chain_ids = chain_ids(self._diff_ids)
        self._events: queue.SimpleQueue[PullEvent | BaseException | None] = queue.SimpleQueue()
        self._next = iter(range(len(self._diff_ids)))
        self._lock = threading.Lock()  # guards _next
        self._ready: list[Snapshot | None] = [None] * len(self._diff_ids)
        self._is_ready = [threading.Event() for _ in self._diff_ids]
        self._ahead = _Ahead(stores.layout)

    def run(self) -> Generator[PullEvent, None, list[Snapshot]]:
        """Fetch and unpack all layers; yields what happens and returns their snapshots, base first."""
        threads = [
            threading.Thread(target=self._work, name=f"wherry-pull-{number}", daemon=True)
            for number in range(min(self._config.parallel, len(self._diff_ids)))
        ]
        running = len(threads)
        failure: BaseException | None = None
        try:
            for thread in threads:
                thread.start()
            while running:
                event = self._events.get()
                if event is None:
                    running -= 1
                elif isinstance(event, BaseException):
                    # what the others say after the first failure is its consequence
                    failure = failure or event
                    self._cancel()
                elif failure is None:
                    yield event
        finally:
            self._cancelled.set()
            if running:
                self._cancel()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            self._ahead.join()
        if failure is not None:
            raise failure
        return [snapshot for snapshot in self._ready if snapshot is not None]

    def forget(self) -> None:
        """Remove what is partial of all layers, but of those that another process is at."""
        for descriptor in self._found.manifest.layers:
            lock = self._stores.content.lock(descriptor.digest)
            if lock.try_acquire():
                self._stores.content.remove_partial(descriptor.digest)
                lock.release()

    def _cancel(self) -> None:
        self._cancelled.set()
        if self._registry is not None:
            self._registry.cancel()

    # -- in the threads ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._cancelled.is_set():
                with self._lock:
                    position = next(self._next, None)
                if position is None:
                    return
                self._ready[position] = self._layer(position)
                self._is_ready[position].set()
        except BaseException as error:
            self._events.put(error)
        finally:
            self._events.put(None)

    def _layer(self, position: int) -> Snapshot:
        descriptor = self._found.manifest.layers[position]
        try:
            snapshot = self._fetch_and_unpack(position, descriptor)
            if snapshot is None:
                snapshot = self._unpack_over(position, descriptor, self._lower(position))
        except InvalidLayer as error:
            error.place(layer=descriptor.digest)
            raise
        self._events.put(PullEvent(descriptor.digest, "done", descriptor.size, descriptor.size))
        return snapshot

    def _fetch_and_unpack(self, position: int, descriptor: Descriptor) -> Snapshot | None:
        """Get the blob and, unless the layer needs the ones below, its snapshot."""
        stores, digest = self._stores, descriptor.digest
        diff_id, chain_id = self._diff_ids[position], self._chain_ids[position]
        self._lease.add(digest, diff_id, chain_id)
        with stores.content.lock(digest).held(lambda: self._waiting(descriptor)):
            snapshot = self._known(diff_id, chain_id)
            present = stores.content.size(digest) == descriptor.size
            if snapshot is not None and present:
                self._record_blob(descriptor)
                self._events.put(PullEvent(digest, "exists", descriptor.size, descriptor.size))
                return snapshot
            lower = Lower() if position == 0 else None
            if present:
                try:
                    return self._unpack_kept(position, descriptor, lower)
                except DigestMismatch as error:
                    if error.expected != digest or self._registry is None:
                        raise
                    stores.content.remove(digest)  # the disk has lost it: once more from the registry
            download = self._download(descriptor)
            try:
                if snapshot is not None:
                    download.drain()
                    stores.content.commit(digest)
                    self._record_blob(descriptor)
                    return snapshot
                return self._unpack_download(position, descriptor, download, lower)
            except NoSpace:
                stores.content.remove_partial(digest)
                raise
            finally:
                download.close()

    def _unpack_download(
        self, position: int, descriptor: Descriptor, download: Download, lower: Lower | None
    ) -> Snapshot | None:
        staged = self._stage()
        committed = False
        try:
            applied: Applied | None = None
            try:
                applied = self._unpack(download, staged, position, descriptor, lower)
            except NeedsLower:
                download.drain()
            except (InvalidLayer, DigestMismatch) as error:
                if not isinstance(error, LimitExceeded):
                    download.drain()  # if the blob is not what it should be, that is what is wrong
                raise
            self._stores.content.commit(descriptor.digest)
            if applied is None:
                self._record_blob(descriptor)
                return None
            snapshot = self._record(position, descriptor, staged, applied)
            committed = snapshot.directory == staged
            return snapshot
        finally:
            if not committed:
                discard(self._stores.layout, staged)

    def _unpack_kept(self, position: int, descriptor: Descriptor, lower: Lower | None) -> Snapshot | None:
        """Unpack a blob that the store has."""
        staged = self._stage()
        committed = False
        try:
            with self._stores.content.open(descriptor.digest) as file:
                source = _Checked(file, descriptor, self._cancelled)
                try:
                    applied = self._unpack(source, staged, position, descriptor, lower)
                except InvalidLayer as error:
                    if not isinstance(error, LimitExceeded):
                        source.drain()  # if the blob is not what it should be, that is what is wrong
                    raise
            snapshot = self._record(position, descriptor, staged, applied)
            committed = snapshot.directory == staged
            return snapshot
        except NeedsLower:
            self._record_blob(descriptor)
            return None
        finally:
            if not committed:
                discard(self._stores.layout, staged)

    def _unpack_over(self, position: int, descriptor: Descriptor, lower: Lower) -> Snapshot:
        snapshot = self._unpack_kept(position, descriptor, lower)
        assert snapshot is not None, "with its lower layers at hand a layer needs nothing more"
        return snapshot

    def _unpack(
        self,
        source: "Download | _Checked",
        staged: str,
        position: int,
        descriptor: Descriptor,
        lower: Lower | None,
    ) -> Applied:
        tell = self._progress(descriptor, "unpacking", None)
        before = 0

        def progress(current: int) -> None:
            nonlocal before
            tell(current)
            self._ahead.written(current - before)
            before = current

        return unpack(
            source,
            f"{self._stores.layout.snapshots}/{staged}",
            self._diff_ids[position],
            lower=lower,
            limits=self._stores.limits,
            compressed_size=descriptor.size,
            progress=progress,
        )

    def _lower(self, position: int) -> Lower:
        """The layers below *position*, once they are all unpacked."""
        for below in range(position):
            while not self._is_ready[below].wait(0.1):
                if self._cancelled.is_set():
                    raise Cancelled("given up")
        known = [snapshot for snapshot in self._ready[:position] if snapshot is not None]
        return Lower(tuple(lower_layers(self._stores.layout, known)))

    # -- records -------------------------------------------------------------------------------------------------------

    def _stage(self) -> str:
        return stage_directory(self._stores.layout, self._lease.add)

    def _known(self, diff_id: DiffID, chain_id: ChainID) -> Snapshot | None:
        with self._stores.database.read() as connection:
            return find_snapshot(connection, diff_id, chain_id)

    def _record_blob(self, descriptor: Descriptor) -> None:
        with self._stores.database.read() as connection:
            if connection.execute("SELECT 1 FROM blob WHERE digest = ?", (descriptor.digest,)).fetchone():
                return
        self._stores.layout.sync()
        with self._stores.database.transaction(durable=False) as connection:
            add_blobs(connection, [(descriptor.digest, descriptor.size)])

    def _record(self, position: int, descriptor: Descriptor, staged: str, applied: Applied) -> Snapshot:
        """
        Make *staged* a snapshot, once it is on the disk, together with the blob that it came from.

        If another process was faster, it is that one's snapshot that comes back.
        """
        if applied.without:
            from logging import getLogger

            without = ", ".join(applied.without)
            getLogger("wherry.images").warning(
                "layer %s is without %s: no right to make it", descriptor.digest, without
            )
        self._stores.layout.sync()
        self._ahead.check()
        diff_id, chain_id = self._diff_ids[position], self._chain_ids[position]
        kind, key = ("diff", str(diff_id)) if applied.self_contained else ("chain", str(chain_id))
        with self._stores.database.transaction() as connection:
            add_blobs(connection, [(descriptor.digest, descriptor.size)])
            connection.execute(
                "INSERT OR IGNORE INTO snapshot(kind, key, directory, size, opaque, has_root)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (kind, key, staged, applied.size, applied.opaque, applied.has_root),
            )
            snapshot = find_snapshot(connection, diff_id, chain_id)
        assert snapshot is not None
        return snapshot

    # -- progress ------------------------------------------------------------------------------------------------------

    def _download(self, descriptor: Descriptor) -> Download:
        if self._registry is None:
            raise InvalidImage(f"blob {descriptor.digest} is missing")
        return Download(
            self._registry,
            self._repository,
            descriptor,
            self._stores.content,
            retries=self._config.retries,
            retry_wait=self._config.retry_wait,
            foreign=self._config.foreign,
            progress=self._progress(descriptor, "downloading", descriptor.size),
        )

    def _progress(self, descriptor: Descriptor, phase: Phase, total: int | None) -> Throttle:
        return Throttle(lambda current: self._events.put(PullEvent(descriptor.digest, phase, current, total)), total)

    def _waiting(self, descriptor: Descriptor) -> None:
        if self._cancelled.is_set():
            raise Cancelled("given up")
        current = 0
        with suppress(FileNotFoundError):
            current = os.stat(self._stores.content.partial_path(descriptor.digest)).st_size
        self._events.put(PullEvent(descriptor.digest, "waiting", current, descriptor.size))


class _Checked:
    """A kept blob as a source: it is hashed again, since disks forget."""

    def __init__(self, file: BinaryIO, descriptor: Descriptor, cancelled: threading.Event) -> None:
        self._file, self._descriptor, self._cancelled = file, descriptor, cancelled
        self._hash = hasher(descriptor.digest)

    def read(self, size: int, /) -> bytes:
        if self._cancelled.is_set():
            raise Cancelled("given up")
        piece = self._file.read(size)
        self._hash.update(piece)
        if not piece:
            actual = f"{self._descriptor.digest.partition(':')[0]}:{self._hash.hexdigest()}"
            if actual != self._descriptor.digest:
                raise DigestMismatch(self._descriptor.digest, actual, "a blob in the store")
        return piece

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def record_image(
    stores: Stores, found: Found, snapshots: list[Snapshot], reference: Reference | None, names: tuple[str, ...] = ()
) -> Image:
    """
    Make an image, with all its layers ready, visible in one transaction; gives it as it is at that moment.

    *reference* is where it came from: it gets that name, or those in *names*, and its digests there.
    """
    stores.content.add(found.config, found.manifest.config.digest)
    for digest, content in found.documents.items():
        stores.content.add(content, digest)
    stores.layout.sync()
    image = found.manifest.config.digest
    blobs = [(image, len(found.config)), *((digest, len(content)) for digest, content in found.documents.items())]
    blobs += [(layer.digest, layer.size) for layer in found.manifest.layers]
    with stores.database.transaction() as connection:
        add_blobs(connection, blobs)
        connection.execute(
            "INSERT INTO image(id, manifest, media_type, document, size) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT(id) DO UPDATE SET manifest = excluded.manifest, media_type = excluded.media_type",
            (
                image,
                found.digest,
                found.media_type,
                found.config.decode("utf-8"),
                sum(snapshot.size for snapshot in snapshots),
            ),
        )
        connection.executemany(
            "INSERT OR IGNORE INTO image_blob VALUES (?, ?)", [(image, digest) for digest, _ in blobs]
        )
        connection.executemany(
            "INSERT OR REPLACE INTO image_layer VALUES (?, ?, ?, ?)",
            [
                (image, position, layer.digest, snapshot.id)
                for position, (layer, snapshot) in enumerate(zip(found.manifest.layers, snapshots, strict=True))
            ],
        )
        if reference is not None:
            connection.executemany(
                "INSERT OR IGNORE INTO image_digest VALUES (?, ?, ?)",
                [(reference.name, digest, image) for digest in {found.top, found.digest}],
            )
        for name in names:
            connection.execute("INSERT OR REPLACE INTO image_name VALUES (?, ?, ?)", (name, image, found.top))
        return load_images(connection, "WHERE id = ?", (image,))[0]
