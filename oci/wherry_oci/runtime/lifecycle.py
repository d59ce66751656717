"""
The operations of runtime.md on containers that outlive whoever made them: create, start, kill, delete, exec.

All state is in the container's directory (`statefile`) and in the kernel. Each step leaves a record from which `delete`
can take everything away, whenever the one who does it is killed.
"""

import os
from errno import EACCES, EINVAL, EPERM, EROFS
from time import time_ns

from wherry_oci.errors import Conflict, NotFound, PermissionDenied, Unsupported
from wherry_oci.linux import process as p
from wherry_oci.runtime import configcheck, container, quickjson, statefile
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_oci.runtime.channel import Channel, connect, listen
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text
from wherry_oci.runtime.init import Entry, Gate
from wherry_oci.runtime.prepared import Process, let_start
from wherry_oci.runtime.statefile import GATE, ContainerDirectory, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OCI_VERSION = "1.3.0"
_SIGKILL, _SIGTERM = 9, 15
_DEFAULT_GROUP = "/wherry-oci"
_DEATH_TIMEOUT_S = 10
_LOAD_TRIES, _LOAD_PAUSE_S = 1000, 0.001
_REMOVE_TRIES = 200
_REMOVE_PAUSE_S = 0.005

# What every container may use, whatever a list of device rules denies: what `/dev` is made of.
_ALWAYS_ALLOWED = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)


class Options:
    """How a container is made beyond what its config.json says."""

    def __init__(
        self,
        *,
        pivot: bool = True,
        new_keyring: bool = True,
        preserve: int = 0,
        systemd_cgroup: bool = False,
        pid_file: str | None = None,
        gated: bool = True,
        on_terminal: "Callable[[int], None] | None" = None,
        warn: "Callable[[str], None]" = lambda message: None,
    ) -> None:
        self.pivot, self.new_keyring, self.preserve = pivot, new_keyring, preserve
        self.systemd_cgroup, self.pid_file, self.gated = systemd_cgroup, pid_file, gated
        self.on_terminal = on_terminal  # gets the master of its terminal, to close
        self.warn = warn


