"""`client.networks` of a distant engine."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wherry.engineapi.document import parse
from wherry.engineapi.networks import (
    IPAM,
    IPAMConfig,
    NetworkConnect,
    NetworkCreate,
    NetworkCreated,
    NetworkDisconnect,
    NetworksPruned,
)
from wherry.engineapi.networks import Network as NetworkDocument
from wherry.networkcollection import Network, _pools
from wherry.networkoptions import parse_endpoint
from wherry.remote.api import Api, filters
from wherry.remote.creation import endpoint

if TYPE_CHECKING:
    import builtins

    from wherry.container import Container


class RemoteNetwork(Network):
    """As `wherry.networkcollection.Network`."""

    def __init__(self, id: str, api: Api) -> None:
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "_api", api)

    _api: Api

    def __repr__(self) -> str:
        return f"RemoteNetwork(id={self.id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteNetwork, (self.id, self._api)

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker network inspect` tells, in its words. Raises NetworkNotFound."""
        found: dict[str, Any] = self._api.get(f"/networks/{self.id}", about={"network": self.id})
        return found

    @property
    def document(self) -> NetworkDocument:
        """What `attrs` tells, as a value. Raises NetworkNotFound."""
        return self._api.read(NetworkDocument, f"/networks/{self.id}", about={"network": self.id})

    @property
    def name(self) -> str:
        return self.document.name

    @property
    def labels(self) -> Mapping[str, str]:
        return self.document.labels or {}

    @property
    def containers(self) -> "builtins.list[Container]":
        """Those in it that run."""
        from wherry.remote.containers import RemoteContainer

        return [RemoteContainer(container_id, self._api) for container_id in self.document.containers]

    def reload(self) -> None:
        """Nothing need be done: what it tells is always read anew. Raises NetworkNotFound when it is gone."""
        self.document  # noqa: B018 # for its error

    def connect(
        self,
        container: "Container | str",
        aliases: Sequence[str] | None = None,
        links: Sequence[Any] | Mapping[str, str] | None = None,
        ipv4_address: str | None = None,
        ipv6_address: str | None = None,
        mac_address: str | None = None,
    ) -> None:
        """As `Network.connect`."""
        place = parse_endpoint(
            self.id,
            {
                "aliases": aliases,
                "links": links,
                "ipv4_address": ipv4_address,
                "ipv6_address": ipv6_address,
                "mac_address": mac_address,
            },
        )
        name = container if isinstance(container, str) else container.id
        asked = NetworkConnect(container=name, endpoint_config=endpoint(place))
        self._api.post(f"/networks/{self.id}/connect", None, asked, about={"container": name})

    def disconnect(self, container: "Container | str", force: bool = False) -> None:
        """As `Network.disconnect`."""
        name = container if isinstance(container, str) else container.id
        asked = NetworkDisconnect(container=name, force=force)
        self._api.post(f"/networks/{self.id}/disconnect", None, asked, about={"container": name})

    def remove(self) -> None:
        """As `Network.remove`."""
        self._api.delete(f"/networks/{self.id}", about={"network": self.id})


class RemoteNetworkCollection:
    """As `NetworkCollection`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        options: Mapping[str, str] | None = None,
        ipam: Mapping[str, Any] | None = None,
        subnet: str | Sequence[str] | None = None,
        gateway: str | Sequence[str] | None = None,
        ip_range: str | None = None,
        internal: bool = False,
        attachable: bool = False,
        enable_ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        check_duplicate: bool | None = None,
        scope: str | None = None,
    ) -> RemoteNetwork:
        """As `NetworkCollection.create`; what drivers there are is the engine's business."""
        asked = NetworkCreate(
            name=name,
            driver=driver,
            options=dict(options or {}) or None,
            ipam=_ipam(ipam, subnet, gateway, ip_range) if ipam or subnet or gateway or ip_range else None,
            internal=internal,
            attachable=attachable,
            enable_ipv6=enable_ipv6,
            labels=dict(labels or {}) or None,
            check_duplicate=True,
            scope=scope or "",
        )
        return RemoteNetwork(self._api.ask(NetworkCreated, "/networks/create", None, asked).id, self._api)

    def get(self, name: str) -> RemoteNetwork:
        """By name, id, or the beginning of an id. Raises NetworkNotFound."""
        return RemoteNetwork(RemoteNetwork(name, self._api).document.id, self._api)

    def list(
        self,
        names: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        greedy: bool = True,
    ) -> "builtins.list[RemoteNetwork]":
        """As `NetworkCollection.list`."""
        wanted = dict(filters or {})
        wanted.update({key: list(given) for key, given in (("name", names), ("id", ids)) if given})
        found = self._api.read_all(NetworkDocument, "/networks", {"filters": _filters(wanted)})
        return [RemoteNetwork(one.id, self._api) for one in found]

    def prune(self, filters: Mapping[str, Any] | None = None) -> "builtins.list[str]":
        """As `NetworkCollection.prune`."""
        done = self._api.ask(NetworksPruned, "/networks/prune", {"filters": _filters(filters)})
        return done.networks_deleted or []


_filters = filters  # `list` has an argument of that name


def _ipam(
    ipam: Mapping[str, Any] | None,
    subnet: str | Sequence[str] | None,
    gateway: str | Sequence[str] | None,
    ip_range: str | None,
) -> IPAM:
    """docker-py's IPAMConfig as it is, or one of the shorter options."""
    if ipam:
        return parse(dict(ipam), IPAM, "ipam")
    subnets, gateways, ranges = _pools(None, subnet, gateway, ip_range)
    pools = [
        IPAMConfig(subnet=subnets.get(version, ""), gateway=gateways.get(version, ""), ip_range=ranges.get(version, ""))
        for version in sorted({*subnets, *gateways, *ranges})
    ]
    return IPAM(driver="default", config=pools)
