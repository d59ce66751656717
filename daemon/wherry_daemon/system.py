"""The daemon itself: what it is, what happens in it, how much room it takes."""

import os
import platform
from collections.abc import Iterator

import attrs

from wherry import __version__
from wherry.diskusage import measure
from wherry.engineapi.system import (
    AuthConfig,
    AuthStatus,
    BuildCachePruned,
    ComponentVersion,
    PlatformName,
    Version,
)
from wherry.systeminfo import system_info
from wherry_daemon import containers
from wherry_daemon.context import MINIMUM_VERSION, VERSION, Context, filters, version_text
from wherry_daemon.http import Answer, Empty, Json, Request, Stream
from wherry_daemon.routes import Routes
from wherry_daemon.streams import documents
from wherry_images import Credentials

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
    return Json(document=system_info(context.engine, _DOCKER_VERSION))


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
    return Json(document=measure(context.client))


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