def load_config(bundle: str) -> "dict[str, Any]":
    """The checked config.json of *bundle*, its relative sources made absolute. Raises RuntimeFailure, NotFound."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            config = configcheck.check(quickjson.loads(file.read()))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist: name the bundle with --bundle") from None
    except ValueError as error:
        raise RuntimeFailure("invalid", "read config.json", f"{path}: {error}", path) from None
    for mount in config.get("mounts") or ():
        mount["destination"] = "/" + mount["destination"].lstrip("/")
        if "bind" in (mount.get("type"), *(mount.get("options") or ())) or "rbind" in (mount.get("options") or ()):
            mount["source"] = os.path.join(bundle, mount.get("source") or "")
    return config


def create(root: str, id: str, bundle: str, options: Options) -> tuple[ContainerDirectory, Process]:
    """
    Make the container *id* of *bundle*, all but the execution of its program.

    With `options.gated` it waits for `start` and outlives the caller; without, it is the caller's to start or abandon.
    Raises AlreadyExists, RuntimeFailure and others; nothing of it is left then.
    """
    bundle = os.path.realpath(bundle)
    config = load_config(bundle)
    refuse_missing(config)
    _warn_of_missing_capabilities(config["process"], options.warn)
    directory = ContainerDirectory(root, id)
    directory.create()
    cgroup = None
    try:
        cgroup = _cgroup_of(config, id, options)
        record = _new_record(directory, bundle, config, cgroup)
        directory.write(record)
        if cgroup is not None:
            cgroup = _make_cgroup(cgroup, config)
            record["cgroup"] = cgroup.path if cgroup is not None else None
        process = _create(directory, record, config, cgroup, options)
    except BaseException:
        _clean_up(directory, cgroup)
        directory.unlock()
        raise
    return directory, process


def _create(
    directory: ContainerDirectory,
    record: "dict[str, Any]",
    config: "dict[str, Any]",
    cgroup: Cgroup | None,
    options: Options,
) -> Process:
    program, flags = _filter_of(config)
    if program is not None:
        directory.write_filter(program)
    listener = listen(directory.path, GATE) if options.gated else None
    terminal = bool(config["process"].get("terminal"))
    entry = Entry(
        config["process"],
        user=None,
        added_groups=[],
        seccomp=program,
        seccomp_flags=flags,
        stdio=None if terminal else (0, 1, 2),
        reap=False,
        gate=Gate(listener) if listener is not None else None,
        pivot=options.pivot,
        new_keyring=options.new_keyring,
        preserve=options.preserve,
        setgroups_denied=_setgroups_denied(config),
        linux=config.get("linux"),
    )

    def on_pid(pid: int) -> "dict[str, Any]":
        record.update(pid=pid, pid_start=start_time(pid))
        directory.write(record)
        return oci_state(record, "created")

    process = container.create(
        {**config, "wherryID": directory.id},
        entry,
        rootfs_path=record["rootfs"],
        rootfs_mounts=[],
        cgroup=cgroup,
        on_pid=on_pid,
    )
    try:
        if process.terminal is not None and options.on_terminal is not None:
            master, process.terminal = process.terminal, None
            options.on_terminal(master)
        if listener is not None:
            listener.close()
        if options.pid_file:
            write_pid_file(options.pid_file, process.pid)
        record["step"] = "made"
        directory.write(record)
        if options.gated:
            process.leave_at_gate()
    except BaseException:
        process.abandon()
        raise
    return process


def _new_record(
    directory: ContainerDirectory, bundle: str, config: "dict[str, Any]", cgroup: Cgroup | None
) -> "dict[str, Any]":
    return {
        "version": 1,
        "id": directory.id,
        "bundle": bundle,
        "rootfs": os.path.realpath(os.path.join(bundle, config["root"]["path"])),
        "created": statefile.timestamp(time_ns()),
        "owner": os.geteuid(),
        "pid": 0,
        "pid_start": None,
        "step": "making",  # then "made"; whether it still waits to be started the gate tells
        "cgroup": cgroup.path if cgroup is not None else None,
        "scope": cgroup.unit if cgroup is not None else None,
        "config": config,
    }


def _filter_of(config: "dict[str, Any]") -> tuple[bytes | None, int]:
    section = (config.get("linux") or {}).get("seccomp")
    if not section:
        return None, 0
    from wherry_oci.seccomp import compile_filter, filter_flags

    flags = filter_flags(section)
    if flags & p.SECCOMP_FILTER_FLAG_NEW_LISTENER and not section.get("listenerPath"):
        raise RuntimeFailure(
            "invalid", "read config.json", "$.linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs somebody to notify"
        )
    return compile_filter(section), flags


def _setgroups_denied(config: "dict[str, Any]") -> bool:
    if os.geteuid() == 0:
        return False
    from wherry_oci.runtime.usernamespace import only_self

    return only_self((config.get("linux") or {}).get("gidMappings") or [], os.getegid())


def refuse_missing(config: "dict[str, Any]") -> None:
    """Raise Unsupported for what this host cannot do: never leave away in silence what confines a container."""
    linux, process = config.get("linux") or {}, config.get("process") or {}
    profile = process.get("apparmorProfile")
    if profile and profile != "unconfined" and not apparmor_enabled():
        raise Unsupported(f"$.process.apparmorProfile: {profile!r} is asked for, and this kernel runs no AppArmor")
    if process.get("selinuxLabel") and not os.path.isdir("/sys/fs/selinux"):
        raise Unsupported(f"$.process.selinuxLabel: {process['selinuxLabel']!r}, and this kernel runs no SELinux")
    if linux.get("intelRdt"):
        raise Unsupported("$.linux.intelRdt: resource director technology is not supported")


def _warn_of_missing_capabilities(process: "dict[str, Any]", warn: "Callable[[str], None]") -> None:
    """They are left out, as runtime-spec 1.1 wants it (config.md "Linux Process": capabilities)."""
    rights = process.get("capabilities") or {}
    wanted = {name for names in rights.values() for name in names or ()}
    bounding = p.bounding_set()
    known = {name: bounding >> number & 1 for number, name in enumerate(p.CAPABILITIES)}
    missing = sorted(name for name in wanted if not known.get(name))
    if missing:
        warn(f"capabilities that cannot be had here are left out: {', '.join(missing)}")
    both = set(rights.get("permitted") or ()).intersection(rights.get("inheritable") or ())
    bare = sorted(set(rights.get("ambient") or ()).difference(both, missing))
    if bare:
        warn(f"ambient capabilities that are not permitted and inheritable are left out: {', '.join(bare)}")


def apparmor_enabled() -> bool:
    """Whether the kernel runs AppArmor."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


