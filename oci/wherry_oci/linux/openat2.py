"""openat2(2): opening a path that somebody hostile may have prepared."""

import os
import stat
from errno import ELOOP, ENOENT, ENOSYS, ENOTDIR, EXDEV

from wherry_oci.linux._libc import address, path_bytes, syscall
from wherry_oci.linux.numbers import NUMBERS

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

_EAGAIN_TRIES = 128
_LINKS = 40  # as many as the kernel follows


def openat2(dirfd: int, path: "str | bytes | os.PathLike[str]", flags: int, mode: int = 0, resolve: int = 0) -> int:
    """
    openat2(2). The descriptor is close-on-exec.

    With RESOLVE_BENEATH or RESOLVE_IN_ROOT the kernel answers EAGAIN when a rename raced with the look-up; that is
    tried again a bounded number of times. Raises OSError with errno and path.
    """
    how = bytearray(24)  # struct open_how: flags, mode, resolve
    how[0:8] = (flags | os.O_CLOEXEC).to_bytes(8, "little")
    how[8:16] = mode.to_bytes(8, "little")
    how[16:24] = resolve.to_bytes(8, "little")
    encoded = path_bytes(path)
    for attempt in range(_EAGAIN_TRIES):
        try:
            return syscall(NUMBERS["openat2"], dirfd, encoded, address(how), len(how))
        except BlockingIOError:
            if attempt == _EAGAIN_TRIES - 1:
                raise
        except OSError as error:
            if error.errno == ENOSYS and resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH):  # Kernel < 5.6
                return _Walk(dirfd, os.fspath(path), resolve).open(flags | os.O_CLOEXEC, mode)
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    raise AssertionError("unreachable")


class _Walk:
    """
    The same without the call: one component after the other, each opened in the descriptor of the one before.

    `..` goes back to a descriptor that is held, not to where a directory may have been moved, and a link's target is
    walked like the path, from the root if it is absolute; so nothing leads out, whatever is renamed meanwhile.
    """

    def __init__(self, dirfd: int, path: "str | bytes", resolve: int) -> None:
        self._path, self._resolve = path, resolve
        self._names = os.fsdecode(path).split("/")
        self._stack = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dirfd)]
        self._links = 0

    def open(self, flags: int, mode: int) -> int:
        try:
            return self._open(flags, mode)
        finally:
            for fd in self._stack:
                os.close(fd)

    def _open(self, flags: int, mode: int) -> int:
        if self._names[-1] == "":
            flags |= os.O_DIRECTORY
        while self._names:
            name = self._names.pop(0)
            last = not any(each not in ("", ".") for each in self._names)
            if name == "..":
                self._go_up()
            elif name not in ("", "."):
                found = self._step(name, flags, mode, last)
                if found is not None:
                    return found
        return os.open(".", flags, mode, dir_fd=self._stack[-1])

    def _go_up(self) -> None:
        if len(self._stack) > 1:
            os.close(self._stack.pop())
        elif self._resolve & RESOLVE_BENEATH:
            raise self._refused(EXDEV)

    def _step(self, name: str, flags: int, mode: int, last: bool) -> int | None:
        """Go on to *name*; what was to be opened, if it is the *last* one and no link."""
        where = self._stack[-1]
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
        except OSError as error:
            if error.errno == ENOENT and last and flags & os.O_CREAT:
                return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=where)
            raise self._refused(error.errno or 0) from None
        kind = os.fstat(fd).st_mode
        if self._resolve & RESOLVE_NO_XDEV and _mount_id(fd) != _mount_id(self._stack[0]):
            os.close(fd)
            raise self._refused(EXDEV)
        if stat.S_ISLNK(kind) and not (last and flags & os.O_NOFOLLOW):
            self._follow(fd)
            return None
        if not last:
            self._stack.append(fd)
            return None
        if flags & os.O_PATH and (stat.S_ISDIR(kind) or not flags & os.O_DIRECTORY):
            return fd
        os.close(fd)
        if flags & os.O_PATH:
            raise self._refused(ENOTDIR)
        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=where)  # a link by now is an error

    def _follow(self, link: int) -> None:
        try:
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        self._links += 1
        if self._resolve & RESOLVE_NO_SYMLINKS or self._links > _LINKS:
            raise self._refused(ELOOP)
        if target.startswith("/"):
            if self._resolve & RESOLVE_BENEATH:
                raise self._refused(EXDEV)
            while len(self._stack) > 1:
                os.close(self._stack.pop())
        self._names[:0] = target.split("/")

    def _refused(self, number: int) -> OSError:
        return OSError(number, os.strerror(number), self._path)


def _mount_id(fd: int) -> bytes:
    """Of the mount that *fd* is on (proc(5), fdinfo). Raises OSError."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
        return next(line for line in lines if line.startswith(b"mnt_id:"))
