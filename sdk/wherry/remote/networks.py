"""`client.networks` of a distant engine."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wherry.networkcollection import Network, _pools
from wherry.networkoptions import parse_endpoint
from wherry.remote.api import Api, filters
from wherry.remote.creation import endpoint_config

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
    def name(self) -> str:
        return str(self.attrs["Name"])

    @property
    def labels(self) -> Mapping[str, str]:
        return self.attrs.get("Labels") or {}

    @property
    def containers(self) -> "builtins.list[Container]":
        """Those in it that run."""
        from wherry.remote.containers import RemoteContainer

        return [RemoteContainer(container_id, self._api) for container_id in self.attrs.get("Containers") or ()]

    def reload(self) -> None:
        """Nothing need be done: what it tells is always read anew. Raises NetworkNotFound when it is gone."""
        self.attrs  # noqa: B018 # for its error

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
        asked = {"Container": name, "EndpointConfig": endpoint_config(place)}
        self._api.post(f"/networks/{self.id}/connect", None, asked, about={"container": name})

    def disconnect(self, container: "Container | str", force: bool = False) -> None:
        """As `Network.disconnect`."""
        name = container if isinstance(container, str) else container.id
        self._api.post(
            f"/networks/{self.id}/disconnect", None, {"Container": name, "Force": force}, about={"container": name}
        )

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
        asked: dict[str, Any] = {
            "Name": name,
            "Driver": driver,
            "Options": dict(options or {}),
            "Internal": internal,
            "Attachable": attachable,
            "EnableIPv6": enable_ipv6,
            "Labels": dict(labels or {}),
            "CheckDuplicate": True,
        }
        if scope:
            asked["Scope"] = scope
        if ipam or subnet or gateway or ip_range:
            asked["IPAM"] = _ipam(ipam, subnet, gateway, ip_range)
        made = self._api.post("/networks/create", None, asked)
        return RemoteNetwork(made["Id"], self._api)

    def get(self, name: str) -> RemoteNetwork:
        """By name, id, or the beginning of an id. Raises NetworkNotFound."""
        return RemoteNetwork(self._api.get(f"/networks/{name}", about={"network": name})["Id"], self._api)

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
        found = self._api.get("/networks", {"filters": _filters(wanted)})
        return [RemoteNetwork(one["Id"], self._api) for one in found]

    def prune(self, filters: Mapping[str, Any] | None = None) -> "builtins.list[str]":
        """As `NetworkCollection.prune`."""
        done = self._api.post("/networks/prune", {"filters": _filters(filters)})
        return list(done.get("NetworksDeleted") or ())


_filters = filters  # `list` has an argument of that name


def _ipam(
    ipam: Mapping[str, Any] | None,
    subnet: str | Sequence[str] | None,
    gateway: str | Sequence[str] | None,
    ip_range: str | None,
) -> dict[str, Any]:
    """docker-py's IPAMConfig as it is, or one of the shorter options."""
    if ipam:
        return dict(ipam)
    subnets, gateways, ranges = _pools(None, subnet, gateway, ip_range)
    versions = sorted({*subnets, *gateways, *ranges})
    pools = [
        {
            key: found[version]
            for key, found in (("Subnet", subnets), ("Gateway", gateways), ("IPRange", ranges))
            if version in found
        }
        for version in versions
    ]
    return {"Driver": "default", "Config": pools}
