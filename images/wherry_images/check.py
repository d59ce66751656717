"""Whether the store is as its records say (fsck), and how much room its images take (df)."""

import json
import os
from collections import Counter
from typing import Literal

import attrs

from wherry_images.layout import FileLock
from wherry_images.pull import Stores
from wherry_images.records import INDEX_ITEM, end_dead_leases
from wherry_oci.spec.digest import Digest, hasher


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is not as it should be; `repair` says what mends it."""

    kind: Literal["blob missing", "blob damaged", "layer missing", "layer incomplete", "index", "orphan", "database"]
    what: str
    repair: str


@attrs.frozen(kw_only=True)
class ImageUsage:
    """Bytes of one image: `unique` would be free without it, `shared` is other images' too."""

    id: Digest
    names: tuple[str, ...]
    size: int  # of its unpacked files
    shared: int
    unique: int
    blobs: int  # of its blobs, as stored
    holders: int


@attrs.frozen(kw_only=True)
class Usage:
    """Bytes of all images together."""

    images: tuple[ImageUsage, ...]
    layers: int  # unpacked files
    blobs: int
    reclaimable: int  # what pruning all that no container has would free


def usage(stores: Stores) -> Usage:
    """How much room the images take, by the records alone."""
    with stores.database.read() as connection:
        layers = connection.execute(
            "SELECT DISTINCT image, snapshot, size FROM image_layer JOIN snapshot ON snapshot.id = image_layer.snapshot"
        ).fetchall()
        blobs = connection.execute(
            "SELECT image, blob.digest, size FROM image_blob JOIN blob ON blob.digest = image_blob.digest"
        ).fetchall()
        images = connection.execute("SELECT id, size FROM image ORDER BY id").fetchall()
        names = connection.execute("SELECT image, reference FROM image_name ORDER BY 2").fetchall()
        held = Counter(row[0] for row in connection.execute("SELECT image FROM image_hold"))
        all_layers = connection.execute("SELECT coalesce(sum(size), 0) FROM snapshot").fetchone()[0]
        all_blobs = connection.execute("SELECT coalesce(sum(size), 0) FROM blob").fetchone()[0]
    users = Counter(snapshot for _, snapshot, _ in layers)
    found = [
        ImageUsage(
            id=image,
            names=tuple(name for owner, name in names if owner == image),
            size=size,
            shared=sum(part for owner, snapshot, part in layers if owner == image and users[snapshot] > 1),
            unique=sum(part for owner, snapshot, part in layers if owner == image and users[snapshot] == 1),
            blobs=sum(part for owner, _, part in blobs if owner == image),
            holders=held[image],
        )
        for image, size in images
    ]
    kept_layers = {snapshot: part for owner, snapshot, part in layers if held[owner]}
    kept_blobs = {digest: part for owner, digest, part in blobs if held[owner]}
    return Usage(
        images=tuple(found),
        layers=all_layers,
        blobs=all_blobs,
        reclaimable=all_layers + all_blobs - sum(kept_layers.values()) - sum(kept_blobs.values()),
    )


def check(stores: Stores, *, content: bool = False) -> list[Problem]:
    """
    Compare the records with what is on the disk; with *content* read every blob and check its digest.

    What another process is just making is no problem. Nothing is changed.
    """
    problems: list[Problem] = []
    directories = _listed(stores.layout.snapshots)
    files = set(stores.content.digests())
    with stores.database.transaction(durable=False) as connection:
        end_dead_leases(connection, stores.layout)
        leased = {row[0] for row in connection.execute("SELECT item FROM lease_item")}
        blobs = dict(connection.execute("SELECT digest, size FROM blob").fetchall())
        snapshots = {row[0] for row in connection.execute("SELECT directory FROM snapshot")}
        incomplete = connection.execute(
            "SELECT id, document, (SELECT count(*) FROM image_layer WHERE image = image.id) FROM image"
        ).fetchall()
        for (said,) in connection.execute("PRAGMA integrity_check"):
            if said != "ok":
                problems.append(Problem(kind="database", what=str(said), repair="remove the root directory"))
        for row in connection.execute("PRAGMA foreign_key_check"):
            problems.append(Problem(kind="database", what=f"{row[0]} points nowhere", repair="pull its image again"))
    for digest, size in blobs.items():
        problems += _check_blob(stores, digest, size, content)
    for name in snapshots - directories:
        if not os.path.isdir(f"{stores.layout.snapshots}/{name}") and _recorded(stores, "snapshot", "directory", name):
            problems.append(Problem(kind="layer missing", what=name, repair="remove and pull its image again"))
    for image, document, layers in incomplete:
        if len((json.loads(document).get("rootfs") or {}).get("diff_ids") or ()) != layers:
            problems.append(Problem(kind="layer incomplete", what=image, repair="pull the image again"))
    for name in directories - snapshots - leased:
        problems.append(Problem(kind="orphan", what=f"snapshots/{name}", repair="prune"))
    for digest in files - set(blobs) - leased:
        problems.append(Problem(kind="orphan", what=f"blob {digest}", repair="prune"))
    if INDEX_ITEM not in leased:
        problems += _check_index(stores)
    return problems


def _recorded(stores: Stores, table: str, column: str, value: str) -> bool:
    """Whether a record is still there: what is missing may just have been collected."""
    with stores.database.read() as connection:
        found = connection.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (value,)).fetchone()
    return found is not None


def _check_blob(stores: Stores, digest: Digest, size: int, content: bool) -> list[Problem]:
    actual = stores.content.size(digest)
    if actual is None:
        if not _recorded(stores, "blob", "digest", digest):
            return []
        return [Problem(kind="blob missing", what=digest, repair="pull its image again")]
    if actual != size:
        return [Problem(kind="blob damaged", what=f"{digest}: {actual} bytes instead of {size}", repair="pull again")]
    if content:
        found = hasher(digest)
        with stores.content.open(digest) as file:
            while piece := file.read(1 << 20):
                found.update(piece)
        if found.hexdigest() != digest.partition(":")[2]:
            return [Problem(kind="blob damaged", what=digest, repair="remove and pull its image again")]
    return []


def _check_index(stores: Stores) -> list[Problem]:
    """Whether index.json names what the records name; taken under the lock of those who write it."""
    path = f"{stores.layout.content}/index.json"
    with FileLock(f"{stores.layout.ingest}/index.lock").held():
        with stores.database.read() as connection:
            wanted = {row[0] for row in connection.execute("SELECT reference FROM image_name")}
        try:
            with open(path, "rb") as file:
                index = json.load(file)
        except FileNotFoundError:
            index = {"manifests": []}
        except ValueError as error:
            return [Problem(kind="index", what=str(error), repair="tag or pull any image")]
    named = {entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in index["manifests"]}
    return [
        Problem(kind="index", what=f"{name} is not in index.json", repair="tag or pull any image")
        for name in sorted(wanted - named)
    ]


def _listed(path: str) -> set[str]:
    try:
        return set(os.listdir(path))
    except FileNotFoundError:
        return set()
