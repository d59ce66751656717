"""What the store knows: the tables of images, blobs, snapshots, names, holders and leases, and questions to them."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import attrs

from wherry_images.database import Database
from wherry_images.errors import ImageNotFound
from wherry_images.image import Image, image_of
from wherry_images.layout import LOCK, FileLock, Layout
from wherry_oci.spec.digest import ChainID, DiffID, Digest

if TYPE_CHECKING:
    from wherry_images.lower import LowerLayer

MIGRATIONS = (
    """
    -- A row here, and in snapshot, says that the file is there, whole and on the disk.
    CREATE TABLE blob(digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;

    CREATE TABLE snapshot(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind IN ('diff', 'chain')), -- of what the key is the name
        key TEXT NOT NULL, -- the diff ID of a layer that is the same on whatever layers, else its chain ID
        directory TEXT NOT NULL UNIQUE, -- in snapshots/, never used twice
        size INTEGER NOT NULL, -- bytes of its files
        opaque INTEGER NOT NULL, -- it hides all layers below
        has_root INTEGER NOT NULL, -- it says what mode and owner / has
        UNIQUE (kind, key)
    );

    CREATE TABLE image(
        id TEXT PRIMARY KEY REFERENCES blob(digest), -- the digest of its configuration
        manifest TEXT NOT NULL REFERENCES blob(digest),
        media_type TEXT NOT NULL, -- the manifest's
        document TEXT NOT NULL, -- the configuration
        size INTEGER NOT NULL,
        stored TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
        used TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;

    CREATE TABLE image_blob(
        image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        digest TEXT NOT NULL REFERENCES blob(digest),
        PRIMARY KEY (image, digest)
    ) WITHOUT ROWID;
    CREATE INDEX image_blob_digest ON image_blob(digest);

    CREATE TABLE image_layer(
        image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        position INTEGER NOT NULL, -- 0 is the base
        blob TEXT NOT NULL REFERENCES blob(digest),
        snapshot INTEGER NOT NULL REFERENCES snapshot(id),
        PRIMARY KEY (image, position)
    ) WITHOUT ROWID;
    CREATE INDEX image_layer_snapshot ON image_layer(snapshot);

    CREATE TABLE image_name(
        reference TEXT PRIMARY KEY,
        image TEXT NOT NULL REFERENCES image(id),
        target TEXT NOT NULL -- what the registry has under that name: the digest of an index or a manifest
    ) WITHOUT ROWID;
    CREATE INDEX image_name_image ON image_name(image);

    CREATE TABLE image_digest(
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        image TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
        PRIMARY KEY (repository, digest, image)
    ) WITHOUT ROWID;
    CREATE INDEX image_digest_image ON image_digest(image);

    CREATE TABLE image_hold(
        holder TEXT NOT NULL,
        image TEXT NOT NULL REFERENCES image(id),
        PRIMARY KEY (holder, image)
    ) WITHOUT ROWID;
    CREATE INDEX image_hold_image ON image_hold(image);

    CREATE TABLE lease(name TEXT PRIMARY KEY) WITHOUT ROWID; -- alive while leases/NAME is locked
    CREATE TABLE lease_item(
        lease TEXT NOT NULL REFERENCES lease(name) ON DELETE CASCADE,
        item TEXT NOT NULL, -- a blob's digest, a diff or chain ID, or the name of a directory in snapshots/
        PRIMARY KEY (lease, item)
    ) WITHOUT ROWID;
    """,
)

INDEX_ITEM = "index.json"  # leased while index.json may lag behind the names

_IMAGE = "SELECT id, manifest, document, size FROM image"


@attrs.frozen(kw_only=True)
class Snapshot:
    """One unpacked layer."""

    id: int
    directory: str
    size: int
    opaque: bool
    has_root: bool


class Lease:
    """What one operation needs while it is under way; ends with `close`, or with the process that has it."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self._database = database
        self.name = os.urandom(10).hex()
        self._lock = FileLock(_lease_file(layout, self.name))

    def open(self) -> None:
        self._lock.acquire()
        with self._database.transaction(durable=False) as connection:
            connection.execute("INSERT INTO lease VALUES (?)", (self.name,))

    def add(self, *items: str) -> None:
        """From here on no *items* are collected."""
        with self._database.transaction(durable=False) as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO lease_item VALUES (?, ?)", [(self.name, item) for item in items]
            )

    def close(self) -> None:
        with suppress(Exception), self._database.transaction(durable=False) as connection:
            connection.execute("DELETE FROM lease WHERE name = ?", (self.name,))
        self._lock.release()


def _lease_file(layout: Layout, name: str) -> str:
    return f"{layout.leases}/{name}{LOCK}"


