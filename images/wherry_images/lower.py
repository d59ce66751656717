"""What a stack of unpacked layers shows at a path, read without mounting anything."""

import os
import stat
from collections.abc import Sequence

import attrs

from wherry_images.whiteout import is_opaque, is_whiteout


@attrs.frozen
class LowerLayer:
    """One unpacked layer; an *opaque* one hides all below it."""

    path: str
    opaque: bool = False


@attrs.frozen
class Lower:
    """The layers below one that is being unpacked, the topmost first; none for a base layer."""

    layers: Sequence[LowerLayer] = ()

    def find(self, path: bytes) -> "Found | None":
        """
        The file that the layers together show at *path* (relative, no link on the way), or None.

        The caller closes what it gets.
        """
        for layer in self.layers:
            found, hidden = _find_in(layer, path)
            if found is not None or hidden:
                return found
        return None


@attrs.frozen
class Found:
    """A file of a lower layer, open with O_PATH."""

    descriptor: int
    status: os.stat_result

    def close(self) -> None:
        os.close(self.descriptor)

    @property
    def path(self) -> str:
        """A path to the file itself, for calls that take no descriptor."""
        return f"/proc/self/fd/{self.descriptor}"


def _find_in(layer: LowerLayer, path: bytes) -> tuple[Found | None, bool]:
    """What *layer* has at *path*, and whether it hides what the layers below have there."""
    hidden = layer.opaque
    here = os.open(layer.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = path.split(b"/") if path else []
        for position, part in enumerate(parts):
            try:
                below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except FileNotFoundError:
                return None, hidden
            os.close(here)
            here = below
            status = os.fstat(here)
            if is_whiteout(status):
                return None, True
            if position < len(parts) - 1:
                if not stat.S_ISDIR(status.st_mode):
                    return None, True
                hidden = hidden or is_opaque(here)
        found = Found(here, os.fstat(here))
        here = -1
        return found, True
    finally:
        if here >= 0:
            os.close(here)
