"""
What is kept of a container between one command and the next: a directory `ROOT/ID` with `state.json` in it.

The directory's name is the claim on the id (mkdir is atomic), a lock on the directory itself orders commands, and the
record is replaced by rename. A process is known by its pid and its start time, so that another one which has the
number later is not taken for it.
"""

import os
from fcntl import LOCK_EX, LOCK_NB, flock
from time import time_ns

from wherry_oci.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from wherry_oci.runtime import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RECORD = "state.json"
GATE = "start.sock"
_FILTER = "seccomp.bpf"
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_LONGEST_ID = 1024


class ContainerDirectory:
    """The record of the container *id* below *root*."""

    def __init__(self, root: str, id: str) -> None:
        if not id or not _ALLOWED.issuperset(id) or id in (".", "..") or len(id) > _LONGEST_ID:
            raise InvalidArgument(f"container id {id!r}: letters, digits and _+-. are allowed")
        self.id = id
        self.path = f"{root.rstrip('/')}/{id}"
        self._root = root
        self._lock = -1

    # whose it is

    def create(self) -> None:
        """Claim the id, and lock it. Raises AlreadyExists."""
        os.makedirs(self._root, 0o700, exist_ok=True)
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            raise AlreadyExists(f"container with id {self.id} already exists: delete it, or take another id") from None
        self.lock()

    def lock(self, *, wait: bool = True) -> bool:
        """Hold off other commands till this process ends; False if somebody has it. Raises NotFound."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._not_found() from None
        try:
            flock(fd, LOCK_EX | (0 if wait else LOCK_NB))
            found, there = os.fstat(fd), os.stat(self.path)
        except BlockingIOError:
            os.close(fd)
            return False
        except FileNotFoundError:  # deleted while this waited
            os.close(fd)
            raise self._not_found() from None
        if found.st_ino != there.st_ino:
            os.close(fd)
            return self.lock(wait=wait)
        self._lock = fd
        return True

    def unlock(self) -> None:
        """Let other commands come before this process ends. Safe to repeat."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _not_found(self) -> NotFound:
        return NotFound(f"container {self.id} does not exist in {self._root}")

    def remove(self) -> None:
        """Safe to repeat."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        for name in sorted(names, key=lambda name: name == _RECORD):  # the record last: till then it can be deleted
            os.unlink(f"{self.path}/{name}")
        os.rmdir(self.path)

    # what is in it

    def read(self) -> "dict[str, Any]":
        """The record. Raises NotFound when there is no container, Conflict when it has none (yet)."""
        try:
            with open(f"{self.path}/{_RECORD}", "rb") as file:
                record: dict[str, Any] = quickjson.loads(file.read())
                return record
        except FileNotFoundError:
            if os.path.isdir(self.path):
                raise Conflict(f"container {self.id} is being created, or was given up: delete --force it") from None
            raise self._not_found() from None

    def write(self, record: "dict[str, Any]") -> None:
        """Replace the record in one step. It need not outlive a power cut: no container does."""
        self._write_file(_RECORD, quickjson.dumps(record).encode("utf-8", "surrogateescape"))

    def write_filter(self, program: bytes) -> None:
        """Keep the compiled seccomp filter for exec."""
        self._write_file(_FILTER, program)

    def read_filter(self) -> bytes | None:
        """The compiled seccomp filter, if the container has one."""
        try:
            with open(f"{self.path}/{_FILTER}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _write_file(self, name: str, content: bytes) -> None:
        new = f"{self.path}/.{name}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        os.rename(new, f"{self.path}/{name}")

    def has_gate(self) -> bool:
        """Whether its first process still waits to be started."""
        return os.path.exists(f"{self.path}/{GATE}")


def all_ids(root: str) -> list[str]:
    """The ids below *root*."""
    try:
        return sorted(name for name in os.listdir(root) if os.path.isdir(f"{root}/{name}"))
    except FileNotFoundError:
        return []


def start_time(pid: int) -> int | None:
    """When process *pid* was started, in clock ticks since boot; None if it is no more, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def timestamp(nanoseconds: int | None = None) -> str:
    """A moment (None: now) as RFC 3339 has it, in UTC."""
    from time import gmtime

    at = time_ns() if nanoseconds is None else nanoseconds
    t = gmtime(at // 1_000_000_000)
    date = f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    return f"{date}.{at % 1_000_000_000:09}Z"
