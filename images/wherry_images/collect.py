"""
Garbage collection: what no image, no holder and no operation under way needs is removed.

The records go first, in one transaction; then the files, each when it is sure that nobody has begun to use it again.
Whoever is killed in between leaves files without records: the next collection finds and removes them.
"""

import os
import sqlite3
from contextlib import suppress

import attrs

from wherry_images.layout import sweep
from wherry_images.pull import Stores
from wherry_images.records import end_dead_leases
from wherry_images.unpack import discard
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.digest import Digest, parse_digest

_LEASED = "(SELECT item FROM lease_item)"
_UNUSED_SNAPSHOTS = (
    f"FROM snapshot WHERE id NOT IN (SELECT snapshot FROM image_layer)"
    f" AND key NOT IN {_LEASED} AND directory NOT IN {_LEASED}"
)
_UNUSED_BLOBS = (
    f"FROM blob WHERE digest NOT IN (SELECT digest FROM image_blob) AND digest NOT IN {_LEASED}"
    " AND digest NOT IN (SELECT blob FROM image_layer)"
)


@attrs.frozen(kw_only=True)
class Collected:
    """What a collection removed; `size` in bytes, of blobs and unpacked files."""

    blobs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()  # diff IDs, or chain IDs
    size: int = 0


@attrs.frozen(kw_only=True)
class Pruned:
    """What a prune did."""

    removed: tuple[str, ...] = ()  # as ImageStore.remove tells it
    size: int = 0  # bytes that are free now


def collect(stores: Stores, *, partial: bool = False) -> Collected:
    """Remove what is not needed; with *partial* also what is left of downloads that nobody is at."""
    directories = _listed(stores.layout.snapshots)
    files = set(stores.content.digests())
    with stores.database.transaction() as connection:
        end_dead_leases(connection, stores.layout)
        snapshots = connection.execute(f"DELETE {_UNUSED_SNAPSHOTS} RETURNING directory, key, size").fetchall()
        blobs = connection.execute(f"DELETE {_UNUSED_BLOBS} RETURNING digest, size").fetchall()
        known = {
            row[0] for row in connection.execute("SELECT directory FROM snapshot UNION SELECT item FROM lease_item")
        }
        recorded = {row[0] for row in connection.execute("SELECT digest FROM blob")}
    for name in directories - known:
        discard(stores.layout, name)
    for digest in (files - recorded) | {Digest(row[0]) for row in blobs}:
        _remove_blob(stores, digest)
    for folder in (stores.layout.ingest, stores.layout.leases, *stores.content.folders()):
        sweep(folder)
    if partial:
        for name in _listed(stores.layout.ingest):
            if name.endswith(".partial"):
                with suppress(InvalidArgument):
                    _remove_blob(stores, parse_digest(name.removesuffix(".partial").replace("-", ":", 1)))
    return Collected(
        blobs=tuple(row[0] for row in blobs),
        layers=tuple(row[1] for row in snapshots),
        size=sum(row[1] for row in blobs) + sum(row[2] for row in snapshots),
    )


def _listed(path: str) -> set[str]:
    try:
        return set(os.listdir(path))
    except FileNotFoundError:
        return set()


def _remove_blob(stores: Stores, digest: Digest) -> None:
    lock = stores.content.lock(digest)
    if not lock.try_acquire():
        return  # somebody is fetching it
    try:
        with stores.database.read() as connection:
            if not _wanted(connection, digest):
                stores.content.remove(digest)
                stores.content.remove_partial(digest)
    finally:
        lock.release()


def _wanted(connection: sqlite3.Connection, digest: Digest) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM blob WHERE digest = ?1 UNION ALL SELECT 1 FROM lease_item WHERE item = ?1 LIMIT 1", (digest,)
        ).fetchone()
    )
