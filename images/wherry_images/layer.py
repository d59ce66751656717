"""
Applying one layer: its tar becomes a directory that overlayfs can stack on the layers below.

No entry can touch anything outside of that directory: every name is taken apart, and every part is opened relative to
the descriptor of the part before, without following links. A link on the way to an entry is resolved here, inside the
rootfs that the layers make together, as it would be in the container.

Most layers need nothing of what lies below them. One that has a file without its directory, that goes through a link,
or that hard-links to a file of a lower layer does: such a layer is unpacked with its lower layers at hand.
"""

import contextlib
import errno
import os
import stat

import attrs

from wherry_images import tar_reader, tree
from wherry_images.errors import InvalidLayer, LimitExceeded, NoSpace
from wherry_images.lower import Found, Lower
from wherry_images.tar_reader import Entry, TarReader
from wherry_images.whiteout import AUFS, OPAQUE, PREFIX, RESERVED_XATTRS, hidden_name, is_whiteout, opaque_xattr
from wherry_oci.errors import PermissionDenied, Unavailable, Unsupported
from wherry_oci.linux.ids import is_host_root, may_chown

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 64
_MAX_PATH = 4095  # PATH_MAX without its NUL: nobody could name what lies deeper
_MAX_TIME = (1 << 62) * 1_000_000_000  # ns
_WRITE_BACK = 64 << 10  # bytes of a file that the disk may begin with at once, instead of all files at the end
_MAX_LINKS = 40  # as the kernel's own limit

# Labels of the host's policy, and attributes of network file systems: they mean nothing on another machine.
_FOREIGN_XATTRS = (b"security.selinux", b"security.ima", b"security.evm", b"system.nfs4_acl", b"security.SMACK")

_LAYERS_FAULT = frozenset(
    {errno.ENAMETOOLONG, errno.EFBIG, errno.ELOOP, errno.EMLINK, errno.EINVAL, errno.ENOTDIR, errno.EILSEQ, errno.E2BIG}
)


class NeedsLower(Exception):
    """This layer cannot be unpacked by itself."""


@attrs.frozen(kw_only=True)
class Limits:
    """How large one layer may become; whatever is larger is refused and removed."""

    size: int = 64 << 30  # bytes of files, holes left out
    file_size: int = 1 << 40  # bytes of one file, holes included
    entries: int = 2_000_000
    ratio: int = 1_000  # bytes of tar for a byte of blob, after the first GiB


@attrs.frozen(kw_only=True)
class Applied:
    """What a layer became."""

    size: int  # bytes of its files
    entries: int
    self_contained: bool  # it is the same on whatever layers
    opaque: bool  # it hides all layers below
    has_root: bool  # it says what mode and owner "/" has
    without: tuple[str, ...] = ()  # extended attributes and devices that could not be made here


def apply(
    reader: TarReader,
    target: int,
    *,
    lower: Lower | None,
    limits: Limits | None = None,
    keeps_modes: bool = True,
) -> Applied:
    """
    Unpack what *reader* reads into the empty directory open as *target*, over the layers *lower*.

    With no *lower* at all, NeedsLower is raised as soon as the layer turns out to need one. The calling thread's umask
    must be 0 where *keeps_modes* is true. Raises InvalidLayer, NoSpace; what is in *target* is then the caller's to
    remove.
    """
    layer = _Layer(reader, target, lower, limits or Limits(), keeps_modes)
    try:
        return layer.apply()
    except OSError as error:
        raise _meaning(error, layer.entry, target) from error
    except OverflowError as error:
        raise InvalidLayer(f"a number out of all bounds: {error}", entry=layer.entry) from error
    finally:
        layer.close()


def _meaning(error: OSError, entry: str, target: int) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(os.readlink(f"/proc/self/fd/{target}"), f"a layer's {entry}")
    if error.errno in _LAYERS_FAULT:
        return InvalidLayer(os.strerror(error.errno or 0).lower(), entry=entry)
    if error.errno in (errno.EPERM, errno.EACCES):
        if os.path.basename(entry).startswith(os.fsdecode(PREFIX)) and os.geteuid() == 0:
            return Unsupported(
                f"entry {entry!r}: the file system of {os.readlink(f'/proc/self/fd/{target}')} keeps no whiteouts, as "
                "another overlay; put the images on a disk or a tmpfs (WHERRY_ROOT)"
            )
        return PermissionDenied(f"entry {entry!r}: {error.strerror}; unpacking layers takes root")
    return Unavailable(f"entry {entry!r} cannot be unpacked: {error}")


