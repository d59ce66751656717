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
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    SIGTTIN,
    SIGTTOU,
    pthread_sigmask,
    signal,
    valid_signals,
)
from _socket import sethostname, socket
from errno import EACCES, EINVAL, ENOENT, ENOEXEC, ENOSYS, ENOTDIR, EPERM

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
_ENDING = (SIGHUP, SIGINT, SIGQUIT, SIGTERM)
_LARGEST_DESCRIPTOR = 1 << 20
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
        gate: "Gate | None" = None,
        pivot: bool = True,
        new_keyring: bool = True,
        preserve: int = 0,
        setgroups_denied: bool = False,
        linux: "dict[str, Any] | None" = None,
        told_later: bool = False,
    ) -> None:
        self.process, self.user, self.added_groups = process, user, added_groups
        self.seccomp, self.seccomp_flags = seccomp, seccomp_flags
        self.stdio = stdio  # None: a terminal is made
        self.reap = reap  # stay as a small init above the program
        self.gate = gate  # where to wait for `start`, outliving the parent; None: the parent says it
        self.pivot, self.new_keyring = pivot, new_keyring
        self.preserve = preserve  # so many descriptors from 3 up go to the program
        self.setgroups_denied = setgroups_denied
        self.linux = linux or {}  # the section, for what a process itself takes from it
        self.told_later = told_later  # what it executes comes with `start`
        self._take_program(process)
        self.last_capability = p.bounding_set().bit_length()
        # set by the one who makes the process
        self.own_mounts = True
        self.in_user_namespace = False
        self.cgroup_directories: dict[str, str] = {}
        self.trees: dict[int, int] = {}
        self.state: dict[str, Any] = {}
        self._labels: list[tuple[int, bytes]] = []
        self._hooks: Any = None
        if SCHEDULING & process.keys() or SCHEDULING & self.linux.keys():
            from wherry_oci.runtime import scheduling

            self._scheduling: Any = scheduling
        else:
            self._scheduling = None

    def _take_program(self, process: "dict[str, Any]") -> None:
        self.arguments = [os.fsencode(argument) for argument in process["args"]]
        environment = [item.partition("=") for item in process.get("env") or ()]
        self.environment = {os.fsencode(name): os.fsencode(value) for name, _, value in environment if name}

    def take_program(self, process: "dict[str, Any]", home: str) -> bytes:
        """What was told with `start`, from inside the container and as its user: the program's place."""
        self._take_program(process)
        self.fill_home(home)
        _enter_working_directory(process.get("cwd") or "/", before=False)
        return self.find_program()

    def fill_home(self, home: str) -> None:
        """HOME is the user's unless it is given."""
        if not self.environment.get(b"HOME"):
            self.environment[b"HOME"] = os.fsencode(home)

    def find_program(self) -> bytes:
        """Raises RuntimeFailure "not_found" or "not_executable"."""
        return find_program(self.arguments[0], self.environment.get(b"PATH", _PATH_FALLBACK.encode()))

    def load_hooks(self) -> None:
        """After pivot_root nothing can be imported."""
        from wherry_oci.runtime import hooks

        self._hooks = hooks

    def run_hooks(self, config: "dict[str, Any]", kind: str) -> None:
        """Those that the process itself runs. Raises RuntimeFailure."""
        if self._hooks is not None:
            self._hooks.run_all(config, self.state, kind)

    def open_labels(self) -> None:
        """While the host's /proc is there: what sets the label that execve(2) will give. Raises RuntimeFailure."""
        profile, label = self.process.get("apparmorProfile"), self.process.get("selinuxLabel")
        wanted = [("apparmor/exec", f"exec {profile}")] if profile and profile != "unconfined" else []
        wanted += [("exec", label)] if label else []
        for name, value in wanted:
            path = f"/proc/self/attr/{name}"
            try:
                self._labels.append((os.open(path, os.O_WRONLY | os.O_CLOEXEC), value.encode()))
            except OSError as error:
                raise fs.failed(f"set the label {value!r}", error, path) from None

    @property
    def label_descriptors(self) -> list[int]:
        return [fd for fd, _ in self._labels]

    def write_labels(self) -> None:
        for fd, value in self._labels:
            try:
                os.write(fd, value)
            except OSError as error:
                raise fs.failed(f"set the label {value.decode()!r}", error) from None

    def take_scheduling(self) -> None:
        if self._scheduling is not None:
            self._scheduling.take(self.process, self.linux)

    def take_final_affinity(self) -> None:
        if self._scheduling is not None:
            self._scheduling.take_affinity(self.process, "final")


ROOT = -1  # the rootfs' place among the detached mounts that a parent has made
SCHEDULING = frozenset(("scheduler", "ioPriority", "execCPUAffinity", "personality", "memoryPolicy"))


