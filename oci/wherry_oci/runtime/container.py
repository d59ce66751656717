"""
Making a container's first process, and further ones in it (runtime-spec runtime.md "Lifecycle").

The caller must be single-threaded: clone(2) copies one thread alone.
"""

import os
from errno import EBUSY

from wherry_oci.linux import namespaces as ns
from wherry_oci.linux import process as p
from wherry_oci.runtime import init
from wherry_oci.runtime import rootfs as fs
from wherry_oci.runtime.cgroups import Cgroup
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text
from wherry_oci.runtime.prepared import Process, reap, receive

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


class Plan:
    """How a container's first process comes into its namespaces: which are made at its birth, which are joined."""

    def __init__(self, config: "dict[str, Any]") -> None:
        linux = config.get("linux") or {}
        self.paths: list[tuple[str, str]] = []  # kind, path
        self.new = 0
        kinds = set()
        for namespace in linux.get("namespaces") or ():
            kind = namespace["type"]
            if kind not in ns.BY_NAME:
                raise RuntimeFailure("invalid", "make namespaces", f"{kind!r} is no kind of namespace")
            if kind in kinds:
                raise RuntimeFailure("invalid", "make namespaces", f"the {kind} namespace is given twice")
            kinds.add(kind)
            if namespace.get("path"):
                self.paths.append((kind, namespace["path"]))
            elif kind != "cgroup":  # that one is made once the process is in its group
                self.new |= ns.BY_NAME[kind]
        self.new_cgroup = "cgroup" in kinds and "cgroup" not in dict(self.paths)
        self.own_mounts = "mount" in kinds
        self.in_user = "user" in kinds
        self.uids, self.gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
        self.offsets = linux.get("timeOffsets") or {}
        joined = dict(self.paths)
        # A pid or time namespace is entered by children only, and namespaces given by path may be closed to whoever is
        # in a new user namespace already: a helper goes ahead then, and makes the process as a child of the caller.
        self.by_helper = bool(
            joined.keys() & {"pid", "user", "time"}
            or self.new & ns.CLONE_NEWTIME
            or (self.new & ns.CLONE_NEWUSER and joined)
        )
        if self.offsets and not self.new & ns.CLONE_NEWTIME:
            raise RuntimeFailure("invalid", "make namespaces", "timeOffsets need a new time namespace")

    @property
    def maps(self) -> bool:
        """Whether ids are to be mapped."""
        return bool(self.new & ns.CLONE_NEWUSER)


def create(
    config: "dict[str, Any]",
    entry: init.Entry,
    *,
    rootfs_path: str,
    rootfs_mounts: "list[dict[str, Any]]",
    cgroup: Cgroup | None,
    rootfs_tree: int | None = None,
    born_in_cgroup: bool = False,
    on_born: "Callable[[], None] | None" = None,
    on_pid: "Callable[[int], dict[str, Any]] | None" = None,
) -> Process:
    """
    The container's first process, up to the point where it would execute its program.

    *config* is config.json; *rootfs_mounts* are made on the directory *rootfs_path* in the container's own mount
    namespace (none: what is there already is the rootfs); with *rootfs_tree*, a detached mount, that is the rootfs, and
    the descriptor is closed. With *born_in_cgroup* the caller itself is in *cgroup* and
    the child needs no move; *on_born* is called once it exists, before it does anything; *on_pid* when its pid is
    known, and returns the state that hooks get. Raises RuntimeFailure; nothing is left then but the cgroup.
    """
    plan = Plan(config)
    entry.cgroup_directories = dict(cgroup.mounted()) if cgroup is not None and not plan.new_cgroup else {}
    entry.own_mounts = plan.own_mounts
    entry.in_user_namespace = plan.in_user
    trees = _foreign_trees(config, plan)
    if rootfs_tree is not None:
        trees[init.ROOT] = rootfs_tree
    parent_end, child_end = Channel.pair()
    pid = _clone(0 if plan.by_helper else plan.new)
    if pid == 0:
        parent_end.close()
        entry.trees = trees
        if plan.by_helper:
            init.run_guarded(child_end, lambda: _go_ahead(plan, config, entry, rootfs_path, rootfs_mounts, child_end))
        init.run_init(config, entry, rootfs_path, rootfs_mounts, child_end)
    child_end.close()
    for tree in trees.values():
        os.close(tree)
    process = Process(pid, parent_end, None)
    birth = _Birth(process, config, plan, on_pid)
    try:
        if on_born is not None:
            on_born()
        if cgroup is not None and not born_in_cgroup:
            _join(cgroup, pid)
        _limit(pid, config.get("process") or {})
        birth.attend()
    except BaseException:
        process.abandon()
        raise
    return process


