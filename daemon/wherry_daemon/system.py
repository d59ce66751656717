"""The daemon itself: what it is, what happens in it, how much room it takes."""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from wherry import __version__, otherruntimes
from wherry.engineapi.system import (
    AuthConfig,
    AuthStatus,
    BuildCachePruned,
    ComponentVersion,
    DiskUsage,
    PlatformName,
    PluginsInfo,
    RegistryServiceConfig,
    Runtime,
    SwarmInfo,
    SystemInfo,
    Version,
)
from wherry.engineapi.volumes import UsageData
from wherry.engineapi.volumes import Volume as VolumeDocument
from wherry.membership import all_places
from wherry.options import OWN_RUNTIME
from wherry_daemon import containers, images
from wherry_daemon.context import MINIMUM_VERSION, VERSION, Context, filters, version_text
from wherry_daemon.creation import LOG_DRIVERS
from wherry_daemon.http import Answer, Empty, Json, Request, Stream
from wherry_daemon.routes import Routes
from wherry_daemon.streams import documents
from wherry_images import Credentials

if TYPE_CHECKING:
    from wherry.local import LocalEngine
    from wherry.volumecollection import Volume

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
    found = Version(
        platform=PlatformName(name=f"wherry {__version__}"),
        version=_DOCKER_VERSION,
        api_version=version_text(VERSION),
        min_api_version=version_text(MINIMUM_VERSION),
        arch=_ARCHITECTURES.get(machine, machine),
        kernel_version=os.uname().release,
        os="linux",
    )
    details = {
        "ApiVersion": found.api_version,
        "MinAPIVersion": found.min_api_version,
        "Arch": found.arch,
        "KernelVersion": found.kernel_version,
        "Os": found.os,
        "PythonVersion": platform.python_version(),
        "WherryVersion": __version__,
    }
    engine = ComponentVersion(name="Engine", version=_DOCKER_VERSION, details=details)
    return Json(document=attrs.evolve(found, components=[engine]))


@route("GET", "/info")
def info(context: Context, request: Request) -> Answer:
    return Json(document=system_info(context.engine))


def system_info(engine: "LocalEngine") -> SystemInfo:
    states = [engine.state(record).status for record in engine.records()]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    return SystemInfo(
        id=engine.root.as_posix(),
        containers=len(states),
        containers_running=states.count("running") + states.count("restarting"),
        containers_paused=states.count("paused"),
        containers_stopped=states.count("exited") + states.count("created"),
        images=len(engine.images.list()),
        driver="overlay",
        driver_status=[["Backing Filesystem", "overlayfs"]],
        plugins=PluginsInfo(volume=["local"], network=["bridge", "host", "macvlan", "null"], log=list(LOG_DRIVERS)),
        memory_limit=True,
        swap_limit=True,
        cpu_cfs_period=True,
        cpu_cfs_quota=True,
        cpu_shares=True,
        cpu_set=True,
        pids_limit=True,
        ipv4_forwarding=True,
        oom_kill_disable=True,
        logging_driver="json-file",
        cgroup_driver="cgroupfs",
        cgroup_version="2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        kernel_version=os.uname().release,
        operating_system=_operating_system(),
        os_type="linux",
        architecture=platform.machine(),
        ncpu=os.cpu_count() or 0,
        mem_total=memory,
        index_server_address="https://index.docker.io/v1/",
        registry_config=RegistryServiceConfig(insecure_registry_cidrs=["127.0.0.0/8"], mirrors=[]),
        docker_root_dir=str(engine.root),
        name=os.uname().nodename,
        labels=[],
        server_version=_DOCKER_VERSION,
        runtimes={name: Runtime(path=path) for name, path in otherruntimes.installed().items()},
        default_runtime=OWN_RUNTIME,
        swarm=SwarmInfo(local_node_state="inactive"),
        live_restore_enabled=True,
        init_binary="wherry",
        security_options=["name=seccomp,profile=builtin"],
        system_time=datetime.now(UTC).isoformat(),
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
        summary = images.summary(context, image)
        if (known := by_id.get(image.id)) is not None:
            summary = attrs.evolve(
                summary, size=known.unique + known.shared, shared_size=known.shared, containers=known.holders
            )
        shown.append(summary)
    everything, places = context.engine.records(), all_places(context.engine)
    return Json(
        document=DiskUsage(
            layers_size=usage.layers,
            images=shown,
            containers=[
                containers.summary(context, record, context.engine.state(record), True, places.get(record.id, ()))
                for record in everything
            ],
            volumes=[_volume(volume) for volume in context.client.volumes.list()],
            build_cache=[],
        )
    )


def _volume(volume: "Volume") -> VolumeDocument:
    used = UsageData(size=volume.size, ref_count=len(volume.containers))
    return attrs.evolve(volume.document, usage_data=used)


@route("POST", "/auth")
def auth(context: Context, request: Request) -> Answer:
    asked = request.parsed(AuthConfig)
    registry = (asked.server_address or "docker.io").removeprefix("https://").removeprefix("http://").partition("/")[0]
    context.client.images.try_login(registry, Credentials(username=asked.username, password=asked.password))
    return Json(document=AuthStatus(status="Login Succeeded"))


@route("POST", "/build/prune")
def build_prune(context: Context, request: Request) -> Answer:
    """There is no build cache: `docker system prune` asks all the same."""
    return Json(document=BuildCachePruned())