class Gate:
    """A listening socket where a created container waits for its start."""

    def __init__(self, listener: "socket") -> None:
        self.listener = listener

    def wait(self) -> Channel:
        """Who came, as a channel."""
        fd, _ = self.listener._accept()  # type: ignore[attr-defined] # socket.accept is Python's, this is C's
        self.listener.close()
        return Channel(socket(fileno=fd))


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


def await_go(channel: Channel) -> "dict[str, Any]":
    """The parent's word to go on; whoever has lost its parent ends."""
    message = channel.receive()
    if message is None:
        os._exit(_UNREPORTED)
    return message[0]


def become_mapped_root() -> None:
    """User 0 of the user namespace that was entered, where it has one: what is made then has an owner inside."""
    try:
        os.setgroups([])
    except PermissionError:  # denied where only one's own id is mapped
        pass
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        if error.errno not in (EPERM, EINVAL):  # 0 is not mapped
            raise
    p.set_dumpable(False)  # a change of user resets it


def _init(
    config: "dict[str, Any]", entry: Entry, rootfs_path: str, rootfs_mounts: "list[dict[str, Any]]", channel: Channel
) -> None:
    p.set_parent_death_signal(_SIGKILL)  # until it is a container, it is nothing without its parent
    p.set_dumpable(False)  # CVE-2016-9962
    entry.state = await_go(channel).get("state") or {}  # the parent has put it in its cgroup and mapped its ids
    os.setsid()
    os.umask(0)
    linux = config.get("linux") or {}
    if config.get("hooks"):
        entry.load_hooks()
    entry.open_labels()
    _join_namespaces(linux.get("namespaces") or [])
    _set_names(config)
    rootfs, identity = _build_rootfs(config, linux, entry, rootfs_path, rootfs_mounts, channel)
    if any((config.get("hooks") or {}).get(kind) for kind in ("prestart", "createRuntime")):
        channel.send({"hooks": True})
        await_go(channel)
    entry.run_hooks(config, "createContainer")
    for key, value in (linux.get("sysctl") or {}).items():
        rootfs.write_sysctl(key, value)
    _hide(rootfs, linux)
    if (config.get("root") or {}).get("readonly"):
        rootfs.make_root_read_only()
    rootfs.enter(linux.get("rootfsPropagation") or "", own_mounts=entry.own_mounts, pivot=entry.pivot)
    _close_all(rootfs)
    if entry.new_keyring and not entry.process.get("noNewKeyring"):
        _new_keyring(str(config.get("wherryID", "container")))
    os.umask(_umask(entry.process))
    become(entry, identity, channel, config)


def _umask(process: "dict[str, Any]") -> int:
    for place in (process, process.get("user") or {}):
        if place.get("umask") is not None:
            mask: int = place["umask"]
            return mask
    return 0o22


def _join_namespaces(namespaces: "list[dict[str, Any]]") -> None:
    """Those given by path, and the cgroup namespace, whose root is the group that the process is in by now."""
    for namespace in sorted(namespaces, key=lambda each: each["type"] == "mount"):
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
    try:
        if config.get("hostname"):
            sethostname(config["hostname"])
        if config.get("domainname"):
            p.set_domain_name(config["domainname"])
    except OSError as error:
        raise fs.failed("set the host's name", error) from None


def _build_rootfs(
    config: "dict[str, Any]",
    linux: "dict[str, Any]",
    entry: Entry,
    path: str,
    mounts: "list[dict[str, Any]]",
    channel: Channel,
) -> "tuple[fs.Rootfs, users.Identity]":
    if entry.own_mounts:
        fs.prepare_namespace(linux.get("rootfsPropagation") or "", path)
        tree = entry.trees.get(ROOT)
        rootfs = fs.Rootfs(fs.mount_root(path, mounts) if tree is None else fs.attach_anywhere(tree))
    else:
        rootfs = fs.Rootfs(fs.open_root(path))
    rootfs.cgroup_directories = entry.cgroup_directories
    if entry.in_user_namespace:
        become_mapped_root()
    for index, mount in enumerate(config.get("mounts") or ()):
        rootfs.mount(mount, entry.trees.get(index))
    identity = _identity(rootfs, entry)  # podman mounts a passwd of its own making
    if not fs.is_bound(config.get("mounts") or (), "/dev"):  # else it is the host's
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
    os.umask(_umask(entry.process))
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


def become(entry: Entry, identity: users.Identity, channel: Channel, config: "dict[str, Any] | None" = None) -> None:
    """From inside the container's root: take the identity and the rights, and execute the program. Never returns."""
    process = entry.process
    entry.fill_home(identity.home)
    _take_stdio(entry, identity)
    entry.take_scheduling()
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
    _take_identity(identity, entry)
    _enter_working_directory(process.get("cwd") or "/", before=False)
    program = b"" if entry.told_later else entry.find_program()
    channel.send({"ready": True})
    if entry.gate is not None:
        channel = _wait_at(entry, channel)
    elif told := await_go(channel).get("process"):  # with `start`
        run_guarded(
            channel,
            lambda: _execute_as_told(entry, rights, entry.take_program(told, identity.home), channel, config),
        )
    run_guarded(channel, lambda: _execute_as_told(entry, rights, program, channel, config))


