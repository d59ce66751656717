"""Whether a distant container is ready: looked at from here, by what the Engine API can tell."""

import http.client
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from wherry.readiness import Exec, File, Health, Http, LogLine, Port, Strategy
from wherry.remote.api import EngineError
from wherry_oci.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.container import Container
    from wherry.remote.containers import RemoteContainer

_LOOK_S = 1.0
_LISTEN = "0A"  # the state in /proc/net/tcp


def is_ready(container: "RemoteContainer", wanted: "Strategy | Callable[[Container], object]") -> bool:
    """One look. Raises InvalidArgument for what can never be."""
    if isinstance(wanted, Port):
        return _listens(container, wanted.port)
    if isinstance(wanted, LogLine):
        return len(re.findall(wanted.pattern, container.logs(), re.MULTILINE)) >= wanted.times
    if isinstance(wanted, Http):
        return _answers(container, wanted)
    if isinstance(wanted, File):
        return container.path(wanted.path).exists()
    if isinstance(wanted, Exec):
        return _succeeds(container, wanted)
    if isinstance(wanted, Health):
        status = container.health
        if status is None and container.status == "running":
            raise InvalidArgument(f"container {container.name} has no health check: give it healthcheck=")
        return status == "healthy"
    return bool(wanted(container))


def _listens(container: "RemoteContainer", port: int) -> bool:
    """By its own /proc: the port need not be published."""
    try:
        told = container.exec(["cat", "/proc/net/tcp", "/proc/net/tcp6"])
    except (NotFound, Conflict, EngineError):
        return False
    for line in told.stdout.decode("ascii", "replace").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN and fields[1].rpartition(":")[2] == f"{port:04X}":
            return True
    return False


def _answers(container: "RemoteContainer", wanted: Http) -> bool:
    wanted.condition()
    connection = http.client.HTTPConnection(_host_of(container), container.port(wanted.port), timeout=_LOOK_S)
    try:
        connection.request("GET", wanted.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status in wanted.statuses if wanted.statuses else 200 <= status < 400


def _host_of(container: "RemoteContainer") -> str:
    """Where the engine's published ports are."""
    address = container._api.address
    if address.scheme == "tcp":
        return address.host
    return address.destination.rpartition("@")[2] if address.scheme == "ssh" else "127.0.0.1"


def _succeeds(container: "RemoteContainer", wanted: Exec) -> bool:
    try:
        return container.exec(wanted.command).exit_code == 0
    except (TimeoutError, NotFound, Conflict, EngineError):
        return False
