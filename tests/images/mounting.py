"""Making the mounts that the store returns, and describing the trees that they show."""

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wherry_oci.spec.mount import Mount


@contextmanager
def mounted(mounts: Sequence[Mount], target: Path) -> Iterator[Path]:
    """The rootfs of *mounts* at *target*."""
    target.mkdir(exist_ok=True)
    (mount,) = mounts
    lower = [option.removeprefix("lowerdir=") for option in mount.options if option.startswith("lowerdir=")]
    options = [option for option in mount.options if not option.startswith("lowerdir=")]
    if lower:
        # relative paths, as the classic mount takes all options on one page
        base = os.path.dirname(lower[0])
        options.insert(0, "lowerdir=" + ":".join(os.path.relpath(path, base) for path in lower))
    else:
        base = "/"
    subprocess.run(
        ["mount", "-t", mount.type, "-o", ",".join(options), mount.source, str(target)], check=True, cwd=base
    )
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def describe(root: Path | str, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Each file below *root*: type and mode, owner, size, mtime, device, link, attributes, and its other names."""
    found: dict[str, tuple[object, ...]] = {}
    links: dict[int, list[str]] = {}
    for folder, directories, files in os.walk(root):
        for name in [".", *directories, *files] if folder == str(root) else [*directories, *files]:
            path = os.path.normpath(os.path.join(folder, name))
            status = os.lstat(path)
            relative = os.path.relpath(path, root)
            is_link, is_directory = stat.S_ISLNK(status.st_mode), stat.S_ISDIR(status.st_mode)
            if status.st_nlink > 1 and not is_directory:
                links.setdefault(status.st_ino, []).append(relative)
            found[relative] = (
                stat.filemode(status.st_mode),
                status.st_uid,
                status.st_gid,
                None if is_directory else status.st_size,
                status.st_mtime_ns if times else None,
                status.st_rdev,
                os.readlink(path) if is_link else None,
                tuple(
                    (key, os.getxattr(path, key, follow_symlinks=False))
                    for key in sorted(os.listxattr(path, follow_symlinks=False))
                    if not key.startswith(("trusted.overlay.", "security.selinux"))
                ),
                status.st_ino,
            )
    groups = {inode: tuple(sorted(names)) for inode, names in links.items() if len(names) > 1}
    return {name: (*facts[:-1], groups.get(int(str(facts[-1])), ())) for name, facts in found.items()}
