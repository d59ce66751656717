"""`client.networks`, in docker-py's names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from wherry import membership, network
from wherry.errors import AlreadyExists, Conflict, NetworkInUse, NetworkNotFound
from wherry.filters import Filters
from wherry.networkdocument import Described, describe, document, predefined
from wherry.networkoptions import parse_endpoint
from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_shim import nametable

if TYPE_CHECKING:
    import builtins

    from wherry.container import Container
    from wherry.engineapi.networks import Network as NetworkDocument
    from wherry.local import LocalEngine

_FILTERS = ("name", "id", "label", "driver", "type", "scope", "dangling")


@attrs.frozen(eq=False)
class Network:
    """One network: its id and an engine. What it tells is read at the moment it is asked."""

    id: str
    _engine: "LocalEngine" = attrs.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def _described(self) -> Described:
        return describe(self._engine, self.id)

    @property
    def name(self) -> str:
        return self._described.name

    @property
    def labels(self) -> Mapping[str, str]:
        return self._described.labels

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker network inspect` tells, in its words. Raises NetworkNotFound."""
        from wherry.engineapi.document import told

        found: dict[str, Any] = told(self.document)
        return found

    @property
    def document(self) -> "NetworkDocument":
        """What `attrs` tells, as a value. Raises NetworkNotFound."""
        return document(self._engine, self._described)

    @property
    def containers(self) -> "builtins.list[Container]":
        """Those in it that run."""
        from wherry.container import Container

        return [Container(container_id, self._engine) for container_id in self.document.containers]

    def reload(self) -> None:
        """Nothing need be done: what it tells is always read anew. Raises NetworkNotFound when it is gone."""
        self._described  # noqa: B018 # for its error

    def connect(
        self,
        container: "Container | str",
        aliases: Sequence[str] | None = None,
        links: Sequence[Any] | Mapping[str, str] | None = None,
        ipv4_address: str | None = None,
        ipv6_address: str | None = None,
        mac_address: str | None = None,
    ) -> None:
        """
        Give a container, running or not, a place in it.

        Raises Conflict when it has one or has no network of its own, or when the address is taken, InvalidArgument.
        """
        given = {
            "aliases": aliases,
            "links": links,
            "ipv4_address": ipv4_address,
            "ipv6_address": ipv6_address,
            "mac_address": mac_address,
        }
        self._real()
        self._engine.do(membership.connect, _id_of(container), parse_endpoint(self.id, given))

    def disconnect(self, container: "Container | str", force: bool = False) -> None:
        """Take a container, running or not, out of it. Raises NotFound when it is not in it."""
        self._real()
        self._engine.do(membership.disconnect, _id_of(container), self.id, force=force)

    def remove(self) -> None:
        """Raises NetworkInUse while containers have places in it, Conflict for those that are always there."""
        self._real()
        if self._described.name == network.DEFAULT:
            raise Conflict(f"network {network.DEFAULT!r} is always there: it cannot be removed")
        self._engine.do(_remove, self.id)

    def _real(self) -> None:
        found = self._described
        if found.name in network.PREDEFINED:
            raise Conflict(f"network {found.name!r} is no network to join or leave, but the lack of one's own")


def _remove(engine: "LocalEngine", identity: str) -> None:
    with engine.database.transaction() as connection:
        found = network.get_network(connection, identity)
        network.remove_network(connection, found)
    _forget(engine, found)


def _create(engine: "LocalEngine", name: str, options: Mapping[str, Any]) -> str:
    """A network's id."""
    engine.prepare()
    with engine.database.transaction() as connection:
        made = network.create_network(connection, name, **options)
    engine.events.append("network", "create", made.id, name=made.name, type=made.driver)
    return made.id


def _prune(engine: "LocalEngine", candidates: Sequence[network.Network]) -> list[str]:
    """Remove those that are not in use; their names."""
    removed = []
    for one in candidates:
        try:
            with engine.database.transaction() as connection:
                if one.is_default:
                    network.remove_bridge(connection, one)
                else:
                    network.remove_network(connection, network.get_network(connection, one.id))
                    removed.append(one)
        except (NetworkInUse, NetworkNotFound):  # by the time it came to it
            continue
    for one in removed:
        _forget(engine, one)
    return [one.name for one in removed]


def _forget(engine: "LocalEngine", removed: network.Network) -> None:
    """What the run directory has of a network that was removed; and tell of it."""
    nametable.forget_network(str(engine.run_directory), removed.id)
    engine.events.append("network", "destroy", removed.id, name=removed.name, type=removed.driver)


def _id_of(container: "Container | str") -> str:
    return container if isinstance(container, str) else container.id