class _Birth:
    """What the parent does while its child enters the container: it answers what the child asks for, till `ready`."""

    def __init__(
        self,
        process: Process,
        config: "dict[str, Any]",
        plan: Plan,
        on_pid: "Callable[[int], dict[str, Any]] | None",
    ) -> None:
        self._process, self._config, self._plan, self._on_pid = process, config, plan, on_pid
        self._state: dict[str, Any] = {}

    def attend(self) -> None:
        if not self._plan.by_helper:
            if self._plan.maps:
                self._map()
            self._know_pid()
        self._send({"go": True, "state": self._state})
        while True:
            message = self._process.channel.receive()
            if message is None:
                raise RuntimeFailure("gone", "enter the container", "the process was killed before it was inside")
            said, descriptors = message
            if "failure" in said:
                raise RuntimeFailure.from_json(said["failure"])
            if "terminal" in said:
                self._process.terminal = descriptors[0]
            elif "map" in said:
                self._map()
                self._send({"go": True})
            elif "pid" in said:
                reap(self._process.pid)
                self._process.pid = said["pid"]
                self._know_pid()
                self._send({"go": True, "state": self._state})
            elif "hooks" in said:
                from wherry_oci.runtime import hooks

                hooks.run_all(self._config, self._state, *hooks.BEFORE_PIVOT)
                self._send({"go": True})
            elif "ready" in said:
                return

    def _map(self) -> None:
        from wherry_oci.runtime.usernamespace import write_mappings

        write_mappings(self._process.pid, self._plan.uids, self._plan.gids)

    def _know_pid(self) -> None:
        if self._on_pid is not None:
            self._state = self._on_pid(self._process.pid)
        devices = (self._config.get("linux") or {}).get("netDevices")
        if devices:
            from wherry_oci.runtime.netdevices import move

            move(devices, self._process.pid)

    def _send(self, message: "dict[str, Any]") -> None:
        try:
            self._process.channel.send(message)
        except OSError:  # it is dead already; what it said is still to be read
            pass


def _foreign_trees(config: "dict[str, Any]", plan: Plan) -> dict[int, int]:
    """
    Detached mounts, by their place in `mounts`, that only the caller can make: sources that the ids of a user
    namespace could not reach, and id-mapped ones.
    """
    found: dict[int, int] = {}
    try:
        for index, spec in enumerate(config.get("mounts") or ()):
            mapped = spec.get("uidMappings") or any(o in ("idmap", "ridmap") for o in spec.get("options") or ())
            if mapped or (plan.in_user and fs.is_bind(spec)):
                from wherry_oci.runtime.idmap import open_source

                found[index] = open_source(spec, plan.uids, plan.gids)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def _go_ahead(
    plan: Plan,
    config: "dict[str, Any]",
    entry: init.Entry,
    rootfs_path: str,
    rootfs_mounts: "list[dict[str, Any]]",
    channel: Channel,
) -> None:
    """The helper's life: into what is given by path, out into what is new, and then the container's first process."""
    p.set_parent_death_signal(_SIGKILL)
    p.set_dumpable(False)
    init.await_go(channel)
    try:
        join_all([(kind, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for kind, path in plan.paths if kind != "mount"])
        if plan.maps:
            ns.unshare(ns.CLONE_NEWUSER)
            channel.send({"map": True})
            init.await_go(channel)
            init.become_mapped_root()
        ns.unshare(plan.new & ~ns.CLONE_NEWUSER)
        for clock, offset in plan.offsets.items():
            line = f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}"
            with open("/proc/self/timens_offsets", "wb", buffering=0) as file:
                file.write(line.encode())
    except OSError as error:
        raise fs.failed("make namespaces", error) from None
    child = ns.clone(_CLONE_PARENT)
    if child:
        channel.send({"pid": child})
        os._exit(0)
    config = {**config, "linux": {**config["linux"], "namespaces": _left(config, plan)}}
    init.run_init(config, entry, rootfs_path, rootfs_mounts, channel)


def _left(config: "dict[str, Any]", plan: Plan) -> "list[dict[str, Any]]":
    """The namespaces that the first process itself still enters: a mount namespace by path, a new cgroup namespace."""
    return [
        namespace
        for namespace in config["linux"]["namespaces"]
        if (namespace["type"] == "mount" and namespace.get("path"))
        or (namespace["type"] == "cgroup" and not namespace.get("path"))
    ]


