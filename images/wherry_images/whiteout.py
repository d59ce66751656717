"""How a layer says that something of the layers below is gone: in a tar by names, in a directory as overlayfs does."""

import os
import stat

from wherry_images.errors import InvalidLayer
from wherry_oci.linux.ids import is_host_root

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."  # what begins so, but for OPAQUE, is aufs' own bookkeeping and means nothing

# overlayfs reads these itself: a layer that could bring them along would reach around the layers below it.
RESERVED_XATTRS = (b"trusted.overlay.", b"user.overlay.")


def opaque_xattr() -> str:
    """The attribute that makes a directory opaque, as whoever mounts with the caller's rights reads it."""
    return "trusted.overlay.opaque" if is_host_root() else "user.overlay.opaque"


def hidden_name(name: bytes) -> bytes:
    """The name that the whiteout called *name* hides. Raises InvalidLayer if that is no name of a directory's entry."""
    hidden = name[len(PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise InvalidLayer("a whiteout of nothing that a directory can hold", entry=os.fsdecode(name))
    return hidden


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file is overlayfs' mark for "nothing here" (kernel, filesystems/overlayfs, "whiteouts")."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(descriptor: int) -> bool:
    """Whether the directory behind *descriptor* (O_PATH will do) hides all that lies below it."""
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", opaque_xattr()) == b"y"
    except OSError:
        return False