def _wait_at(entry: Entry, channel: Channel) -> Channel:
    """Outlive the parent, wait for whoever starts the container, and return the line to him."""
    gate = entry.gate
    assert gate is not None
    _close_all_but(3 + entry.preserve, [channel.fileno(), gate.listener.fileno(), *entry.label_descriptors])
    for number in _ENDING:  # process 1 of a pid namespace has no default actions, but must be killable meanwhile
        signal(number, _end_by_signal)
    await_go(channel)
    p.set_parent_death_signal(0)
    channel.send({"left": True})
    channel.close()
    started = gate.wait()
    await_go(started)
    return started


def _close_all_but(first: int, kept: list[int]) -> None:
    """From *first* up: the lock of the container's directory and what the parent's caller has open are not for it."""
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = max(first, fd + 1)
    os.closerange(first, _LARGEST_DESCRIPTOR)


def _end_by_signal(number: int, frame: object) -> None:
    os._exit(128 + number)


def _execute_as_told(
    entry: Entry, rights: "dict[str, Any]", program: bytes, channel: Channel, config: "dict[str, Any] | None"
) -> None:
    process = entry.process
    _reset_signals()
    p.close_on_exec_from(3 + entry.preserve)
    for fd in range(3, 3 + entry.preserve):
        os.set_inheritable(fd, True)
    entry.write_labels()
    if entry.seccomp is not None and not process.get("noNewPrivileges"):
        # Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the capabilities go.
        _raise_all_permitted()
        _filter(entry.seccomp, entry, channel)
    if process.get("capabilities") is not None:
        try:
            _take_capabilities(rights)
        except OSError as error:
            raise fs.failed("set capabilities", error) from None
    if entry.seccomp is not None and process.get("noNewPrivileges"):
        _filter(entry.seccomp, entry, channel)
    p.set_parent_death_signal(0)
    if config is not None:
        entry.run_hooks(config, "startContainer")
    entry.take_final_affinity()
    if entry.reap:
        _stay_as_reaper(entry, program, channel)
    execute(program, entry)


def _filter(program: bytes, entry: Entry, channel: Channel) -> None:
    listener = p.set_seccomp_filter(program, entry.seccomp_flags)
    if entry.seccomp_flags & p.SECCOMP_FILTER_FLAG_NEW_LISTENER:
        # From here on any system call but write(2) may wait for the one who gets the listener.
        os.write(channel.fileno(), b'{"listener":%d}' % listener)
        if not os.read(channel.fileno(), 100):  # nobody took it
            os._exit(_UNREPORTED)
        os.close(listener)


def _take_stdio(entry: Entry, identity: users.Identity) -> None:
    if entry.stdio is None:
        return
    for stream, fd in enumerate(entry.stdio):
        os.dup2(fd, stream)
        # A program that opens /dev/stdout anew, as nginx does, must be allowed to.
        if stat.S_ISFIFO(os.fstat(stream).st_mode):
            try:
                os.fchown(stream, identity.uid, identity.gid)
            except OSError as error:
                if error.errno not in (EPERM, EINVAL):  # its owner has no id in this user namespace
                    raise


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


def _take_identity(identity: users.Identity, entry: Entry) -> None:
    try:
        # Always: what is not set is inherited (CVE-2023-25173). Where nobody may, the image's own groups are not there
        # anyway; but those that are asked for are missed.
        asked = entry.added_groups if entry.user is not None else identity.groups
        if asked or not entry.setgroups_denied:
            os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        step = f"become user {identity.uid}:{identity.gid}"
        if error.errno != EINVAL:
            raise fs.failed(step, error) from None
        text = "the container's user namespace has no such id: map more ids, for an ordinary user's by /etc/subuid"
        raise RuntimeFailure("system", step, text, "", EINVAL) from None


def _raise_all_permitted() -> None:
    permitted = p.permitted_capabilities()
    p.set_capabilities(permitted, permitted, 0)


def _take_capabilities(rights: "dict[str, Any]") -> None:
    permitted = mask_of(rights.get("permitted") or [])
    inheritable = mask_of(rights.get("inheritable") or [])
    allowed = p.permitted_capabilities()
    p.set_capabilities(mask_of(rights.get("effective") or []) & allowed, permitted & allowed, inheritable & allowed)
    p.clear_ambient_capabilities()
    # The kernel gives no ambient capability that is not both; `runc spec` asks for some all the same.
    for number in numbers_in(mask_of(rights.get("ambient") or []) & permitted & inheritable & allowed):
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
            denied = "is a directory: permission denied"  # dockerd looks for these words or for those, podman for those
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
