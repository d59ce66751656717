"""
Making a container's first process, and further ones in it (runtime-spec runtime.md "Lifecycle").

The caller must be single-threaded: clone(2) copies one thread alone.
"""

import os

from wherry_oci.linux import namespaces as ns
from wherry_oci.linux import process as p
from wherry_oci.runtime import init
from wherry_oci.runtime import rootfs as fs
from wherry_oci.runtime.cgroups import Cgroup
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CLONE_PARENT = 0x00008000
_SIGKILL = 9
_RLIMITS = (
    "RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE "
    "RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO "
    "RLIMIT_RTTIME"
).split()


class Process:
    """A process that is all prepared and waits for `start`; after that a running one. It is the caller's child."""

    def __init__(self, pid: int, channel: Channel, terminal: int | None) -> None:
        self.pid = pid
        self.terminal = terminal  # the master of its terminal, the caller's to close
        self._channel = channel

    def start(self) -> None:
        """Let it execute its program. Raises RuntimeFailure when that fails; it is gone then."""
        try:
            self._channel.send({"start": True})
        except OSError:  # it is dead already; what it said is still to be read
            pass
        try:
            message = self._channel.receive()
            if message is not None and "failure" in message[0]:
                _reap(self.pid)
                raise RuntimeFailure.from_json(message[0]["failure"])
        finally:
            self._channel.close()

    def abandon(self) -> None:
        """Kill and reap it before it ever ran."""
        self._channel.close()
        try:
            os.kill(self.pid, _SIGKILL)
        except ProcessLookupError:
            pass
        _reap(self.pid)
        if self.terminal is not None:
            os.close(self.terminal)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def create(
    config: "dict[str, Any]",
    entry: init.Entry,
    *,
    rootfs_path: str,
    rootfs_mounts: "list[dict[str, Any]]",
    cgroup: Cgroup | None,
    born_in_cgroup: bool = False,
    on_born: "Callable[[], None] | None" = None,
) -> Process:
    """
    The container's first process, up to the point where it would execute its program.

    *config* is config.json; *rootfs_mounts* are made on the directory *rootfs_path* in the container's own mount
    namespace (none: what is there already is the rootfs). With *born_in_cgroup* the caller itself is in *cgroup* and
    the child needs no move; *on_born* is called once it exists, before it does anything. Raises RuntimeFailure;
    nothing is left then but the cgroup.
    """
    parent_end, child_end = Channel.pair()
    pid = _clone(_new_namespaces(config))
    if pid == 0:
        parent_end.close()
        init.run_init(config, entry, rootfs_path, rootfs_mounts, child_end)
    child_end.close()
    process = Process(pid, parent_end, None)
    try:
        if on_born is not None:
            on_born()
        if cgroup is not None and not born_in_cgroup:
            _join(cgroup, pid)
        _limit(pid, config.get("process") or {})
        _await_ready(process)
    except BaseException:
        process.abandon()
        raise
    return process


def _new_namespaces(config: "dict[str, Any]") -> int:
    flags = 0
    for namespace in (config.get("linux") or {}).get("namespaces") or ():
        kind = namespace["type"]
        if kind not in ns.BY_NAME:
            raise RuntimeFailure("invalid", "make namespaces", f"{kind!r} is no kind of namespace")
        if kind in ("user", "time"):
            raise RuntimeFailure("unsupported", "make namespaces", f"{kind} namespaces are not supported yet")
        if not namespace.get("path") and kind != "cgroup":  # that one is made once the process is in its group
            flags |= ns.BY_NAME[kind]
    if not flags & ns.CLONE_NEWNS:
        raise RuntimeFailure("unsupported", "make namespaces", "a container without a mount namespace of its own")
    return flags


def _clone(flags: int) -> int:
    try:
        return ns.clone(flags)
    except OSError as error:
        raise fs.failed("make namespaces", error) from None


