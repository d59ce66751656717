"""The daemon itself: what it is, what happens in it, how much room it takes."""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from wherry import __version__, otherruntimes
from wherry.membership import all_places
from wherry.options import OWN_RUNTIME
from wherry_daemon import containers, images
from wherry_daemon.context import MINIMUM_VERSION, VERSION, Context, filters, version_text
from wherry_daemon.http import Answer, Empty, Json, Request, Stream
from wherry_daemon.routes import Routes
from wherry_daemon.streams import documents

route = Routes()

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The server's own version as clients compare it: which of Docker's features it has.
_DOCKER_VERSION = "28.5.0"


@route("GET", "/_ping")
def ping(context: Context, request: Request) -> Answer:
    return Stream(pieces=[b"OK"], type="text/plain; charset=utf-8")


@route("HEAD", "/_ping")
def ping_head(context: Context, request: Request) -> Answer:
    return Empty(status=200, headers=(("Content-Type", "text/plain; charset=utf-8"),))


@route("GET", "/version")
def version(context: Context, request: Request) -> Answer:
    machine = platform.machine()
    facts = {
        "ApiVersion": version_text(VERSION),
        "MinAPIVersion": version_text(MINIMUM_VERSION),
        "Arch": _ARCHITECTURES.get(machine, machine),
        "KernelVersion": os.uname().release,
        "Os": "linux",
    }
    details = {**facts, "PythonVersion": platform.python_version(), "WherryVersion": __version__}
    return Json(
        document={
            "Platform": {"Name": f"wherry {__version__}"},
            "Version": _DOCKER_VERSION,
            **facts,
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
            "Components": [{"Name": "Engine", "Version": _DOCKER_VERSION, "Details": details}],
        }
    )


@route("GET", "/info")
def info(context: Context, request: Request) -> Answer:
    everything = context.engine.records()
    states = [context.engine.state(record).status for record in everything]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    machine = platform.machine()
    return Json(
        document={
            "ID": context.engine.root.as_posix(),
            "Containers": len(states),
            "ContainersRunning": states.count("running") + states.count("restarting"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": states.count("exited") + states.count("created"),
            "Images": len(context.client.images.list()),
            "Driver": "overlay",
            "DriverStatus": [["Backing Filesystem", "overlayfs"]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["journald", "json-file", "local", "none", "syslog"],
            },
            "MemoryLimit": True,
            "SwapLimit": True,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "BridgeNfIptables": False,
            "BridgeNfIp6tables": False,
            "Debug": False,
            "OomKillDisable": True,
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
            "KernelVersion": os.uname().release,
            "OperatingSystem": _operating_system(),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": machine,
            "NCPU": os.cpu_count(),
            "MemTotal": memory,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": ["127.0.0.0/8"], "Mirrors": []},
            "DockerRootDir": str(context.engine.root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": os.uname().nodename,
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": _DOCKER_VERSION,
            "Runtimes": {name: {"path": path} for name, path in otherruntimes.installed().items()},
            "DefaultRuntime": OWN_RUNTIME,
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False},
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "wherry",
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "SystemTime": datetime.now(UTC).isoformat(),
            "Warnings": None,
        }
    )


def _operating_system() -> str:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return "Linux"
    return found.get("PRETTY_NAME", "Linux")


def _seconds(text: str) -> float | None:
    found = containers.moment(text)
    return None if found is None else found / 1e9


@route("GET", "/events")
def events(context: Context, request: Request) -> Answer:
    found = context.client.events(
        since=_seconds(request.text("since")),
        until=_seconds(request.text("until")),
        filters=filters(request.mapping("filters")),
    )

    def pieces() -> Iterator[bytes]:
        with found, request.connection.when_left(found.close):
            yield from documents(found)

    return Stream(pieces=pieces(), at_once=True)


@route("GET", "/system/df")
def disk_usage(context: Context, request: Request) -> Answer:
    usage = context.client.images.usage()
    by_id = {one.id: one for one in usage.images}
    shown = []
    for image in context.client.images.list():
        document = images.summary(context, image)
        if (known := by_id.get(image.id)) is not None:
            document |= {
                "Size": known.unique + known.shared,
                "SharedSize": known.shared,
                "Containers": known.holders,
            }
        shown.append(document)
    everything, places = context.engine.records(), all_places(context.engine)
    return Json(
        document={
            "LayersSize": usage.layers,
            "Images": shown,
            "Containers": [
                containers.summary(context, record, context.engine.state(record), True, places.get(record.id, ()))
                for record in everything
            ],
            "Volumes": [_volume(volume) for volume in context.client.volumes.list()],
            "BuildCache": [],
        }
    )


def _volume(volume: Any) -> dict[str, Any]:
    return {**volume.attrs, "UsageData": {"Size": volume.size, "RefCount": len(volume.containers)}}


@route("POST", "/auth")
def auth(context: Context, request: Request) -> Answer:
    from wherry_images import Credentials

    body = request.object()
    registry = str(body.get("serveraddress") or "docker.io")
    registry = registry.removeprefix("https://").removeprefix("http://").partition("/")[0]
    context.client.images.try_login(
        registry, Credentials(username=str(body.get("username") or ""), password=str(body.get("password") or ""))
    )
    return Json(document={"Status": "Login Succeeded", "IdentityToken": ""})


@route("POST", "/build/prune")
def build_prune(context: Context, request: Request) -> Answer:
    """There is no build cache: `docker system prune` asks all the same."""
    return Json(document={"CachesDeleted": None, "SpaceReclaimed": 0})
