"""What is told of a network, in Docker's words, also of the three that are always there."""

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from wherry import network, subnets
from wherry.engineapi.networks import (
    IPAM,
    EndpointIPAMConfig,
    EndpointResource,
    EndpointSettings,
    IPAMConfig,
    Network,
)
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


def document(engine: "LocalEngine", described: Described) -> Network:
    """As `GET /networks/{id}` describes it (Engine API 1.51)."""
    record = described.record
    return Network(
        name=described.name,
        id=described.id,
        created=record.created if record is not None else _NEVER,
        scope="local",
        driver=described.driver,
        enable_ipv4=True,
        enable_ipv6=bool(record is not None and record.subnet6),
        ipam=IPAM(driver="default", config=_ipam(record)),
        internal=bool(record is not None and record.internal),
        attachable=bool(record is not None and record.attachable),
        containers=_members(engine, record),
        options=dict(record.options) if record is not None else {},
        labels=dict(described.labels),
    )


def _ipam(record: network.Network | None) -> list[IPAMConfig]:
    if record is None:
        return []
    first = IPAMConfig(subnet=record.subnet, gateway=record.gateway, ip_range=record.ip_range or "")
    second = [IPAMConfig(subnet=record.subnet6, gateway=record.gateway6)] if record.subnet6 else []
    return [first, *second]


def _members(engine: "LocalEngine", record: network.Network | None) -> dict[str, EndpointResource]:
    """Those that run."""
    if record is None:
        return {}
    with engine.database.read() as connection:
        ends = {end.container: end for end in network.members(connection, record)}
        rows = {row.id: row for row in engine.store.all(connection) if row.id in ends}
    return {
        row.id: EndpointResource(
            name=row.name,
            endpoint_id=endpoint_id(ends[row.id]),
            mac_address=ends[row.id].mac,
            ipv4_address=subnets.interface(record.subnet, ends[row.id].ipv4),
            ipv6_address=subnets.interface(record.subnet6, ends[row.id].ipv6) if ends[row.id].ipv6 else "",
        )
        for row in rows.values()
        if engine.state(row).alive
    }


def endpoint_id(endpoint: network.Endpoint) -> str:
    """A place's own id."""
    from hashlib import sha256

    return sha256(f"{endpoint.network} {endpoint.container}".encode()).hexdigest()


def endpoint_settings(
    place: network.Network, endpoint: network.Endpoint, names: Mapping[str, Any], *, running: bool
) -> EndpointSettings:
    """A container's place, as its inspect shows it: addresses while it runs."""
    wanted = endpoint.wanted
    ipv4, ipv6 = wanted.get("ipv4") or "", wanted.get("ipv6") or ""
    asked = EndpointSettings(
        ipam_config=EndpointIPAMConfig(ipv4_address=ipv4, ipv6_address=ipv6) if ipv4 or ipv6 else None,
        links=[f"{name}:{alias}" for name, alias in endpoint.links] or None,
        aliases=list(endpoint.aliases) or None,
        mac_address=endpoint.mac if running else wanted.get("mac", ""),
        network_id=place.id,
        dns_names=list(names.get("names") or ()) or None,
    )
    if not running:
        return asked
    reaches_out, has_ipv6 = not place.internal, bool(endpoint.ipv6)
    return attrs.evolve(
        asked,
        endpoint_id=endpoint_id(endpoint),
        gateway=place.gateway if reaches_out else "",
        ip_address=endpoint.ipv4,
        ip_prefix_len=place.prefix_length,
        ipv6_gateway=place.gateway6 if has_ipv6 and reaches_out else "",
        global_ipv6_address=endpoint.ipv6 if has_ipv6 else "",
        global_ipv6_prefix_len=subnets.prefix_length(place.subnet6) if has_ipv6 else 0,
    )
