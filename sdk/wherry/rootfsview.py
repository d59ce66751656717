"""
The file system of a container, from outside and in no namespace but one's own.

The root is a descriptor: a running container's is its first process' root, a stopped one's a mount that is attached
nowhere. Every path is resolved below it by openat2(2), link by link as inside, so that nothing that the container puts
on the way leads to the host (CVE-2018-15664, CVE-2019-14271, CVE-2021-41089).
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EINVAL, ELOOP, ENOTDIR
from typing import TYPE_CHECKING, Any

from wherry.mounts import BIND, VOLUME, MountPoint
from wherry_oci.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, Unavailable, Unsupported
from wherry_oci.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    mount_setattr,
    move_mount,
    open_tree,
)
from wherry_oci.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from wherry_oci.runtime.mountoptions import MountOptions
from wherry_oci.runtime.rootfs import detached_overlay

if TYPE_CHECKING:
    from wherry_images.tar_reader import Entry, TarReader

_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20


def stopped_root(mounts: list[dict[str, Any]]) -> int:
    """
    The root of a container that does not run, mounted for this descriptor alone; *mounts* are its shim's.

    The caller has the container's lock: an overlay's directories may be mounted only once. Raises Unavailable.
    """
    options = MountOptions(mounts[-1]["options"])
    try:
        if mounts[-1]["type"] == "overlay":
            return detached_overlay(options)
        return open_tree(AT_FDCWD, mounts[-1]["source"], OPEN_TREE_CLONE)
    except OSError as error:
        raise Unavailable(f"the files of a stopped container: {(error.strerror or str(error)).lower()}") from error


def mount_inside(root: int, points: Sequence[MountPoint]) -> None:
    """
    Put a stopped container's volumes and binds where it would have them, on the detached *root* of `stopped_root`.

    Places that are missing are made, as they are at a start. Kernels before 6.15 cannot mount there: the volumes are
    not seen then. Raises what `RootfsView.open` raises.
    """
    view = RootfsView(root)
    for point in sorted(points, key=lambda one: one.target.count("/")):
        if point.kind not in (BIND, VOLUME) or not point.source:
            continue
        try:
            source = _source_of(point)
        except FileNotFoundError:
            continue
        try:
            if point.read_only:
                mount_setattr(source, "", AT_EMPTY_PATH | AT_RECURSIVE, set_attributes=MOUNT_ATTR_RDONLY)
            if stat.S_ISDIR(os.fstat(source).st_mode):
                view.make_directories(point.target)
            with view.opened(point.target, os.O_PATH) as target:
                move_mount(source, target)
        except (OSError, NotFound) as error:
            if getattr(error, "errno", None) == EINVAL:
                return
            if isinstance(error, NotFound):  # a file's place: it is made at the start
                continue
            raise Unavailable(f"{point.target} of a stopped container: {error.strerror}") from error
        finally:
            os.close(source)


def _source_of(point: MountPoint) -> int:
    """A mount of its own of what *point* shows. Raises OSError."""
    place = os.open(point.source, os.O_PATH | os.O_CLOEXEC)
    try:
        if point.subpath:
            whole, place = place, openat2(place, point.subpath, os.O_PATH, 0, _INSIDE)
            os.close(whole)
        return open_tree(place, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if point.recursive else 0))
    finally:
        os.close(place)


def _split(path: str) -> tuple[str, str]:
    """The directory and the last name, neither resolved; "/" and what ends in ".." have no name."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in (".", ".."):
        return path, ""
    return parent or "/", name


