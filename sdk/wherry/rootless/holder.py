"""
The namespaces of an ordinary user's containers, and the small process that holds them.

There is one holder for each directory of holders (one for each user, unless a directory is given): a user namespace
that maps the user to root and, where /etc/subuid has some for it, more ids to the others; a mount namespace; and the
network in which bridges are. It does nothing but be there. What it holds lives on in the shims when it is killed: the
next one is made in what they are in, so that bridges and containers' networks stay as they are.
"""

import os
from fcntl import LOCK_EX, flock
from signal import SIG_DFL, SIGKILL, SIGPIPE, pause, signal

from wherry_oci.errors import PermissionDenied, Unavailable, Unsupported
from wherry_oci.linux import mount as m
from wherry_oci.linux import namespaces as ns
from wherry_oci.linux import process as p
from wherry_oci.linux.rtnetlink import RouteSocket, set_link
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.usernamespace import write_mappings
from wherry_shim import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RECORD = "holder"  # below the directory: who it is
LOG = "holder.log"  # of the one that connects its network to the world
_LOCK = "holder.lock"
_LOOPBACK = 1
_SUBUID, _SUBGID = "/etc/subuid", "/etc/subgid"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
_KINDS = ("user", "mount", "network")
_LARGEST_DESCRIPTOR = 1 << 20


def enter(directory: str) -> int:
    """
    Enter the user and the mount namespace, made now if there are none; a descriptor of the network namespace.

    This process has one thread, and is root in there afterwards. Raises Unavailable, Unsupported, RuntimeFailure.
    """
    user, mounts, network = _namespaces(directory)
    where = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ns.setns(user, ns.CLONE_NEWUSER)
        ns.setns(mounts, ns.CLONE_NEWNS)
        os.fchdir(where)
    except OSError as error:
        raise Unavailable(f"enter the namespaces of this user's containers: {error.strerror}") from error
    finally:
        for fd in (user, mounts, where):
            os.close(fd)
    return network


