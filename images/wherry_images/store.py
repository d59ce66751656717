"""
The image store of one root directory: pull, look up, mount, remove.

Any number of processes and threads may use one root at a time, each with a store of its own or a shared one; a store
can be pickled and survives fork. Nothing is read or made before the first call.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from wherry_images import records
from wherry_images.content import Content
from wherry_images.database import Database
from wherry_images.errors import ImageInUse, ImageNotFound, Offline
from wherry_images.image import Image
from wherry_images.layout import Layout, make_directory
from wherry_images.reference import Reference, parse_reference
from wherry_images.snapshot import LayerPath, Snapshotter, snapshotter
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.mount import Mount

if TYPE_CHECKING:
    from wherry_images.credentials import Credentials
    from wherry_images.hosts import RegistryConfig
    from wherry_images.layer import Limits
    from wherry_images.progress import PullEvent
    from wherry_images.pull import Stores

Policy = Literal["missing", "always", "never", "newer"]
StrPath = str | os.PathLike[str]
Images = list[Image]  # ImageStore.list hides the type in its own class
Mounts = list[Mount]
Lines = list[str]
_Layers = list[LayerPath]


class ImageStore:
    """The images below *root*."""

    def __init__(
        self,
        root: StrPath,
        *,
        registries: "RegistryConfig | None" = None,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        insecure: Sequence[str] = (),
        limits: "Limits | None" = None,
        snapshotter: Literal["overlay", "native"] = "overlay",
        offline: bool = False,
    ) -> None:
        """
        Remember where and how; no input or output.

        *registries* says how registries are reached, by default as the environment says; *mirrors* and *insecure* are
        added to that. *limits* are for every layer that is unpacked. *offline*: no network, whatever is asked for.
        """
        self._layout = Layout(os.path.abspath(os.fspath(root)))
        self._content = Content(self._layout)
        self._registries, self._mirrors, self._insecure = registries, dict(mirrors or {}), tuple(insecure)
        self._limits, self._snapshotter, self._offline = limits, snapshotter, offline
        self.database = Database(self._layout.database)
        self._made = False

    @property
    def root(self) -> str:
        return self._layout.root

    def close(self) -> None:
        """Close idle files; the store stays usable."""
        self.database.close()

    def __repr__(self) -> str:
        return f"ImageStore({self.root!r})"

    # -- looking up ----------------------------------------------------------------------------------------------------

    def get(self, name_or_id: str, *, platform: str | None = None) -> Image:
        """
        The image of that reference, id, beginning of an id, or digest in a repository.

        Raises ImageNotFound, also if it is not for *platform*; InvalidReference for what cannot be a name;
        InvalidArgument if several ids begin so.
        """
        self._migrate()
        with self.database.read() as connection:
            image = _find(connection, name_or_id)
        if platform is not None:
            _check_platform(image, name_or_id, platform)
        return image

    def exists(self, name_or_id: str) -> bool:
        try:
            self.get(name_or_id)
        except ImageNotFound:
            return False
        return True

    def list(self) -> Images:
        """All images, those made last first."""
        self._migrate()
        with self.database.read() as connection:
            images = records.load_images(connection)
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    # -- pulling -------------------------------------------------------------------------------------------------------

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        policy: Policy = "always",
        progress: "Callable[[PullEvent], None] | None" = None,
        credentials: "Credentials | None" = None,
    ) -> Image:
        """
        Get an image from its registry, unpacked and ready to be mounted.

        *policy*: "always" asks the registry and fetches what is missing here; "missing" only if no such image is here;
        "newer" only if the registry has another one, and keeps what is here if it does not answer; "never" fails with
        ImageNotFound. *progress* is called in this thread; what it raises ends the pull.

        Raises ManifestUnknown, AuthRequired, RateLimited, RegistryUnreachable, DigestMismatch, InvalidLayer, NoSpace,
        UnsupportedImage, …: it has not failed if it returns.
        """
        events = self.pulling(reference, platform=platform, policy=policy, credentials=credentials)
        try:
            while True:
                event = next(events)
                if progress is not None:
                    progress(event)
        except StopIteration as end:
            image = end.value
            assert isinstance(image, Image)
            return image
        finally:
            events.close()

    def pulling(
        self,
        reference: str,
        *,
        platform: str | None = None,
        policy: Policy = "always",
        credentials: "Credentials | None" = None,
    ) -> "Generator[PullEvent, None, Image]":
        """As `pull`, as an iterator of its events that returns the image; closing it ends the pull."""
        if policy not in ("missing", "always", "never", "newer"):
            raise InvalidArgument(f"pull policy {policy!r} is not one of missing, always, never, newer")
        parsed = parse_reference(reference)
        here = self._local(parsed, platform)
        if here is not None and (policy in ("missing", "never") or self._offline):
            return here
        if policy == "never":
            raise ImageNotFound(reference, "and the policy is never to pull")
        if self._offline:
            raise Offline(str(parsed))
        return (yield from self._pull(parsed, platform, policy, here, credentials))

    def _pull(
        self,
        reference: Reference,
        platform: str | None,
        policy: Policy,
        here: Image | None,
        credentials: "Credentials | None",
    ) -> "Generator[PullEvent, None, Image]":
        from wherry_images.errors import RegistryUnreachable
        from wherry_images.platform import parse_platform
        from wherry_images.progress import PullEvent
        from wherry_images.pull import Pull, record_image, resolve
        from wherry_images.registry import Registry

        self._make()
        stores, config = self._stores(), self._config(reference.registry, credentials)
        registry = Registry(reference.registry, config)
        try:
            yield PullEvent("", "resolving")
            if policy == "newer" and here is not None:
                try:
                    if registry.head(reference.repository, reference.target) == self._target(reference):
                        return here
                except RegistryUnreachable:
                    return here
            wanted = parse_platform(platform)
            found = resolve(registry, reference, wanted, explicit=platform is not None)
            with records.leased(self._layout, self.database) as lease:
                lease.add(found.manifest.config.digest, *found.documents)
                snapshots = yield from Pull(stores, registry, config, reference, found, lease).run()
                names = () if reference.digest else (str(reference),)
                image = record_image(stores, found, snapshots, reference, names)
            self._write_index()
            yield PullEvent("", "done")
            return self.get(image)
        finally:
            registry.close()

    def _local(self, reference: Reference, platform: str | None) -> Image | None:
        try:
            return self.get(str(reference), platform=platform)
        except ImageNotFound:
            return None

    def _target(self, reference: Reference) -> str | None:
        with self.database.read() as connection:
            row = connection.execute("SELECT target FROM image_name WHERE reference = ?", (str(reference),)).fetchone()
        return row[0] if row else None

    # -- using ---------------------------------------------------------------------------------------------------------

    def mounts(self, image: Image, directory: StrPath, *, read_only: bool = False) -> Mounts:
        """
        The mounts that make *image*'s rootfs, for whoever has the container's mount namespace to make.

        What the container writes is kept below *directory*, which the caller owns and removes. An overlay mount has
        one `lowerdir=` option for each layer, the topmost first, then `upperdir=` and `workdir=`. Safe to repeat.
        Raises ImageNotFound if the image is gone: `hold` it first.
        """
        directory = os.path.abspath(os.fspath(directory))
        make_directory(directory)
        return self._rootfs().prepare(self._layers(image), directory, read_only=read_only)

    def _rootfs(self) -> Snapshotter:
        return snapshotter(self._snapshotter)

    def _layers(self, image: Image) -> _Layers:
        self._migrate()
        with self.database.read() as connection:
            snapshots = records.image_snapshots(connection, image.id)
        if len(snapshots) != len(image.diff_ids):
            raise ImageNotFound(image.id, "it was removed meanwhile")
        return [LayerPath(f"{self._layout.snapshots}/{one.directory}", one.opaque, one.has_root) for one in snapshots]

    def migrate(self) -> None:
        """Make or update the store's tables, which `hold` and `release` need; cheap if nothing is to be done."""
        self._migrate()

    def hold(self, connection: sqlite3.Connection, holder: str, image: Image) -> None:
        """
        Keep *image* from being collected until `release`, as part of the caller's transaction on this store's database.

        Raises ImageNotFound if it is gone.
        """
        records.require_image(connection, image.id)
        connection.execute("INSERT OR IGNORE INTO image_hold VALUES (?, ?)", (holder, image.id))

    def release(self, connection: sqlite3.Connection, holder: str) -> None:
        """Give up all that *holder* holds, as part of the caller's transaction; nothing is removed by it."""
        connection.execute("DELETE FROM image_hold WHERE holder = ?", (holder,))

    # -- names and removal ---------------------------------------------------------------------------------------------

    def tag(self, name_or_id: str, reference: str) -> Image:
        """Give an image one more name, which it takes from the image that has it."""
        parsed = parse_reference(reference)
        if parsed.digest is not None:
            raise InvalidArgument(f"{reference}: a digest is no name that one can give")
        self._make()
        with self.database.transaction() as connection:
            image = _find(connection, name_or_id)
            connection.execute(
                "INSERT OR REPLACE INTO image_name VALUES (?, ?, ?)", (str(parsed), image.id, image.manifest)
            )
        self._write_index()
        return self.get(image.id)

    def remove(self, name_or_id: str, *, force: bool = False) -> Lines:
        """
        Take a name from an image, and the image away with its last one; by id, with all its names.

        Tells what was done, `untagged: NAME` and `deleted: DIGEST`. Raises ImageNotFound; ImageInUse if a container
        has it, or if it has names in several repositories and is given by id, unless *force*: then the names go, and
        what a container has stays until that is gone.
        """
        from wherry_images.collect import collect

        self._make()
        with self.database.transaction() as connection:
            image = _find(connection, name_or_id)
            done = _untag(connection, image, name_or_id, force)
            gone = not records.load_images(connection, "WHERE id = ?", (image.id,))
        if gone:
            collected = collect(self._stores())
            done += [f"deleted: {layer}" for layer in collected.layers]
        self._write_index()
        return done

    # -- inner ---------------------------------------------------------------------------------------------------------

    def _migrate(self) -> None:
        self.database.migrate("images", records.MIGRATIONS)

    def _make(self) -> None:
        if not self._made:
            self._layout.make()
            self._content.make()
            self._made = True
        self._migrate()

    def _stores(self) -> "Stores":
        from wherry_images.layer import Limits
        from wherry_images.pull import Stores

        return Stores(
            layout=self._layout, database=self.database, content=self._content, limits=self._limits or Limits()
        )

    def _config(self, registry: str, credentials: "Credentials | None" = None) -> "RegistryConfig":
        import attrs

        from wherry_images.hosts import RegistryConfig

        config = self._registries if self._registries is not None else RegistryConfig.from_environment()
        given: Mapping[str, Credentials] = {registry: credentials} if credentials is not None else {}
        return attrs.evolve(
            config,
            mirrors={**config.mirrors, **self._mirrors},
            insecure=config.insecure | set(self._insecure),
            credentials={**config.credentials, **given},
        )

    def _write_index(self) -> None:
        from wherry_images.index import write_index

        write_index(self._stores())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": False}


