"""
The image store of one root directory: pull, look up, mount, remove.

Any number of processes and threads may use one root at a time, each with a store of its own or a shared one; a store
can be pickled and survives fork. Nothing is read or made before the first call.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from wherry_images import records
from wherry_images.content import Content
from wherry_images.database import Database
from wherry_images.errors import ImageInUse, ImageNotFound, Offline
from wherry_images.image import Image
from wherry_images.layout import Layout, make_directory
from wherry_images.progress import drive
from wherry_images.reference import Reference, parse_reference
from wherry_images.snapshot import LayerPath, Snapshotter, made_by, snapshotter
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.mount import Mount

if TYPE_CHECKING:
    from wherry_images.check import Problem, Usage
    from wherry_images.collect import Pruned
    from wherry_images.compression import Source
    from wherry_images.credentials import Credentials
    from wherry_images.diff import Change
    from wherry_images.hosts import RegistryConfig
    from wherry_images.layer import Limits
    from wherry_images.lower import LowerLayer
    from wherry_images.progress import PullEvent, PushEvent
    from wherry_images.pull import Found, Stores
    from wherry_images.registry import Fetched
    from wherry_images.search import Result
    from wherry_oci.spec.digest import Digest
    from wherry_oci.spec.manifest import Manifest

    Problems = list[Problem]
    Changes = list[Change]
    Results = list[Result]
    _Lower = list[LowerLayer]


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
        snapshotter: Literal["overlay", "native"] | Callable[[], str] = "overlay",
        offline: bool = False,
    ) -> None:
        """
        Remember where and how; no input or output.

        *registries* says how registries are reached, by default as the environment says; *mirrors* and *insecure* are
        added to that. *limits* are for every layer that is unpacked. *snapshotter*, or the one that it names, makes new
        rootfs; those that are there stay as they were made. *offline*: no network, whatever is asked for.
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
            image = _find(connection, name_or_id, platform)
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
        return drive(self.pulling(reference, platform=platform, policy=policy, credentials=credentials), progress)

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
        from wherry_images.collect import collect
        from wherry_images.errors import NoSpace, RegistryUnreachable
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
                lease.add(records.INDEX_ITEM, found.manifest.config.digest, *found.documents)
                pull = Pull(stores, config, found, lease, registry, reference.repository)
                try:
                    snapshots = yield from pull.run()
                except NoSpace:
                    pull.forget()
                    raise
                names = () if reference.digest else (str(reference),)
                image = record_image(stores, found, snapshots, reference, names)
                self._write_index()
            yield PullEvent("", "done")
            return image
        except NoSpace:
            collect(stores)
            raise
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
        return self._rootfs(directory).prepare(self._layers(image), directory, read_only=read_only)

    def _rootfs(self, directory: str) -> Snapshotter:
        """What has made, or is to make, the rootfs below *directory*."""
        name = made_by(directory)
        if name is None:
            name = self._snapshotter() if callable(self._snapshotter) else self._snapshotter
        return snapshotter(name)

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
        with self._naming():
            with self.database.transaction() as connection:
                image = _find(connection, name_or_id)
                connection.execute(
                    "INSERT OR REPLACE INTO image_name VALUES (?, ?, ?)", (str(parsed), image.id, image.manifest)
                )
                tagged = records.load_images(connection, "WHERE id = ?", (image.id,))[0]
            self._write_index()
        return tagged

    def remove(self, name_or_id: str, *, force: bool = False) -> Lines:
        """
        Take a name from an image, and the image away with its last one; by id, with all its names.

        Tells what was done, `untagged: NAME` and `deleted: DIGEST`. Raises ImageNotFound; ImageInUse if a container
        has it, or if it has names in several repositories and is given by id, unless *force*: then the names go, and
        what a container has stays until that is gone.
        """
        from wherry_images.collect import collect

        with self._naming():
            with self.database.transaction() as connection:
                image = _find(connection, name_or_id)
                done = _untag(connection, image, name_or_id, force)
                gone = not records.load_images(connection, "WHERE id = ?", (image.id,))
            self._write_index()
        if gone:
            collected = collect(self._stores())
            done += [f"deleted: {layer}" for layer in collected.layers]
        return done

    def prune(self, *, all: bool = False, labels: Mapping[str, str | None] | None = None, until: str = "") -> "Pruned":
        """
        Remove the images without a name, or with *all* every one that no container has; and all that nobody needs.

        *labels* and *until* (RFC 3339) spare the images without such a label, and those made later.
        """
        from wherry_images.collect import Pruned, collect

        where = "WHERE id NOT IN (SELECT image FROM image_hold)"
        if not all:
            where += " AND id NOT IN (SELECT image FROM image_name)"
        done: list[str] = []
        with self._naming():
            with self.database.transaction() as connection:
                for image in records.load_images(connection, where):
                    if _spared(image, labels or {}, until):
                        continue
                    connection.execute("DELETE FROM image_name WHERE image = ?", (image.id,))
                    connection.execute("DELETE FROM image WHERE id = ?", (image.id,))
                    done += [f"untagged: {name}" for name in image.names] + [f"deleted: {image.id}"]
            self._write_index()
        collected = collect(self._stores(), partial=True)
        return Pruned(removed=(*done, *(f"deleted: {layer}" for layer in collected.layers)), size=collected.size)

    def usage(self) -> "Usage":
        """How much room the images take, each by itself and all together."""
        from wherry_images.check import usage

        self._make()
        return usage(self._stores())

    def check(self, *, content: bool = False) -> "Problems":
        """
        What in the store is not as its records say; nothing is changed, and what is just being made is no problem.

        With *content* every blob is read and its digest checked.
        """
        from wherry_images.check import check

        self._make()
        return check(self._stores(), content=content)

    # -- pushing -------------------------------------------------------------------------------------------------------

    def push(
        self,
        name: str,
        *,
        progress: "Callable[[PushEvent], None] | None" = None,
        credentials: "Credentials | None" = None,
        chunk_size: int | None = None,
    ) -> str:
        """
        Send an image to the registry of its name; tells the digest that it has there.

        What the registry has already is not sent again. *progress* is called in this thread. With a *chunk_size*, in
        bytes, blobs are sent in several requests. Raises AuthRequired, RegistryUnreachable, RegistryRefused, …
        """
        return drive(self.pushing(name, credentials=credentials, chunk_size=chunk_size), progress)

    def pushing(
        self, name: str, *, credentials: "Credentials | None" = None, chunk_size: int | None = None
    ) -> "Generator[PushEvent, None, str]":
        """As `push`, as an iterator of its events that returns the digest; closing it ends the push."""
        reference = parse_reference(name)
        return (yield from self._push(reference, [self.get(name)], False, credentials, chunk_size))

    def push_index(
        self,
        name: str,
        images: Sequence[str],
        *,
        progress: "Callable[[PushEvent], None] | None" = None,
        credentials: "Credentials | None" = None,
    ) -> str:
        """Send *images*, one for each platform, and an index of them under *name*; tells the index' digest."""
        found = [self.get(image) for image in images]
        return drive(self._push(parse_reference(name), found, True, credentials, None), progress)

    def _push(
        self,
        reference: Reference,
        images: Images,
        as_index: bool,
        credentials: "Credentials | None",
        chunk_size: int | None,
    ) -> "Generator[PushEvent, None, str]":
        from wherry_images.progress import PushEvent
        from wherry_images.push import Push, index_of, uploads_of
        from wherry_images.registry import Registry

        if self._offline:
            raise Offline(str(reference))
        self._make()
        config = self._config(reference.registry, credentials)
        registry = Registry(reference.registry, config, push=True)
        try:
            with records.leased(self._layout, self.database) as lease:
                manifests = [self._lease_image(lease, image) for image in images]
                push = Push(
                    registry,
                    reference.repository,
                    self._content,
                    parallel=config.parallel,
                    retries=config.retries,
                    chunk_size=chunk_size,
                )
                elsewhere = self._elsewhere(reference)
                yield from push.blobs(uploads_of([manifest for manifest, _ in manifests], elsewhere))
                for image, (manifest, content) in zip(images, manifests, strict=True):
                    target = image.manifest if as_index or reference.digest else reference.tag
                    digest = registry.put_manifest(reference.repository, target, content, manifest.media_type)
                if as_index:
                    entries = [
                        (manifest.media_type, image, len(content))
                        for image, (manifest, content) in zip(images, manifests, strict=True)
                    ]
                    media_type, content = index_of(entries)
                    digest = registry.put_manifest(reference.repository, reference.tag, content, media_type)
                self._record_digests(reference, images)
            yield PushEvent("", "done")
            return digest
        finally:
            registry.close()

    def _lease_image(self, lease: records.Lease, image: Image) -> "tuple[Manifest, bytes]":
        """An image's manifest, its blobs kept from being collected."""
        import attrs

        from wherry_images.documents import parse_manifest
        from wherry_oci.spec.manifest import MAX_DOCUMENT, Manifest

        lease.add(image.id, image.manifest)
        with self.database.read() as connection:
            records.require_image(connection, image.id)
            media_type = connection.execute("SELECT media_type FROM image WHERE id = ?", (image.id,)).fetchone()[0]
        content = self._content.read(image.manifest, MAX_DOCUMENT)
        manifest = parse_manifest(content, media_type, f"manifest {image.manifest}")
        assert isinstance(manifest, Manifest)
        lease.add(*(layer.digest for layer in manifest.layers))
        return attrs.evolve(manifest, media_type=media_type), content

    def _elsewhere(self, reference: Reference) -> "dict[Digest, tuple[str, ...]]":
        """In which other repositories of the same registry each blob is known to be."""
        prefix = f"{reference.registry}/"
        found: dict[Digest, tuple[str, ...]] = {}
        with self.database.read() as connection:
            for repository, digest in connection.execute(
                "SELECT DISTINCT repository, image_blob.digest FROM image_digest"
                " JOIN image_blob ON image_blob.image = image_digest.image WHERE repository != ?",
                (reference.name,),
            ):
                if repository.startswith(prefix):
                    found[digest] = (*found.get(digest, ()), repository.removeprefix(prefix))[:3]
        return found

    def _record_digests(self, reference: Reference, images: Images) -> None:
        with self.database.transaction() as connection:
            for image in images:
                connection.execute(
                    "INSERT OR IGNORE INTO image_digest SELECT ?, ?, id FROM image WHERE id = ?",
                    (reference.name, image.manifest, image.id),
                )

    # -- archives ------------------------------------------------------------------------------------------------------

    def save(self, names: Sequence[str], *, format: Literal["docker", "oci"] = "docker") -> Iterator[bytes]:
        """
        An archive of the images *names*, as pieces of a tar: an OCI image layout, for "docker" with what docker load
        wants beside it.
        """
        from wherry_images.archive import save

        self._make()
        images: dict[Digest, tuple[Image, tuple[str, ...]]] = {}
        for name in names:
            image = self.get(name)
            given, _ = _as_named(image, name)
            known = images.get(image.id, (image, ()))[1]
            images[image.id] = (image, tuple(dict.fromkeys((*known, *((given,) if given else image.names)))))
        with records.leased(self._layout, self.database) as lease:
            for image, _ in images.values():
                self._lease_image(lease, image)
            yield from save(self._stores(), list(images.values()), docker=format == "docker")

    def load(self, source: "Source | StrPath", *, progress: "Callable[[PullEvent], None] | None" = None) -> Images:
        """
        The images of an archive, docker's or OCI's, compressed or not: a path, or anything that can `read`.

        Raises InvalidImage, DigestMismatch, InvalidLayer, NoSpace; nothing of a bad archive stays.
        """
        from wherry_images.archive import load

        with _opened(source) as opened, self._making() as lease:
            stores = self._stores()
            images = [
                self._unpack_local(loaded.found, lease, loaded.names, progress)
                for loaded in load(stores, opened, lease)
            ]
            self._write_index()
        return images

    def import_(
        self,
        source: "Source | StrPath",
        reference: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """A new image out of the tar of a root file system; *config* is its configuration, as docker writes it."""
        from wherry_images.archive import import_layer
        from wherry_images.platform import parse_platform

        with _opened(source) as opened, self._making() as lease:
            found = import_layer(
                self._stores(),
                opened,
                lease,
                config=config or {},
                message=message,
                platform=str(parse_platform(platform)),
                created=_now(),
            )
            image = self._unpack_local(found, lease, _tagged(reference), None)
            self._write_index()
        return image

    def commit(
        self,
        image: Image | None,
        directory: StrPath,
        reference: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        author: str = "",
        message: str = "",
        created_by: str = "",
    ) -> Image:
        """
        A new image: *image* and what a container of it wrote below *directory*, that was given to `mounts`.

        *config* takes the place of the image's. The container should be paused or stopped.
        """
        from wherry_images.archive import commit_layer

        with self._making() as lease:
            parent = None
            if image is not None:
                parent = image
                self._lease_image(lease, image)
            found = commit_layer(
                self._stores(),
                self.diff(image, directory),
                lease,
                parent,
                config=config,
                author=author,
                message=message,
                created_by=created_by,
                created=_now(),
            )
            made = self._unpack_local(found, lease, _tagged(reference), None)
            self._write_index()
        return made

    def diff(self, image: Image | None, directory: StrPath) -> Iterator[bytes]:
        """The layer, as an uncompressed tar, of what a container of *image* wrote below *directory*."""
        from wherry_images.diff import native_diff, overlay_diff

        upper, lower, whole = self._written(image, directory)
        return native_diff(upper, lower) if whole else overlay_diff(upper, lower)

    def changes(self, image: Image | None, directory: StrPath) -> "Changes":
        """The files that a container of *image* added, modified and deleted (docker diff)."""
        from wherry_images.diff import native_changes, overlay_changes

        upper, lower, whole = self._written(image, directory)
        return native_changes(upper, lower) if whole else overlay_changes(upper, lower)

    def export(self, image: Image | None, directory: StrPath | None = None) -> Iterator[bytes]:
        """
        The whole root file system as one uncompressed tar: the image's, or a container's that writes below *directory*.
        """
        from wherry_images.diff import export
        from wherry_images.lower import LowerLayer

        if directory is None:
            layers = [] if image is None else self._lower(image)
            return export(layers)
        upper, lower, whole = self._written(image, directory)
        return export([LowerLayer(upper)] if whole else [LowerLayer(upper), *lower])

    def _written(self, image: Image | None, directory: StrPath) -> "tuple[str, _Lower, bool]":
        """Where what was written is, the layers below it, and whether it is the whole tree."""
        paths = [] if image is None else self._layers(image)
        place = os.path.abspath(os.fspath(directory))
        maker = self._rootfs(place)
        upper, _ = maker.changes(paths, place)
        return upper, [] if image is None else self._lower(image), maker.name == "native"

    def _lower(self, image: Image) -> "_Lower":
        self._migrate()
        with self.database.read() as connection:
            return records.lower_layers(self._layout, records.image_snapshots(connection, image.id))

    def _unpack_local(
        self,
        found: "Found",
        lease: records.Lease,
        names: tuple[str, ...],
        progress: "Callable[[PullEvent], None] | None",
    ) -> Image:
        from wherry_images.hosts import RegistryConfig
        from wherry_images.pull import Pull, record_image

        lease.add(found.manifest.config.digest, *found.documents)
        stores = self._stores()
        snapshots = drive(Pull(stores, RegistryConfig(), found, lease).run(), progress)
        return record_image(stores, found, snapshots, None, names)

    # -- registries ----------------------------------------------------------------------------------------------------

    def login(self, registry: str, credentials: "Credentials") -> str:
        """Try *credentials* and remember them where docker does; tells where. Raises AuthRequired."""
        from wherry_images.credentials import store_credentials

        self.try_login(registry, credentials)
        return store_credentials(registry, credentials, path=self._config(registry).docker_config)

    def try_login(self, registry: str, credentials: "Credentials") -> None:
        """Whether the registry takes *credentials*. Raises AuthRequired."""
        from wherry_images.registry import Registry

        client = Registry(registry, self._config(registry, credentials), push=True)
        try:
            client.ping()
        finally:
            client.close()

    def logout(self, registry: str) -> bool:
        """Forget the credentials for *registry*; tells whether there were any."""
        from wherry_images.credentials import erase_credentials

        return erase_credentials(registry, path=self._config(registry).docker_config)

    def in_registry(self, name: str, *, credentials: "Credentials | None" = None) -> "Fetched":
        """The manifest or index that *name* is in its registry. Raises ManifestUnknown, AuthRequired, …"""
        from wherry_images.registry import Registry

        reference = parse_reference(name)
        registry = Registry(reference.registry, self._config(reference.registry, credentials))
        try:
            return registry.manifest(reference.repository, reference.target)
        finally:
            registry.close()

    def tags(self, repository: str) -> Lines:
        """The tags that a repository has in its registry."""
        from wherry_images.registry import Registry

        reference = parse_reference(repository)
        client = Registry(reference.registry, self._config(reference.registry), push=True)
        try:
            return client.tags(reference.repository)
        finally:
            client.close()

    def search(self, term: str, *, limit: int = 25) -> "Results":
        """
        Repositories whose names or descriptions have *term*, on Docker Hub or, for `host/term`, in that registry.

        Raises Unsupported where the registry cannot tell.
        """
        from wherry_images.search import search

        return search(term, limit, self._config)

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

    @contextmanager
    def _making(self) -> Iterator[records.Lease]:
        """Around the making of an image from what is here: what a failure leaves is collected."""
        from wherry_images.collect import collect

        self._make()
        try:
            with records.leased(self._layout, self.database) as lease:
                lease.add(records.INDEX_ITEM)
                yield lease
        except BaseException:
            collect(self._stores())
            raise

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Around a change of names and the writing of index.json that goes with it."""
        self._make()
        with records.leased(self._layout, self.database) as lease:
            lease.add(records.INDEX_ITEM)
            yield

    def _write_index(self) -> None:
        from wherry_images.index import write_index

        write_index(self._stores())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": False}


@contextmanager
def _opened(source: "Source | StrPath") -> "Iterator[Source]":
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb", buffering=0) as file:
            yield file
    else:
        yield source


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _tagged(reference: str | None) -> tuple[str, ...]:
    return (str(parse_reference(reference)),) if reference else ()


def _spared(image: Image, labels: Mapping[str, str | None], until: str) -> bool:
    for key, value in labels.items():
        if key not in image.labels or (value is not None and image.labels[key] != value):
            return True
    return bool(until) and image.created > until


def _find(connection: sqlite3.Connection, name_or_id: str, platform: str | None = None) -> Image:
    """
    In docker's order: a whole id, a name, a digest in a repository, the beginning of an id.

    *platform* chooses among the images that one index stands for.
    """
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
                    return next((one for one in found if platform and _suits(one, platform)), found[0])
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
    if not _suits(image, platform):
        from wherry_images.platform import parse_platform

        wanted = parse_platform(platform)
        raise ImageNotFound(
            name,
            f"image with reference {name} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {image.platform}",
        )


def _suits(image: Image, platform: str) -> bool:
    from wherry_images.platform import parse_platform, suits

    wanted = parse_platform(platform)
    return image.platform.architecture == wanted.architecture and suits(image.platform, wanted)


def _untag(connection: sqlite3.Connection, image: Image, name_or_id: str, force: bool) -> Lines:
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
