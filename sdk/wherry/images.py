"""`client.images`: everything about images, in docker-py's names where it has them."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import builtins

    from wherry.storage import Storage
    from wherry_images import Credentials, Image, ImageStore, PullEvent, PushEvent
    from wherry_images.check import Problem, Usage
    from wherry_images.collect import Pruned
    from wherry_images.compression import Source
    from wherry_images.registry import Fetched
    from wherry_images.search import Result


class ImageCollection:
    """
    The images of a root.

    Every method raises PermissionDenied or Unavailable when the root cannot be used; what else it raises it says.
    """

    def __init__(self, storage: "Storage") -> None:
        self._storage = storage

    @property
    def _store(self) -> "ImageStore":
        self._storage.open()
        return self._storage.images

    def _note(self, action: str, image_id: str, name: str = "") -> None:
        self._storage.events.append("image", action, image_id, name=name or image_id)

    def get(self, name: str) -> "Image":
        """By name or id. Raises ImageNotFound."""
        return self._store.get(name)

    def list(self) -> "builtins.list[Image]":
        """All of them, the newest first."""
        return self._store.list()

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        policy: Literal["missing", "always", "never", "newer"] = "always",
        progress: "Callable[[PullEvent], None] | None" = None,
    ) -> "Image":
        """
        Fetch an image, or what is missing of it. *progress* is called with `PullEvent`s.

        Raises ManifestUnknown, AuthRequired, RateLimited, RegistryUnreachable, DigestMismatch, NoSpace and more;
        nothing partial is ever visible.
        """
        image = self._store.pull(reference, platform=platform, policy=policy, progress=progress)
        self._note("pull", reference, reference)
        return image

    def pulling(
        self, reference: str, *, platform: str | None = None, credentials: "Credentials | None" = None
    ) -> "Generator[PullEvent, None, Image]":
        """As `pull`, as an iterator of its events that returns the image; closing it ends the pull."""
        image = yield from self._store.pulling(reference, platform=platform, credentials=credentials)
        self._note("pull", reference, reference)
        return image

    def push(self, name: str, *, progress: "Callable[[PushEvent], None] | None" = None) -> str:
        """Send an image to the registry of its name; returns its digest there. Raises AuthRequired and more."""
        digest = self._store.push(name, progress=progress)
        self._note("push", name, name)
        return digest

    def pushing(self, name: str, *, credentials: "Credentials | None" = None) -> "Generator[PushEvent, None, str]":
        """As `push`, as an iterator of its events that returns the digest; closing it ends the push."""
        digest = yield from self._store.pushing(name, credentials=credentials)
        self._note("push", name, name)
        return digest

    def in_registry(self, name: str, *, credentials: "Credentials | None" = None) -> "Fetched":
        """The manifest or index that *name* is in its registry: bytes, media type, digest. Raises ManifestUnknown."""
        return self._store.in_registry(name, credentials=credentials)

    def tag(self, name: str, reference: str) -> "Image":
        """Give an image one more name, which it takes from whatever has it. Raises ImageNotFound."""
        image = self._store.tag(name, reference)
        self._note("tag", image.id, reference)
        return image

    def remove(self, name: str, *, force: bool = False) -> "builtins.list[str]":
        """
        Take the name away, and what no name and no container needs any more.

        Returns what was done (`untagged: …`, `deleted: …`). Raises ImageNotFound, ImageInUse.
        """
        image = self._store.get(name)
        done = self._store.remove(name, force=force)
        self._note_removal(image.id, done)
        return done

    def _note_removal(self, image_id: str, done: "Sequence[str]") -> None:
        from wherry_images.reference import familiar

        for line in done:
            what, _, of = line.partition(": ")
            if what == "untagged":
                self._note("untag", image_id, familiar(of))
            elif of == image_id:
                self._note("delete", image_id)

    def prune(self, *, all: bool = False) -> "Pruned":
        """Remove the images without a name, or *all* that no container has; tells what, and the bytes that are free."""
        return self._store.prune(all=all)

    def save(self, names: str | Sequence[str], *, format: Literal["docker", "oci"] = "docker") -> Iterator[bytes]:
        """A tar of images, in pieces, that docker, podman and skopeo load. Raises ImageNotFound."""
        chosen = [names] if isinstance(names, str) else list(names)
        archive = self._store.save(chosen, format=format)
        for name in chosen:
            self._note("save", self._store.get(name).id, name)
        return archive

    def load(self, source: "Source | str | os.PathLike[str]") -> "builtins.list[Image]":
        """The images of an archive of docker's or OCI's: a path, or anything that can `read`. Raises InvalidImage."""
        images = self._store.load(source)
        for image in images:
            self._note("load", image.id, next(iter(image.tags), ""))
        return images

    def import_(
        self,
        source: "Source | str | os.PathLike[str]",
        reference: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        message: str = "",
    ) -> "Image":
        """A new image out of the tar of a root file system; *config* is in docker's words."""
        image = self._store.import_(source, reference, config=config, message=message)
        self._note("import", image.id, reference or "")
        return image

    def export(self, name: str) -> Iterator[bytes]:
        """The image's root file system as a tar, in pieces, with no container made for it."""
        return self._store.export(self.get(name))

    def search(self, term: str, *, limit: int = 25) -> "builtins.list[Result]":
        """Repositories that have *term*, where the registry can tell. Raises Unsupported."""
        return self._store.search(term, limit=limit)

    def login(self, username: str, password: str, registry: str = "docker.io") -> str:
        """Try the credentials, and remember them where docker does; returns where. Raises AuthRequired."""
        from wherry_images import Credentials

        return self._store.login(registry, Credentials(username=username, password=password))

    def try_login(self, registry: str, credentials: "Credentials") -> None:
        """Whether the registry takes *credentials*; nothing is remembered. Raises AuthRequired."""
        self._store.try_login(registry, credentials)

    def logout(self, registry: str = "docker.io") -> bool:
        """Forget them; whether there were any."""
        return self._store.logout(registry)

    def usage(self) -> "Usage":
        """How much room images take, each by itself and all together."""
        return self._store.usage()

    def check(self, *, content: bool = False) -> "builtins.list[Problem]":
        """What in the store is not as its records say; with *content* every blob is read. Nothing is changed."""
        return self._store.check(content=content)
