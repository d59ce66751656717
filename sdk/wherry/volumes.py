"""
Volumes: their records, and their files below `root/volumes/NAME/_data`.

A volume's row is the truth. Its directory is made inside the transaction that adds the row, and taken away between a
transaction that dooms the row and one that deletes it; whoever is killed on the way leaves either a directory that
nobody knows, which the next volume of that name (or `collect`) moves away, or a doomed row, which `collect` finishes.
A volume that a container has is held by a row of its own, from the transaction in which the container's row is added,
and is never removed.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from wherry.errors import VolumeInUse, VolumeNotFound
from wherry.mounts import is_volume_name
from wherry_oci.errors import Conflict, InvalidArgument, Unavailable, Unsupported
from wherry_shim.tree import remove_tree

if TYPE_CHECKING:
    from wherry.engineapi.volumes import Volume
    from wherry_images.database import Database

COMPONENT = "volumes"  # for Database.migrate
MIGRATIONS = (
    """
    CREATE TABLE volume(
        name TEXT PRIMARY KEY,
        driver TEXT NOT NULL,
        options TEXT NOT NULL,
        labels TEXT NOT NULL,
        anonymous INTEGER NOT NULL,         -- it goes with its last container
        doomed INTEGER NOT NULL DEFAULT 0,  -- its removal has begun, and goes on
        created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
    );
    CREATE TABLE volume_hold(
        volume TEXT NOT NULL REFERENCES volume(name),
        container TEXT NOT NULL,
        PRIMARY KEY(volume, container)
    );
    CREATE INDEX volumes_of_container ON volume_hold(container);
    """,
)

VOLUMES = "volumes"  # below the root
DATA = "_data"
_STAGE, _COPY = "_copy.new", "_copy"  # what an image has, on its way into a volume; the second one is whole
_REMOVED_PREFIX = ".removed-"
_OPTIONS = ("type", "o", "device")  # of driver local
_COLUMNS = "name, driver, options, labels, anonymous, created"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.frozen(kw_only=True)
class VolumeRecord:
    """A volume's row."""

    name: str
    driver: str
    options: Mapping[str, str]  # of driver local: type, o, device, as mount(8) has them
    labels: Mapping[str, str]
    anonymous: bool
    created: str  # RFC 3339


@attrs.frozen(kw_only=True)
class PrunedVolumes:
    """What a prune removed, and how many bytes are free by that."""

    names: tuple[str, ...]
    size: int


def _record(row: Sequence[Any]) -> VolumeRecord:
    return VolumeRecord(
        name=row[0],
        driver=row[1],
        options=json.loads(row[2]),
        labels=json.loads(row[3]),
        anonymous=bool(row[4]),
        created=row[5],
    )


def release(connection: sqlite3.Connection, container: str, *, anonymous: bool) -> list[str]:
    """
    Give up the container's volumes, and with *anonymous* doom those without a name that nobody else has.

    Returns the names of volumes that nobody has any more, for `VolumeStore.settle` after the transaction.
    """
    rows = connection.execute("SELECT volume FROM volume_hold WHERE container = ?", (container,)).fetchall()
    if not rows:
        return []
    connection.execute("DELETE FROM volume_hold WHERE container = ?", (container,))
    free = [name for (name,) in rows if not _holders(connection, name)]
    if anonymous:
        for name in free:
            connection.execute("UPDATE volume SET doomed = 1 WHERE name = ? AND anonymous", (name,))
    return free


def _holders(connection: sqlite3.Connection, name: str) -> list[str]:
    return [
        row[0]
        for row in connection.execute("SELECT container FROM volume_hold WHERE volume = ? ORDER BY container", (name,))
    ]