def _namespaces(directory: str) -> tuple[int, int, int]:
    os.makedirs(directory, 0o700, exist_ok=True)
    found = os.stat(directory)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionDenied(
            f"{directory} is not this user's own: remove it, or set XDG_RUNTIME_DIR to another place"
        )
    lock = os.open(f"{directory}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        flock(lock, LOCK_EX)
        record = records.read(directory, RECORD)
        if record is None or not _lives(record):
            record = _made(directory, record)
        elif record.get("way_out") and not _lives(record.get("keeper") or {}):
            record |= _connected(record["pid"], f"{directory}/{LOG}")
            records.write(directory, RECORD, record)
        user, mounts, network = (ns.open_namespace(record["pid"], kind) for kind in _KINDS)
        return user, mounts, network
    finally:
        os.close(lock)


def _lives(process: "dict[str, Any]") -> bool:
    """Whether the process of that `pid` and `start` is there."""
    return "pid" in process and records.start_time(process["pid"]) == process["start"]


def _made(directory: str, former: "dict[str, Any] | None") -> "dict[str, Any]":
    """A new holder, recorded; in the namespaces of the *former* one as far as somebody is in them."""
    former = former or {}
    left = _left_by(former)
    pid = _started(left, *mappings())
    record = {
        "pid": pid,
        "start": records.start_time(pid),
        "namespaces": {kind: _number(pid, kind) for kind in _KINDS},
    }
    keeps = record["namespaces"] == former.get("namespaces") and _lives(former.get("keeper") or {})
    if keeps:  # who connects the network goes on as long as somebody is in it
        record |= {"way_out": former["way_out"], "keeper": former["keeper"]}
    else:
        record |= _connected(pid, f"{directory}/{LOG}")
    records.write(directory, RECORD, record)
    return record


def _left_by(former: "dict[str, Any]") -> "dict[str, int]":
    """Descriptors of those of its namespaces in which somebody is, by kind: shims, for one."""
    wanted = former.get("namespaces") or {}
    found: dict[str, int] = {}
    for pid in _those_in(wanted.get("user", 0)):
        for kind in _KINDS:
            if kind not in found and _number(pid, kind) == wanted.get(kind):
                try:
                    found[kind] = ns.open_namespace(pid, kind)
                except OSError:  # it has ended just now
                    continue
    return found


def _those_in(user: int) -> "list[str]":
    """The pids of all processes in that user namespace."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and user and _number(pid, "user") == user]


def _number(pid: "int | str", kind: str) -> int:
    """Which namespace that is, 0 when nobody can tell."""
    try:
        return os.stat(f"/proc/{pid}/ns/{ns.PROC_NAMES[kind]}").st_ino
    except OSError:
        return 0


def _started(left: "dict[str, int]", uids: "list[dict[str, Any]]", gids: "list[dict[str, Any]]") -> int:
    """The pid of a new holder, which has entered what is *left* and made the rest."""
    said, says = os.pipe2(os.O_CLOEXEC)
    hears, heard = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _guarded(says, lambda: _hold(left, says, hears))
    os.close(says)
    os.close(hears)
    try:
        if "user" not in left:
            _expect(said, b"user")
            write_mappings(pid, uids, gids)
            os.write(heard, b"mapped")
        _expect(said, b"ready")
    except BaseException:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(said)
        os.close(heard)
        for fd in left.values():
            os.close(fd)
    return pid


def _expect(pipe: int, word: bytes) -> None:
    text = os.read(pipe, 1000)
    if text != word:
        raise Unsupported(
            "a user namespace for this user's containers: " + (text.decode(errors="replace") or "its process ended")
        )


def _guarded(says: int, work: "Callable[[], None]") -> None:
    try:
        work()
    except OSError as error:
        os.write(says, f"{error.filename or ''} {error.strerror}".strip().lower().encode())
    finally:
        os._exit(1)


def _hold(left: "dict[str, int]", says: int, hears: int) -> None:
    """The holder's whole life."""
    os.setsid()
    os.chdir("/")
    if "user" in left:
        ns.setns(left["user"], ns.CLONE_NEWUSER)
    else:
        _new_user_namespace(says, hears)
    if "mount" in left:
        ns.setns(left["mount"], ns.CLONE_NEWNS)
    else:
        ns.unshare(ns.CLONE_NEWNS)
        m.mount("", "/", None, m.MS_REC | m.MS_SLAVE)  # what the host mounts is seen; nothing goes back
    if "network" in left:
        ns.setns(left["network"], ns.CLONE_NEWNET)
    else:
        ns.unshare(ns.CLONE_NEWNET)
        with RouteSocket() as route:
            route.execute([set_link(_LOOPBACK, up=True)])
    p.set_name(b"wherry-holder")
    p.set_dumpable(True)  # else nobody but root may open its namespaces
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.write(says, b"ready")
    os.closerange(3, _LARGEST_DESCRIPTOR)
    while True:
        pause()


def _new_user_namespace(says: int, hears: int) -> None:
    try:
        ns.unshare(ns.CLONE_NEWUSER)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {_FORBIDDEN}") from None
    p.set_dumpable(True)  # newuidmap is to see whose it is
    os.write(says, b"user")
    if os.read(hears, 100) != b"mapped":
        os._exit(1)


_FORBIDDEN = (
    "the host may forbid it: see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and "
    "kernel.apparmor_restrict_unprivileged_userns"
)


# ids


def mappings() -> "tuple[list[dict[str, Any]], list[dict[str, Any]]]":
    """Of users and of groups: this user as root, then what it has in /etc/subuid, if newuidmap is there to map it."""
    import pwd

    uid, gid = os.geteuid(), os.getegid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    users, groups = ranges(_SUBUID, name, uid), ranges(_SUBGID, name, uid)
    if not users or not groups or not all(map(program, ("newuidmap", "newgidmap"))):
        users = groups = []
    return _mapping(uid, users), _mapping(gid, groups)


def _mapping(own: int, others: "list[tuple[int, int]]") -> "list[dict[str, Any]]":
    found = [{"containerID": 0, "hostID": own, "size": 1}]
    following = 1
    for start, size in others:
        found.append({"containerID": following, "hostID": start, "size": size})
        following += size
    return found


def ranges(path: str, name: str, uid: int) -> "list[tuple[int, int]]":
    """First id and how many, for each range that subuid(5) has for the user."""
    found = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in (name, str(uid)) and fields[1].isdigit() and fields[2].isdigit():
                    found.append((int(fields[1]), int(fields[2])))
    except OSError:
        return []
    return [(start, size) for start, size in found if size]


def program(name: str) -> "str | None":
    """Where a program of the host is."""
    for directory in _PATH.split(":"):
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return None


# the way out

# Where containers find the host's name servers: addresses that are nobody's, answered by who connects the network.
PASTA_DNS, SLIRP_DNS = "169.254.1.1", "10.0.2.3"

# Its own address and the way out, of each family; a host that lacks one has a container network without it.
_PASTA_NETWORKS = (("10.0.2.100", "10.0.2.2"), ("fd00:0:0:2::100", "fd00:0:0:2::2"))
_PASTA_NETMASK = "255.255.255.0"

CONNECTORS = ("pasta", "slirp4netns")  # the first that can

_CONNECTS_WITHIN_S = 5.0
_LOOK_S = 0.005  # whether it has connected
_NEXT_S = 0.2  # from its end to the next one; doubled each time that none connects, up to
_LATEST_S = 10.0
_LOOK_AROUND_S = 2.0  # whether anybody is left


def _connected(pid: int, log: str) -> "dict[str, Any]":
    """
    Connect the network of the holder *pid* with the world, by pasta or slirp4netns: `way_out` says which, "" that
    neither can; `keeper` is the process that sees to it.
    """
    for name in CONNECTORS:
        where = program(name)
        if where is not None and (keeper := _kept(name, where, pid, log)):
            return {"way_out": name, "keeper": {"pid": keeper, "start": records.start_time(keeper)}}
    return {"way_out": "", "keeper": {}}


def _arguments(name: str, pid: "int | str") -> "list[str]":
    """How the program *name* connects the network that process *pid* is in."""
    user, network = f"/proc/{pid}/ns/user", f"/proc/{pid}/ns/net"
    if name == "slirp4netns":
        options = ["--configure", "--mtu=65520", "--disable-host-loopback", "--userns-path", user]
        return [*options, "--netns-type=path", network, "tap0"]
    options = ["--config-net", "--quiet", "--foreground", "--no-map-gw", "--dns-forward", PASTA_DNS]
    # Addresses of its own, not copies of the host's, which could not be reached from the containers then.
    for address, gateway in _PASTA_NETWORKS:
        options += ["--address", address, "--gateway", gateway]
    options += ["--netmask", _PASTA_NETMASK]
    for way in ("-t", "-u", "-T", "-U"):  # it publishes nothing: the shims do
        options += [way, "none"]
    return [*options, "--userns", user, "--netns", network]


def _kept(name: str, where: str, pid: int, log: str) -> int:
    """The pid of a keeper that has the program *where* connect; 0 when it does not."""
    said, says = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        try:
            _Keeper(name, where, pid, log, says).keep()
        finally:
            os._exit(1)
    os.close(says)
    try:
        if os.read(said, 10):
            return keeper
        os.waitpid(keeper, 0)
        return 0
    finally:
        os.close(said)


class _Keeper:
    """
    The process that has a program connect the network, for as long as the holder, or anybody else, is in there.

    Neither program ends by itself with the namespace whose path it was given; and one that ends before is replaced.
    """

    def __init__(self, name: str, where: str, pid: int, log: str, says: int) -> None:
        os.setsid()
        os.chdir("/")
        p.set_name(b"wherry-way-out")
        self._says = says
        self._pid, self._holder = pid, os.pidfd_open(pid)
        self._numbers = {kind: _number(pid, kind) for kind in ("user", "network")}
        self._namespaces = [ns.open_namespace(pid, kind) for kind in ("user", "network")]
        _close_all_but(says, self._holder, *self._namespaces)
        self._name, self._program = name, where
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._child = 0

    def keep(self) -> None:
        """Its whole life; it is over at once when the program cannot connect, as another may be able to."""
        pause = _NEXT_S
        while self._wanted():
            process = self._start()
            if self._connects(process):
                pause = _NEXT_S
                if self._says >= 0:
                    os.write(self._says, b"connected")
                    os.close(self._says)
                    self._says = -1
                self._wait(process)
            self._stop(process)
            if self._says >= 0:
                return
            _first_of([], pause)
            pause = min(2 * pause, _LATEST_S)

    def _inhabitant(self) -> "int | str":
        """Somebody who is in both namespaces: pasta opens the second one when it is in the first, where we are not."""
        if not _first_of([self._holder], 0):
            return self._pid
        others = _those_in(self._numbers["user"])
        return next((pid for pid in others if _number(pid, "network") == self._numbers["network"]), self._pid)

    def _start(self) -> int:
        """Start the program; a descriptor of its process."""
        self._child = os.fork()
        if self._child == 0:
            p.set_parent_death_signal(SIGKILL)
            signal(SIGPIPE, SIG_DFL)  # Python ignores it, and pasta gives up (2023) when it finds that it is ignored
            for stream in (1, 2):
                os.dup2(self._log, stream)
            command = [self._program, *_arguments(self._name, self._inhabitant())]
            os.execve(command[0], command, {"PATH": _PATH})
        return os.pidfd_open(self._child)

    def _connects(self, process: int) -> bool:
        """Whether it gives the network a default route in time; a child looks: who enters does not come back."""
        looker = os.fork()
        if looker == 0:
            try:
                for fd, kind in zip(self._namespaces, (ns.CLONE_NEWUSER, ns.CLONE_NEWNET), strict=True):
                    ns.setns(fd, kind)
                _wait_for_way()
                os._exit(0)
            finally:
                os._exit(1)
        looking = os.pidfd_open(looker)
        _first_of([looking, process], _CONNECTS_WITHIN_S)
        os.close(looking)
        os.kill(looker, SIGKILL)
        return os.waitpid(looker, 0)[1] == 0

    def _wait(self, process: int) -> None:
        """Until it ends, or nobody wants it any more."""
        if process not in _first_of([process, self._holder]):
            while not _first_of([process], _LOOK_AROUND_S) and self._wanted():
                continue

    def _wanted(self) -> bool:
        """Whether the holder lives, or somebody else is in its user namespace: shims, for one."""
        if not _first_of([self._holder], 0):
            return True
        ours = {str(os.getpid()), str(self._child)}
        return bool(set(_those_in(self._numbers["user"])) - ours)

    def _stop(self, process: int) -> None:
        os.close(process)
        os.kill(self._child, SIGKILL)
        os.waitpid(self._child, 0)
        self._child = 0


def _close_all_but(*kept: int) -> None:
    """Descriptors of whoever this was forked from; the standard streams are nobody's afterwards."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _LARGEST_DESCRIPTOR)


def _first_of(descriptors: "list[int]", timeout_s: "float | None" = None) -> "list[int]":
    """Those of *descriptors* that can be read first (a process' is its end); none when the time is up."""
    from select import POLLIN, poll

    waiting = poll()
    for fd in descriptors:
        waiting.register(fd, POLLIN)
    return [fd for fd, _ in waiting.poll(None if timeout_s is None else timeout_s * 1000)]


def _wait_for_way() -> None:
    """Until this process's network has a default route of either family."""
    from time import sleep

    while not _has_way():
        sleep(_LOOK_S)


def _has_way() -> bool:
    """As /proc tells: the kernel's proc_net_route, and net/ipv6/route.c, where lo has one that leads nowhere."""
    with open("/proc/self/net/route", encoding="ascii") as lines:
        if any(line.split()[1] == "00000000" for line in lines):
            return True
    try:
        with open("/proc/self/net/ipv6_route", encoding="ascii") as lines:
            routes = [line.split() for line in lines]
    except FileNotFoundError:  # this kernel has no IPv6
        return False
    return any(fields[:2] == ["0" * 32, "00"] and fields[-1] != "lo" for fields in routes)


def way_out(directory: str) -> str:
    """The program that connects containers with the world: pasta, slirp4netns, or "" for none."""
    record = records.read(directory, RECORD)
    return str(record.get("way_out") or "") if record is not None else ""


def error_text(error: BaseException) -> str:
    """What went wrong before there was an engine to say it."""
    return str(error) if isinstance(error, (Unavailable, RuntimeFailure)) else f"{type(error).__name__}: {error}"