def join_all(namespaces: list[tuple[str, int]]) -> None:
    """
    Enter all (kind, descriptor); the descriptors are closed. Raises OSError.

    Those that the caller may enter as it is come first, for they may belong to another user namespace than the one
    that is joined; the rest belong to that one, so they come after it.
    """
    refused = []
    here = os.stat("/proc/self/ns/user")  # now: the container's /proc may not know this process
    for kind, fd in sorted(namespaces, key=lambda pair: pair[0] == "mount"):
        if kind != "user":
            try:
                ns.setns(fd, ns.BY_NAME[kind])
            except PermissionError:
                refused.append((kind, fd))
    for kind, fd in namespaces:
        if kind == "user":
            if os.path.samestat(os.fstat(fd), here):
                continue  # setns(2) takes nobody to where he is
            ns.setns(fd, ns.CLONE_NEWUSER)
            init.become_mapped_root()
    for kind, fd in refused:
        ns.setns(fd, ns.BY_NAME[kind])
    for _, fd in namespaces:
        os.close(fd)


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


def _join_running(cgroup: Cgroup, pid: int, first: int) -> None:
    """As the container's *first* process may have moved into a group below, and a v2 group with such takes nobody."""
    try:
        cgroup.add(pid)
    except OSError as error:
        if error.errno != EBUSY:
            raise fs.failed("join cgroup", error) from None
        with open(f"/proc/{first}/cgroup", encoding="utf-8") as lines:
            where = next((line.rstrip("\n")[3:] for line in lines if line.startswith("0::")), cgroup.path)
        _join(Cgroup(where, cgroup.hierarchies), pid)


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
        said = os_error_text(error) if isinstance(error, OSError) else str(error)
        raise RuntimeFailure(
            "system",
            f"set {kind}",
            f"soft {limit['soft']}, hard {limit['hard']}: {said} (raising a hard limit needs CAP_SYS_RESOURCE)",
            errno=getattr(error, "errno", 0) or 0,
        ) from None


def _signed(value: int) -> int:
    return -1 if value >= 1 << 63 else value  # RLIM_INFINITY, as Python takes it


def _await_ready(process: Process) -> None:
    """
    It is the child of a helper that tells its pid and ends. The two messages come in either order, and the process must
    not be let go before its pid is known.
    """
    process.channel.send({"go": True})
    awaited = {"ready", "pid"}
    while awaited:
        message = receive(process.channel, process.cgroup)
        if message is None:
            raise RuntimeFailure("gone", "enter the container", "the process was killed before it was inside")
        said, descriptors = message
        if "failure" in said:
            raise RuntimeFailure.from_json(said["failure"])
        if "terminal" in said:
            process.terminal = descriptors[0]
        if "pid" in said:
            reap(process.pid, process.cgroup)
            process.pid = said["pid"]
        awaited -= said.keys()


def execute(pid: int, config: "dict[str, Any]", entry: init.Entry, *, cgroup: Cgroup | None) -> Process:
    """
    A further process in the container whose first process is *pid*, up to where it would execute its program.

    It becomes the caller's own child. Raises RuntimeFailure.
    """
    plan = Plan(config)
    kinds = [namespace["type"] for namespace in (config.get("linux") or {}).get("namespaces") or ()]
    entry.own_mounts, entry.in_user_namespace = plan.own_mounts, plan.in_user
    parent_end, child_end = Channel.pair()
    helper = _clone(0)
    if helper == 0:
        parent_end.close()
        init.run_guarded(child_end, lambda: _enter(pid, kinds, entry, child_end))
    child_end.close()
    process = Process(helper, parent_end, None, cgroup)
    try:
        if cgroup is not None:
            _join_running(cgroup, helper, pid)
        _limit(helper, entry.process)
        _await_ready(process)
    except BaseException:
        process.abandon()
        raise
    return process


def _enter(pid: int, kinds: list[str], entry: init.Entry, channel: Channel) -> None:
    p.set_dumpable(False)  # before it can be seen from inside (CVE-2016-9962)
    init.await_go(channel)
    entry.open_labels()
    try:
        root = None if entry.own_mounts else os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        join_all([(kind, ns.open_namespace(pid, kind)) for kind in kinds])
        if root is not None:  # the container has the host's mounts and a root of its own
            os.fchdir(root)
            os.chroot(".")
            os.close(root)
    except OSError as error:
        raise fs.failed("join the container's namespaces", error) from None
    child = ns.clone(_CLONE_PARENT)  # a pid namespace is entered by children only; this one is the caller's
    if child:
        channel.send({"pid": child})
        os._exit(0)
    os.setsid()
    init.enter_running(entry, channel)
