"""What is told of a network, in Docker's words, also of the three that are always there."""

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from wherry import network, subnets
from wherry.errors import NetworkNotFound

if TYPE_CHECKING:
    from wherry.local import LocalEngine

_DRIVERS = {network.DEFAULT: "bridge", "host": "host", "none": "null"}
_NEVER = "0001-01-01T00:00:00Z"


@attrs.frozen(kw_only=True)
class Described:
    """A network as lists and inspect show it: one that is made has a `record`."""

    id: str
    name: str
    driver: str
    labels: Mapping[str, str] = attrs.field(factory=dict)
    record: network.Network | None = None

    @classmethod
    def of(cls, record: network.Network) -> "Described":
        return cls(id=record.id, name=record.name, driver=record.driver, labels=record.labels, record=record)

    @property
    def builtin(self) -> bool:
        """Whether it is always there."""
        return self.name in _DRIVERS


def predefined(connection: sqlite3.Connection) -> list[Described]:
    """Those that are always there, whether the default one is made or not."""
    root = network.root_mark(connection)
    return [
        Described(id=network.predefined_id(root, name), name=name, driver=driver) for name, driver in _DRIVERS.items()
    ]


def describe(engine: "LocalEngine", name: str) -> Described:
    """By name, id, or the beginning of an id. Raises NetworkNotFound."""
    with engine.database.read() as connection:
        try:
            return Described.of(network.get_network(connection, network.DEFAULT if name == "default" else name))
        except NetworkNotFound:
            for one in predefined(connection):
                if name == one.name or (len(name) >= 3 and one.id.startswith(name)):
                    return one
            raise


def document(engine: "LocalEngine", described: Described) -> dict[str, Any]:
    """As `GET /networks/{id}` describes it (Engine API 1.51)."""
    record = described.record
    return {
        "Name": described.name,
        "Id": described.id,
        "Created": record.created if record is not None else _NEVER,
        "Scope": "local",
        "Driver": described.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(record is not None and record.subnet6),
        "IPAM": {"Driver": "default", "Options": None, "Config": _ipam(record)},
        "Internal": bool(record is not None and record.internal),
        "Attachable": bool(record is not None and record.attachable),
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": _members(engine, record),
        "Options": dict(record.options) if record is not None else {},
        "Labels": dict(described.labels),
    }


def _ipam(record: network.Network | None) -> list[dict[str, str]]:
    if record is None:
        return []
    first = {"Subnet": record.subnet, "Gateway": record.gateway}
    if record.ip_range:
        first["IPRange"] = record.ip_range
    second = [{"Subnet": record.subnet6, "Gateway": record.gateway6}] if record.subnet6 else []
    return [first, *second]


def _members(engine: "LocalEngine", record: network.Network | None) -> dict[str, dict[str, str]]:
    """Those that run."""
    if record is None:
        return {}
    with engine.database.read() as connection:
        ends = {end.container: end for end in network.members(connection, record)}
        rows = {row.id: row for row in engine.store.all(connection) if row.id in ends}
    return {
        row.id: {
            "Name": row.name,
            "EndpointID": endpoint_id(ends[row.id]),
            "MacAddress": ends[row.id].mac,
            "IPv4Address": subnets.interface(record.subnet, ends[row.id].ipv4),
            "IPv6Address": subnets.interface(record.subnet6, ends[row.id].ipv6) if ends[row.id].ipv6 else "",
        }
        for row in rows.values()
        if engine.state(row).alive
    }


def endpoint_id(endpoint: network.Endpoint) -> str:
    """A place's own id."""
    from hashlib import sha256

    return sha256(f"{endpoint.network} {endpoint.container}".encode()).hexdigest()


def endpoint_settings(
    place: network.Network, endpoint: network.Endpoint, names: Mapping[str, Any], *, running: bool
) -> dict[str, Any]:
    """A container's place, as its inspect shows it: addresses while it runs."""
    wanted = endpoint.wanted
    ipam = {"IPv4Address": wanted.get("ipv4"), "IPv6Address": wanted.get("ipv6")}
    shown = {
        "IPAMConfig": {key: value for key, value in ipam.items() if value} or None,
        "Links": [f"{name}:{alias}" for name, alias in endpoint.links] or None,
        "Aliases": list(endpoint.aliases) or None,
        "MacAddress": endpoint.mac if running else wanted.get("mac", ""),
        "DriverOpts": None,
        "NetworkID": place.id,
        "EndpointID": endpoint_id(endpoint) if running else "",
        "Gateway": place.gateway if running and not place.internal else "",
        "IPAddress": endpoint.ipv4 if running else "",
        "IPPrefixLen": place.prefix_length if running else 0,
        "DNSNames": list(names.get("names") or ()) or None,
    }
    has_ipv6 = running and bool(endpoint.ipv6)
    return shown | {
        "IPv6Gateway": place.gateway6 if has_ipv6 and not place.internal else "",
        "GlobalIPv6Address": endpoint.ipv6 if has_ipv6 else "",
        "GlobalIPv6PrefixLen": subnets.prefix_length(place.subnet6) if has_ipv6 else 0,
    }
