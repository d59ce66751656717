"""Removing a directory tree that a container has written to, following nothing."""

import os
from errno import ENOTEMPTY


def remove_tree(path: str) -> None:
    """
    Remove *path* and all below it; that something is gone already is fine.

    Every step is relative to an open directory and follows no link, depth costs neither stack nor descriptors, and two
    processes may remove the same tree. Raises OSError for what cannot be removed.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _empty(directory)
    finally:
        os.close(directory)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def _entries(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def _empty(directory: int) -> None:
    """Directories two levels down are moved one up, so that the tree is never more than two levels deep."""
    moved = 0
    while entries := _entries(directory):
        for name, is_directory in entries:
            if is_directory:
                moved = _dissolve(directory, name, moved)
            else:
                _unlink(directory, name)


def _dissolve(parent: int, name: str, moved: int) -> int:
    """Remove the directory *name* after moving its directories up into *parent*; returns how many were ever moved."""
    if _rmdir(parent, name):
        return moved
    try:
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return moved
    try:
        for child, is_directory in _entries(directory):
            if is_directory:
                moved += 1
                _move_up(directory, child, parent, moved)
            else:
                _unlink(directory, child)
    finally:
        os.close(directory)
    _rmdir(parent, name)  # what another process that removes the same tree has left in it the next round takes
    return moved


def _rmdir(parent: int, name: str) -> bool:
    """Whether it is gone; False when it is not empty."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != ENOTEMPTY:
            raise
        return False
    return True


def _move_up(directory: int, child: str, parent: int, number: int) -> None:
    try:
        os.rename(child, _free_name(number), src_dir_fd=directory, dst_dir_fd=parent)
    except FileNotFoundError:
        return


def _free_name(number: int) -> str:
    """A name that a container did not guess: rename(2) onto a non-empty directory would fail."""
    return f".wherry-{os.getpid()}-{number}-{os.urandom(4).hex()}"


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