@attrs.define
class _Directory:
    path: bytes  # with no link in it
    descriptor: int
    plain: bool  # what is made in it gets the caller's own uid and gid


class _Layer:
    def __init__(self, reader: TarReader, target: int, lower: Lower | None, limits: Limits, keeps_modes: bool) -> None:
        self._reader, self._lower, self._limits = reader, lower, limits
        self._keeps_modes = keeps_modes
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._may_chown, self._may_make_devices = may_chown(), is_host_root()
        self._opaque_xattr = opaque_xattr()
        self._root = _Directory(b"", target, self._is_plain(target))
        self._open: dict[bytes, _Directory] = {}
        self._modes: dict[bytes, int] = {}  # of directories that would keep even their owner from filling them
        self._times = bytearray()  # of directories: name, NUL, 16 bytes of ns; set when nothing more goes into them
        self._replaced = False  # an entry took another one's place
        self._self_contained = True
        self._opaque = self._has_root = False
        self._size = self._entries = 0
        self._without: set[bytes] = set()
        self.entry = ""

    def close(self) -> None:
        self._forget_directories()

    def apply(self) -> Applied:
        reader, limits = self._reader, self._limits
        makers = {
            tar_reader.REGULAR: self._file,
            tar_reader.DIRECTORY: self._directory,
            tar_reader.SYMLINK: self._symlink,
            tar_reader.HARD_LINK: self._hard_link,
            tar_reader.CHARACTER: self._node,
            tar_reader.BLOCK_DEVICE: self._node,
            tar_reader.FIFO: self._node,
        }
        raw = b""
        try:
            while (entry := reader.next()) is not None:
                raw = entry.name
                self._entries += 1
                if self._entries > limits.entries:
                    raise LimitExceeded("entries", limits.entries)
                path = normalize(raw)
                parent, _, name = path.rpartition(b"/")
                if name.startswith(PREFIX):
                    self._whiteout(parent, name)
                elif not path:
                    self._root_entry(entry)
                else:
                    makers[entry.type](entry, parent, name)
            raw = b""
            self._set_times()
        except InvalidLayer as error:
            if not error.entry:
                error.place(entry=_text(raw))
            raise
        finally:
            self.entry = _text(raw)
        return Applied(
            size=self._size,
            entries=self._entries,
            self_contained=self._self_contained,
            opaque=self._opaque,
            has_root=self._has_root,
            without=tuple(sorted(map(_text, self._without))),
        )

    # -- one method for each type of entry ---------------------------------------------------------------------------

    def _file(self, entry: Entry, parent: bytes, name: bytes) -> None:
        self._grow(entry.stored)
        if entry.size > self._limits.file_size:
            raise LimitExceeded("bytes in one file", self._limits.file_size)
        directory = self._open.get(parent) or self._enter(parent)
        chown = self._wants_chown(entry, directory)
        try:
            descriptor = os.open(name, _CREATE, entry.mode, dir_fd=directory.descriptor)
        except FileExistsError:
            directory, _ = self._make_room(parent, name)
            descriptor = os.open(name, _CREATE, entry.mode, dir_fd=directory.descriptor)
        try:
            self._reader.write_data(descriptor, entry)
            if chown:
                os.fchown(descriptor, entry.uid, entry.gid)
            # chown(2) and write(2) clear setuid and file capabilities, so mode and attributes come after them.
            if not self._keeps_modes or entry.mode & 0o6000:
                os.fchmod(descriptor, entry.mode)
            if entry.xattrs:
                self._set_xattrs(descriptor, entry.xattrs)
            time = _clamped(entry.mtime)
            os.utime(descriptor, ns=(time, time))
            if entry.stored >= _WRITE_BACK:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def _directory(self, entry: Entry, parent: bytes, name: bytes) -> None:
        directory = self._open.get(parent) or self._enter(parent)
        exists = hides = False
        mode = self._mode_until_filled(_join(directory.path, name), entry.mode)
        try:
            os.mkdir(name, mode & 0o1777, dir_fd=directory.descriptor)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
            exists = stat.S_ISDIR(status.st_mode)
            if not exists:
                # What stood here had already put an end to a directory of that name below.
                directory, hides = self._make_room(parent, name)
                os.mkdir(name, mode & 0o1777, dir_fd=directory.descriptor)
        path = self._path(directory, name)
        if exists or self._wants_chown(entry, directory):
            self._chown(directory, name, entry)
        if exists or not self._keeps_modes or mode & 0o6000 or not directory.plain:
            tree.chmod(path, mode)
        if hides:
            os.setxattr(path, self._opaque_xattr, b"y", follow_symlinks=False)
        if entry.xattrs:
            self._set_xattrs(path, entry.xattrs)
        self._remember_time(_join(directory.path, name), entry.mtime)
        if exists:
            self._forget_directories()  # its owner may have changed

    def _root_entry(self, entry: Entry) -> None:
        if entry.type != tar_reader.DIRECTORY:
            raise InvalidLayer("the root itself is no directory")
        path = f"/proc/self/fd/{self._root.descriptor}"
        if self._may_chown:
            os.chown(path, entry.uid, entry.gid)
        os.chmod(path, self._mode_until_filled(b"", entry.mode))
        if entry.xattrs:
            self._set_xattrs(path, entry.xattrs)
        self._root.plain = self._is_plain(self._root.descriptor)
        self._has_root = True
        self._remember_time(b"", entry.mtime)

    def _mode_until_filled(self, path: bytes, mode: int) -> int:
        """The mode for a directory into which more may come: root may always, others must let themselves in."""
        if self._uid == 0 or mode & 0o700 == 0o700:
            return mode
        self._modes[path] = mode
        return mode | 0o700

    def _symlink(self, entry: Entry, parent: bytes, name: bytes) -> None:
        if not entry.link:
            raise InvalidLayer("a symbolic link to nothing")
        directory = self._open.get(parent) or self._enter(parent)
        try:
            os.symlink(entry.link, name, dir_fd=directory.descriptor)
        except FileExistsError:
            directory, _ = self._make_room(parent, name)
            os.symlink(entry.link, name, dir_fd=directory.descriptor)
        self._finish_node(entry, directory, name)

    def _node(self, entry: Entry, parent: bytes, name: bytes) -> None:
        directory = self._open.get(parent) or self._enter(parent)
        kind = {
            tar_reader.CHARACTER: stat.S_IFCHR,
            tar_reader.BLOCK_DEVICE: stat.S_IFBLK,
            tar_reader.FIFO: stat.S_IFIFO,
        }[entry.type]
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):  # mknod(2) takes no more
            raise InvalidLayer(f"a device {entry.major}:{entry.minor} that Linux does not have")
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(name, kind | entry.mode, device, dir_fd=directory.descriptor)
        except FileExistsError:
            directory, _ = self._make_room(parent, name)
            os.mknod(name, kind | entry.mode, device, dir_fd=directory.descriptor)
        except PermissionError:
            if self._may_make_devices:
                raise
            self._without.add(b"the device " + _join(parent, name))  # as every engine without root leaves it out
            return
        self._finish_node(entry, directory, name)
        if not self._keeps_modes or entry.mode & 0o6000:
            tree.chmod(self._path(directory, name), entry.mode)

    def _finish_node(self, entry: Entry, directory: _Directory, name: bytes) -> None:
        if self._wants_chown(entry, directory):
            self._chown(directory, name, entry)
        if entry.xattrs:
            self._set_xattrs(self._path(directory, name), entry.xattrs)
        time = _clamped(entry.mtime)
        os.utime(name, ns=(time, time), dir_fd=directory.descriptor, follow_symlinks=False)

    def _hard_link(self, entry: Entry, parent: bytes, name: bytes) -> None:
        origin = normalize(entry.link)
        if not origin:
            raise InvalidLayer("a hard link to the root")
        origin_parent, _, origin_name = origin.rpartition(b"/")
        directory = self._open.get(parent) or self._enter(parent)
        for _ in range(3):  # once, once more without what stood here, and once with a copy of a lower layer's file
            source = directory
            try:
                source = self._enter(origin_parent, create=False)
                if is_whiteout(os.stat(origin_name, dir_fd=source.descriptor, follow_symlinks=False)):
                    raise InvalidLayer(f"a hard link to {_text(origin)!r}, which is not there")
                os.link(
                    origin_name,
                    name,
                    src_dir_fd=source.descriptor,
                    dst_dir_fd=directory.descriptor,
                    follow_symlinks=False,
                )
                return
            except FileNotFoundError:
                self._copy_up(origin)
                directory = self._enter(parent)
            except FileExistsError:
                if _same_file(source.descriptor, origin_name, directory.descriptor, name):
                    return
                directory, _ = self._make_room(parent, name)
            except PermissionError:
                raise InvalidLayer(f"a hard link to {_text(origin)!r}, which cannot have one") from None
        raise InvalidLayer(f"a hard link to {_text(origin)!r}, which is not there")

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        if name == OPAQUE:
            if not parent:
                self._opaque = True
                return
            directory = self._enter(parent)
            path = f"/proc/self/fd/{directory.descriptor}"
            os.setxattr(path, self._opaque_xattr, b"y")
            return
        if name.startswith(AUFS):
            return
        hidden = hidden_name(name)
        directory = self._open.get(parent) or self._enter(parent)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=directory.descriptor)
        except FileExistsError:
            # A whiteout hides what is below, never what its own layer has (image-spec layer.md, "Whiteouts").
            status = os.stat(hidden, dir_fd=directory.descriptor, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.setxattr(self._path(directory, hidden), self._opaque_xattr, b"y", follow_symlinks=False)

    # -- directories ---------------------------------------------------------------------------------------------------

    def _enter(self, path: bytes, *, create: bool = True) -> "_Directory":
        """
        The directory *path*, through links if the layer has such; made as the lower layers have it where this layer
        does not.

        Without *create* it raises FileNotFoundError instead.
        """
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            return found
        parts = path.split(b"/")
        links = 0
        done: list[bytes] = []
        todo = parts[::-1]
        here = self._root
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":  # only a link's target has these
                if done:
                    done.pop()
                here = self._enter(b"/".join(done), create=create)
                continue
            where = b"/".join([*done, part])
            step = self._open.get(where)
            if step is None:
                opened = self._step(here, where, part, create=create)
                if isinstance(opened, bytes):
                    links += 1
                    if links > _MAX_LINKS:
                        raise InvalidLayer("too many symbolic links on the way")
                    self._depends()
                    if opened.startswith(b"/"):
                        done, here = [], self._root
                    todo.extend(opened.split(b"/")[::-1])
                    if len(todo) > _MAX_PATH:
                        raise InvalidLayer("too long a way through symbolic links")
                    continue
                step = self._remember(where, opened)
            here = step
            done.append(part)
        return here

    def _step(self, here: _Directory, where: bytes, part: bytes, *, create: bool) -> int | bytes:
        """Open *part*, or tell the target of the link that it is."""
        try:
            return os.open(part, _WALK, dir_fd=here.descriptor)
        except FileNotFoundError:
            made = self._from_lower(here, where, part, create=create)
            return made if made is not None else os.open(part, _WALK, dir_fd=here.descriptor)
        except NotADirectoryError:
            status = os.stat(part, dir_fd=here.descriptor, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(part, dir_fd=here.descriptor)
            if not is_whiteout(status):
                raise InvalidLayer(f"{_text(where)!r} on the way is no directory") from None
            if not create:
                raise FileNotFoundError(errno.ENOENT, "whiteout", part) from None
        # A whiteout, and then something inside of what it hides: a new directory that shows nothing from below.
        os.unlink(part, dir_fd=here.descriptor)
        os.mkdir(part, 0o755, dir_fd=here.descriptor)
        path = self._path(here, part)
        tree.chmod(path, 0o755)
        os.setxattr(path, self._opaque_xattr, b"y", follow_symlinks=False)
        self._depends()
        return os.open(part, _WALK, dir_fd=here.descriptor)

    def _from_lower(self, here: _Directory, where: bytes, part: bytes, *, create: bool) -> bytes | None:
        """Make the directory *part* as the lower layers have it; or tell the target of the link that they have."""
        found = self._depends().find(where)
        try:
            if found is not None and stat.S_ISLNK(found.status.st_mode):
                return os.readlink(b"", dir_fd=found.descriptor)
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), part)
            os.mkdir(part, 0o755, dir_fd=here.descriptor)
            path = self._path(here, part)
            if found is not None and stat.S_ISDIR(found.status.st_mode):
                tree.copy_attributes(found.descriptor, path, found.status, reserved=RESERVED_XATTRS)
                mode = stat.S_IMODE(found.status.st_mode)
                if self._mode_until_filled(where, mode) != mode:
                    tree.chmod(path, mode | 0o700)
                self._remember_time(where, found.status.st_mtime_ns)
            else:
                tree.chmod(path, 0o755)
        finally:
            if found is not None:
                found.close()
        return None

    def _remember(self, path: bytes, descriptor: int) -> _Directory:
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.pop(next(iter(self._open))).descriptor)
        entered = _Directory(path, descriptor, self._is_plain(descriptor))
        self._open[path] = entered
        return entered

    def _forget_directories(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1].descriptor)

    def _is_plain(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        return status.st_gid == self._gid and not status.st_mode & stat.S_ISGID

    def _make_room(self, parent: bytes, name: bytes) -> tuple[_Directory, bool]:
        """
        Take away what stands in an entry's place: the later of two wins.

        Tells whether a directory that comes there now must hide the lower layers' one.
        """
        directory = self._enter(parent)
        was_directory = stat.S_ISDIR(os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False).st_mode)
        tree.remove(directory.descriptor, name)
        self._replaced = True
        if was_directory:
            self._forget_directories()  # some of them are no longer there
            directory = self._enter(parent)
        return directory, not was_directory

    def _remember_time(self, path: bytes, mtime: int) -> None:
        self._times += path + b"\0" + _clamped(mtime).to_bytes(16, "little", signed=True)

    def _set_times(self) -> None:
        position = 0
        while position < len(self._times):
            end = self._times.index(0, position)
            path = bytes(self._times[position:end])
            time = int.from_bytes(self._times[end + 1 : end + 17], "little", signed=True)
            position = end + 17
            if not path:
                os.utime(f"/proc/self/fd/{self._root.descriptor}", ns=(time, time))
                continue
            parent, _, name = path.rpartition(b"/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # something else took its place later
                directory = self._reopen(parent)
                if self._replaced:
                    status = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        continue
                os.utime(name, ns=(time, time), dir_fd=directory.descriptor, follow_symlinks=False)
        for path in sorted(self._modes, key=len, reverse=True):  # what is inside comes first
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                directory = self._reopen(path)
                os.chmod(f"/proc/self/fd/{directory.descriptor}", self._modes[path])

    def _reopen(self, path: bytes) -> _Directory:
        """The directory *path* of this layer itself; FileNotFoundError or NotADirectoryError if it is one no more."""
        known = path
        while known and known not in self._open:
            known = known.rpartition(b"/")[0]
        here = self._open[known] if known else self._root
        for part in path[len(known) :].split(b"/"):
            if part:
                where = _join(here.path, part)
                here = self._remember(where, os.open(part, _WALK, dir_fd=here.descriptor))
        return here

    # -- the layers below ----------------------------------------------------------------------------------------------

    def _depends(self) -> Lower:
        self._self_contained = False
        if self._lower is None:
            raise NeedsLower
        return self._lower

    def _copy_up(self, path: bytes) -> None:
        """Bring a lower layer's file into this layer, so that it can be linked to."""
        parent, _, name = self._canonical(path).rpartition(b"/")
        found = self._depends().find(_join(parent, name))
        if found is None:
            raise InvalidLayer(f"a hard link to {_text(path)!r}, which is not there")
        try:
            directory = self._enter(parent)
            self._copy_file(found, directory, name)
        finally:
            found.close()

    def _canonical(self, path: bytes) -> bytes:
        """*path* with the links on the way to its last part resolved, in what the layers show together."""
        parent, _, name = path.rpartition(b"/")
        done: list[bytes] = []
        todo = parent.split(b"/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                done[-1:] = []
                continue
            target = self._link_target(b"/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidLayer("too many symbolic links on the way")
            if target.startswith(b"/"):
                done = []
            todo.extend(target.split(b"/")[::-1])
        return b"/".join([*done, name])

    def _link_target(self, path: bytes) -> bytes | None:
        parent, _, name = path.rpartition(b"/")
        with contextlib.suppress(FileNotFoundError):
            directory = self._enter(parent, create=False)
            status = os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
            return os.readlink(name, dir_fd=directory.descriptor) if stat.S_ISLNK(status.st_mode) else None
        found = self._depends().find(path)
        if found is None:
            return None
        try:
            return os.readlink(b"", dir_fd=found.descriptor) if stat.S_ISLNK(found.status.st_mode) else None
        finally:
            found.close()

    def _copy_file(self, found: Found, directory: _Directory, name: bytes) -> None:
        kind = stat.S_IFMT(found.status.st_mode)
        if kind == stat.S_IFDIR:
            raise InvalidLayer(f"a hard link to the directory {_text(name)!r}")
        if kind == stat.S_IFREG:
            source = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                target = os.open(name, _CREATE, 0o600, dir_fd=directory.descriptor)
                try:
                    self._grow(found.status.st_size)
                    tree.copy_file(source, target, found.status.st_size)
                finally:
                    os.close(target)
            finally:
                os.close(source)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(b"", dir_fd=found.descriptor), name, dir_fd=directory.descriptor)
        else:
            os.mknod(name, found.status.st_mode, found.status.st_rdev, dir_fd=directory.descriptor)
        path = self._path(directory, name)
        tree.copy_attributes(found.descriptor, path, found.status, reserved=RESERVED_XATTRS)

    # -- attributes ----------------------------------------------------------------------------------------------------

    def _wants_chown(self, entry: Entry, directory: _Directory) -> bool:
        own = entry.uid == self._uid and entry.gid == self._gid and directory.plain
        return self._may_chown and not own

    def _chown(self, directory: _Directory, name: bytes, entry: Entry) -> None:
        if self._may_chown:
            os.chown(name, entry.uid, entry.gid, dir_fd=directory.descriptor, follow_symlinks=False)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.size:
            raise LimitExceeded("bytes", self._limits.size)

    def _set_xattrs(self, target: int | str, xattrs: dict[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            if name.startswith((*RESERVED_XATTRS, *_FOREIGN_XATTRS)):
                continue
            if b"\0" in name or not name:
                raise InvalidLayer(f"an extended attribute named {_text(name)!r}")
            if not tree.set_xattr(target, name, value):
                self._without.add(name)

    def _path(self, directory: _Directory, name: bytes) -> str:
        return f"/proc/self/fd/{directory.descriptor}/{os.fsdecode(name)}"


def normalize(name: bytes) -> bytes:
    """
    *name* below the root: without leading slash, empty and "." parts, and ".." taken back; "" is the root.

    Raises InvalidLayer for one that would leave the root or that nobody could name.
    """
    if name.endswith(b"/"):
        name = name.rstrip(b"/")
    if name.startswith((b"/", b".")) or b"//" in name or b"/." in name:
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if not parts:
                    raise InvalidLayer("it climbs out of the root", entry=_text(name))
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        name = b"/".join(parts)
    if len(name) > _MAX_PATH:
        raise InvalidLayer(f"a path of {len(name)} bytes, more than Linux takes", entry=_text(name))
    return name


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _same_file(first_directory: int, first: bytes, second_directory: int, second: bytes) -> bool:
    one = os.stat(first, dir_fd=first_directory, follow_symlinks=False)
    other = os.stat(second, dir_fd=second_directory, follow_symlinks=False)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _clamped(ns: int) -> int:
    """*ns* within what utimensat(2) takes; the file system cuts further what it cannot keep."""
    return ns if -_MAX_TIME < ns < _MAX_TIME else max(-_MAX_TIME, min(ns, _MAX_TIME))


def _text(name: bytes) -> str:
    return name[:300].decode("utf-8", "backslashreplace")
