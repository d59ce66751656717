"""
Snapshotters: how unpacked layers become one container's rootfs, and what the container changed in it.

`overlay` stacks the layers by overlayfs. `native` copies them together, for kernels and file systems without it.
"""

import os
import stat
from collections.abc import Sequence
from typing import Protocol

import attrs

from wherry_images import tree
from wherry_images.layout import no_space
from wherry_images.whiteout import RESERVED_XATTRS, is_opaque, is_whiteout
from wherry_oci.errors import InvalidArgument
from wherry_oci.linux.ids import is_host_root
from wherry_oci.spec.mount import Mount


@attrs.frozen
class LayerPath:
    """One unpacked layer as the store has it."""

    path: str
    opaque: bool = False  # it hides all layers below
    has_root: bool = False  # its own mode and owner are those of "/"


class Snapshotter(Protocol):
    """One way to make a rootfs. What it makes is below the container's own directory, and the caller's to remove."""

    name: str

    def prepare(self, layers: Sequence[LayerPath], directory: str, *, read_only: bool = False) -> list[Mount]:
        """
        The mounts that show *layers*, base first, and keep what the container writes below *directory*.

        Safe to repeat: what was written stays. Nothing is mounted here.
        """
        ...

    def changes(self, layers: Sequence[LayerPath], directory: str) -> "tuple[str, list[LayerPath]]":
        """The tree that has what the container wrote, as an overlay's upper layer or whole, and what it lies on."""
        ...


def snapshotter(name: str) -> Snapshotter:
    """The snapshotter called *name*. Raises InvalidArgument."""
    if name == "overlay":
        return Overlay()
    if name == "native":
        return Native()
    raise InvalidArgument(f"there is no snapshotter {name!r}: it is overlay or native")


def made_by(directory: str) -> str | None:
    """The name of the snapshotter that has made something below *directory* already; None when none has."""
    for name, sign in (("native", _TREE), ("overlay", "upper")):
        if os.path.isdir(f"{directory}/{sign}"):
            return name
    return None


_TREE = "tree"  # what native makes


class Overlay:
    """Layers stacked by overlayfs; nothing is copied."""

    name = "overlay"

    def prepare(self, layers: Sequence[LayerPath], directory: str, *, read_only: bool = False) -> list[Mount]:
        visible = visible_layers(layers)
        upper, work = f"{directory}/upper", f"{directory}/work"
        lower = [f"lowerdir={layer.path}" for layer in reversed(visible)]
        # Whatever the kernel's default is: what the container wrote is read from the upper directory alone.
        options = ["redirect_dir=off", "metacopy=off"] if is_host_root() else ["userxattr"]
        if read_only and visible:
            if len(visible) == 1:  # overlayfs wants two
                return [Mount(type="bind", source=visible[0].path, options=("bind", "ro"))]
            return [Mount(type="overlay", source="overlay", options=("ro", *lower, *options))]
        if make_root(upper, layers) or not os.path.isdir(work):
            os.mkdir(work, 0o700)
        if not visible:
            return [Mount(type="bind", source=upper, options=("bind", "rw"))]
        return [
            Mount(
                type="overlay",
                source="overlay",
                options=(*lower, *options, f"upperdir={upper}", f"workdir={work}"),
            )
        ]

    def changes(self, layers: Sequence[LayerPath], directory: str) -> tuple[str, list[LayerPath]]:
        return f"{directory}/upper", visible_layers(layers)


class Native:
    """The layers copied into one tree of the container's own."""

    name = "native"

    def prepare(self, layers: Sequence[LayerPath], directory: str, *, read_only: bool = False) -> list[Mount]:
        root, new = f"{directory}/{_TREE}", f"{directory}/{_TREE}.new"
        if not os.path.isdir(root):
            parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                tree.remove(parent, f"{_TREE}.new")  # of somebody who was killed here
                make_root(new, layers)
                with no_space(directory, "a copy of the image"):
                    for layer in visible_layers(layers):
                        copy_layer(layer.path, new)
                copy_root(new, layers)  # the files that came in have changed its time
                os.rename(new, root)
            finally:
                os.close(parent)
        return [Mount(type="bind", source=root, options=("bind", "ro" if read_only else "rw"))]

    def changes(self, layers: Sequence[LayerPath], directory: str) -> tuple[str, list[LayerPath]]:
        return f"{directory}/{_TREE}", visible_layers(layers)


def visible_layers(layers: Sequence[LayerPath]) -> list[LayerPath]:
    """
    The layers that show anything: overlayfs does not look for opaqueness at the root, and takes no layer twice.

    Of a layer that comes twice the upper one hides all of the lower one.
    """
    visible: dict[str, LayerPath] = {}
    for layer in reversed(layers):
        visible.setdefault(layer.path, layer)
        if layer.opaque:
            break
    return list(visible.values())[::-1]


def make_root(path: str, layers: Sequence[LayerPath]) -> bool:
    """Make the directory that will be seen as "/", with the mode, owner and times that the image has for it."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    os.chmod(path, 0o755)
    copy_root(path, layers)
    return True


def copy_root(path: str, layers: Sequence[LayerPath]) -> None:
    """Give *path* the attributes that the topmost layer that says so has for "/"; none may."""
    for layer in reversed(layers):
        if layer.has_root:
            source = os.open(layer.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                tree.copy_attributes(source, path, os.fstat(source), reserved=RESERVED_XATTRS)
            finally:
                os.close(source)
            return


def copy_layer(layer: str, root: str) -> None:
    """Put an unpacked layer over the tree *root*: what it has replaces, its whiteouts remove."""
    source = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _Copy().directory(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


class _Copy:
    """One layer's copy; hard links within the layer stay hard links."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}
        self._root = -1

    def directory(self, source: int, target: int, path: str = "") -> None:
        if self._root < 0:
            self._root = target
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if is_whiteout(status):
                tree.remove(target, name)
            elif stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, target, name, status, f"{path}/{name}")
            else:
                tree.remove(target, name)
                self._file(source, target, name, status, f"{path}/{name}")

    def _subdirectory(self, source: int, target: int, name: str, status: os.stat_result, path: str) -> None:
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            if is_opaque(child) or not _is_directory(target, name):
                tree.remove(target, name)
                os.mkdir(name, 0o700, dir_fd=target)
            copy = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            try:
                self.directory(child, copy, path)
            finally:
                os.close(copy)
            tree.copy_attributes(child, f"/proc/self/fd/{target}/{name}", status, reserved=RESERVED_XATTRS)
        finally:
            os.close(child)

    def _file(self, source: int, target: int, name: str, status: os.stat_result, path: str) -> None:
        number = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and number in self._links:
            os.link(f".{self._links[number]}", name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            _copy_file(source, target, name, status.st_size)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        origin = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            tree.copy_attributes(origin, f"/proc/self/fd/{target}/{name}", status, reserved=RESERVED_XATTRS)
        finally:
            os.close(origin)
        if status.st_nlink > 1:
            self._links[number] = path


def _copy_file(source: int, target: int, name: str, size: int) -> None:
    old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            tree.copy_file(old, new, size)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
