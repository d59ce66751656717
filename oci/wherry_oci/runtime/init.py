"""
A container's first process, from clone(2) to execve(2).

It is a child of the shim that shares the shim's memory until it writes. After `Rootfs.pivot` nothing may be imported,
looked up or run but the container's own program: what is around it then is the container's. Whatever fails is told to
the parent as a RuntimeFailure, over the channel that execve closes.
"""

import os
import stat
from _signal import (  # type: ignore[import-not-found] # signal itself brings enum, 2 ms
    SIG_DFL,
    SIG_IGN,
    SIG_UNBLOCK,
    SIGCHLD,
    SIGTTIN,
    SIGTTOU,
    pthread_sigmask,
    signal,
    valid_signals,
)
from _socket import sethostname
from errno import EACCES, ENOENT, ENOEXEC, ENOSYS, ENOTDIR

from wherry_oci.linux import namespaces as ns
from wherry_oci.linux import process as p
from wherry_oci.linux.terminal import open_terminal, set_controlling_terminal, set_window_size
from wherry_oci.runtime import rootfs as fs
from wherry_oci.runtime import users
from wherry_oci.runtime.capabilities import mask_of, numbers_in
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIGKILL = 9
_UNREPORTED = 125  # exit status when even the report of a failure failed
_PATH_FALLBACK = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Entry:
    """What a process needs to know to enter a container, all of it ready before it is made."""

    def __init__(
        self,
        process: "dict[str, Any]",
        *,
        user: str | None,
        added_groups: list[str],
        seccomp: bytes | None,
        seccomp_flags: int,
        stdio: tuple[int, int, int] | None,
        reap: bool,
    ) -> None:
        self.process, self.user, self.added_groups = process, user, added_groups
        self.seccomp, self.seccomp_flags = seccomp, seccomp_flags
        self.stdio = stdio  # None: a terminal is made
        self.reap = reap  # stay as a small init above the program
        self.arguments = [os.fsencode(argument) for argument in process["args"]]
        environment = [item.partition("=") for item in process.get("env") or ()]
        self.environment = {os.fsencode(name): os.fsencode(value) for name, _, value in environment if name}
        self.last_capability = p.bounding_set().bit_length()


def run_init(
    config: "dict[str, Any]", entry: Entry, rootfs_path: str, rootfs_mounts: "list[dict[str, Any]]", channel: Channel
) -> "None":
    """The child's whole life. Never returns."""
    run_guarded(channel, lambda: _init(config, entry, rootfs_path, rootfs_mounts, channel))


def run_guarded(channel: Channel, work: "Callable[[], None]") -> None:
    """Do *work*, which ends in execve; tell the parent of a failure and end. Never returns."""
    status = _UNREPORTED
    try:
        work()
    except RuntimeFailure as failure:
        _report(channel, failure)
    except OSError as error:
        _report(channel, RuntimeFailure.from_os_error("enter the container", error))
    except BaseException as error:  # a fault of ours: it must not run on as a second shim
        _report(channel, RuntimeFailure("system", "enter the container", f"{type(error).__name__}: {error}"))
    finally:
        os._exit(status)


def _report(channel: Channel, failure: RuntimeFailure) -> None:
    try:
        channel.send({"failure": failure.to_json()})
    except OSError:  # nobody listens, or the filter forbids: the exit status is all there is
        pass


def _init(
    config: "dict[str, Any]", entry: Entry, rootfs_path: str, rootfs_mounts: "list[dict[str, Any]]", channel: Channel
) -> None:
    p.set_parent_death_signal(_SIGKILL)  # until it is a container, it is nothing without its parent
    p.set_dumpable(False)  # CVE-2016-9962
    channel.receive()  # the parent has put it in its cgroup and mapped its ids
    os.setsid()
    os.umask(0)
    linux = config.get("linux") or {}
    _join_namespaces(linux.get("namespaces") or [])
    _set_names(config)
    rootfs, identity = _build_rootfs(config, linux, entry, rootfs_path, rootfs_mounts, channel)
    for key, value in (linux.get("sysctl") or {}).items():
        rootfs.write_sysctl(key, value)
    _hide(rootfs, linux)
    if (config.get("root") or {}).get("readonly"):
        rootfs.make_root_read_only()
    rootfs.pivot()
    _close_all(rootfs)
    if not entry.process.get("noNewKeyring"):
        _new_keyring(str(config.get("wherryID", "container")))
    os.umask(0o22 if entry.process.get("umask") is None else entry.process["umask"])
    become(entry, identity, channel)


