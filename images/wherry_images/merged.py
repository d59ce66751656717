"""The tree that a stack of layers shows, read without mounting it."""

import os
import stat
from collections.abc import Iterator, Sequence

import attrs

from wherry_images.lower import Found, Lower, LowerLayer
from wherry_images.whiteout import is_opaque, is_whiteout


@attrs.frozen(kw_only=True)
class Seen:
    """One file of the tree; `source` opens it, and is valid until the next one is asked for."""

    path: bytes  # relative, without "." at its beginning; b"" is the root
    status: os.stat_result
    source: Found


def walk(layers: Sequence[LowerLayer], start: bytes = b"") -> Iterator[Seen]:
    """All files below *start*, itself included, directories before what is in them, in the order of their names."""
    lower = Lower(tuple(layers))
    todo = [start]
    while todo:
        path = todo.pop()
        found = lower.find(path)
        if found is None:
            continue
        try:
            yield Seen(path=path, status=found.status, source=found)
        finally:
            found.close()
        if stat.S_ISDIR(found.status.st_mode):
            todo += [path + b"/" + name if path else name for name in sorted(names(layers, path), reverse=True)]


def names(layers: Sequence[LowerLayer], path: bytes) -> set[bytes]:
    """What the directory *path* shows, the topmost of *layers* first."""
    seen: set[bytes] = set()
    gone: set[bytes] = set()
    for layer in layers:
        status, goes_on = _list(layer, path, seen, gone)
        if not goes_on or status:
            break
    return seen


def _list(layer: LowerLayer, path: bytes, seen: set[bytes], gone: set[bytes]) -> tuple[bool, bool]:
    """Add what one layer has; tells whether the layer hides all below, and whether those below count at all."""
    hidden = layer.opaque
    here = os.open(layer.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.split(b"/") if path else []:
            try:
                below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except FileNotFoundError:
                return hidden, True
            os.close(here)
            here = below
            status = os.fstat(here)
            if not stat.S_ISDIR(status.st_mode):
                return hidden, False
            hidden = hidden or is_opaque(here)
        readable = os.open(f"/proc/self/fd/{here}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in map(os.fsencode, os.listdir(readable)):
                if name in seen or name in gone:
                    continue
                if is_whiteout(os.stat(name, dir_fd=readable, follow_symlinks=False)):
                    gone.add(name)
                else:
                    seen.add(name)
        finally:
            os.close(readable)
        return hidden, True
    finally:
        os.close(here)