# control groups


def _cgroup_of(config: "dict[str, Any]", id: str, options: Options) -> Cgroup | None:
    path = (config.get("linux") or {}).get("cgroupsPath") or ""
    if options.systemd_cgroup:
        from wherry_oci.linux.ids import is_host_root
        from wherry_oci.runtime.systemdscope import Scope

        return Scope.planned(path, id, Hierarchies.find(), user=not is_host_root())
    path = path or f"{_DEFAULT_GROUP}/{id}"
    if path.strip("/") == "":
        raise RuntimeFailure("invalid", "create cgroup", "$.linux.cgroupsPath must not be the root of all groups")
    hierarchies = Hierarchies.find()
    return Cgroup(path, hierarchies) if hierarchies.directories() else None


def _make_cgroup(cgroup: Cgroup, config: "dict[str, Any]") -> Cgroup | None:
    """The group with its limits; None for one that could not be made where none was asked for."""
    linux = config.get("linux") or {}
    resources = dict(linux.get("resources") or {})
    if resources.get("devices"):
        resources["devices"] = [*resources["devices"], *_always_allowed()]
    try:
        cgroup.create()
    except OSError as error:
        if error.errno not in (EACCES, EPERM, EROFS):
            raise RuntimeFailure.from_os_error("create cgroup", error) from None
        limits = {name: value for name, value in resources.items() if value and name != "devices"}
        if linux.get("cgroupsPath") or limits:
            raise PermissionDenied(
                f"create cgroup: {os_error_text(error)}: this user has no right to make control groups; leave "
                "$.linux.cgroupsPath and $.linux.resources away, or have a group delegated"
            ) from None
        return None
    cgroup.apply(resources)
    return cgroup


def _always_allowed() -> "list[dict[str, Any]]":
    return [
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
        for kind, major, minor, access in _ALWAYS_ALLOWED
    ]


def cgroup_of(record: "dict[str, Any]") -> Cgroup | None:
    """The group that the container of *record* is in."""
    if not record.get("cgroup"):
        return None
    if record.get("scope"):
        from wherry_oci.linux.ids import is_host_root
        from wherry_oci.runtime.systemdscope import Scope

        return Scope(record["cgroup"], Hierarchies.find(), record["scope"], user=not is_host_root())
    return Cgroup(record["cgroup"], Hierarchies.find())


# state


def status_of(directory: ContainerDirectory, record: "dict[str, Any]") -> str:
    """runtime.md "State": creating, created, running, stopped; and paused."""
    if not record["pid"] or start_time(record["pid"]) != record["pid_start"]:
        return "stopped"
    if record["step"] == "making":
        return "creating"
    if directory.has_gate():
        return "created"
    cgroup = cgroup_of(record)
    try:
        return "paused" if cgroup is not None and cgroup.is_frozen() else "running"
    except OSError:  # its group is gone, or is not ours to read
        return "running"


def oci_state(record: "dict[str, Any]", status: str) -> "dict[str, Any]":
    """The state as hooks, engines and users get it (runtime.md "State")."""
    state = {
        "ociVersion": OCI_VERSION,
        "id": record["id"],
        "status": status,
        "pid": 0 if status == "stopped" else record["pid"],
        "bundle": record["bundle"],
    }
    if record["config"].get("annotations"):
        state["annotations"] = record["config"]["annotations"]
    return state


