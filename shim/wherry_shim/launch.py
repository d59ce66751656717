"""Starting a shim, from inside the user's process: no fork of it, no thread, nothing inherited but two descriptors."""

import os
import sys

from wherry_oci.errors import Unavailable
from wherry_oci.linux import mount as m
from wherry_oci.runtime import quickjson
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_shim.main import LOCK, REPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BOOTSTRAP = "import sys;sys.path[:0]=sys.argv[3:];from wherry_shim.main import main;main()"
# SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD: whatever the starter has done with them
_RESET_SIGNALS = (1, 2, 3, 13, 15, 17)
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class ShimFailed(Unavailable):
    """A shim could not bring its container to life: `report` is what it said (`kind`, `message` and facts)."""

    def __init__(self, report: "dict[str, Any]") -> None:
        super().__init__(str(report.get("text") or report.get("message")))
        self.report = report


def launch(directory: str, run_directory: str, lock: int, cgroup: str) -> "dict[str, Any]":
    """
    Start the shim of the container in *directory* and wait until the container runs; returns its state.

    *lock* is the descriptor of the container's lock, which the shim inherits and so holds from the first moment, with
    no gap even if the caller is killed. Raises ShimFailed, with nothing left of container or shim.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = _spawn(directory, run_directory, lock, writer)
        finally:
            os.close(writer)
        prejoin(cgroup, pid)
        _reap(pid)
        report = _read_report(reader)
    finally:
        os.close(reader)
    if not report.get("ok"):
        raise ShimFailed(report)
    state: dict[str, Any] = report["state"]
    return state


def _spawn(directory: str, run_directory: str, lock: int, report: int) -> int:
    interpreter = os.path.realpath(sys.executable)
    roots = [os.path.dirname(os.path.dirname(os.path.abspath(str(module.__file__)))) for module in _packages()]
    arguments = [interpreter, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, directory, run_directory, *roots]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    image = _read_only_image(interpreter)
    # Descriptors are moved out of the way first: one of them may be 3 or 4 itself.
    high = [_above(fd) for fd in (null, lock, report)]
    actions = [
        (os.POSIX_SPAWN_DUP2, high[0], 0),
        (os.POSIX_SPAWN_DUP2, high[0], 1),
        (os.POSIX_SPAWN_DUP2, high[0], 2),
        (os.POSIX_SPAWN_DUP2, high[1], LOCK),
        (os.POSIX_SPAWN_DUP2, high[2], REPORT),
    ]
    try:
        path = interpreter if image is None else f"/proc/self/fd/{image}"
        return os.posix_spawn(
            path, arguments, _ENVIRONMENT, file_actions=actions, setsigmask=[], setsigdef=_RESET_SIGNALS
        )
    finally:
        for fd in (null, *high):
            os.close(fd)
        if image is not None:
            os.close(image)


def _packages() -> "list[Any]":
    import wherry_oci
    import wherry_shim

    return [wherry_shim, wherry_oci]


def _above(fd: int) -> int:
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    copy: int = fcntl(fd, F_DUPFD_CLOEXEC, 10)
    return copy


def _read_only_image(interpreter: str) -> int | None:
    """
    The interpreter on a detached read-only mount of its own, as a descriptor to execute.

    What enters a container is a child of this very image, and the container reaches it as /proc/PID/exe. On such a
    mount it cannot be written, whoever opens it (CVE-2019-5736). None without the right to mount: then the container
    has no right to the file either.
    """
    try:
        image = m.open_tree(m.AT_FDCWD, interpreter, m.OPEN_TREE_CLONE)
    except PermissionError:
        return None
    try:
        m.mount_setattr(image, "", m.AT_EMPTY_PATH, set_attributes=m.MOUNT_ATTR_RDONLY)
    except BaseException:
        os.close(image)
        raise
    # The descriptor must stay above those that the shim gets.
    try:
        return _above(image)
    finally:
        os.close(image)


def prejoin(cgroup: str, pid: int) -> None:
    """
    Begin to move the new shim into the container's cgroup while its interpreter still starts.

    The kernel's first such move waits for an RCU grace period, which so costs nothing. The shim does the same itself:
    whatever fails here is its to report.
    """
    try:
        group = Cgroup(cgroup, Hierarchies.find())
        group.create()
        group.add(pid)
    except OSError:
        return


def _reap(pid: int) -> None:
    """The spawned process has forked the shim proper and is gone at once."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the host program ignores SIGCHLD or reaps all children itself
        return


def _read_report(reader: int) -> "dict[str, Any]":
    said = b""
    while not said.endswith(b"\n"):
        piece = os.read(reader, 1 << 16)
        if not piece:
            return {"kind": "system", "message": "the shim ended before its container ran, without a word"}
        said += piece
    report: dict[str, Any] = quickjson.loads(said)
    return report
