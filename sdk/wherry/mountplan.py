"""From what a request and its image ask for to the mounts that a container has, and filling volumes at first use."""

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from wherry.mounts import BIND, IMAGE, TMPFS, VOLUME, MountPoint, MountRequest, without_replaced
from wherry.options import Options
from wherry.volumes import VolumeStore
from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_oci.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from wherry_oci.spec.mount import Mount


def mount_points(
    connection: sqlite3.Connection,
    volumes: VolumeStore,
    container: str,
    options: Options,
    *,
    declared: Iterable[str],
    inherited: Sequence[MountPoint],
    images: Mapping[str, Sequence[Mount]],
) -> list[MountPoint]:
    """
    What *container* has: what it takes over from others (*inherited*), over that what was asked for, and volumes that
    the image *declared* where neither has anything; *images* are the mounts of those to be mounted, by target.

    Volumes are made where missing, and held, in the transaction of *connection*. Raises what `VolumeStore.create` does.
    """
    points = without_replaced(
        [*inherited, *(_point(connection, volumes, request, images) for request in options.mounts)]
    )
    covered = {point.target for point in points} | {os.path.normpath(target) for target in options.tmpfs}
    for target in dict.fromkeys(os.path.normpath("/" + path.lstrip("/")) for path in declared):
        if target not in covered and target != "/":
            points.append(_point(connection, volumes, MountRequest(kind=VOLUME, target=target), {}))
    for point in points:
        if point.kind == VOLUME:
            volumes.hold(connection, point.name, container)
    return points


def _point(
    connection: sqlite3.Connection,
    volumes: VolumeStore,
    request: MountRequest,
    images: Mapping[str, Sequence[Mount]],
) -> MountPoint:
    common: dict[str, Any] = {"target": request.target, "read_only": request.read_only, "mode": request.mode}
    if request.kind == BIND:
        propagation = request.propagation or "rprivate"
        return MountPoint(
            kind=BIND, source=request.source, propagation=propagation, recursive=request.recursive, **common
        )
    if request.kind == TMPFS:
        return MountPoint(kind=TMPFS, options=request.options, **common)
    if request.kind == IMAGE:
        return _image_point(request, images[request.target])
    made = volumes.create(
        connection,
        request.source,
        driver=request.driver,
        options=request.driver_options,
        labels=request.labels,
        anonymous=not request.source,
    )
    return MountPoint(
        kind=VOLUME,
        source=str(volumes.path(made.name)),
        name=made.name,
        driver=made.driver,
        subpath=request.subpath,
        **common,
    )


def _image_point(request: MountRequest, mounts: Sequence[Mount]) -> MountPoint:
    """An image's layers, read-only: a bind of the only one, or an overlay of all."""
    [mount] = mounts
    common: dict[str, Any] = {"kind": IMAGE, "target": request.target, "name": request.source, "read_only": True}
    if mount.type == "bind":
        return MountPoint(source=mount.source, subpath=request.subpath, **common)
    if request.subpath:
        raise Unsupported(
            f"mounts: the subpath {request.subpath!r} of image {request.source}: only an image of one layer "
            "can be mounted in part"
        )
    # One layer at a time: in one text they are limited to 255 bytes.
    options = tuple(option.replace("lowerdir=", "lowerdir+=", 1) for option in mount.options)
    return MountPoint(options=options, **common)


def inherited(points: Iterable[Mapping[str, Any]], mode: str) -> list[MountPoint]:
    """Another container's binds and volumes (its record's `mount_points`), for `volumes_from` with *mode*."""
    found = [MountPoint.from_json(point) for point in points]
    if mode:
        found = [attrs.evolve(point, read_only=mode == "ro") for point in found]
    return [point for point in found if point.kind in (BIND, VOLUME)]


def make_sources(requests: Iterable[MountRequest]) -> None:
    """Make the host's paths that are missing, for requests of Docker's door that have it so. Raises InvalidArgument."""
    for request in requests:
        if request.make_source:
            try:
                os.makedirs(request.source, 0o755, exist_ok=True)
            except FileExistsError:  # a file: that is fine
                continue
            except OSError as error:
                raise InvalidArgument(
                    f"volumes: {request.source} does not exist and cannot be made: {(error.strerror or '').lower()}"
                ) from error


def fill(volumes: VolumeStore, points: Iterable[MountPoint], uncopied: Iterable[str], root: "RootOpener") -> None:
    """
    Give empty volumes what the image has at their targets, except those at *uncopied* ones.

    *root* opens the image's root. Each path is resolved below it, so no link in the image leads to the host's files
    (CVE-2022-23648).
    """
    left_empty = set(uncopied)
    for point in points:
        if point.kind == VOLUME and not point.subpath and point.target not in left_empty:
            volumes.fill(volumes.get(point.name), partial(root.directory, point.target))


class RootOpener:
    """An image's root, mounted for this process alone at the first need; a context manager."""

    def __init__(self, mounts: Sequence[Mount]) -> None:
        self._mounts = mounts
        self._root: int | None = None

    def __enter__(self) -> "RootOpener":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._root is not None:
            os.close(self._root)

    def directory(self, path: str) -> int | None:
        """A descriptor of the directory *path* inside; None when there is none."""
        if self._root is None:
            from wherry.rootfsview import stopped_root

            self._root = stopped_root([attrs.asdict(mount) for mount in self._mounts])
        try:
            return openat2(
                self._root,
                path.lstrip("/"),
                os.O_RDONLY | os.O_DIRECTORY,
                resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