def _join(cgroup: Cgroup, pid: int) -> None:
    try:
        cgroup.add(pid)
    except OSError as error:
        raise fs.failed("join cgroup", error) from None


def _limit(pid: int, process: "dict[str, Any]") -> None:
    adjustment = process.get("oomScoreAdj")
    if adjustment is not None:
        try:
            with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
                file.write(str(adjustment).encode())
        except OSError as error:
            raise fs.failed(f"set oomScoreAdj {adjustment}", error) from None
    for limit in process.get("rlimits") or ():
        _set_rlimit(pid, limit)


def _set_rlimit(pid: int, limit: "dict[str, Any]") -> None:
    import resource

    kind = limit["type"]
    if kind not in _RLIMITS:
        raise RuntimeFailure("invalid", "set rlimit", f"{kind!r} is no resource limit")
    try:
        resource.prlimit(pid, _RLIMITS.index(kind), (_signed(limit["soft"]), _signed(limit["hard"])))
    except (OSError, ValueError) as error:
        raise RuntimeFailure(
            "system",
            f"set {kind}",
            f"soft {limit['soft']}, hard {limit['hard']}: {str(error).lower()} (raising a hard limit needs "
            "CAP_SYS_RESOURCE)",
            errno=getattr(error, "errno", 0) or 0,
        ) from None


def _signed(value: int) -> int:
    return -1 if value >= 1 << 63 else value  # RLIM_INFINITY, as Python takes it


def _await_ready(process: Process, *, by_helper: bool = False) -> None:
    """
    *by_helper*: it is the child of a helper that tells its pid and ends. The two messages come in either order, and the
    process must not be let go before its pid is known.
    """
    process._channel.send({"go": True})
    awaited = {"ready", "pid"} if by_helper else {"ready"}
    while awaited:
        message = process._channel.receive()
        if message is None:
            raise RuntimeFailure("gone", "enter the container", "the process was killed before it was inside")
        said, descriptors = message
        if "failure" in said:
            raise RuntimeFailure.from_json(said["failure"])
        if "terminal" in said:
            process.terminal = descriptors[0]
        if "pid" in said:
            _reap(process.pid)
            process.pid = said["pid"]
        awaited -= said.keys()


def execute(pid: int, config: "dict[str, Any]", entry: init.Entry, *, cgroup: Cgroup | None) -> Process:
    """
    A further process in the container whose first process is *pid*, up to where it would execute its program.

    It becomes the caller's own child. Raises RuntimeFailure.
    """
    parent_end, child_end = Channel.pair()
    namespaces = [namespace["type"] for namespace in (config.get("linux") or {}).get("namespaces") or ()]
    helper = _clone(0)
    if helper == 0:
        parent_end.close()
        init.run_guarded(child_end, lambda: _enter(pid, namespaces, entry, child_end))
    child_end.close()
    process = Process(helper, parent_end, None)
    try:
        if cgroup is not None:
            _join(cgroup, helper)
        _limit(helper, entry.process)
        _await_ready(process, by_helper=True)
    except BaseException:
        process.abandon()
        raise
    return process


def _enter(pid: int, namespaces: list[str], entry: init.Entry, channel: Channel) -> None:
    p.set_dumpable(False)  # before it can be seen from inside (CVE-2016-9962)
    channel.receive()
    try:
        descriptors = [(ns.open_namespace(pid, kind), ns.BY_NAME[kind]) for kind in namespaces]
        for fd, kind in sorted(descriptors, key=lambda pair: pair[1] == ns.CLONE_NEWNS):  # /proc is needed till then
            ns.setns(fd, kind)
            os.close(fd)
    except OSError as error:
        raise fs.failed("join the container's namespaces", error) from None
    child = ns.clone(_CLONE_PARENT)  # a pid namespace is entered by children only; this one is the caller's
    if child:
        channel.send({"pid": child})
        os._exit(0)
    os.setsid()
    init.enter_running(entry, channel)
