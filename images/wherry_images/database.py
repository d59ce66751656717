"""
The one SQLite file of a root directory: WAL, foreign keys, safe from many threads and processes, and after fork.

A Database remembers its path and keeps a few idle connections; a connection is used by one caller at a time, and none
is ever used by a process that did not open it (SQLite's locks are the process's, sqlite.org/howtocorrupt.html 2.6).
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from wherry_images.errors import NoSpace
from wherry_oci.errors import Conflict, Unavailable, Unsupported

_IDLE = 4  # connections kept for the next caller
_BUSY_MS = 60_000

# Connections that a child inherited by fork: closing them there would drop the locks of the child's own.
_inherited: list[sqlite3.Connection] = []


class Database:
    """Transactions on the SQLite file *path*; nothing is opened or made before the first one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        # No lock guards these: one that a thread held at a fork would never open in the child. A list's append and pop
        # are each one step.
        self._idle: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._migrated: dict[str, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["path"])  # type: ignore[misc] # a pickled handle is a new one on the same file

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def close(self) -> None:
        """Give the idle connections up; the Database stays usable."""
        self._forget_inherited()
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """
        A connection inside BEGIN IMMEDIATE: commits on leaving, rolls back if an exception leaves.

        A *durable* one is on the disk when this returns, and so is all that was synced before it; another may be lost,
        whole, by a power cut. Raises Unavailable if others keep the file locked for a minute.
        """
        with self._connection() as connection:
            if not durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            finally:
                if not durable:
                    connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the database throughout, and may not write."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def migrate(self, component: str, steps: Sequence[str]) -> None:
        """
        Bring *component*'s tables to version len(steps): step n is an SQL script that makes version n + 1 out of n.

        Safe to call from everywhere at once, and cheap when nothing is to be done. Raises Unsupported if a newer
        wherry has been here: its tables are not touched.
        """
        if self._migrated.get(component) == len(steps):
            return
        try:
            with self.read() as connection:
                version = _version(connection, component)
        except sqlite3.OperationalError:
            version = 0  # the file is new
        if version < len(steps):
            # A power cut may take it, together with all that depends on it: what is durable has the log up to there.
            with self.transaction(durable=False) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS component(name TEXT PRIMARY KEY, version INTEGER)")
                version = _version(connection, component)
                for step in steps[version:]:
                    for statement in _statements(step):
                        connection.execute(statement)
                version = max(version, len(steps))
                connection.execute("INSERT OR REPLACE INTO component VALUES (?, ?)", (component, version))
        if version > len(steps):
            raise Unsupported(
                f"{self.path}: the tables of {component!r} are of version {version}, this wherry knows up to "
                f"{len(steps)}; use the newer wherry that made them"
            )
        self._migrated[component] = version

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._take()
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Unavailable(f"{self.path} is kept locked by others: {error}") from error
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                raise NoSpace(self.path, "the database") from error
            raise
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise Conflict(f"{self.path}: {error}") from error
            raise
        finally:
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        self._forget_inherited()
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _open(self) -> sqlite3.Connection:
        if not os.path.exists(self.path):
            self._create()
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            # Turning a new file to WAL is not waited for by busy_timeout when somebody else is just doing it.
            _patiently(connection, "PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        """Make the file, for its owner alone."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        new = f"{self.path}.{os.urandom(4).hex()}"
        # Not in its own place: closing a descriptor of the database would drop the locks of another thread.
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with suppress(FileExistsError):
            os.link(new, self.path)
        os.unlink(new)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        self._forget_inherited()
        if len(self._idle) < _IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _forget_inherited(self) -> None:
        if self._pid != os.getpid():
            _inherited.extend(self._idle)
            self._idle = []
            self._pid = os.getpid()


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    import time

    until = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _version(connection: sqlite3.Connection, component: str) -> int:
    row = connection.execute("SELECT version FROM component WHERE name = ?", (component,)).fetchone()
    return int(row[0]) if row else 0


def _statements(script: str) -> Iterator[str]:
    """The statements of *script*: executescript() would commit the transaction around it."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                yield statement
            statement = ""
