"""
The namespaces of an ordinary user's containers, and the small process that holds them.

There is one holder for each directory of holders (one for each user, unless a directory is given): a user namespace
that maps the user to root and, where /etc/subuid has some for it, more ids to the others; a mount namespace; and the
network in which bridges are. It does nothing but be there. What it holds lives on in the shims when it is killed: the
next one is made in what they are in, so that bridges and containers' networks stay as they are.
"""

import os
from fcntl import LOCK_EX, flock
from signal import SIGKILL, pause

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
        if record is None or records.start_time(record["pid"]) != record["start"]:
            record = _made(directory, record)
        user, mounts, network = (ns.open_namespace(record["pid"], kind) for kind in _KINDS)
        return user, mounts, network
    finally:
        os.close(lock)


def _made(directory: str, former: "dict[str, Any] | None") -> "dict[str, Any]":
    """A new holder, recorded; in the namespaces of the *former* one as far as somebody is in them."""
    left = _left_by(former) if former is not None else {}
    uids, gids = mappings()
    ends, kept = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _started(left, uids, gids, kept)
        os.close(kept)
        kept = -1
        record = {
            "pid": pid,
            "start": records.start_time(pid),
            "namespaces": {kind: _number(pid, kind) for kind in _KINDS},
            "way_out": _way_out(pid, f"{directory}/{LOG}", ends),
        }
    finally:
        os.close(ends)
        if kept >= 0:
            os.close(kept)
    records.write(directory, RECORD, record)
    return record


def _left_by(former: "dict[str, Any]") -> "dict[str, int]":
    """Descriptors of those of its namespaces in which somebody is, by kind: shims, for one."""
    wanted = former.get("namespaces") or {}
    found: dict[str, int] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if _number(pid, "user") != wanted.get("user"):
            continue
        for kind in _KINDS:
            if kind not in found and _number(pid, kind) == wanted.get(kind):
                try:
                    found[kind] = ns.open_namespace(pid, kind)
                except OSError:  # it has ended just now
                    continue
    return found


def _number(pid: "int | str", kind: str) -> int:
    """Which namespace that is, 0 when nobody can tell."""
    try:
        return os.stat(f"/proc/{pid}/ns/{ns.PROC_NAMES[kind]}").st_ino
    except OSError:
        return 0


def _started(left: "dict[str, int]", uids: "list[dict[str, Any]]", gids: "list[dict[str, Any]]", kept: int) -> int:
    """The pid of a new holder, which has entered what is *left*, made the rest, and keeps the descriptor *kept*."""
    said, says = os.pipe2(os.O_CLOEXEC)
    hears, heard = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _guarded(says, lambda: _hold(left, says, hears, kept))
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


def _hold(left: "dict[str, int]", says: int, hears: int, kept: int) -> None:
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
    os.closerange(3, kept)
    os.closerange(kept + 1, _LARGEST_DESCRIPTOR)
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


CONNECTORS = ("pasta", "slirp4netns")


def _way_out(pid: int, log: str, ends: int) -> str:
    """
    Connect the holder's network with the world, by pasta or slirp4netns: which, or "" when neither can.

    It ends when the holder does, whose end of a pipe *ends* is the other one of.
    """
    for name in CONNECTORS:
        where = program(name)
        if where is not None and _connected([where, *_arguments(name, pid)], pid, log, ends):
            return name
    return ""


def _arguments(name: str, pid: int) -> "list[str]":
    user, network = f"/proc/{pid}/ns/user", f"/proc/{pid}/ns/net"
    if name == "slirp4netns":
        options = ["--configure", "--mtu=65520", "--disable-host-loopback", "--userns-path", user]
        return [*options, "--netns-type=path", network, "tap0"]
    options = ["--config-net", "--quiet", "--foreground", "--no-map-gw", "--dns-forward", PASTA_DNS]
    for way in ("-t", "-u", "-T", "-U"):  # it publishes nothing: the shims do
        options += [way, "none"]
    return [*options, "--userns", user, "--netns", network]


def _connected(command: "list[str]", pid: int, log: str, ends: int) -> bool:
    """Have a keeper run *command*, and wait until the network has a default route; whether it got one."""
    from time import monotonic, sleep

    keeper = os.fork()
    if keeper == 0:
        try:
            _keep(command, log, ends)
        finally:
            os._exit(1)
    until = monotonic() + _CONNECTS_WITHIN_S
    while not _has_way(pid):
        ended, _ = os.waitpid(keeper, os.WNOHANG)
        if ended:
            return False
        if monotonic() > until:
            os.kill(keeper, SIGKILL)
            os.waitpid(keeper, 0)
            return False
        sleep(0.005)
    return True


def _keep(command: "list[str]", log: str, ends: int) -> None:
    """
    The life of the process that sees to it that nobody connects a network that nobody holds any more.

    Neither program ends by itself with the namespace whose path it was given.
    """
    from select import POLLIN, poll

    os.setsid()
    os.chdir("/")
    p.set_name(b"wherry-way-out")
    child = os.fork()
    if child == 0:
        p.set_parent_death_signal(SIGKILL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for fd, stream in ((null, 0), (output, 1), (output, 2)):
            os.dup2(fd, stream)
        os.execve(command[0], command, {"PATH": _PATH})
    process = os.pidfd_open(child)
    os.closerange(3, min(ends, process))
    os.closerange(min(ends, process) + 1, max(ends, process))
    os.closerange(max(ends, process) + 1, _LARGEST_DESCRIPTOR)
    waiting = poll()
    waiting.register(ends, POLLIN)  # its other end is closed
    waiting.register(process, POLLIN)  # it has ended
    waiting.poll()
    os.kill(child, SIGKILL)
    os.waitpid(child, 0)


_CONNECTS_WITHIN_S = 5.0


def _has_way(pid: int) -> bool:
    """Whether the network of process *pid* has a default route (proc_net_route)."""
    try:
        with open(f"/proc/{pid}/net/route", encoding="ascii") as lines:
            return any(line.split()[1:2] == ["00000000"] for line in lines)
    except OSError:
        return False


def way_out(directory: str) -> str:
    """The program that connects containers with the world: pasta, slirp4netns, or "" for none."""
    record = records.read(directory, RECORD)
    return str(record.get("way_out") or "") if record is not None else ""


def error_text(error: BaseException) -> str:
    """What went wrong before there was an engine to say it."""
    return str(error) if isinstance(error, (Unavailable, RuntimeFailure)) else f"{type(error).__name__}: {error}"
