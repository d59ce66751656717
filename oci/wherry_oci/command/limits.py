"""pause, resume, update, events: what is done by a container's control group."""

import sys

from wherry_oci.command.arguments import Request
from wherry_oci.errors import Conflict, InvalidArgument, Unsupported
from wherry_oci.runtime import configcheck, lifecycle, quickjson
from wherry_oci.runtime.statefile import ContainerDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_oci.command.dispatch import Report
    from wherry_oci.runtime.cgroups import Cgroup

# flag: (section of linux.resources, its member)
_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DEFAULT_INTERVAL_S, _OOM_INTERVAL_S = 5.0, 0.1


def _group(root: str, id: str) -> "tuple[ContainerDirectory, dict[str, Any], Cgroup]":
    directory = ContainerDirectory(root, id)
    record = directory.read()
    cgroup = lifecycle.cgroup_of(record)
    if cgroup is None:
        raise Unsupported(f"container {id} has no control group of its own")
    return directory, record, cgroup


def _pause(request: Request, root: str, report: "Report") -> int:
    directory, record, cgroup = _group(root, request.only_argument())
    status = lifecycle.status_of(directory, record)
    if status not in ("running", "created"):
        raise Conflict(f"container {directory.id} cannot be paused: it is {status}")
    cgroup.freeze_and_wait(True)
    return 0


def _resume(request: Request, root: str, report: "Report") -> int:
    directory, record, cgroup = _group(root, request.only_argument())
    status = lifecycle.status_of(directory, record)
    if status != "paused":
        raise Conflict(f"container {directory.id} cannot be resumed: it is {status}")
    cgroup.freeze_and_wait(False)
    return 0


def _update(request: Request, root: str, report: "Report") -> int:
    directory = ContainerDirectory(root, request.only_argument())
    directory.lock()
    _, record, cgroup = _group(root, directory.id)
    if lifecycle.status_of(directory, record) == "stopped":
        raise Conflict(f"container {directory.id} cannot be updated: it is stopped")
    changes = _resources(request.flags)
    cgroup.update(changes)
    linux = record["config"].setdefault("linux", {})
    kept = linux.setdefault("resources", {})
    for section, members in changes.items():
        if isinstance(members, dict):
            kept[section] = {**(kept.get(section) or {}), **members}
        else:
            kept[section] = members
    directory.write(record)
    return 0


def _resources(flags: "dict[str, Any]") -> "dict[str, Any]":
    """linux.resources from a file (`-` is standard input) or from flags. Raises InvalidArgument."""
    for flag in ("l3-cache-schema", "mem-bw-schema"):
        if flags.get(flag):
            raise Unsupported(f"--{flag}: resource director technology is not supported")
    if flags.get("resources"):
        path = flags["resources"]
        try:
            with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
                given: dict[str, Any] = quickjson.loads(file.read())
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"--resources {path}: {error}") from None
        configcheck.check_members(given, configcheck.RESOURCES, "$")
        return {name: value for name, value in given.items() if value and name != "devices"}
    found: dict[str, Any] = {}
    for flag, (section, member) in _NUMBERS.items():
        if flag in flags:
            found.setdefault(section, {})[member] = flags[flag]
    return found


def _events(request: Request, root: str, report: "Report") -> int:
    directory, record, cgroup = _group(root, request.only_argument())
    if lifecycle.status_of(directory, record) == "stopped":
        raise Conflict(f"container {directory.id} is not running")
    if request.flags.get("stats"):
        _print_event("stats", directory.id, cgroup.stats())
        return 0
    interval_s = _seconds(request.flags.get("interval"))
    if interval_s <= 0:
        raise InvalidArgument("--interval must be more than 0")
    _watch(directory, record, cgroup, interval_s)
    return 0


def _watch(directory: ContainerDirectory, record: "dict[str, Any]", cgroup: "Cgroup", interval_s: float) -> None:
    """Print events until the container has ended."""
    from time import monotonic, sleep

    kills, due = cgroup.oom_kills(), monotonic() + interval_s
    while lifecycle.status_of(directory, record) != "stopped":
        sleep(min(_OOM_INTERVAL_S, interval_s))
        now = cgroup.oom_kills()
        for _ in range(now - kills):
            _print_event("oom", directory.id, None)
        kills = max(kills, now)
        if monotonic() >= due:
            due += interval_s
            _print_event("stats", directory.id, cgroup.stats())


def _print_event(kind: str, id: str, data: "dict[str, Any] | None") -> None:
    event: dict[str, Any] = {"type": kind, "id": id}
    if data is not None:
        event["data"] = data
    sys.stdout.write(quickjson.dumps(event) + "\n")
    sys.stdout.flush()


def _seconds(text: str | None) -> float:
    """A duration such as 500ms, 5s, 1m."""
    if text is None:
        return _DEFAULT_INTERVAL_S
    for unit, factor in _UNITS_S.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return float(number) * factor
    raise InvalidArgument(f"--interval {text!r} is not like 500ms, 5s or 1m")


COMMANDS: "dict[str, Callable[[Request, str, Report], int]]" = {
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
}