def shown_state(directory: ContainerDirectory, record: "dict[str, Any]") -> "dict[str, Any]":
    """What `state` and `list` print, as runc does."""
    state = oci_state(record, status_of(directory, record))
    return {
        **state,
        "rootfs": record["rootfs"],
        "created": record["created"],
        "annotations": record["config"].get("annotations") or {},
        "owner": _user_name(record["owner"]) if record["owner"] != 0 else "",
    }


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def started_steps(directory: ContainerDirectory, record: "dict[str, Any]", warn: "Callable[[str], None]") -> None:
    """What follows when its program runs: poststart hooks; one that fails is a warning."""
    if not (record["config"].get("hooks") or {}).get("poststart"):
        return
    from wherry_oci.runtime import hooks

    _await_program(record)
    state = oci_state(record, "running")
    for kind, hook in hooks.asked(record["config"], "poststart"):
        try:
            hooks.run(kind, hook, state)
        except RuntimeFailure as failure:
            warn(str(failure))


def _await_program(record: "dict[str, Any]") -> None:
    """
    Until execve(2) is done: it closes the line to the process before it has loaded the program, and hooks come after
    that. The kernel shows the program's arguments only then.
    """
    from time import sleep

    for _ in range(_LOAD_TRIES):
        if start_time(record["pid"]) != record["pid_start"]:
            return
        try:
            with open(f"/proc/{record['pid']}/cmdline", "rb") as file:
                loaded = file.read(1)
        except OSError:
            return
        # Once more when it is there: who was woken by the closed line may have taken the program's processor.
        sleep(_LOAD_PAUSE_S)
        if loaded:
            return


def start(root: str, id: str, warn: "Callable[[str], None]") -> None:
    """Let a created container execute its program. Raises NotFound, Conflict, RuntimeFailure."""
    directory = ContainerDirectory(root, id)
    directory.lock()
    try:
        _start(directory, warn)
    finally:
        directory.unlock()


def _start(directory: ContainerDirectory, warn: "Callable[[str], None]") -> None:
    record = directory.read()
    status = status_of(directory, record)
    if status != "created":
        raise Conflict(f"container {directory.id} cannot be started: it is {status}")
    try:
        line = Channel(connect(directory.path, GATE))
    except OSError as error:
        raise RuntimeFailure.from_os_error("start", error) from None
    os.unlink(f"{directory.path}/{GATE}")
    try:
        let_start(line, lambda number: send_listener(record, number))
    except RuntimeFailure:
        end_process(record)
        raise
    finally:
        line.close()
    started_steps(directory, record, warn)


def send_listener(record: "dict[str, Any]", number: int) -> None:
    """Hand the seccomp listener that is descriptor *number* of the container's first process to `listenerPath`."""
    send_listener_of(record, record["pid"], number)


def send_listener_of(record: "dict[str, Any]", pid: int, number: int) -> None:
    """The same for process *pid*: config-linux.md "The Container Process State". Raises RuntimeFailure."""
    section = record["config"]["linux"]["seccomp"]
    state: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": oci_state(record, "running" if pid != record["pid"] else "creating"),
    }
    if section.get("listenerMetadata"):
        state["metadata"] = section["listenerMetadata"]
    try:
        listener = p.copy_descriptor(pid, number)
        try:
            send_descriptor(section["listenerPath"], quickjson.dumps(state).encode(), listener)
        finally:
            os.close(listener)
    except OSError as error:
        raise RuntimeFailure(
            "system", "send the seccomp listener", f"{section['listenerPath']}: {os_error_text(error)}"
        ) from None


def send_descriptor(path: str, message: bytes, fd: int) -> None:
    """Send *fd* with *message* to whoever listens at the stream socket *path*. Raises OSError."""
    from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

    end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        end.connect(path)
        end.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))])
    finally:
        end.close()


def write_pid_file(path: str, pid: int) -> None:
    """Write *pid* to *path*, so that whoever sees the file sees it whole. Raises RuntimeFailure."""
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "wb") as file:
            file.write(str(pid).encode())
        os.rename(new, path)
    except OSError as error:
        raise RuntimeFailure.from_os_error("write the pid file", error) from None


# the end