class RootfsView:
    """A container's root, open as *root*; whoever made it closes that."""

    def __init__(self, root: int) -> None:
        self._root = root

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        """A descriptor of *path*. Raises NotFound, Conflict, PermissionDenied, as the kernel sees it from inside."""
        try:
            return openat2(self._root, path.lstrip("/") or ".", flags, mode if flags & os.O_CREAT else 0, _INSIDE)
        except OSError as error:
            raise _meaning(error, path) from None

    @contextmanager
    def opened(self, path: str, flags: int, mode: int = 0o644) -> Iterator[int]:
        """As `open`, closed on leaving."""
        descriptor = self.open(path, flags, mode)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that *path* is in, open, and its name there. Raises InvalidArgument for the root."""
        directory, name = _split(path)
        if not name:
            raise InvalidArgument(f"{path} in the container: the root itself, or no name at all")
        with self.opened(directory, _DIRECTORY) as descriptor:
            yield descriptor, name

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        """As os.stat, of what is inside."""
        with self.opened(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW)) as descriptor:
            return os.fstat(descriptor)

    def link(self, path: str) -> str:
        """Where the link *path* leads to, as it says itself."""
        with self.opened(path, os.O_PATH | os.O_NOFOLLOW) as descriptor:
            return os.readlink("", dir_fd=descriptor)

    def read(self, path: str, limit: int | None = None) -> bytes:
        """A regular file's bytes, at most *limit*. Raises NotFound, and Conflict for what is no file."""
        with self.opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Conflict(f"{path} in the container is not a regular file")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                return file.read(-1 if limit is None else limit)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Make *path* a file of *content*, in the place of what was there; what a link leads to is written."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
        with self.opened(path, flags, mode) as descriptor, os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)

    def unlink(self, path: str) -> None:
        """Remove a file or a link. Raises NotFound, and Conflict for a directory."""
        with self.parent(path) as (directory, name):
            try:
                os.unlink(name, dir_fd=directory)
            except OSError as error:
                raise _meaning(error, path) from None

    def names(self, path: str) -> list[str]:
        """What is in a directory."""
        with self.opened(path, _DIRECTORY) as descriptor:
            return os.listdir(descriptor)

    # as tar archives

    def archive(self, path: str) -> Iterator[bytes]:
        """*path* with all that is below it, as a tar in pieces, named from its own last part on; a link as a link."""
        from wherry_images.tar_writer import END

        directory, name = _split(path)
        if not name:
            with self.opened(path, _DIRECTORY) as descriptor:
                yield from _directory_pieces(descriptor, b".")
        else:
            with self.opened(directory, _DIRECTORY) as descriptor:
                yield from _pieces(descriptor, os.fsencode(name), os.fsencode(name), path)
        yield END

    def extract(
        self,
        path: str,
        chunks: Iterable[bytes],
        *,
        rename: tuple[str, str] | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """
        Unpack a tar, compressed or not, into the directory *path*, which must exist.

        A later entry takes the place of an earlier one or of what was there; directories are merged. Raises NotFound,
        Conflict, InvalidLayer for a bad archive. *rename* (from, to) changes the first part of names, *owner* is the
        uid and gid of all that is made, instead of the archive's.
        """
        from wherry_images.compression import decompressed
        from wherry_images.tar_reader import TarReader

        with self.opened(path, os.O_PATH | os.O_DIRECTORY):
            pass
        reader = TarReader(decompressed(_Source(chunks)))
        while (entry := reader.next()) is not None:
            if rename is not None:
                entry.name, entry.link = _renamed(entry.name, rename), _renamed_link(entry, rename)
            if owner is not None:
                entry.uid, entry.gid = owner
            _Extraction(self, path.rstrip("/"), reader).take(entry)

    def make_directories(self, path: str) -> None:
        """*path* and its parents, where missing."""
        from wherry_oci.runtime.rootfs import make_directory_inside

        try:
            os.close(make_directory_inside(self._root, path))
        except OSError as error:
            raise _meaning(error, path) from None


class ReadView(RootfsView):
    """
    The root of a running container that has a user namespace: owners show as the host's ids, and nothing is written, as
    nobody of the host's owns files in there.
    """

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise self._refusal(path)
        return super().open(path, flags, mode)

    def unlink(self, path: str) -> None:
        raise self._refusal(path)

    def make_directories(self, path: str) -> None:
        raise self._refusal(path)

    @staticmethod
    def _refusal(path: str) -> Unsupported:
        return Unsupported(
            f"{path} in the container: it runs in a user namespace of its own: stop it first, or write by exec"
        )


def _renamed(name: bytes, rename: tuple[str, str]) -> bytes:
    old, new = map(os.fsencode, rename)
    first, slash, rest = name.partition(b"/")
    return new + slash + rest if first == old else name


def _renamed_link(entry: "Entry", rename: tuple[str, str]) -> bytes:
    """A hard link names another entry; a symbolic one whatever it likes."""
    from wherry_images.tar_reader import HARD_LINK

    return _renamed(entry.link, rename) if entry.type == HARD_LINK else entry.link


class _Source:
    """Pieces of bytes, as something that can be read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """At most *size* bytes; b"" at the end."""
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return b""
        size = len(self._rest) if size < 0 else size
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


class _Extraction:
    def __init__(self, view: RootfsView, base: str, reader: "TarReader") -> None:
        self._view, self._base, self._reader = view, base, reader

    def take(self, entry: "Entry") -> None:
        """Make one entry."""
        from wherry_images import tar_reader
        from wherry_images.layer import normalize

        relative = os.fsdecode(normalize(entry.name))
        if not relative:
            return
        path = f"{self._base}/{relative}"
        self._view.make_directories(_split(path)[0])
        with self._view.parent(path) as (directory, name):
            if entry.type == tar_reader.DIRECTORY:
                self._directory(entry, directory, name)
                return
            _remove(directory, name)
            if entry.type == tar_reader.REGULAR:
                self._file(entry, directory, name)
            elif entry.type == tar_reader.SYMLINK:
                os.symlink(entry.link, os.fsencode(name), dir_fd=directory)
                os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
            elif entry.type == tar_reader.HARD_LINK:
                self._hard_link(entry, directory, name)
            else:
                self._node(entry, directory, name)

    def _file(self, entry: "Entry", directory: int, name: str) -> None:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            self._reader.write_data(descriptor, entry)
            os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode)  # after fchown(2), which clears setuid
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)

    def _directory(self, entry: "Entry", directory: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                _remove(directory, name)
                os.mkdir(name, 0o700, dir_fd=directory)
        made = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fchown(made, entry.uid, entry.gid)
            os.fchmod(made, entry.mode)
        finally:
            os.close(made)

    def _hard_link(self, entry: "Entry", directory: int, name: str) -> None:
        from wherry_images.layer import normalize

        with self._view.parent(f"{self._base}/{os.fsdecode(normalize(entry.link))}") as (source, origin):
            os.link(origin, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    @staticmethod
    def _node(entry: "Entry", directory: int, name: str) -> None:
        from wherry_images import tar_reader

        kinds = {tar_reader.CHARACTER: stat.S_IFCHR, tar_reader.BLOCK_DEVICE: stat.S_IFBLK}
        kind = kinds.get(entry.type, stat.S_IFIFO)
        os.mknod(name, kind | entry.mode, os.makedev(entry.major, entry.minor), dir_fd=directory)
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)


def _remove(directory: int, name: str) -> None:
    """What stands in the way, a directory only when it is empty."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            raise _meaning(error, name) from None


def _pieces(directory: int, name: bytes, shown: bytes, path: str) -> Iterator[bytes]:
    from wherry_images.tar_writer import file_pieces, header, member_of

    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        raise _meaning(error, path) from None
    if stat.S_ISDIR(status.st_mode):
        descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            yield from _directory_pieces(descriptor, shown)
        finally:
            os.close(descriptor)
        return
    link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else b""
    if not stat.S_ISREG(status.st_mode):
        member = member_of(shown, status, link=link)
        if member is not None:
            yield header(member)
        return
    # Opened first and looked at then: what is read is what the header describes.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        member = member_of(shown, os.fstat(descriptor))
        if member is not None:
            yield from file_pieces(member, descriptor)
    finally:
        os.close(descriptor)


def _directory_pieces(directory: int, shown: bytes) -> Iterator[bytes]:
    from wherry_images.tar_writer import header, member_of

    member = member_of(shown, os.fstat(directory))
    assert member is not None
    yield header(member)
    for name in sorted(map(os.fsencode, os.listdir(directory))):
        try:
            yield from _pieces(directory, name, shown + b"/" + name, os.fsdecode(shown + b"/" + name))
        except (NotFound, FileNotFoundError):  # removed while we are at it
            continue


def _meaning(error: OSError, path: str) -> Exception:
    """*error* on *path* inside, as one of ours."""
    said = f"{path} in the container: {(error.strerror or str(error)).lower()}"
    if isinstance(error, FileNotFoundError):
        return NotFound(said)
    if isinstance(error, PermissionError):
        return PermissionDenied(said)
    if isinstance(error, IsADirectoryError | FileExistsError) or error.errno in (ENOTDIR, ELOOP):
        return Conflict(said)
    return error if not isinstance(error, OSError) or error.errno is None else Conflict(said)
