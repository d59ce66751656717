"""Starting a shim, from inside the user's process: no fork of it, no thread, nothing inherited but one descriptor."""

import os
import sys

from wherry_oci.errors import Unavailable
from wherry_oci.linux import mount as m
from wherry_oci.runtime.channel import Channel
from wherry_shim.main import LINE
from wherry_shim.shimgroup import move_ahead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NETWORK = "wherry_shim.network"
PORTS = "wherry_shim.portmaps"

_BOOTSTRAP = "import sys;sys.path[:0]=sys.argv[4:];from wherry_shim.main import main;main()"
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
# SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD: whatever the starter has done with them
_RESET_SIGNALS = (1, 2, 3, 13, 15, 17)
_OUT_OF_THE_WAY = 10  # descriptors up from here are none that the shim gets


class ShimFailed(Unavailable):
    """A shim could not bring its container to life: `report` is what it said (`kind`, `message` and facts)."""

    def __init__(self, report: "dict[str, Any]") -> None:
        super().__init__(str(report.get("text") or report.get("message")))
        self.report = report


class Shim:
    """
    A shim that starts and then waits for its order. Between the two the caller can do something else.

    Ended by `order`, by `dismiss`, or after `hold` by `run` or `withdraw`; when its maker is killed before that, it
    goes by itself.
    """

    def __init__(self, directory: str, cgroup: str, ahead: str = "") -> None:
        """
        Of the container in *directory*, whose *cgroup* it enters while it waits. Raises OSError.

        The modules *ahead* (NETWORK, PORTS) it imports while it waits. What it does not need it goes without:
        each container has such a process, and its memory counts.
        """
        ours, its = Channel.pair()
        try:
            self._pid = _spawn(directory, cgroup, ahead, its.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        self._line = ours

    def move(self) -> None:
        """
        Begin to move it into the shims' cgroup while its interpreter still starts.

        The kernel's first such move waits for an RCU grace period, here and not in the shim's own way. The shim moves
        itself as well: whatever fails here is its to report.
        """
        move_ahead(self._pid)

    def order(self, run_directory: str, lock: int, network: "int | None" = None) -> None:
        """
        Have it bring its container to life, and wait until that runs; its live files go into *run_directory*.

        *lock* is the descriptor of the container's lock: from the order on the shim holds it, with no gap even if the
        caller is killed. *network* is the namespace that bridges are in, when it is not the shim's own. Raises
        ShimFailed, with nothing left of container or shim.
        """
        _reap(self._pid)
        try:
            self._ask({"run": run_directory}, [lock] if network is None else [lock, network])
        finally:
            self._line.close()

    def hold(self, run_directory: str, lock: int, network: int | None = None) -> None:
        """As `order`, but all is made except the program, which `run` brings. Raises ShimFailed, as `order` does."""
        _reap(self._pid)
        try:
            self._ask({"run": run_directory, "hold": True}, [lock] if network is None else [lock, network])
        except BaseException:
            self._line.close()
            raise

    def run(self, process: "dict[str, Any]") -> None:
        """Have the container that it holds run *process*: its `args`, `env`, `cwd`. Raises ShimFailed, as `order`."""
        try:
            self._ask({"process": process})
        finally:
            self._line.close()

    def withdraw(self) -> None:
        """Have it remove the container that it holds, and wait until that is done."""
        try:
            self._line.send({"withdraw": True})
            self._line.receive()
        except OSError:  # it was killed
            return
        finally:
            self._line.close()

    def _ask(self, message: "dict[str, Any]", descriptors: "list[int] | None" = None) -> None:
        try:
            self._line.send(message, descriptors)
            answer = self._line.receive()
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise ShimFailed({"kind": "system", "message": "the shim ended before its container ran, without a word"})
        if not answer[0].get("ok"):
            raise ShimFailed(answer[0])

    def dismiss(self) -> None:
        """Nothing is wanted of it."""
        self._line.close()
        _reap(self._pid)


def _spawn(directory: str, cgroup: str, ahead: str, line: int) -> int:
    interpreter = os.path.realpath(sys.executable)
    arguments = [interpreter, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, directory, cgroup, ahead, *_roots()]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    image = _read_only_image(interpreter)
    # Descriptors are moved out of the way first: one of them may be 3 itself.
    high_null, high_line = _above(null), _above(line)
    actions = [(os.POSIX_SPAWN_DUP2, high_null, stream) for stream in (0, 1, 2)]
    actions.append((os.POSIX_SPAWN_DUP2, high_line, LINE))
    try:
        path = interpreter if image is None else f"/proc/self/fd/{image}"
        return os.posix_spawn(
            path, arguments, _ENVIRONMENT, file_actions=actions, setsigmask=[], setsigdef=_RESET_SIGNALS
        )
    finally:
        for fd in (null, high_null, high_line):
            os.close(fd)
        if image is not None:
            os.close(image)


def _roots() -> list[str]:
    """Where the packages are that a shim imports."""
    import wherry_oci
    import wherry_shim

    return [os.path.dirname(os.path.dirname(os.path.abspath(str(p.__file__)))) for p in (wherry_shim, wherry_oci)]


def _above(fd: int) -> int:
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    copy: int = fcntl(fd, F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
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
        return _above(image)
    finally:
        os.close(image)


def _reap(pid: int) -> None:
    """The spawned process has forked the shim proper and is gone at once."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the host program ignores SIGCHLD or reaps all children itself
        return