class VolumeStore:
    """The volumes of one root. Remembers paths; nothing is open between calls. Safe from everywhere at once."""

    def __init__(self, database: "Database", root: Path) -> None:
        self.database, self.directory = database, root / VOLUMES

    def path(self, name: str) -> Path:
        """Where its files are."""
        return self.directory / name / DATA

    # rows

    def get(self, name: str) -> VolumeRecord:
        """Raises VolumeNotFound."""
        with self.database.read() as connection:
            return self._get(connection, name)

    def _get(self, connection: sqlite3.Connection, name: str) -> VolumeRecord:
        row = connection.execute(f"SELECT {_COLUMNS} FROM volume WHERE name = ? AND NOT doomed", (name,)).fetchone()
        if row is None:
            raise VolumeNotFound(name)
        return _record(row)

    def all(self) -> list[VolumeRecord]:
        """Every one, by name."""
        with self.database.read() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM volume WHERE NOT doomed ORDER BY name").fetchall()
        return [_record(row) for row in rows]

    def holders(self, name: str) -> list[str]:
        """The ids of the containers that have it."""
        with self.database.read() as connection:
            return _holders(connection, name)

    def held(self) -> set[str]:
        """The names of all volumes that a container has."""
        with self.database.read() as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT volume FROM volume_hold")}

    def create(
        self,
        connection: sqlite3.Connection,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> VolumeRecord:
        """
        The volume *name*, made if it is not there; without a name a new one. *connection* is in a transaction.

        Raises InvalidArgument, Unsupported, or Conflict when one of that name is there with another driver or options.
        """
        options = dict(options or {})
        name = name or os.urandom(32).hex()
        _check(name, driver, options)
        row = connection.execute(f"SELECT {_COLUMNS}, doomed FROM volume WHERE name = ?", (name,)).fetchone()
        if row is not None and not row[-1]:
            found = _record(row)
            if found.driver != driver or (options and options != found.options):
                raise Conflict(f"a volume is called {name!r} already, with other options: choose another name")
            return found
        self._move_away(name)
        connection.execute("DELETE FROM volume WHERE name = ?", (name,))  # a doomed one
        connection.execute(
            "INSERT INTO volume(name, driver, options, labels, anonymous) VALUES (?, ?, ?, ?, ?)",
            (name, driver, json.dumps(options), json.dumps(dict(labels or {})), int(anonymous)),
        )
        self._make_directory(name)
        return self._get(connection, name)

    def hold(self, connection: sqlite3.Connection, name: str, container: str) -> None:
        """The container has it until `release`; in the caller's transaction."""
        connection.execute("INSERT OR IGNORE INTO volume_hold VALUES (?, ?)", (name, container))

    def remove(self, name: str, *, force: bool = False) -> bool:
        """Remove it with its files; whether there was one. Raises VolumeInUse; VolumeNotFound unless *force*."""
        try:
            with self.database.transaction() as connection:
                self._get(connection, name)
                if holders := _holders(connection, name):
                    raise VolumeInUse(name, holders)
                connection.execute("UPDATE volume SET doomed = 1 WHERE name = ?", (name,))
        except VolumeNotFound:
            if not force:
                raise
            return False
        self.settle([name])
        return True

    def prune(self, wanted: Callable[[VolumeRecord], bool]) -> PrunedVolumes:
        """Remove those that no container has and that are *wanted*."""
        removed, size = [], 0
        for record in self.all():
            if not wanted(record) or self.holders(record.name):
                continue
            room = self.size(record)
            try:
                self.remove(record.name)
            except (VolumeInUse, VolumeNotFound):  # taken, or removed, by somebody else meanwhile
                continue
            removed.append(record.name)
            size += room
        return PrunedVolumes(names=tuple(removed), size=size)

    # what was left

    def settle(self, names: Sequence[str]) -> None:
        """Unmount those of *names* that nobody has, and finish what is doomed. Cheap for none; safe to repeat."""
        if not names:
            return
        for name in names:
            with self.database.transaction(durable=False) as connection:
                row = connection.execute("SELECT options, doomed FROM volume WHERE name = ?", (name,)).fetchone()
                if row is None or _holders(connection, name):
                    continue
                if json.loads(row[0]):
                    self._unmount(name)
                if row[1]:
                    self._move_away(name)
                    connection.execute("DELETE FROM volume WHERE name = ?", (name,))
        self._remove_moved()

    @property
    def has_left_over(self) -> bool:
        """Whether `collect` would have something to do."""
        with self.database.read() as connection:
            rows = dict(connection.execute("SELECT name, doomed FROM volume").fetchall())
        try:
            present = os.listdir(self.directory)
        except FileNotFoundError:
            present = []
        return any(rows.values()) or any(name not in rows for name in present)

    def collect(self) -> None:
        """Finish every removal that was begun by somebody who was killed, and take unknown directories away."""
        with self.database.read() as connection:
            doomed = [row[0] for row in connection.execute("SELECT name FROM volume WHERE doomed")]
        self.settle(doomed)
        try:
            present = os.listdir(self.directory)
        except FileNotFoundError:
            return
        with self.database.transaction(durable=False) as connection:
            known = {row[0] for row in connection.execute("SELECT name FROM volume")}
            for name in present:
                if name not in known and not name.startswith(_REMOVED_PREFIX):
                    self._move_away(name)
        self._remove_moved()

    def _move_away(self, name: str) -> None:
        """Out of sight in one step; the caller is in a writing transaction, so nobody makes or moves one meanwhile."""
        try:
            os.rename(self.directory / name, self.directory / f"{_REMOVED_PREFIX}{name[:64]}-{os.urandom(4).hex()}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"volume {name!r}: cannot be moved away: {(error.strerror or '').lower()}") from error

    def _remove_moved(self) -> None:
        for name in os.listdir(self.directory) if self.directory.exists() else ():
            if name.startswith(_REMOVED_PREFIX):
                remove_tree(str(self.directory / name))

    # files

    def _make_directory(self, name: str) -> None:
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            os.mkdir(self.directory / name, 0o700)
            os.mkdir(self.path(name))
            os.chmod(self.path(name), 0o755)  # whatever the caller's umask is
        except OSError as error:
            raise Unavailable(f"volume {name!r}: {error.filename}: {(error.strerror or '').lower()}") from error

    def size(self, record: VolumeRecord) -> int:
        """Bytes of its files on this disk; what vanishes meanwhile does not count, nor what is mounted on it."""
        if record.options:
            return 0
        total = 0
        for parent, _, names in os.walk(self.path(record.name)):
            for name in names:
                try:
                    total += os.lstat(os.path.join(parent, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return total

    @contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        """The volume's directory, which one at a time fills or mounts."""
        directory = os.open(self.directory / name, _DIRECTORY)
        try:
            flock(directory, LOCK_EX)
            yield directory
        finally:
            os.close(directory)

    def fill(self, record: VolumeRecord, source: Callable[[], int | None]) -> None:
        """
        Give an empty volume what the directory *source* opens has (None: nothing is there), with its owner and mode.

        All of it or, for whoever looks after a kill, nothing: it is copied beside, and moved in by whoever comes next
        (but straight into what the volume's options mount, which may be another file system). The caller's container
        holds the volume. Raises Unavailable.
        """
        self.mount(record)
        try:
            with self._locked(record.name) as directory:
                self._move_in(directory)
                if os.listdir(self.path(record.name)) or (opened := source()) is None:
                    return
                try:
                    if record.options:
                        _copy(opened, str(self.path(record.name)))
                        return
                    stage = str(self.directory / record.name / _STAGE)
                    remove_tree(stage)  # of somebody who was killed here
                    os.mkdir(stage, 0o700)
                    _copy(opened, stage)
                    os.rename(_STAGE, _COPY, src_dir_fd=directory, dst_dir_fd=directory)
                finally:
                    os.close(opened)
                self._move_in(directory)
        except OSError as error:
            raise Unavailable(
                f"volume {record.name!r} could not be filled from the image: {(error.strerror or str(error)).lower()}"
            ) from error

    @staticmethod
    def _move_in(directory: int) -> None:
        """What was copied whole becomes the volume's; what has been moved already is not there any more."""
        from wherry_images.tree import copy_attributes

        try:
            copy = os.open(_COPY, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            return
        data = os.open(DATA, _DIRECTORY, dir_fd=directory)
        try:
            for entry in os.listdir(copy):
                os.rename(entry, entry, src_dir_fd=copy, dst_dir_fd=data)
            copy_attributes(copy, f"/proc/self/fd/{directory}/{DATA}", os.fstat(copy))
        finally:
            os.close(copy)
            os.close(data)
        os.rmdir(_COPY, dir_fd=directory)

    # options of driver local

    def mount(self, record: VolumeRecord) -> None:
        """
        Have what the volume's options say on its directory, until the last container that has it is removed.

        It is mounted once for all containers, as a tmpfs's content is to be theirs together. Raises Unavailable.
        """
        if not record.options:
            return
        from wherry_oci.linux import mount as m
        from wherry_oci.runtime.mountoptions import MountOptions
        from wherry_oci.runtime.rootfs import new_filesystem, set_attributes

        options = MountOptions([option for option in record.options.get("o", "").split(",") if option])
        kind, device = record.options.get("type", ""), record.options.get("device", "")
        with self._locked(record.name):
            if self._is_mounted(record.name):
                return
            try:
                if options.bind or kind in ("", "none", "bind"):
                    tree = m.open_tree(m.AT_FDCWD, device, m.OPEN_TREE_CLONE | (m.AT_RECURSIVE * options.recursive))
                    set_attributes(tree, options)
                else:
                    tree = new_filesystem(kind, device or kind, options)
                try:
                    with _opened(self.path(record.name)) as target:
                        m.move_mount(tree, target)
                finally:
                    os.close(tree)
            except OSError as error:
                said = (error.strerror or str(error)).lower()
                raise Unavailable(
                    f"volume {record.name!r}: cannot mount {device!r} (type {kind or 'none'}): {said}"
                ) from error

    def _is_mounted(self, name: str) -> bool:
        from wherry_oci.runtime.remount import mount_points

        wanted = os.path.realpath(self.directory / name) + f"/{DATA}"
        return any(point == wanted for point, _ in mount_points())

    def _unmount(self, name: str) -> None:
        from wherry_oci.linux import mount as m

        while self._is_mounted(name):
            m.umount2(self.path(name), m.MNT_DETACH)


def _copy(source: int, target: str) -> None:
    """All that is in the directory *source*, and its own owner, mode and attributes, into *target*."""
    from wherry_images.snapshot import copy_layer
    from wherry_images.tree import copy_attributes

    copy_layer(f"/proc/self/fd/{source}", target)
    copy_attributes(source, target, os.fstat(source))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check(name: str, driver: str, options: Mapping[str, str]) -> None:
    if not is_volume_name(name):
        raise InvalidArgument(
            f"volume name {name!r}: at least two of a-z A-Z 0-9 _ . - are needed, and the first is no sign"
        )
    if driver != "local":
        raise Unsupported(f"volume {name!r}: driver {driver!r} is not supported: local is")
    for key in options:
        if key not in _OPTIONS:
            raise InvalidArgument(f"volume {name!r}: option {key!r} is none of {', '.join(_OPTIONS)}")
    if options and not options.get("device") and options.get("type") != "tmpfs":
        raise InvalidArgument(f"volume {name!r}: its options name no device to mount")
    if options and not options.get("type") and "bind" not in options.get("o", ""):
        raise InvalidArgument(f"volume {name!r}: its options name no type, nor o=bind")


def document(store: VolumeStore, record: VolumeRecord) -> "Volume":
    """As `GET /volumes/{name}` describes it (Engine API 1.51)."""
    from wherry.engineapi.volumes import Volume

    return Volume(
        name=record.name,
        driver=record.driver,
        mountpoint=str(store.path(record.name)),
        created_at=record.created,
        labels=dict(record.labels) or None,
        options=dict(record.options) or None,
        scope="local",
    )
