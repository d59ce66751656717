"""Pushing an image: what the registry has already is not sent, what it has elsewhere is mounted (distribution-spec)."""

import json
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

import attrs

from wherry_images.content import Content
from wherry_images.errors import DigestMismatch, RegistryError, RegistryUnreachable
from wherry_images.image import Image
from wherry_images.progress import Phase, PushEvent, Throttle
from wherry_images.registry import Registry
from wherry_oci.spec.digest import Digest
from wherry_oci.spec.manifest import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, Descriptor, Index, Manifest, unstructure

_PIECE = 1 << 20


@attrs.frozen(kw_only=True)
class Upload:
    """A blob that the registry shall have, and the repositories there that may have it."""

    descriptor: Descriptor
    elsewhere: tuple[str, ...] = ()


class Push:
    """One push under way, as Pull is one pull."""

    def __init__(
        self,
        registry: Registry,
        repository: str,
        content: Content,
        *,
        parallel: int,
        retries: int,
        chunk_size: int | None = None,
    ) -> None:
        """With a *chunk_size*, in bytes, blobs are sent in several requests, else in one."""
        self._registry, self._repository, self._content = registry, repository, content
        self._parallel, self._retries, self._chunk_size = parallel, retries, chunk_size
        self._events: queue.SimpleQueue[PushEvent | BaseException | None] = queue.SimpleQueue()

    def blobs(self, uploads: list[Upload]) -> Generator[PushEvent, None, None]:
        """Bring all blobs there, several at a time."""
        todo = iter(uploads)
        lock = threading.Lock()

        def work() -> None:
            try:
                while not self._registry.cancelled.is_set():
                    with lock:
                        upload = next(todo, None)
                    if upload is None:
                        return
                    self._blob(upload)
            except BaseException as error:
                self._events.put(error)
            finally:
                self._events.put(None)

        threads = [
            threading.Thread(target=work, name=f"wherry-push-{number}", daemon=True)
            for number in range(min(self._parallel, len(uploads)))
        ]
        running = len(threads)
        failure: BaseException | None = None
        finished = False
        try:
            for thread in threads:
                thread.start()
            while running:
                event = self._events.get()
                if event is None:
                    running -= 1
                elif isinstance(event, BaseException):
                    failure = failure or event
                    self._registry.cancel()
                elif failure is None:
                    yield event
            finished = True
        finally:
            if not finished:
                self._registry.cancel()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if failure is not None:
            raise failure

    def _blob(self, upload: Upload) -> None:
        descriptor = upload.descriptor
        for attempt in range(self._retries + 1):
            try:
                phase = self._try_blob(upload)
                self._events.put(PushEvent(descriptor.digest, phase, descriptor.size, descriptor.size))
                return
            except RegistryUnreachable:
                if attempt == self._retries:
                    raise
                self._registry.pause(min(0.1 * 2**attempt, 5.0))

    def _try_blob(self, upload: Upload) -> Phase:
        registry, repository, digest = self._registry, self._repository, upload.descriptor.digest
        if registry.has_blob(repository, digest):
            return "exists"
        for source in upload.elsewhere:
            with suppress(RegistryError):  # what may not be mounted is sent
                if (location := registry.start_upload(repository, digest, source)) is None:
                    return "mounted"
                self._send(upload.descriptor, location)
                return "done"
        location = registry.start_upload(repository)
        assert location is not None
        self._send(upload.descriptor, location)
        return "done"

    def _send(self, descriptor: Descriptor, location: str) -> None:
        progress = Throttle(
            lambda current: self._events.put(PushEvent(descriptor.digest, "uploading", current, descriptor.size)),
            descriptor.size,
        )
        pieces = partial(self._pieces, descriptor, progress)
        if self._chunk_size is None:
            whole = partial(pieces, 0, descriptor.size)
            self._registry.finish_upload(self._repository, location, descriptor.digest, descriptor.size, whole)
            return
        start = 0
        while start < descriptor.size:
            end = min(start + self._chunk_size, descriptor.size)
            location = self._registry.send_chunk(self._repository, location, start, end, partial(pieces, start, end))
            start = end
        self._registry.finish_upload(self._repository, location, descriptor.digest, 0, None)

    def _pieces(self, descriptor: Descriptor, progress: Throttle, start: int, end: int) -> Iterator[bytes]:
        with self._content.open(descriptor.digest) as file:
            file.seek(start)
            while start < end and not self._registry.cancelled.is_set():
                piece = file.read(min(_PIECE, end - start))
                if not piece:
                    raise DigestMismatch(descriptor.digest, f"{start} bytes", "a blob in the store")
                start += len(piece)
                yield piece
                progress(start)


def uploads_of(manifests: Sequence[Manifest], elsewhere: Mapping[Digest, tuple[str, ...]]) -> list[Upload]:
    """What the manifests need, the largest blobs first."""
    unique = {one.digest: one for manifest in manifests for one in (*manifest.layers, manifest.config)}
    return [
        Upload(descriptor=one, elsewhere=elsewhere.get(one.digest, ()))
        for one in sorted(unique.values(), key=lambda one: -one.size)
    ]


def index_of(images: Sequence[tuple[str, Image, int]]) -> tuple[str, bytes]:
    """The media type and content of an index of images, each with its manifest's media type and size in bytes."""
    docker = all(media_type == DOCKER_MANIFEST for media_type, _, _ in images)
    kind = DOCKER_INDEX if docker else OCI_INDEX
    index = Index(
        schema_version=2,
        media_type=kind,
        manifests=tuple(
            Descriptor(media_type=media_type, digest=image.manifest, size=size, platform=image.platform)
            for media_type, image, size in images
        ),
    )
    return kind, json.dumps(unstructure(index), separators=(",", ":")).encode()
