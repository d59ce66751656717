"""What `Client` does when its engine is elsewhere."""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs

from wherry.engineapi.execs import ExecInspect
from wherry.engineapi.networks import NetworkConnect
from wherry.engineapi.system import DiskUsage, SystemInfo
from wherry.options import Options
from wherry.remote import creation
from wherry.remote.address import OURS, Address, context, find, of_host, parse
from wherry.remote.api import Api, Request, filters, lines_of
from wherry.remote.connection import EngineUnreachable
from wherry.remote.containers import RemoteContainer, RemoteContainerCollection, RemoteExec, create
from wherry.remote.images import RemoteImageCollection
from wherry.remote.networks import RemoteNetworkCollection
from wherry.remote.volumes import RemoteVolumeCollection
from wherry_images.errors import ImageNotFound

if TYPE_CHECKING:
    from wherry.stats import Stats


_CONTEXT = "context:"


@attrs.frozen
class RemoteClient:
    """The operations of `Client` on one engine that speaks the Engine API."""

    api: Api

    @classmethod
    def at(cls, address: Address) -> "RemoteClient":
        return cls(Api(address))

    @property
    def containers(self) -> RemoteContainerCollection:
        return RemoteContainerCollection(self)

    @property
    def images(self) -> RemoteImageCollection:
        return RemoteImageCollection(self.api)

    @property
    def networks(self) -> RemoteNetworkCollection:
        return RemoteNetworkCollection(self.api)

    @property
    def volumes(self) -> RemoteVolumeCollection:
        return RemoteVolumeCollection(self.api)

    def create(self, image: str, command: str | Sequence[str] | None = None, **given: Any) -> RemoteContainer:
        """As `Client.create`."""
        return self._create(image, creation.parse_options(command, given), given)

    def _create(self, image: str, options: Options, given: Mapping[str, Any]) -> RemoteContainer:
        if options.pull in ("always", "newer"):
            self.images.pull(image, platform=options.platform, policy=options.pull)  # type: ignore[arg-type]
        if len(options.endpoints) > 1 and self.api.version < (1, 44):
            return self._connected_later(image, options, given)
        try:
            return create(self.api, image, options, given)
        except ImageNotFound:
            if options.pull != "missing":
                raise
        self.images.pull(image, platform=options.platform)
        return create(self.api, image, options, given)

    def _connected_later(self, image: str, options: Options, given: Mapping[str, Any]) -> RemoteContainer:
        """An engine before API 1.44 takes one network at creation: the others are connected before the start."""
        made = self._create(image, attrs.evolve(options, endpoints=options.endpoints[:1]), given)
        try:
            for place in options.endpoints[1:]:
                asked = NetworkConnect(container=made.id, endpoint_config=creation.endpoint(place))
                self.api.post(f"/networks/{place.network}/connect", None, asked, about={"network": place.network})
        except BaseException:
            made.remove(force=True, v=True)
            raise
        return made

    def run(self, image: str, command: str | Sequence[str] | None = None, **given: Any) -> RemoteContainer:
        """As `Client.run`."""
        options = creation.parse_options(command, given)
        container = self._create(image, options, given)
        try:
            container.start()
            if options.wait_for:
                container.wait_for(*options.wait_for, timeout=options.wait_timeout)
        except BaseException:
            container.__exit__(None, None, None)
            raise
        return container

    def events(
        self,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
        wanted: Mapping[str, Any] | None = None,
        *,
        follow: bool = True,
    ) -> "RemoteEvents":
        """As `Client.events`."""
        return RemoteEvents(self.api, since=since, until=until, wanted=wanted, follow=follow)

    def get_exec(self, exec_id: str) -> RemoteExec:
        """As `Client.get_exec`."""
        found = self.api.read(ExecInspect, f"/exec/{exec_id}/json", about={"exec_id": exec_id})
        process = found.process_config
        command = (process.entrypoint, *process.arguments)
        return RemoteExec(exec_id, self.api, found.container_id, command, process.tty)

    def stats(self) -> "list[Stats]":
        """As `Client.stats`."""
        return [container.stats(stream=False) for container in self.containers.list()]

    def info(self) -> SystemInfo:
        """As `Client.info`."""
        return self.api.read(SystemInfo, "/info")

    def df(self) -> DiskUsage:
        """As `Client.df`."""
        return self.api.read(DiskUsage, "/system/df")

    def version(self) -> dict[str, str]:
        """The engine's, in its words."""
        return {name: value for name, value in self.api.get("/version").items() if isinstance(value, str)}

    def answers(self) -> bool:
        """Whether an engine is there at this moment."""
        try:
            self.api.version  # noqa: B018 # it asks
        except (EngineUnreachable, TimeoutError):
            return False
        return True


class RemoteEvents:
    """As `EventStream`: an iterator, and a context manager that closes it; `close` may be called by another thread."""

    def __init__(
        self,
        api: Api,
        *,
        since: float | datetime | None,
        until: float | datetime | None,
        wanted: Mapping[str, Any] | None,
        follow: bool,
    ) -> None:
        from time import time

        if not follow and until is None:
            until = time()
        query = {
            "since": None if since is None else _seconds(since),
            "until": None if until is None else _seconds(until),
            "filters": filters(wanted),
        }
        if since is None and not follow:
            query["since"] = "0"
        self._closing = threading.Lock()
        self._closed = False
        _, self._connection = api.open(Request("GET", "/events", query))
        self._documents = lines_of(self._connection)

    def __enter__(self) -> "RemoteEvents":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat, and from any thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                self._connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # the engine has gone already
                pass

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = next(self._documents)
            return found
        except EngineUnreachable:
            if not self._closed:
                raise
        except StopIteration:
            pass
        self._closed = True
        self._connection.close()
        raise StopIteration


def _seconds(when: float | datetime) -> str:
    seconds = when.timestamp() if isinstance(when, datetime) else when
    return f"{seconds:.9f}"


def choose(host: str) -> RemoteClient | None:
    """
    The engine that *host* names; "env" stands for the docker command's, "context:NAME" for one of its contexts. "auto"
    is wherry's daemon, or the docker command's, if one answers, and None otherwise. Raises InvalidArgument, NotFound.
    """
    if host == "env":
        return RemoteClient.at(find())
    if host.startswith(_CONTEXT):
        return RemoteClient.at(context(host.removeprefix(_CONTEXT)))
    if host != "auto":
        return RemoteClient.at(of_host(host))
    for address in (parse(OURS), find()):
        found = RemoteClient.at(address)
        if found.answers():
            return found
    return None
