"""Files in a container, in pathlib's words: no tar, no exec, running or not."""

import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from wherry_oci.errors import AlreadyExists, Conflict, NotFound

if TYPE_CHECKING:
    from wherry.container import Container


class ContainerPath:
    """
    A path in *container*. Links are followed as the container would, never out of it.

    Raises NotFound, Conflict (a directory where a file is meant, and the other way round), PermissionDenied.
    """

    def __init__(self, container: "Container", path: str | PurePosixPath) -> None:
        self._container = container
        self._path = PurePosixPath("/") / path

    def __repr__(self) -> str:
        return f"ContainerPath({self._container.short_id}, {str(self._path)!r})"

    def __str__(self) -> str:
        return str(self._path)

    def __truediv__(self, other: str) -> "ContainerPath":
        return ContainerPath(self._container, self._path / other)

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def parent(self) -> "ContainerPath":
        return ContainerPath(self._container, self._path.parent)

    def read_bytes(self) -> bytes:
        """All of a file."""
        with self._container._engine.rootfs(self._container.id) as root:
            return root.read(str(self._path))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """All of a text file."""
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content: bytes, mode: int = 0o644) -> None:
        """Make it a file with *content*; one that is new belongs to root and has *mode*."""
        with self._container._engine.rootfs(self._container.id) as root:
            root.write(str(self._path), content, mode)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """As `write_bytes`."""
        self.write_bytes(text.encode(encoding))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As os.stat."""
        with self._container._engine.rootfs(self._container.id) as root:
            return root.stat(str(self._path), follow=follow_symlinks)

    def exists(self) -> bool:
        """Whether it leads to anything."""
        try:
            self.stat()
        except (NotFound, Conflict):
            return False
        return True

    def is_dir(self) -> bool:
        """False, too, when there is nothing."""
        return self._is(stat.S_ISDIR)

    def is_file(self) -> bool:
        """False, too, when there is nothing."""
        return self._is(stat.S_ISREG)

    def _is(self, kind: "object") -> bool:
        try:
            return bool(kind(self.stat().st_mode))  # type: ignore[operator] # one of stat's functions
        except (NotFound, Conflict):
            return False

    def iterdir(self) -> "Iterator[ContainerPath]":
        """What is in a directory, sorted."""
        with self._container._engine.rootfs(self._container.id) as root:
            names = root.names(str(self._path))
        return (self / name for name in sorted(names))

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Raises AlreadyExists unless *exist_ok*, NotFound without its parent unless *parents*."""
        if self.exists():
            if not exist_ok:
                raise AlreadyExists(f"{self._path} in the container exists already")
            return
        if not parents and not self.parent.is_dir():
            raise NotFound(f"{self.parent} in the container does not exist: make it, or pass parents=True")
        with self._container._engine.rootfs(self._container.id) as root:
            root.make_directories(str(self._path))

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove a file or a link."""
        try:
            with self._container._engine.rootfs(self._container.id) as root:
                root.unlink(str(self._path))
        except NotFound:
            if not missing_ok:
                raise
