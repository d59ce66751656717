"""From a request and an image to config.json (runtime-spec config.md): pure, so it can be shown before it is done."""

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from wherry import defaults
from wherry.mounts import MountPoint
from wherry.networkoptions import CONTAINER
from wherry.options import Options
from wherry_oci.errors import InvalidArgument, NotFound
from wherry_oci.linux.process import CAPABILITIES, bounding_set
from wherry_oci.spec.image import ImageConfig

_OCI_VERSION = "1.3.0"
_NANO_CPUS_PERIOD = 100_000  # microseconds
_NANO = 1_000_000_000


@attrs.frozen(kw_only=True)
class Program:
    """What a container runs, with image and request brought together as Docker does."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: tuple[str, ...]
    working_dir: str
    user: str
    stop_signal: str

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*self.entrypoint, *self.command)


def program_of(options: Options, image: ImageConfig, image_name: str) -> Program:
    """
    A given entry point takes the image's command away with its entry point; a given command only the command.

    Raises InvalidArgument when nothing at all says what to run.
    """
    if options.entrypoint is not None:
        entrypoint, command = options.entrypoint, options.command or ()
    else:
        entrypoint = tuple(image.entrypoint or ())
        command = tuple(image.cmd or ()) if options.command is None else options.command
    if not entrypoint and not command:
        raise InvalidArgument(f"the image {image_name!r} names no command: give one")
    return Program(
        entrypoint=entrypoint,
        command=command,
        environment=_environment(options, tuple(image.env or ())),
        working_dir=options.working_dir or image.working_dir or "/",
        user=options.user or image.user or "",
        stop_signal=options.stop_signal or image.stop_signal or "SIGTERM",
    )


def _environment(options: Options, image: Sequence[str]) -> tuple[str, ...]:
    """Docker's order: PATH, TERM with a terminal, then the image's, then the request's, a later one in the place."""
    merged: dict[str, str] = {"PATH": defaults.PATH}
    if options.tty:
        merged["TERM"] = "xterm"
    for item in (*image, *options.environment):
        name, _, value = item.partition("=")
        merged[name] = value
    return tuple(f"{name}={value}" for name, value in merged.items())


def capabilities_of(options: Options) -> list[str]:
    """The capabilities that the container has at all, in the order of their numbers."""
    return chosen_capabilities(options.cap_add, options.cap_drop, privileged=options.privileged)


def chosen_capabilities(cap_add: Iterable[str], cap_drop: Iterable[str], *, privileged: bool) -> list[str]:
    """Docker's default set with what is added and dropped (ALL, too), as far as there is any of it to give."""
    bounding = bounding_set()
    available = [name for number, name in enumerate(CAPABILITIES) if bounding >> number & 1]
    if privileged:
        return available
    added, dropped = set(cap_add), set(cap_drop)
    kept = set() if "ALL" in dropped else set(defaults.CAPABILITIES)
    kept |= set(available) if "ALL" in added else added
    return [name for name in available if name in kept - (dropped - {"ALL"})]


def process_of(options: Options, program: Program, capabilities: Sequence[str]) -> dict[str, Any]:
    """config.json's `process`; the user's name is resolved in the container, by the shim."""
    rights = list(capabilities)
    process: dict[str, Any] = {
        "terminal": options.tty,
        "args": list(program.arguments),
        "env": list(program.environment),
        "cwd": program.working_dir,
        "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": rights, "effective": rights, "permitted": rights, "inheritable": []},
        "noNewPrivileges": options.no_new_privileges,
    }
    if options.oom_score_adj is not None:
        process["oomScoreAdj"] = options.oom_score_adj
    if options.ulimits:
        process["rlimits"] = [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard}
            for limit in options.ulimits
        ]
    return process


def document(
    options: Options,
    program: Program,
    *,
    container_id: str,
    hostname: str,
    directory: str,
    points: Sequence[MountPoint] = (),
) -> dict[str, Any]:
    """
    config.json for the container whose own files (hosts, hostname, resolv.conf, rootfs) are in *directory*, with the
    volumes and binds *points*.

    Raises InvalidArgument, or NotFound for a device that the host does not have.
    """
    capabilities = capabilities_of(options)
    spec: dict[str, Any] = {
        "ociVersion": _OCI_VERSION,
        "process": process_of(options, program, capabilities),
        "root": {"path": "rootfs", "readonly": options.read_only},
        "mounts": _mounts(options, directory, points),
        "annotations": {"wherry.id": container_id},
        "linux": _linux(options, container_id),
    }
    if propagation := _root_propagation(points):
        spec["linux"]["rootfsPropagation"] = propagation
    own_names = options.network != "host" and "uts" not in options.isolation.shared
    if own_names:
        spec["hostname"] = hostname
    if options.domainname and own_names:
        spec["domainname"] = options.domainname
    return spec


