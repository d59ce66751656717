"""Files in a distant container, by archives: the Engine API knows nothing smaller."""

import base64
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from wherry.containerpath import ContainerPath
from wherry.engineapi.containers import PathStat
from wherry.remote.api import Request, understood
from wherry_oci.errors import AlreadyExists, Conflict, NotFound, Unsupported

if TYPE_CHECKING:
    from wherry.remote.containers import RemoteContainer

_GO_TYPES = {
    31: stat.S_IFDIR,
    27: stat.S_IFLNK,
    26: stat.S_IFBLK,
    25: stat.S_IFIFO,
    24: stat.S_IFSOCK,
    21: stat.S_IFCHR,
}


class RemotePath(ContainerPath):
    """As ContainerPath; each step is a request, and removing a file takes `rm` in the container."""

    _container: "RemoteContainer"

    def __init__(self, container: "RemoteContainer", path: str | PurePosixPath) -> None:
        super().__init__(container, path)

    def __truediv__(self, other: str) -> "RemotePath":
        return RemotePath(self._container, self._path / other)

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self._container, self._path.parent)

    def read_bytes(self) -> bytes:
        """All of a file."""
        content = b"".join(self._container.get_archive(str(self._path)))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            first = archive.next()
            if first is not None and first.issym():
                return RemotePath(self._container, self._path.parent / first.linkname).read_bytes()
            file = archive.extractfile(first) if first is not None and first.isreg() else None
            if file is None:
                raise Conflict(f"{self._path} in the container is no file")
            return file.read()

    def write_bytes(self, content: bytes, mode: int = 0o644) -> None:
        """As `ContainerPath.write_bytes`."""
        entry = tarfile.TarInfo(self._path.name)
        entry.size, entry.mode = len(content), self._mode(mode)
        self._put(entry, content)

    def _mode(self, new: int) -> int:
        """Of the file that is there, or for a *new* one."""
        try:
            return stat.S_IMODE(self.stat().st_mode)
        except NotFound:
            return new

    def _put(self, entry: tarfile.TarInfo, content: bytes = b"") -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content))
        self._container.put_archive(str(self._path.parent), buffer.getvalue())

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As os.stat, of what the Engine API tells: mode, size and time of change; all else is 0."""
        found = self._head(str(self._path))
        for _ in range(40):
            if not follow_symlinks or not stat.S_ISLNK(_mode_of(found.mode)):
                break
            found = self._head(found.link_target)
        from datetime import datetime

        moment = datetime.fromisoformat(found.mtime[:19]).timestamp()
        return os.stat_result((_mode_of(found.mode), 0, 0, 1, 0, 0, found.size, 0, moment, 0))

    def _head(self, path: str) -> PathStat:
        container = self._container
        request = Request("HEAD", f"/containers/{container.id}/archive", {"path": path}, about={"container_file": path})
        with container._api.exchange(request) as (head, _):
            told = json.loads(base64.b64decode(head.headers["x-docker-container-path-stat"]))
        return understood(told, PathStat)

    def iterdir(self) -> "Iterator[ContainerPath]":
        """What is in a directory, sorted; all below it is sent for that."""
        content = b"".join(self._container.get_archive(str(self._path)))
        names = set()
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                parts = PurePosixPath(entry.name).parts
                if len(parts) == 1 and not entry.isdir():
                    raise Conflict(f"{self._path} in the container is no directory")
                names |= {parts[1]} if len(parts) > 1 else set()
        return (self / name for name in sorted(names))

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """As `ContainerPath.mkdir`."""
        if self.exists():
            if not exist_ok:
                raise AlreadyExists(f"{self._path} in the container exists already")
            return
        if not self.parent.is_dir():
            if not parents:
                raise NotFound(f"{self.parent} in the container does not exist: make it, or pass parents=True")
            self.parent.mkdir(parents=True, exist_ok=True)
        entry = tarfile.TarInfo(self._path.name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        self._put(entry)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Raises Unsupported: the Engine API cannot remove a file."""
        raise Unsupported(f"{self._path}: the Engine API cannot remove a file; run rm in the container")


def _mode_of(mode: int) -> int:
    """Go's os.FileMode as stat(2) has it."""
    found = mode & 0o777
    for bit, kind in _GO_TYPES.items():
        if mode >> bit & 1:
            found |= kind
            break
    else:
        found |= stat.S_IFREG
    if mode >> 26 & 1 and mode >> 21 & 1:  # a device that is read by characters has both
        found = found & 0o7777 | stat.S_IFCHR
    return (
        found
        | (stat.S_ISUID if mode >> 23 & 1 else 0)
        | (stat.S_ISGID if mode >> 22 & 1 else 0)
        | (stat.S_ISVTX if mode >> 20 & 1 else 0)
    )