def kill(root: str, id: str, signal: int, *, everything: bool = False) -> None:
    """Send *signal* to the first process, or to all of the container. Raises NotFound, Conflict, RuntimeFailure."""
    directory = ContainerDirectory(root, id)
    record = directory.read()
    status = status_of(directory, record)
    cgroup = cgroup_of(record)
    shares_pids = "pid" not in own_namespaces(record)
    if everything or (shares_pids and signal == _SIGKILL and status != "creating"):
        if status == "stopped" and not everything:
            raise Conflict(f"container {id} is not running")
        if cgroup is None:
            raise Unsupported(f"container {id} has no control group of its own, so its processes are not known")
        cgroup.signal(signal)
    elif status == "stopped":
        raise Conflict(f"container {id} is not running")
    else:
        signal_process(record, signal)
    if signal == _SIGKILL and status == "paused" and cgroup is not None:
        cgroup.freeze(False)


def own_namespaces(record: "dict[str, Any]") -> set[str]:
    """The kinds of namespaces that the container does not share with the host, or with whom it was told to."""
    namespaces = (record["config"].get("linux") or {}).get("namespaces") or ()
    return {namespace["type"] for namespace in namespaces if not namespace.get("path")}


def signal_process(record: "dict[str, Any]", signal: int) -> None:
    """To the very process of *record*, whoever may have its number meanwhile. Raises Conflict, RuntimeFailure."""
    from _signal import pidfd_send_signal  # type: ignore[import-not-found]

    try:
        handle = os.pidfd_open(record["pid"])
    except ProcessLookupError:
        raise Conflict(f"container {record['id']} is not running") from None
    try:
        if start_time(record["pid"]) != record["pid_start"]:
            raise Conflict(f"container {record['id']} is not running")
        pidfd_send_signal(handle, signal)
    except ProcessLookupError:
        raise Conflict(f"container {record['id']} is not running") from None
    except OSError as error:
        raise RuntimeFailure.from_os_error(f"send signal {signal}", error) from None
    finally:
        os.close(handle)


def delete(root: str, id: str, *, force: bool, warn: "Callable[[str], None]") -> None:
    """
    Take away all that create made. With *force* whatever state it is in, and that there is nothing is fine.

    Raises NotFound, Conflict, RuntimeFailure.
    """
    directory = ContainerDirectory(root, id)
    try:
        _delete(directory, force, warn)
    finally:
        directory.unlock()


def _delete(directory: ContainerDirectory, force: bool, warn: "Callable[[str], None]") -> None:
    try:
        if force and not directory.lock(wait=False):
            _end_creation(directory)
            directory.lock()
        elif not force:
            directory.lock()
        record = directory.read()
    except Conflict:
        if not force:
            raise
        directory.remove()
        return
    except NotFound:
        if force:
            return
        raise
    status = status_of(directory, record)
    if status not in ("stopped", "created") and not force:
        raise Conflict(f"container {directory.id} cannot be deleted: it is {status}: stop it, or use --force")
    if status != "stopped":
        end_process(record)
    take_down(directory, record, warn)


def _end_creation(directory: ContainerDirectory) -> None:
    """Somebody is at work on it. What he makes is ended, and so is he, by his own failure."""
    try:
        end_process(directory.read())
    except (Conflict, NotFound):
        return


def end_process(record: "dict[str, Any]") -> None:
    """Kill the first process and wait until it is gone. Raises RuntimeFailure if it does not go."""
    import select

    if not record["pid"]:
        return
    try:
        handle = os.pidfd_open(record["pid"])
    except ProcessLookupError:
        return
    try:
        signal_process(record, _SIGKILL)
        cgroup = cgroup_of(record)
        if cgroup is not None and cgroup.is_frozen():
            cgroup.freeze(False)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(_DEATH_TIMEOUT_S * 1000):
            raise RuntimeFailure("system", "delete", f"process {record['pid']} was killed and does not end")
    except Conflict:
        return
    except FileNotFoundError:  # its group
        return
    finally:
        os.close(handle)


def delete_locked(directory: ContainerDirectory, warn: "Callable[[str], None]") -> None:
    """Take away what the caller, who holds the lock, has just made; the error that made it do so is what counts."""
    try:
        record = directory.read()
        end_process(record)
        take_down(directory, record, warn)
    except (NotFound, Conflict, RuntimeFailure) as error:
        warn(str(error))


