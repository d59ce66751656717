"""Which way of making a rootfs (wherry_images.snapshot) this host allows: found out once for each run directory."""

import os
import warnings
from pathlib import Path

from wherry_images.snapshot import snapshotter
from wherry_oci.errors import Unsupported
from wherry_oci.linux import mount as m
from wherry_oci.linux.ids import is_host_root
from wherry_shim.tree import remove_tree

VARIABLE = "WHERRY_SNAPSHOTTER"
RECORD = "snapshotter"  # in the run directory


class SnapshotterWarning(UserWarning):
    """Containers' files are made in a slower way than they should be."""


def choose(root: Path, run: Path) -> str:
    """
    What $WHERRY_SNAPSHOTTER says; else "overlay" if one can be mounted of what lies below *root*, else "native".

    Raises InvalidArgument for a name that is none.
    """
    if asked := os.environ.get(VARIABLE):
        return snapshotter(asked).name
    record = run / RECORD
    try:
        return snapshotter(record.read_text()).name
    except FileNotFoundError:
        pass
    name = "overlay"
    try:
        try_overlay(root)
    except Unsupported as error:
        name = "native"
        warnings.warn(str(error), SnapshotterWarning, stacklevel=2)
    new = run / f".{RECORD}.{os.getpid()}"
    new.write_text(name)
    new.rename(record)
    return name


def try_overlay(root: Path) -> None:
    """Mount an overlay of directories below *root*, which nobody sees. Raises Unsupported with the reason."""
    import tempfile  # with what it brings, dearer than the rest of a start

    place = tempfile.mkdtemp(prefix=".overlay-", dir=root)
    try:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{place}/{name}")
        _mount(place)
    except OSError as error:
        raise Unsupported(
            f"no overlay can be mounted of what lies in {root} ({(error.strerror or str(error)).lower()}): each "
            "container gets a copy of its image, which takes time and room; put it on a disk or a tmpfs (WHERRY_ROOT)"
        ) from error
    finally:
        remove_tree(place)


def _mount(place: str) -> None:
    context = m.fsopen("overlay")
    try:
        m.fsconfig_set_string(context, "source", "overlay")
        for name in ("lower", "upper", "work"):
            m.fsconfig_set_string(context, f"{name}dir", f"{place}/{name}")
        if not is_host_root():
            m.fsconfig_set_flag(context, "userxattr")
        m.fsconfig_create(context)
    finally:
        os.close(context)
