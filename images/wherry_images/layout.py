"""Where things lie below a root directory, and how they are made, locked and synced there."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from wherry_images.errors import NoSpace
from wherry_oci.errors import PermissionDenied

LOCK = ".lock"
_NEW = ".new"
_LONGEST_WAIT = 0.1  # s between two tries for a lock that another process holds


class Layout:
    """The paths below one *root*."""

    # A plain class: a container's start would pay a millisecond for a generated one, for nothing that it needs.
    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def content(self) -> str:
        """An OCI image layout."""
        return f"{self.root}/content"

    @property
    def snapshots(self) -> str:
        """One directory for each unpacked layer."""
        return f"{self.root}/snapshots"

    @property
    def ingest(self) -> str:
        """Blobs that are not yet whole, and the locks of those who fetch them."""
        return f"{self.root}/ingest"

    @property
    def leases(self) -> str:
        """One locked file for each operation that is under way."""
        return f"{self.root}/leases"

    @property
    def database(self) -> str:
        return f"{self.root}/wherry.db"

    def make(self) -> None:
        """Make the directories, each 0700, so that nobody else reaches the setuid files below; safe to repeat."""
        for path in (self.root, self.content, self.snapshots, self.ingest, self.leases):
            make_directory(path)

    def sync(self) -> None:
        """Put on the disk all that was written below the root. Raises NoSpace, or OSError if the disk fails."""
        from wherry_oci.linux._libc import syscall
        from wherry_oci.linux.numbers import NUMBERS

        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with no_space(self.root, "what was written"):
                syscall(NUMBERS["syncfs"], descriptor)
        finally:
            os.close(descriptor)


def make_directory(path: str) -> None:
    """Make *path* and its parents with mode 0700 whatever the umask; parents that exist stay as they are."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    except PermissionError as error:
        raise PermissionDenied(f"cannot make {path}: {error.strerror}; give a root directory of your own") from error


@contextmanager
def no_space(path: str, what: str) -> Iterator[None]:
    """Turn "no space left on device" and an exceeded quota into NoSpace."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(path, what) from error
        raise


class FileLock:
    """
    A lock between threads and processes, gone with its holder however that ends.

    The file exists only while somebody wants the lock.
    """

    def __init__(self, path: str, *, create: bool = True) -> None:
        self._path = path
        self._flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._descriptor = -1

    def try_acquire(self) -> bool:
        while True:
            descriptor = os.open(self._path, self._flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = os.fstat(descriptor)
                with suppress(FileNotFoundError):
                    there = os.stat(self._path)
                    if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                        self._descriptor, descriptor = descriptor, -1
                        return True
                # The holder before us removed the file: what we locked is no lock any more.
            except BlockingIOError:
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def acquire(self, waiting: Callable[[], None] | None = None) -> None:
        """Wait for the lock; *waiting* is called time and again, and may raise to end it."""
        pause = 0.001
        while not self.try_acquire():
            if waiting is not None:
                waiting()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_WAIT)

    def release(self) -> None:
        if self._descriptor >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def held(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        self.acquire(waiting)
        try:
            yield
        finally:
            self.release()


def replace_file(path: str, content: bytes, *, durable: bool = True) -> None:
    """
    Put *content* in the place of *path*, whole or not at all.

    A *durable* one is on the disk when this returns; any other is so after the next `Layout.sync`.
    """
    with no_space(path, "a file"), new_file(path) as (descriptor, new):
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
        os.rename(new, path)


@contextmanager
def new_file(beside: str) -> Iterator[tuple[int, str]]:
    """
    A new file, open for writing, and its path beside *beside*; it is gone afterwards unless it was renamed.

    It is locked meanwhile: so `sweep` knows what the killed have left from what somebody is just writing.
    """
    while True:
        path = f"{beside}.{os.urandom(6).hex()}{_NEW}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                break
        except BlockingIOError:
            pass
        os.close(descriptor)  # somebody swept it away just before it was locked
    try:
        yield descriptor, path
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)


def sweep(folder: str) -> None:
    """Remove the locks and new files in *folder* that nobody holds."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith((_NEW, LOCK)):
            lock = FileLock(f"{folder}/{name}", create=False)
            with suppress(FileNotFoundError):
                if lock.try_acquire():
                    lock.release()
