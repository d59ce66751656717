"""The interpreter's image that enters containers: read-only, whoever opens it (CVE-2019-5736)."""

import os
import sys

from wherry_oci.linux import mount as m

_BOOTSTRAP = (
    "import sys;sys.path[:0]=sys.argv[1].split(':');from wherry_oci.command import run;"
    "import os;status=run(sys.argv[2:]);sys.stdout.flush();os._exit(status)"
)
_CHUNK = 1 << 30


def execute(arguments: list[str]) -> None:
    """Become `wherry-oci` *arguments* again, in an interpreter that cannot be written. Raises OSError."""
    interpreter = os.path.realpath(sys.executable)
    roots = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), *_needed(arguments)]
    image = _out_of_the_way(open_read_only(interpreter))
    command = [interpreter, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, ":".join(roots), *arguments]
    os.execve(f"/proc/self/fd/{image}", command, os.environ)


def _needed(arguments: list[str]) -> list[str]:
    """Where the library is that only `--systemd-cgroup` takes: without `site` it would not be found."""
    if not any(argument.lstrip("-").startswith("systemd-cgroup") for argument in arguments):
        return []
    from importlib.util import find_spec

    library = find_spec("jeepney")
    if library is None or library.origin is None:
        return []
    return [os.path.dirname(os.path.dirname(os.path.abspath(library.origin)))]


def open_read_only(interpreter: str) -> int:
    """
    A descriptor of *interpreter* to execute: on a read-only mount of its own, or else a sealed copy in memory, for who
    has no right to mount may still own the file. Raises OSError.
    """
    try:
        image = m.open_tree(m.AT_FDCWD, interpreter, m.OPEN_TREE_CLONE)
    except OSError:  # no right to mount, or Kernel < 5.2
        return _sealed_copy(interpreter)
    try:
        m.mount_setattr(image, "", m.AT_EMPTY_PATH, set_attributes=m.MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(image)
        return _sealed_copy(interpreter)
    return image


def _sealed_copy(interpreter: str) -> int:
    from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl

    copy = os.memfd_create("wherry-oci", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(interpreter, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(copy, source, None, _CHUNK):
            pass
    finally:
        os.close(source)
    fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    return copy


def _out_of_the_way(fd: int) -> int:
    """The caller's descriptors from 3 up may be meant for the container."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    copy: int = fcntl(fd, F_DUPFD_CLOEXEC, 200)
    os.close(fd)
    return copy