def _linux(options: Options, container_id: str) -> dict[str, Any]:
    kinds = ["pid", "mount", "ipc", "uts", "cgroup"]
    sysctls = dict(options.sysctls)
    if options.network == "host":
        kinds.remove("uts")
    else:
        kinds.append("network")
        if not options.network.startswith(CONTAINER):  # they are the other's, and set
            sysctls = {**defaults.NETWORK_SYSCTLS, **sysctls}
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in options.isolation.namespaces(kinds)],
        "cgroupsPath": f"{options.cgroup_parent}/{container_id}",
        "resources": _resources(options),
        "devices": _devices(options),
    }
    if sysctls:
        linux["sysctl"] = sysctls
    if not options.privileged:
        linux["maskedPaths"] = list(defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(defaults.READ_ONLY_PATHS)
    return linux


def _root_propagation(points: Sequence[MountPoint]) -> str:
    """What lets mounts through, into the container (slave) or both ways (shared), when a bind asks for that."""
    wanted = {point.propagation.removeprefix("r") for point in points}
    return "rshared" if "shared" in wanted else "rslave" if "slave" in wanted else ""


def _mounts(options: Options, directory: str, points: Sequence[MountPoint]) -> list[dict[str, Any]]:
    mounts = [_mount(*fields) for fields in defaults.MOUNTS]
    if options.privileged:
        for mount in mounts:
            mount["options"] = [option for option in mount["options"] if option != "ro"]
    mounts += _shared_memory(options)
    for name in ("resolv.conf", "hostname", "hosts"):
        mounts.append(_mount(f"/etc/{name}", "bind", f"{directory}/{name}", ("rbind", "rprivate")))
    for target, given in options.tmpfs.items():
        settings = [option for option in given.split(",") if option]
        if not any(option.startswith("mode=") for option in settings):
            settings.append("mode=1777")
        mounts.append(_mount(target, "tmpfs", "tmpfs", ("nosuid", "nodev", "noexec", *settings)))
    mounts += [point.entry() for point in points]
    return _parents_first(mounts)


def _shared_memory(options: Options) -> list[dict[str, Any]]:
    if options.isolation.without_shm:
        return []
    if "ipc" in options.isolation.shared:
        return [_mount("/dev/shm", "bind", "/dev/shm", ("rbind", "rprivate"))]
    settings = ("nosuid", "noexec", "nodev", "mode=1777", f"size={options.shm_size}")
    return [_mount("/dev/shm", "tmpfs", "shm", settings)]


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _parents_first(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A mount on a directory hides what was mounted below it before; of two on the same place the last one stays."""
    last = {os.path.normpath(mount["destination"]): mount for mount in mounts}
    return sorted(last.values(), key=lambda mount: os.path.normpath(mount["destination"]).count("/"))


def _resources(options: Options) -> dict[str, Any]:
    return options.isolation.complete({"devices": _device_rules(options), **limits(options)})


def limits(options: Options) -> dict[str, Any]:
    """What of config.json's `linux.resources` can be changed while a container runs."""
    memory = {
        "limit": options.memory,
        "reservation": options.memory_reservation,
        "swap": options.memory_swap,
    }
    if options.memory is not None and options.memory > 0 and options.memory_swap is None:
        memory["swap"] = 2 * options.memory  # as much swap as memory, Docker's rule
    quota, period = options.cpu_quota, options.cpu_period
    if options.nano_cpus:
        period = _NANO_CPUS_PERIOD
        quota = options.nano_cpus * period // _NANO
    cpu = {
        "shares": options.cpu_shares,
        "quota": quota,
        "period": period,
        "cpus": options.cpuset_cpus,
        "mems": options.cpuset_mems,
    }
    resources: dict[str, Any] = {}
    if any(value is not None for value in memory.values()):
        resources["memory"] = {key: value for key, value in memory.items() if value is not None}
    if any(cpu.values()):
        resources["cpu"] = {key: value for key, value in cpu.items() if value}
    if options.pids_limit is not None:
        resources["pids"] = {"limit": options.pids_limit}
    return resources


def _device_rules(options: Options) -> list[dict[str, Any]]:
    if options.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in (*defaults.MAKEABLE_DEVICES, *defaults.USABLE_DEVICES):
        rules.append({"allow": True, "type": kind, "major": major, "minor": minor, "access": access})
    for source, _, access in options.devices:
        found = _device(source)
        rules.append(
            {"allow": True, "type": found["type"], "major": found["major"], "minor": found["minor"], "access": access}
        )
    return [{key: value for key, value in rule.items() if value is not None} for rule in rules]


def _devices(options: Options) -> list[dict[str, Any]]:
    devices = [{**_device(source), "path": target} for source, target, _ in options.devices]
    if options.privileged:
        given = {device["path"] for device in devices}
        devices += [device for device in _host_devices() if device["path"] not in given]
    return devices


def _device(path: str) -> dict[str, Any]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"devices: the host has no {path}") from None
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"devices: {path} is not a device")
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


# of every container itself, whatever the host has there
_OWN_DEVICES = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx")


def _host_devices() -> list[dict[str, Any]]:
    """All of the host's devices, for a privileged container; what vanishes meanwhile is left out."""
    from wherry_oci.runtime.rootfs import DEFAULT_DEVICES

    own = {*_OWN_DEVICES, *(f"/dev/{name}" for name, _, _ in DEFAULT_DEVICES)}
    found = []
    for parent, directories, names in os.walk("/dev"):
        directories[:] = [name for name in directories if f"{parent}/{name}" not in own]
        for name in names:
            path = f"{parent}/{name}"
            if path in own or os.path.islink(path):
                continue
            try:
                found.append(_device(path))
            except (NotFound, InvalidArgument):
                continue
    return found