def _find(connection: sqlite3.Connection, name_or_id: str) -> Image:
    """In docker's order: a whole id, a name, a digest in a repository, the beginning of an id."""
    bare = name_or_id.removeprefix("sha256:")
    is_hex = bool(bare) and not set(bare) - set("0123456789abcdef")
    if is_hex and len(bare) == 64:
        if found := records.images_by_id(connection, bare):
            return found[0]
        raise ImageNotFound(name_or_id)
    if not name_or_id.startswith("sha256:"):
        try:
            reference = parse_reference(name_or_id)
        except InvalidArgument:
            if not is_hex:
                raise
        else:
            if reference.digest is not None:
                if found := records.images_by_digest(connection, reference.name, reference.digest):
                    return found[0]
            elif image := records.image_by_name(connection, str(reference)):
                return image
    if is_hex and len(bare) < 64:
        found = records.images_by_id(connection, bare)
        if len(found) > 1:
            raise InvalidArgument(f"several images have an id that begins with {bare}; give more of it")
        if found:
            return found[0]
    raise ImageNotFound(name_or_id)


def _check_platform(image: Image, name: str, platform: str) -> None:
    from wherry_images.platform import parse_platform, rank

    wanted = parse_platform(platform)
    if rank(image.platform, wanted) != 0:
        raise ImageNotFound(
            name,
            f"image with reference {name} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {image.platform}",
        )


