"""
Containers on disk: one row each in the root's database, one directory each, and a lock that says who is at work.

Whoever makes, starts, runs or removes a container holds flock(2) on `containers/ID/lock`. A starting shim inherits the
descriptor, so from the making to the end of the run there is no moment at which a live container's lock is free, and a
free lock means that nobody is there, whoever was killed when. What is found half-made then is taken away (`collect`).
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EWOULDBLOCK
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Any

import attrs

from wherry.errors import ContainerNotFound, NameInUse
from wherry.reservation import CONTAINERS, LOCK, is_current
from wherry_images.database import Database
from wherry_oci.errors import Conflict, InvalidArgument

COMPONENT = "containers"
MIGRATIONS = (
    """
    CREATE TABLE container (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image TEXT NOT NULL,        -- as it was asked for
        image_id TEXT NOT NULL,
        created INTEGER NOT NULL,   -- nanoseconds since 1970
        started INTEGER NOT NULL DEFAULT 0,
        whole INTEGER NOT NULL DEFAULT 0,   -- 0: its maker is at work, or was killed
        auto_remove INTEGER NOT NULL,
        labels TEXT NOT NULL,
        settings TEXT NOT NULL      -- JSON
    );
    """,
)

REMOVED_PREFIX = ".removed-"
_POLL_S = 0.002


@attrs.frozen(kw_only=True)
class Record:
    """A container's row. `settings` is what was asked for, resolved against the image."""

    id: str
    name: str
    image: str
    image_id: str
    created: int
    started: int
    whole: bool
    auto_remove: bool
    labels: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def event_attributes(self) -> dict[str, str]:
        """What every event of it tells: its labels, `image` and `name`."""
        return {**self.labels, "image": self.image, "name": self.name}


_COLUMNS = "id, name, image, image_id, created, started, whole, auto_remove, labels, settings"


def _record(row: tuple[Any, ...]) -> Record:
    return Record(
        id=row[0],
        name=row[1],
        image=row[2],
        image_id=row[3],
        created=row[4],
        started=row[5],
        whole=bool(row[6]),
        auto_remove=bool(row[7]),
        labels=_parsed(row[8]),
        settings=_parsed(row[9]),
    )


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Mapping[str, Any]:
    """A row's JSON. Lists read the same rows again and again, and nobody writes to what they say."""
    found: dict[str, Any] = json.loads(text)
    return found


class ContainerStore:
    """The rows and directories of one root. Remembers paths; nothing is open between calls."""

    def __init__(self, database: Database, root: Path, run: Path) -> None:
        self.database, self.directories, self.run = database, root / CONTAINERS, run

    def directory(self, container_id: str) -> Path:
        return self.directories / container_id

    def run_directory(self, container_id: str) -> Path:
        return self.run / container_id

    # rows

    def find(self, connection: sqlite3.Connection, name: str) -> Record:
        """By name, id, or a prefix of the id that fits one alone. Raises ContainerNotFound, or InvalidArgument."""
        wanted = name.removeprefix("/")
        query = f"SELECT {_COLUMNS} FROM container WHERE "
        row = connection.execute(query + "id = ? OR name = ? ORDER BY id = ? DESC", (wanted, wanted, wanted)).fetchone()
        if row is not None:
            return _record(row)
        if not wanted or not set(wanted) <= set("0123456789abcdef"):
            raise ContainerNotFound(name)
        rows = connection.execute(query + "id >= ? AND id < ? LIMIT 2", (wanted, wanted + "g")).fetchall()
        if not rows:
            raise ContainerNotFound(name)
        if len(rows) > 1:
            raise InvalidArgument(f"{name!r} is the beginning of several containers' ids: give more of it")
        return _record(rows[0])

    def get(self, connection: sqlite3.Connection, container_id: str) -> Record | None:
        """By the whole id."""
        row = connection.execute(f"SELECT {_COLUMNS} FROM container WHERE id = ?", (container_id,)).fetchone()
        return None if row is None else _record(row)

    def all(self, connection: sqlite3.Connection) -> list[Record]:
        """Every one, the newest first."""
        return [_record(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM container ORDER BY created DESC")]

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Raises NameInUse."""
        values = (
            record.id,
            record.name,
            record.image,
            record.image_id,
            record.created,
            record.started,
            int(record.whole),
            int(record.auto_remove),
            json.dumps(dict(record.labels)),
            json.dumps(dict(record.settings)),
        )
        try:
            connection.execute(f"INSERT INTO container ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", values)
        except sqlite3.IntegrityError:
            holder = connection.execute("SELECT id FROM container WHERE name = ?", (record.name,)).fetchone()
            if holder is None:
                raise
            raise NameInUse(record.name, holder[0]) from None

    def free_name(self, connection: sqlite3.Connection) -> str:
        """Two words, as Docker names what nobody named."""
        from wherry.names import generate

        while True:
            name = generate()
            if connection.execute("SELECT 1 FROM container WHERE name = ?", (name,)).fetchone() is None:
                return name

    def rename(self, connection: sqlite3.Connection, container_id: str, name: str) -> None:
        """Raises NameInUse."""
        try:
            connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container_id))
        except sqlite3.IntegrityError:
            holder = connection.execute("SELECT id FROM container WHERE name = ?", (name,)).fetchone()
            raise NameInUse(name, holder[0] if holder else "") from None

    def update(self, connection: sqlite3.Connection, container_id: str, settings: Mapping[str, Any]) -> None:
        """Other *settings* in the place of the old ones."""
        connection.execute("UPDATE container SET settings = ? WHERE id = ?", (json.dumps(dict(settings)), container_id))

    def mark_whole(self, connection: sqlite3.Connection, container_id: str) -> None:
        connection.execute("UPDATE container SET whole = 1 WHERE id = ?", (container_id,))

    def mark_started(self, connection: sqlite3.Connection, container_id: str) -> None:
        connection.execute("UPDATE container SET whole = 1, started = ? WHERE id = ?", (time_ns(), container_id))

    def delete(self, connection: sqlite3.Connection, container_id: str) -> None:
        connection.execute("DELETE FROM container WHERE id = ?", (container_id,))

    # directories and locks

    def try_lock(self, container_id: str) -> int | None:
        """The lock's descriptor if nobody has it, else None. Raises ContainerNotFound when the directory is gone."""
        directory = self.directory(container_id)
        try:
            lock = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContainerNotFound(container_id) from None
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno == EWOULDBLOCK:
                return None
            raise
        if not is_current(directory, lock):
            os.close(lock)
            raise ContainerNotFound(container_id)
        return lock

    @contextmanager
    def locked(self, container_id: str, timeout_s: float, doing: str) -> Iterator[int]:
        """Hold the lock, waiting for at most *timeout_s*. Raises Conflict when the container is in use for longer."""
        deadline = monotonic() + timeout_s
        while (lock := self.try_lock(container_id)) is None:
            if monotonic() >= deadline:
                raise Conflict(
                    f"cannot {doing} container {container_id[:12]}: it is running, or another call is at work"
                )
            sleep(_POLL_S)
        try:
            yield lock
        finally:
            os.close(lock)

    def is_locked(self, container_id: str) -> bool:
        """Whether somebody (its shim, for one) is at work on it."""
        try:
            lock = os.open(self.directory(container_id) / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            flock(lock, LOCK_SH | LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False