@contextmanager
def leased(layout: Layout, database: Database) -> Iterator[Lease]:
    lease = Lease(layout, database)
    lease.open()
    try:
        yield lease
    finally:
        lease.close()


def end_dead_leases(connection: sqlite3.Connection, layout: Layout) -> None:
    """Forget the leases whose processes are gone."""
    for (name,) in connection.execute("SELECT name FROM lease").fetchall():
        lock = FileLock(_lease_file(layout, name))
        if lock.try_acquire():
            connection.execute("DELETE FROM lease WHERE name = ?", (name,))
            lock.release()


def find_snapshot(connection: sqlite3.Connection, diff_id: DiffID, chain_id: ChainID) -> Snapshot | None:
    """The unpacked layer *diff_id*, by itself or as the top of the stack *chain_id*."""
    row = connection.execute(
        "SELECT id, directory, size, opaque, has_root FROM snapshot"
        " WHERE (kind = 'chain' AND key = ?) OR (kind = 'diff' AND key = ?)",
        (chain_id, diff_id),
    ).fetchone()
    return _snapshot(row) if row else None


def _snapshot(row: Sequence[object]) -> Snapshot:
    number, directory, size, opaque, has_root = row
    return Snapshot(
        id=cast(int, number),
        directory=cast(str, directory),
        size=cast(int, size),
        opaque=bool(opaque),
        has_root=bool(has_root),
    )


def image_snapshots(connection: sqlite3.Connection, image: str) -> list[Snapshot]:
    """An image's layers, base first."""
    return [
        _snapshot(row)
        for row in connection.execute(
            "SELECT snapshot.id, directory, snapshot.size, opaque, has_root FROM image_layer"
            " JOIN snapshot ON snapshot.id = image_layer.snapshot WHERE image = ? ORDER BY position",
            (image,),
        )
    ]


def lower_layers(layout: Layout, snapshots: Sequence[Snapshot]) -> "list[LowerLayer]":
    """*snapshots*, base first, as what lies below another layer: the topmost first."""
    from wherry_images.lower import LowerLayer

    return [LowerLayer(f"{layout.snapshots}/{one.directory}", one.opaque) for one in reversed(snapshots)]


def load_images(connection: sqlite3.Connection, where: str = "", arguments: Sequence[object] = ()) -> list[Image]:
    rows = connection.execute(f"{_IMAGE} {where}", tuple(arguments)).fetchall()
    return [_image(connection, row) for row in rows]


def _image(connection: sqlite3.Connection, row: Sequence[object]) -> Image:
    number, manifest, document, size = row
    names = connection.execute("SELECT reference FROM image_name WHERE image = ? ORDER BY 1", (number,)).fetchall()
    digests = connection.execute(
        "SELECT repository || '@' || digest FROM image_digest WHERE image = ? ORDER BY 1", (number,)
    ).fetchall()
    return image_of(
        json.loads(cast(str, document)),
        id=Digest(str(number)),
        manifest=Digest(str(manifest)),
        names=tuple(name for (name,) in names),
        digests=tuple(digest for (digest,) in digests),
        size=cast(int, size),
    )


def image_by_name(connection: sqlite3.Connection, reference: str) -> Image | None:
    found = load_images(connection, "WHERE id = (SELECT image FROM image_name WHERE reference = ?)", (reference,))
    return found[0] if found else None


def images_by_digest(connection: sqlite3.Connection, repository: str, digest: str) -> list[Image]:
    return load_images(
        connection,
        "WHERE id IN (SELECT image FROM image_digest WHERE repository = ? AND digest = ?)",
        (repository, digest),
    )


def images_by_id(connection: sqlite3.Connection, prefix: str) -> list[Image]:
    """The images whose id begins with *prefix*, hexadecimal with or without the algorithm."""
    start = prefix if prefix.startswith("sha256:") else f"sha256:{prefix}"
    return load_images(connection, "WHERE id >= ? AND id < ? LIMIT 2", (start, start + "g"))


def holders(connection: sqlite3.Connection, image: str) -> tuple[str, ...]:
    return tuple(
        holder for (holder,) in connection.execute("SELECT holder FROM image_hold WHERE image = ? ORDER BY 1", (image,))
    )


def add_blobs(connection: sqlite3.Connection, blobs: Iterable[tuple[str, int]]) -> None:
    connection.executemany("INSERT OR IGNORE INTO blob VALUES (?, ?)", blobs)


def require_image(connection: sqlite3.Connection, image: str) -> None:
    if connection.execute("SELECT 1 FROM image WHERE id = ?", (image,)).fetchone() is None:
        raise ImageNotFound(image, "it was removed meanwhile")