def _untag(connection: sqlite3.Connection, image: Image, name_or_id: str, force: bool) -> list[str]:
    held = records.holders(connection, image.id)
    by_name, by_digest = _as_named(image, name_or_id)
    names = [by_name] if by_name else list(image.names)
    digests = [by_digest] if by_digest else list(image.digests)
    last = (by_name is not None and len(image.names) == 1) or (by_name is None and by_digest is None)
    if by_digest is not None:
        names, last = [], not image.names and len(image.digests) == 1
    if last and held and not force:
        raise ImageInUse(image.id, f"it is used by {', '.join(held)}; remove that first", held)
    if by_name is None and by_digest is None and not force:
        repositories = {name.rpartition(":")[0] for name in image.names}
        if len(repositories) > 1:
            raise ImageInUse(image.id, "it has names in several repositories; remove these, or force it")
    done = []
    for name in names:
        connection.execute("DELETE FROM image_name WHERE reference = ?", (name,))
        done.append(f"untagged: {name}")
    if by_digest is not None or last:
        for digest in digests:
            repository, _, value = digest.partition("@")
            connection.execute(
                "DELETE FROM image_digest WHERE repository = ? AND digest = ? AND image = ?",
                (repository, value, image.id),
            )
            done.append(f"untagged: {digest}")
    if last and not held:
        connection.execute("DELETE FROM image WHERE id = ?", (image.id,))
        done.append(f"deleted: {image.id}")
    return done


def _as_named(image: Image, name_or_id: str) -> tuple[str | None, str | None]:
    """The name, or the digest in a repository, that *name_or_id* is; neither if it is an id."""
    try:
        reference = parse_reference(name_or_id)
    except InvalidArgument:
        return None, None
    if reference.digest is not None:
        return None, str(reference.at(reference.digest))
    return (str(reference), None) if str(reference) in image.names else (None, None)