def _join_namespaces(namespaces: "list[dict[str, Any]]") -> None:
    """Those given by path, and the cgroup namespace, whose root is the group that the process is in by now."""
    for namespace in namespaces:
        kind = namespace["type"]
        try:
            if namespace.get("path"):
                fd = os.open(namespace["path"], os.O_RDONLY | os.O_CLOEXEC)
                ns.setns(fd, ns.BY_NAME[kind])
                os.close(fd)
            elif kind == "cgroup":
                ns.unshare(ns.CLONE_NEWCGROUP)
        except OSError as error:
            raise fs.failed(f"join {kind} namespace", error, namespace.get("path") or "") from None


def _set_names(config: "dict[str, Any]") -> None:
    if config.get("hostname"):
        sethostname(config["hostname"])
    if config.get("domainname"):
        # Python has no setdomainname(2); the kernel shows the same value here, in the caller's uts namespace.
        with open("/proc/sys/kernel/domainname", "wb", buffering=0) as file:
            file.write(config["domainname"].encode())


def _build_rootfs(
    config: "dict[str, Any]",
    linux: "dict[str, Any]",
    entry: Entry,
    path: str,
    mounts: "list[dict[str, Any]]",
    channel: Channel,
) -> "tuple[fs.Rootfs, users.Identity]":
    fs.prepare_namespace(linux.get("rootfsPropagation") or "")
    rootfs = fs.Rootfs(fs.mount_root(path, mounts))
    identity = _identity(rootfs, entry)
    for mount in config.get("mounts") or ():
        rootfs.mount(mount)
    rootfs.make_devices(linux.get("devices") or [])
    cwd = entry.process.get("cwd") or "/"
    if not cwd.startswith("/"):
        raise RuntimeFailure("invalid", "set working directory", f"{cwd!r} is not an absolute path")
    if cwd != "/":  # as Docker does: an image may name a directory that it does not have
        try:
            os.close(fs.make_directory_inside(rootfs.root, cwd))
        except OSError as error:
            raise fs.failed("make working directory", error, cwd) from None
    if entry.stdio is None:
        _make_terminal(rootfs, entry, identity, channel)
    return rootfs, identity


def _identity(rootfs: fs.Rootfs, entry: Entry) -> users.Identity:
    given = entry.process.get("user") or {}
    passwd = rootfs.read_file("/etc/passwd", users.SIZE_LIMIT)
    if entry.user is None:
        uid, gid = given.get("uid") or 0, given.get("gid") or 0
        home = users.resolve(str(uid), [], passwd, b"").home
        return users.Identity(uid, gid, list(given.get("additionalGids") or ()), home)
    return users.resolve(entry.user, entry.added_groups, passwd, rootfs.read_file("/etc/group", users.SIZE_LIMIT))


def _make_terminal(
    rootfs: fs.Rootfs, entry: Entry, identity: users.Identity, channel: Channel, console: bool = True
) -> None:
    """A terminal of the container's own devpts: its master goes to the parent, its slave is stdio and /dev/console."""
    if rootfs.devpts is None:
        raise RuntimeFailure("invalid", "open a terminal", "process.terminal needs a devpts mount at /dev/pts")
    try:
        master, slave, number = open_terminal(rootfs.devpts)
        size = entry.process.get("consoleSize")
        if size:
            set_window_size(master, size["height"], size["width"])
        os.fchown(slave, identity.uid, -1)
        if console:
            rootfs.bind_console(number)
        channel.send({"terminal": True}, [master])
        os.close(master)
        for stream in (0, 1, 2):
            os.dup2(slave, stream)
        os.close(slave)
        set_controlling_terminal(0)
    except OSError as error:
        raise fs.failed("open a terminal", error) from None


