"""list, ps, spec, features, and what `--version` and `--help` print."""

import os
import sys

from wherry_oci.command.arguments import FLAGS, Request
from wherry_oci.command.output import indented, table
from wherry_oci.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, Unsupported
from wherry_oci.runtime import lifecycle, quickjson
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.statefile import ContainerDirectory, all_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_oci.command.dispatch import Report

_SUMMARIES = {
    "create": "make a container of a bundle, all but the execution of its program",
    "run": "make a container, start it, and delete it when it has ended",
    "start": "execute the program of a created container",
    "state": "print the state of a container",
    "kill": "send a signal (TERM) to a container",
    "delete": "take away a stopped container",
    "exec": "run a further process in a container",
    "list": "list the containers below --root",
    "ps": "list the processes of a container",
    "pause": "stop all processes of a container",
    "resume": "let all processes of a paused container go on",
    "update": "change the limits of a container",
    "events": "print statistics and out-of-memory events of a container",
    "spec": "write a config.json to begin with",
    "features": "print what this runtime can do",
}


def print_version() -> int:
    """As engines read it: a line with the name and the version, a line with the specification's."""
    sys.stdout.write(f"wherry-oci version {_version()}\nspec: {lifecycle.OCI_VERSION}\n")
    sys.stdout.flush()
    return 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("wherry")
    except PackageNotFoundError:  # started without site-packages
        return "unknown"


def print_help(command: str) -> int:
    """What there is, for people."""
    if command in FLAGS:
        lines = [f"wherry-oci {command}: {_SUMMARIES[command]}", "", "flags:"]
        lines += [
            f"  --{name}" + ("" if kind == "bool" else f" {kind.upper()}") for name, kind in FLAGS[command].items()
        ]
    else:
        lines = ["wherry-oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND …", ""]
        lines += [f"  {name:10} {summary}" for name, summary in _SUMMARIES.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return 0


def _list(request: Request, root: str, report: "Report") -> int:
    states = []
    for id in all_ids(root):
        directory = ContainerDirectory(root, id)
        try:
            states.append(lifecycle.shown_state(directory, directory.read()))
        except (NotFound, Conflict):  # deleted meanwhile, or not made yet
            continue
    if request.flags.get("quiet"):
        sys.stdout.write("".join(f"{state['id']}\n" for state in states))
    elif request.flags.get("format", "table") == "json":
        sys.stdout.write(quickjson.dumps(states) + "\n")
    else:
        rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
        for state in states:
            owner = state["owner"] or "root"
            rows.append([state["id"], str(state["pid"]), state["status"], state["bundle"], state["created"], owner])
        sys.stdout.write(table(rows))
    return 0


def _ps(request: Request, root: str, report: "Report") -> int:
    if not request.arguments:
        raise InvalidArgument("ps takes a container id")
    id, *arguments = request.arguments
    record = ContainerDirectory(root, id).read()
    cgroup = lifecycle.cgroup_of(record)
    if cgroup is None:
        raise Unsupported(f"container {id} has no control group of its own, so its processes are not known")
    pids = cgroup.all_pids()
    if request.flags.get("format", "table") == "json":
        sys.stdout.write(quickjson.dumps(pids) + "\n")
        return 0
    import subprocess

    shown = subprocess.run(["ps", *(arguments or ["-ef"])], capture_output=True, text=True, check=False)
    if shown.returncode != 0 and shown.stderr:
        raise RuntimeFailure("system", f"ps {' '.join(arguments)}".rstrip(), shown.stderr.strip())
    lines = shown.stdout.splitlines()
    header = lines[0].split() if lines else []
    if "PID" not in header:
        raise InvalidArgument(f"ps {' '.join(arguments)} shows no column PID")
    column = header.index("PID")
    wanted = {str(pid) for pid in pids}
    rows = [line for line in lines[1:] if line.split()[column] in wanted]
    sys.stdout.write("\n".join([lines[0], *rows]) + "\n")
    return 0


def _features(request: Request, root: str, report: "Report") -> int:
    sys.stdout.write(indented(features()) + "\n")
    return 0


def features() -> "dict[str, Any]":
    """What this runtime can do (runtime-spec features.md, features-linux.md)."""
    from importlib.util import find_spec

    from wherry_oci.linux import scheduling
    from wherry_oci.linux.namespaces import BY_NAME
    from wherry_oci.linux.process import CAPABILITIES
    from wherry_oci.runtime.mountoptions import known_options
    from wherry_oci.seccomp.filter import KNOWN_ACTIONS, KNOWN_ARCHITECTURES, KNOWN_FLAGS, KNOWN_OPERATORS

    systemd = find_spec("jeepney") is not None
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": lifecycle.OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": known_options(),
        "linux": {
            "namespaces": sorted(BY_NAME),
            "capabilities": list(CAPABILITIES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": systemd,
                "systemdUser": systemd,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(KNOWN_ACTIONS),
                "operators": sorted(KNOWN_OPERATORS),
                "archs": sorted(KNOWN_ARCHITECTURES),
                "knownFlags": sorted(KNOWN_FLAGS),
                "supportedFlags": sorted(KNOWN_FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {
                "modes": sorted(scheduling.MEMORY_POLICIES),
                "flags": sorted(scheduling.MEMORY_POLICY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"wherry.version": _version()},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _spec(request: Request, root: str, report: "Report") -> int:
    path = os.path.join(request.flags.get("bundle") or ".", "config.json")
    document = template(rootless=bool(request.flags.get("rootless")), uid=os.geteuid(), gid=os.getegid())
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(indented(document) + "\n")
    except FileExistsError:
        raise AlreadyExists(f"{path} exists: remove it first") from None
    return 0


_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MASKED = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list "
    "/proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap"
).split()
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def template(*, rootless: bool, uid: int = 0, gid: int = 0) -> "dict[str, Any]":
    """A config.json for a shell in `rootfs`; *rootless* with a user namespace for the user *uid*:*gid*."""
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        },
    ]
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
    if rootless:
        del linux["resources"]
        linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"] + [{"type": "user"}]
        linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
        mounts[5] = {
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            # All below it, too: the host's control groups may be this user's (CVE-2023-25809).
            "options": ["rbind", "nosuid", "noexec", "nodev", "rro"],
        }
        del mounts[6]
    else:
        mounts[2]["options"].append("gid=5")
    rights = {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": lifecycle.OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": rights,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "wherry",
        "mounts": mounts,
        "linux": linux,
    }


COMMANDS: "dict[str, Callable[[Request, str, Report], int]]" = {
    "list": _list,
    "ps": _ps,
    "features": _features,
    "spec": _spec,
}