def take_down(directory: ContainerDirectory, record: "dict[str, Any]", warn: "Callable[[str], None]") -> None:
    """Its group, its mounts if they are the host's, its poststop hooks, and at last its record."""
    if "mount" not in {each["type"] for each in (record["config"].get("linux") or {}).get("namespaces") or ()}:
        _unmount_below(record["rootfs"])
    cgroup = cgroup_of(record)
    if cgroup is not None:
        _remove_cgroup(cgroup)
    if (record["config"].get("hooks") or {}).get("poststop"):
        from wherry_oci.runtime import hooks

        state = oci_state(record, "stopped")
        for kind, hook in hooks.asked(record["config"], "poststop"):
            try:
                hooks.run(kind, hook, state)
            except RuntimeFailure as failure:
                warn(str(failure))
    directory.remove()


def _unmount_below(rootfs: str) -> None:
    """A container without a mount namespace leaves its mounts to the host."""
    from wherry_oci.linux.mount import MNT_DETACH, UMOUNT_NOFOLLOW, umount2
    from wherry_oci.runtime.remount import mount_points

    for point, _ in reversed(mount_points()):
        if point.startswith(rootfs.rstrip("/") + "/"):
            try:
                umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno != EINVAL:  # it went with another
                    raise RuntimeFailure.from_os_error("unmount", error) from None


def _remove_cgroup(cgroup: Cgroup) -> None:
    """With whatever still runs in it. Raises RuntimeFailure when it cannot be removed."""
    from time import sleep

    last: OSError | None = None
    for attempt in range(_REMOVE_TRIES):
        try:
            if attempt or cgroup.has_processes():
                cgroup.signal(_SIGKILL)
                cgroup.thaw()
            cgroup.remove()
            return
        except OSError as error:  # EBUSY: the kernel has not let go of the last process yet
            last = error
            sleep(_REMOVE_PAUSE_S)
    assert last is not None
    raise RuntimeFailure.from_os_error("remove cgroup", last)


def _clean_up(directory: ContainerDirectory, cgroup: Cgroup | None) -> None:
    """After a create that failed; its error is what counts."""
    try:
        if cgroup is not None:
            _remove_cgroup(cgroup)
    except RuntimeFailure:
        pass
    try:
        directory.remove()
    except OSError:
        pass


# further processes


def execute(
    root: str, id: str, process: "dict[str, Any]", options: Options, *, ignore_paused: bool = False
) -> tuple[Process, "dict[str, Any]"]:
    """
    A further process (config.md's `process`) in the container, up to where it would execute its program; and the
    container's record. Raises NotFound, Conflict, RuntimeFailure.
    """
    directory = ContainerDirectory(root, id)
    record = directory.read()
    status = status_of(directory, record)
    if status == "paused" and not ignore_paused:
        raise Conflict(f"container {id} is paused: resume it first")
    if status not in ("running", "created", "paused"):
        raise Conflict(f"cannot exec in container {id}: it is {status}")
    configcheck.check_process(process, "$")
    refuse_missing({"process": process})
    config = record["config"]
    program = directory.read_filter()
    flags = 0
    if program is not None:
        from wherry_oci.seccomp import filter_flags

        flags = filter_flags(config["linux"]["seccomp"])
    entry = Entry(
        process,
        user=None,
        added_groups=[],
        seccomp=program,
        seccomp_flags=flags,
        stdio=None if process.get("terminal") else (0, 1, 2),
        reap=False,
        preserve=options.preserve,
        setgroups_denied=_setgroups_denied(config),
        linux=config.get("linux"),
    )
    made = container.execute(record["pid"], config, entry, cgroup=cgroup_of(record))
    try:
        if made.terminal is not None and options.on_terminal is not None:
            master, made.terminal = made.terminal, None
            options.on_terminal(master)
        if options.pid_file:
            write_pid_file(options.pid_file, made.pid)
    except BaseException:
        made.abandon()
        raise
    return made, record