def _hide(rootfs: fs.Rootfs, linux: "dict[str, Any]") -> None:
    for path in linux.get("readonlyPaths") or ():
        rootfs.make_read_only(path)
    masked = linux.get("maskedPaths") or ()
    if masked:
        null = fs.open_null()
        for path in masked:
            rootfs.mask(path, null)
        os.close(null)


def _close_all(rootfs: fs.Rootfs) -> None:
    for fd in (rootfs.proc, rootfs.devpts, rootfs.root):
        if fd is not None:
            os.close(fd)


def _new_keyring(name: str) -> None:
    try:
        p.join_session_keyring(f"_ses.{name}")
    except OSError as error:
        if error.errno != ENOSYS:
            raise fs.failed("join a new session keyring", error) from None


def enter_running(entry: Entry, channel: Channel) -> None:
    """The rest of an exec, from inside the namespaces of a running container. Never returns."""
    os.umask(0o22 if entry.process.get("umask") is None else entry.process["umask"])
    rootfs = fs.Rootfs(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    identity = _identity(rootfs, entry)
    if entry.stdio is None:
        try:
            rootfs.devpts = fs.open_inside(rootfs.root, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise fs.failed("open a terminal", error, "/dev/pts") from None
        _make_terminal(rootfs, entry, identity, channel, console=False)
    _close_all(rootfs)
    become(entry, identity, channel)


def become(entry: Entry, identity: users.Identity, channel: Channel) -> None:
    """From inside the container's root: take the identity and the rights, and execute the program. Never returns."""
    process = entry.process
    if b"HOME" not in entry.environment:
        entry.environment[b"HOME"] = os.fsencode(identity.home)
    _take_stdio(entry, identity)
    _enter_working_directory(process.get("cwd") or "/", before=True)
    rights = process.get("capabilities") or {}
    bounding = mask_of(rights.get("bounding") or [])
    if process.get("capabilities") is not None:
        for number in range(entry.last_capability):
            if not bounding >> number & 1:
                p.drop_from_bounding_set(number)
    if process.get("noNewPrivileges"):
        p.set_no_new_privileges()
    p.set_keepcaps(True)
    _take_identity(identity)
    _enter_working_directory(process.get("cwd") or "/", before=False)
    program = find_program(entry.arguments[0], entry.environment.get(b"PATH", _PATH_FALLBACK.encode()))
    channel.send({"ready": True})
    channel.receive()  # `start`
    _reset_signals()
    p.close_on_exec_from(3)
    if entry.seccomp is not None and not process.get("noNewPrivileges"):
        # Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the capabilities go.
        _raise_all_permitted()
        p.set_seccomp_filter(entry.seccomp, entry.seccomp_flags)
    if process.get("capabilities") is not None:
        _take_capabilities(rights)
    if entry.seccomp is not None and process.get("noNewPrivileges"):
        p.set_seccomp_filter(entry.seccomp, entry.seccomp_flags)
    p.set_parent_death_signal(0)
    if entry.reap:
        _stay_as_reaper(entry, program, channel)
    execute(program, entry)


def _take_stdio(entry: Entry, identity: users.Identity) -> None:
    if entry.stdio is None:
        return
    for stream, fd in enumerate(entry.stdio):
        os.dup2(fd, stream)
        # A program that opens /dev/stdout anew, as nginx does, must be allowed to.
        if stat.S_ISFIFO(os.fstat(stream).st_mode):
            os.fchown(stream, identity.uid, identity.gid)


def _enter_working_directory(cwd: str, *, before: bool) -> None:
    """
    Once as root and once as the user: either may be the one who is allowed to, as with runc.

    The kernel says so when the place is outside of the root (CVE-2024-21626): then getcwd(2) has no name for it.
    """
    try:
        os.chdir(cwd)
    except PermissionError as error:
        if before:
            return
        raise fs.failed("set working directory", error, cwd) from None
    except OSError as error:
        raise fs.failed("set working directory", error, cwd) from None
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise RuntimeFailure("invalid", "set working directory", f"{cwd} leads outside of the container", cwd)


def _take_identity(identity: users.Identity) -> None:
    try:
        os.setgroups(identity.groups)  # always: what is not set is inherited (CVE-2023-25173)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise fs.failed(f"become user {identity.uid}:{identity.gid}", error) from None


def _raise_all_permitted() -> None:
    permitted = p.permitted_capabilities()
    p.set_capabilities(permitted, permitted, 0)


def _take_capabilities(rights: "dict[str, Any]") -> None:
    permitted = mask_of(rights.get("permitted") or [])
    inheritable = mask_of(rights.get("inheritable") or [])
    allowed = p.permitted_capabilities()
    p.set_capabilities(mask_of(rights.get("effective") or []) & allowed, permitted & allowed, inheritable & allowed)
    p.clear_ambient_capabilities()
    for number in numbers_in(mask_of(rights.get("ambient") or [])):
        p.raise_ambient_capability(number)


def _reset_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ; what is ignored stays so across execve(2)."""
    for number in valid_signals():
        try:
            signal(number, SIG_DFL)
        except (OSError, ValueError):  # SIGKILL, SIGSTOP and libc's own
            continue
    pthread_sigmask(SIG_UNBLOCK, valid_signals())


def find_program(name: bytes, path: bytes) -> bytes:
    """Where *name* is, by the container's PATH. Raises RuntimeFailure "not_found" or "not_executable"."""
    shown = os.fsdecode(name)
    candidates = [name] if b"/" in name else [(directory or b".") + b"/" + name for directory in path.split(b":")]
    denied = None
    for candidate in candidates if name else []:
        try:
            found = os.stat(candidate)
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR):
                denied = os_error_text(OSError(error.errno, os.strerror(error.errno or 0)))
            continue
        if stat.S_ISDIR(found.st_mode):
            denied = "is a directory"
        elif os.access(candidate, os.X_OK, effective_ids=True):
            return candidate
        else:
            denied = "permission denied"
    if denied is not None:
        raise RuntimeFailure("not_executable", "execute", f'exec: "{shown}": {denied}', shown, EACCES)
    where = "no such file or directory" if b"/" in name else "executable file not found in $PATH"
    raise RuntimeFailure("not_found", "execute", f'exec: "{shown}": {where}', shown, ENOENT)


def execute(program: bytes, entry: Entry) -> None:
    """execve(2). Raises RuntimeFailure when the kernel refuses the file."""
    try:
        os.execve(program, entry.arguments, entry.environment)
    except OSError as error:
        shown = os.fsdecode(entry.arguments[0])
        kind = "not_found" if error.errno in (ENOENT, ENOTDIR) else "not_executable"
        text = "exec format error" if error.errno == ENOEXEC else (error.strerror or "").lower()
        raise RuntimeFailure(kind, "execute", f'exec: "{shown}": {text}', shown, error.errno or 0) from None


def _stay_as_reaper(entry: Entry, program: bytes, channel: Channel) -> None:
    """
    `init=True`: process 1 stays this interpreter, hands signals on to the program and reaps what is orphaned.

    It keeps the container's rights alone, is not dumpable, and its image on disk lies on a read-only mount.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        execute(program, entry)
    channel.close()
    for fd in (0, 1, 2):
        os.close(fd)
    p.set_name(b"wherry-init")
    _reap(child)


def _reap(child: int) -> None:
    def forward(number: int, frame: object) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            pass

    for number in valid_signals():
        try:
            signal(number, SIG_IGN if number in (SIGTTIN, SIGTTOU) else SIG_DFL if number == SIGCHLD else forward)
        except (OSError, ValueError):
            continue
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