class NetworkCollection:
    """The networks of a root."""

    def __init__(self, engine: "LocalEngine") -> None:
        self._engine = engine

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
    ) -> Network:
        """
        A network that containers can join, in which they find each other by name.

        With *driver* macvlan they are on the wire of a device of the host's (`options={"parent": "eth0"}`), in its
        *subnet*, and reach all but the host. *subnet* and *gateway* may be two, of IPv4 and of IPv6; *ipam* is
        docker-py's IPAMConfig instead. Raises AlreadyExists, InvalidArgument, Unsupported, or Conflict when the subnet
        overlaps another one.
        """
        if driver not in ("", "bridge", "default", network.MACVLAN):
            raise Unsupported(f"network {name!r}: driver {driver!r} is not supported: bridge and macvlan are")
        if scope not in (None, "", "local"):
            raise Unsupported(f"network {name!r}: scope {scope!r} is not supported: local is")
        if name in (network.DEFAULT, "default"):
            raise AlreadyExists(f"network {name!r} is there already, for every container that asks for none")
        subnets, gateways, ranges = _pools(ipam, subnet, gateway, ip_range)
        given = {
            "driver": network.MACVLAN if driver == network.MACVLAN else network.BRIDGE,
            "subnet": subnets.get(4),
            "gateway": gateways.get(4),
            "ip_range": ranges.get(4),
            "ipv6": enable_ipv6 or 6 in subnets,
            "subnet6": subnets.get(6),
            "gateway6": gateways.get(6),
            "internal": internal,
            "attachable": attachable,
            "options": options,
            "labels": labels,
        }
        return Network(self._engine.do(_create, name, given), self._engine)

    def get(self, name: str) -> Network:
        """By name, id, or the beginning of an id. Raises NetworkNotFound."""
        self._engine.prepare()
        return Network(describe(self._engine, name).id, self._engine)

    def list(
        self,
        names: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        greedy: bool = True,
    ) -> "builtins.list[Network]":
        """
        All, by name, or those that *filters* let through: name, id, label, driver, type (builtin or custom), scope,
        dangling (no container is in it).

        Raises InvalidArgument for a filter that there is not.
        """
        given = {**({"name": names} if names else {}), **({"id": ids} if ids else {}), **(filters or {})}
        chosen = Filters.parse(given, _FILTERS)
        self._engine.prepare()
        with self._engine.database.read() as connection:
            found = [*predefined(connection), *map(Described.of, network.networks(connection))]
            in_use = network.in_use(connection)
        unique = {one.id: one for one in found}  # the default one is there before it is made
        return [
            Network(one.id, self._engine)
            for one in sorted(unique.values(), key=lambda one: one.name)
            if chosen.contains("name", one.name)
            and chosen.begins("id", one.id)
            and chosen.labels_fit(one.labels)
            and chosen.equals("driver", one.driver)
            and chosen.equals("scope", "local")
            and chosen.equals("type", "builtin" if one.builtin else "custom")
            and chosen.is_so("dangling", one.id not in in_use and not one.builtin)
        ]

    def prune(self, filters: Mapping[str, Any] | None = None) -> "builtins.list[str]":
        """
        Remove the networks in which no container has a place; returns their names.

        *filters* may have label and `label!`. What the default network has on the host is taken down; it is made again
        when a container needs it, with the same addresses.
        """
        chosen = Filters.parse(filters, ("label", "label!", "until"))
        if "until" in chosen:
            raise Unsupported("filters: until is not supported for networks")
        self._engine.prepare()
        with self._engine.database.read() as connection:
            candidates = [one for one in network.networks(connection) if chosen.labels_fit(one.labels)]
        pruned: list[str] = self._engine.do(_prune, candidates)
        return pruned


def _pools(
    ipam: Mapping[str, Any] | None,
    subnet: str | Sequence[str] | None,
    gateway: str | Sequence[str] | None,
    ip_range: str | None,
) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """Subnets, gateways and ranges, each by the version of IP."""
    if ipam and ipam.get("Driver") not in (None, "", "default"):
        raise Unsupported(f"ipam: driver {ipam['Driver']!r} is not supported: default is")
    if ipam and (ipam.get("Options") or any(one.get("AuxiliaryAddresses") for one in ipam.get("Config") or ())):
        raise Unsupported("ipam: options and auxiliary addresses are not supported: leave them out")
    configs = (ipam or {}).get("Config") or ()
    found: list[dict[int, str]] = []
    for key, given, option in (
        ("Subnet", subnet, "subnet"),
        ("Gateway", gateway, "gateway"),
        ("IPRange", ip_range, "ip_range"),
    ):
        texts = [given] if isinstance(given, str) else list(given or ())
        texts += [str(one[key]) for one in configs if one.get(key)]
        by_version: dict[int, str] = {}
        for text in texts:
            if by_version.setdefault(6 if ":" in text else 4, text) != text:
                raise InvalidArgument(f"{option}: {text} is one too many: a network has one of IPv4 and one of IPv6")
        found.append(by_version)
    return found[0], found[1], found[2]
