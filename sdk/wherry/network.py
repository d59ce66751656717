"""
Networks: their records, who has which address, and the host's side of them (bridge, nf_tables table).

A container's own side is made by its shim (`wherry_shim.network`) out of the plan that `plan` gives.

What is on the host belongs to one root directory: every bridge carries the root's mark in its MAC address, and the root
has one nf_tables table. So roots live side by side, and each can tell what is left over from what is another's. The
order of locks is: the database's transaction first, then the lock file of the run directory; nothing else is waited
for under either.
"""

import errno
import fcntl
import json
import os
import re
import sqlite3
import warnings
import zlib
from _socket import AF_INET, AF_INET6
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from wherry import nettable, subnets
from wherry.errors import NetworkInUse, NetworkNotFound
from wherry.portbinding import PortBinding
from wherry_oci.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from wherry_oci.linux import nftables
from wherry_oci.linux.netlink import Message, NetlinkError
from wherry_oci.linux.rtnetlink import Link, RouteSocket, add_address, delete_address, delete_link, new_bridge, set_link

COMPONENT = "network"  # for Database.migrate
MIGRATIONS = (
    """
    CREATE TABLE network_root(
        id TEXT NOT NULL  -- marks what on the host belongs to this root directory
    );
    INSERT INTO network_root VALUES (lower(hex(randomblob(4))));
    CREATE TABLE networks(
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        subnet TEXT NOT NULL,   -- 172.30.0.0/16
        gateway TEXT NOT NULL,  -- 172.30.0.1
        bridge TEXT NOT NULL UNIQUE,
        internal INTEGER NOT NULL DEFAULT 0,
        options TEXT NOT NULL DEFAULT '{}',
        labels TEXT NOT NULL DEFAULT '{}',
        created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
        next_ipv4 INTEGER NOT NULL  -- where the search for a free address begins
    );
    CREATE TABLE endpoints(
        network TEXT NOT NULL REFERENCES networks(id),
        container TEXT NOT NULL,
        ipv4 INTEGER NOT NULL,
        mac TEXT NOT NULL,
        device TEXT NOT NULL UNIQUE,  -- the host's end of the pair
        aliases TEXT NOT NULL DEFAULT '[]',
        PRIMARY KEY (network, container),
        UNIQUE (network, ipv4)
    );
    CREATE INDEX endpoints_of_container ON endpoints(container);
    """,
    """
    ALTER TABLE networks ADD COLUMN ip_range TEXT NOT NULL DEFAULT '';
    ALTER TABLE networks ADD COLUMN subnet6 TEXT NOT NULL DEFAULT '';
    ALTER TABLE networks ADD COLUMN gateway6 TEXT NOT NULL DEFAULT '';
    ALTER TABLE networks ADD COLUMN attachable INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE endpoints ADD COLUMN ipv6 TEXT NOT NULL DEFAULT '';
    ALTER TABLE endpoints ADD COLUMN links TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE endpoints ADD COLUMN wanted TEXT NOT NULL DEFAULT '{}';
    CREATE UNIQUE INDEX endpoints_ipv6 ON endpoints(network, ipv6) WHERE ipv6 != '';
    """,
)


class NetworkWarning(UserWarning):
    """A network does less on this host than it should."""


DEFAULT = "bridge"  # the name of the network of containers that name none

MTU_OPTION = "com.docker.network.driver.mtu"
PARENT_OPTION = "parent"  # of a macvlan network: the host's device
BRIDGE, MACVLAN = "bridge", "macvlan"
BRIDGE_OPTION = "com.docker.network.bridge.name"
_OPTIONS = (MTU_OPTION, BRIDGE_OPTION)
PREDEFINED = ("host", "none")  # names that are no bridge's

_COLUMNS = (
    "id, name, driver, subnet, gateway, bridge, internal, options, labels, created, ip_range, subnet6, gateway6, "
    "attachable"
)
_PLACES = "network, container, ipv4, mac, device, aliases, ipv6, links, wanted"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_MTU = 1500
_LOCK = "network.lock"


@attrs.frozen(kw_only=True)
class Network:
    """One network's record."""

    id: str
    name: str
    driver: str
    subnet: str  # "172.30.0.0/16"
    gateway: str  # "172.30.0.1", the bridge's own address
    bridge: str  # the device; of a macvlan network the host's that it is on
    internal: bool  # no way out of it
    options: Mapping[str, str]
    labels: Mapping[str, str]
    created: str  # RFC 3339
    root: str  # the mark of the root directory that it belongs to
    ip_range: str = ""  # where addresses are given from; "": all of the subnet
    subnet6: str = ""  # "fd00:…::/64"; "": no IPv6
    gateway6: str = ""
    attachable: bool = False

    @property
    def prefix_length(self) -> int:
        return subnets.prefix_length(self.subnet)

    @property
    def is_default(self) -> bool:
        """Whether it is the network "bridge", in which nobody has a name."""
        return self.name == DEFAULT

    @property
    def is_macvlan(self) -> bool:
        """Whether its containers are on the wire of a device of the host, whom they do not reach."""
        return self.driver == MACVLAN

    @property
    def mtu(self) -> int:
        return int(self.options.get(MTU_OPTION, _MTU))

    @property
    def table(self) -> str:
        """The nf_tables table of all networks of this root."""
        return f"wherry-{self.root}"

    @property
    def mac(self) -> str:
        """The bridge's; it says whose the bridge is."""
        return _bridge_mac(self.root, self.name)


@attrs.frozen(kw_only=True)
class Endpoint:
    """One container's place in one network, kept over restarts of the container."""

    network: str  # its id
    container: str
    ipv4: str
    mac: str
    device: str  # the host's end of the pair of devices
    aliases: tuple[str, ...] = ()
    ipv6: str = ""
    links: tuple[tuple[str, str], ...] = ()  # another container's name, and what this one calls it
    wanted: Mapping[str, str] = attrs.field(factory=dict)  # ipv4, ipv6, mac, where they were asked for


@attrs.frozen(kw_only=True)
class EndpointRequest:
    """How a container shall be in a network; what is "" is chosen."""

    network: str  # name or id
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    links: tuple[tuple[str, str], ...] = ()


# Records


def default_network(connection: sqlite3.Connection) -> Network:
    """The network "bridge", made now if this root does not have it yet (as `create_network`)."""
    try:
        return get_network(connection, DEFAULT)
    except NotFound:
        return create_network(connection, DEFAULT)


def get_network(connection: sqlite3.Connection, name: str) -> Network:
    """The network with that name, id, or unambiguous beginning of an id. Raises NotFound."""
    query = f"SELECT {_COLUMNS} FROM networks WHERE name = :it OR id = :it ORDER BY name = :it DESC LIMIT 1"
    row = connection.execute(query, {"it": name}).fetchone()
    if row is None and len(name) >= 3 and set(name) <= set("0123456789abcdef"):
        rows = connection.execute(f"SELECT {_COLUMNS} FROM networks WHERE id GLOB ? LIMIT 2", (name + "*",)).fetchall()
        row = rows[0] if len(rows) == 1 else None
    if row is None:
        raise NetworkNotFound(name)
    return _network(row, root_mark(connection))


def networks(connection: sqlite3.Connection) -> list[Network]:
    """All networks of this root, by name."""
    root = root_mark(connection)
    return [_network(row, root) for row in connection.execute(f"SELECT {_COLUMNS} FROM networks ORDER BY name")]


def create_network(
    connection: sqlite3.Connection,
    name: str,
    *,
    driver: str = BRIDGE,
    subnet: str | None = None,
    gateway: str | None = None,
    ip_range: str | None = None,
    ipv6: bool = False,
    subnet6: str | None = None,
    gateway6: str | None = None,
    internal: bool = False,
    attachable: bool = False,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Network:
    """
    A new bridge network. Its device is made at once, still down, because that is what takes the device's name and the
    addresses in an instant on a host where several roots look for free ones; `ensure_bridge` does the rest.

    Without *subnet* one that overlaps neither a route of the host nor a nameserver's address is chosen; with *ipv6* and
    no *subnet6* a unique local one. Raises AlreadyExists, InvalidArgument, PermissionDenied, or Conflict if the subnet
    overlaps another one.
    """
    _check_name(name)
    if connection.execute("SELECT 1 FROM networks WHERE name = ?", (name,)).fetchone():
        raise AlreadyExists(f"a network is called {name!r} already: choose another name, or remove it first")
    options = dict(options or {})
    _check_options(options, driver)
    if subnet is None and (gateway or ip_range):
        raise InvalidArgument(f"network {name!r}: a gateway or range needs a subnet")
    if gateway6 and not subnet6:
        raise InvalidArgument(f"network {name!r}: an IPv6 gateway needs an IPv6 subnet")
    root = root_mark(connection)
    taken = [row[0] for row in connection.execute("SELECT subnet FROM networks")]
    second, gateway6 = _second_subnet(connection, subnet6, gateway6, wanted=ipv6 or bool(subnet6))
    known = {row[0] for row in connection.execute("SELECT bridge FROM networks")}
    if driver == MACVLAN:
        if subnet is None:
            raise InvalidArgument(f"network {name!r}: driver macvlan needs a subnet: the one of its wire")
        bridge = _parent(name, options, known)
        subnet, gateway, ip_range = subnets.checked(subnet, gateway, ip_range)
        _check_free(subnet, taken)
    else:
        bridge, subnet, gateway, ip_range = _new_bridge(
            root, name, options, known, (subnet, gateway, ip_range), second, taken
        )
    first, _ = _given(subnet, ip_range)
    identity = _default_id(root) if name == DEFAULT else os.urandom(32).hex()
    values = {
        "id": identity,
        "name": name,
        "driver": driver,
        "subnet": subnet,
        "gateway": gateway,
        "bridge": bridge,
        "internal": internal,
        "options": json.dumps(options),
        "labels": json.dumps(dict(labels or {})),
        "next_ipv4": first,
        "ip_range": ip_range,
        "subnet6": second,
        "gateway6": gateway6,
        "attachable": attachable,
    }
    names = ", ".join(values)
    places = ", ".join(f":{column}" for column in values)
    connection.execute(f"INSERT INTO networks({names}) VALUES ({places})", values)
    return get_network(connection, identity)


def _new_bridge(
    root: str,
    name: str,
    options: Mapping[str, str],
    known: Collection[str],
    wanted: tuple[str | None, str | None, str | None],
    second: str,
    taken: Iterable[str],
) -> tuple[str, str, str, str]:
    """The device of a new bridge, and subnet, gateway and range, as *wanted* or chosen."""
    with _route_socket() as route:
        device = _make_device(route, options.get(BRIDGE_OPTION), _bridge_mac(root, name), known)
        try:
            subnet, gateway, ip_range = _take_subnet(route, device, *wanted, taken)
            if second:
                _check_free(second, _in_use(route, device, AF_INET6))
        except BaseException:
            route.execute([delete_link(device.name)])
            raise
    return device.name, subnet, gateway, ip_range


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"network name {name!r}: a name is one of a-z A-Z 0-9, then those and _ . -")
    if name in PREDEFINED:
        raise AlreadyExists(f"network {name!r} is there already, for every container that asks for it")


def _check_options(options: Mapping[str, str], driver: str) -> None:
    known = (MTU_OPTION, PARENT_OPTION) if driver == MACVLAN else _OPTIONS
    for name, value in options.items():
        if name not in known:
            raise Unsupported(f"network option {name!r} is not supported: {', '.join(known)} are")
        if name == MTU_OPTION and not (value.isdecimal() and 68 <= int(value) <= 65535):
            raise InvalidArgument(f"network option {name}={value!r}: an MTU is a number from 68 to 65535")


def _parent(name: str, options: Mapping[str, str], known: Collection[str]) -> str:
    """The host's device that a macvlan network is on. Raises InvalidArgument, NotFound, Conflict."""
    parent = options.get(PARENT_OPTION)
    if not parent:
        raise InvalidArgument(f"network {name!r}: driver macvlan needs the option parent, a device of this host")
    if parent in known:
        raise Conflict(f"network {name!r}: another network is on device {parent} already")
    with _route_socket() as route:
        try:
            route.link(parent)
        except NetlinkError as error:
            raise NotFound(f"network {name!r}: this host's network has no device {parent!r}") from error
    return parent


def _second_subnet(
    connection: sqlite3.Connection, subnet6: str | None, gateway6: str | None, *, wanted: bool
) -> tuple[str, str]:
    """Subnet and gateway of IPv6; two empty texts for none."""
    if not wanted:
        return "", ""
    if subnet6 is None:
        subnet6 = subnets.unique_local(os.urandom(7))
    if not subnets.is_ipv6(subnet6):
        raise InvalidArgument(f"subnet {subnet6!r} is not of IPv6")
    subnet6, gateway6, _ = subnets.checked(subnet6, gateway6)
    _check_free(subnet6, [row[0] for row in connection.execute("SELECT subnet6 FROM networks WHERE subnet6 != ''")])
    return subnet6, gateway6


def _check_free(subnet: str, others: Iterable[str]) -> None:
    conflict = next((other for other in others if subnets.overlap(subnet, other)), None)
    if conflict is not None:
        raise Conflict(f"subnet {subnet} overlaps {conflict}, which is in use: choose another one")


def remove_network(connection: sqlite3.Connection, network: Network) -> None:
    """Remove the record and what is on the host. Raises NetworkInUse while containers have addresses in it."""
    remove_bridge(connection, network)
    connection.execute("DELETE FROM networks WHERE id = ?", (network.id,))


def endpoints(connection: sqlite3.Connection, container: str) -> list[tuple[Network, Endpoint]]:
    """The container's places, first joined first."""
    rows = connection.execute(
        f"SELECT {_PLACES} FROM endpoints WHERE container = ? ORDER BY rowid", (container,)
    ).fetchall()
    return [(get_network(connection, row[0]), _endpoint(row)) for row in rows]


def all_endpoints(connection: sqlite3.Connection) -> dict[str, list[tuple[Network, Endpoint]]]:
    """As `endpoints`, of every container at once."""
    known = {one.id: one for one in networks(connection)}
    found: dict[str, list[tuple[Network, Endpoint]]] = {}
    for row in connection.execute(f"SELECT {_PLACES} FROM endpoints ORDER BY rowid"):
        endpoint = _endpoint(row)
        found.setdefault(endpoint.container, []).append((known[endpoint.network], endpoint))
    return found


def members(connection: sqlite3.Connection, network: Network) -> list[Endpoint]:
    """All places in the network, by address."""
    rows = connection.execute(f"SELECT {_PLACES} FROM endpoints WHERE network = ? ORDER BY ipv4", (network.id,))
    return [_endpoint(row) for row in rows]


def in_use(connection: sqlite3.Connection) -> set[str]:
    """The ids of all networks in which a container has a place."""
    return {row[0] for row in connection.execute("SELECT DISTINCT network FROM endpoints")}


def allocate(
    connection: sqlite3.Connection,
    network: Network,
    container: str,
    *,
    ipv4: str | None = None,
    ipv6: str | None = None,
    mac: str | None = None,
    aliases: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
) -> Endpoint:
    """
    Give the container an address in the network, or the one that it has already.

    An address that was given back comes up again only after all others, so that nobody's caches mistake its new owner
    for the old one. Raises InvalidArgument for an *ipv4* or *ipv6* outside the subnet, Conflict if it is taken,
    Unavailable if no address is left.
    """
    row = connection.execute(
        f"SELECT {_PLACES} FROM endpoints WHERE network = ? AND container = ?", (network.id, container)
    ).fetchone()
    if row is not None:
        return _endpoint(row)
    number = _free_address(connection, network) if ipv4 is None else _wanted_address(connection, network, ipv4)
    wanted = {name: value for name, value in (("ipv4", ipv4), ("ipv6", ipv6), ("mac", mac)) if value}
    values = {
        "network": network.id,
        "container": container,
        "ipv4": number,
        "mac": mac or "02:42:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(4, "big")),
        "device": "veth" + os.urandom(6).hex()[:11],  # 15 characters, the most that Linux takes
        "aliases": json.dumps(list(aliases)),
        "ipv6": _second_address(connection, network, number, ipv6),
        "links": json.dumps([list(link) for link in links]),
        "wanted": json.dumps(wanted),
    }
    places = ", ".join(f":{column}" for column in values)
    connection.execute(f"INSERT INTO endpoints({', '.join(values)}) VALUES ({places})", values)
    return _endpoint(tuple(values.values()))


def join(connection: sqlite3.Connection, container: str, request: EndpointRequest) -> tuple[Network, Endpoint]:
    """Give the container the place that is asked for. Raises NetworkNotFound and what `allocate` does."""
    network = find_network(connection, request.network)
    if network.is_default and (request.ipv4 or request.ipv6):
        raise InvalidArgument("addresses can be chosen in networks that a user made, not in the default one")
    endpoint = allocate(
        connection,
        network,
        container,
        ipv4=request.ipv4 or None,
        ipv6=request.ipv6 or None,
        mac=request.mac or None,
        aliases=request.aliases,
        links=request.links,
    )
    return network, endpoint


def find_network(connection: sqlite3.Connection, name: str) -> Network:
    """As `get_network`; the default network, under each of its names, is made now if it is not there."""
    if name in (DEFAULT, "default") or name == _default_id(root_mark(connection)):
        return default_network(connection)
    return get_network(connection, name)


def release(connection: sqlite3.Connection, container: str, network: Network | None = None) -> None:
    """Give back the container's addresses, all or those in *network*. None to give back is fine."""
    connection.execute(
        "DELETE FROM endpoints WHERE container = :container AND (:network IS NULL OR network = :network)",
        {"container": container, "network": network.id if network else None},
    )


def plan(
    container: str,
    places: Sequence[tuple[Network, Endpoint]] = (),
    ports: Iterable[PortBinding] = (),
    *,
    mode: str = "bridge",
    path: str | None = None,
    process: tuple[int, int] | None = None,
    proxy: bool = False,
    sysctls: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    What the container's shim shall make (`wherry_shim.network`), ready for JSON.

    *mode* is "bridge" with *places*, "none", "host", or "join" with the *path* of a namespace, of a *process* (its
    number and start time) if it is that one's. With *proxy* the shim hands on what comes to published ports.
    """
    made: dict[str, Any] = {"container": container, "mode": mode}
    if mode == "join":
        made["path"] = path
        if process is not None:
            made["process"] = list(process)
    if mode in ("bridge", "none"):
        # Without its link-local address nothing waits for duplicate detection; interfaces that have IPv6 turn it on.
        made["sysctls"] = {"net.ipv6.conf.default.disable_ipv6": "1", **(sysctls or {})}
    if mode == "bridge":
        made["table"] = places[0][0].table if places else ""
        made["proxy"] = proxy
        made["interfaces"] = [interface(*place, number) for number, place in enumerate(places)]
        made["ports"] = [port.plan() for port in ports]
    return made


def interface(network: Network, endpoint: Endpoint, number: int | None = None) -> dict[str, Any]:
    """One interface of a plan, the container's eth*number*, or with None the first free one."""
    addresses = [f"{endpoint.ipv4}/{network.prefix_length}"]
    gateways = [network.gateway]
    if network.subnet6 and endpoint.ipv6:
        addresses.append(subnets.interface(network.subnet6, endpoint.ipv6))
        gateways.append(network.gateway6)
    return {
        "network": network.id,
        **({"parent": network.bridge} if network.is_macvlan else {}),
        "bridge": network.bridge,
        "host_device": endpoint.device,
        "device": None if number is None else f"eth{number}",
        "mac": endpoint.mac,
        "mtu": network.mtu,
        "addresses": addresses,
        "gateways": [] if network.internal else gateways,
    }


# The host's side


def ensure_bridge(network: Network, run: str | os.PathLike[str]) -> None:
    """
    Make all of the network that is on the host, or the part that is missing: table, bridge, address, sysctls.

    Two questions to the kernel if all is there. Call it when a container's endpoint is committed and before its shim
    starts: a network with endpoints is never taken down. Safe from everywhere at once. Raises PermissionDenied,
    Conflict if the device's name is another's.

    A host whose own firewall drops what it forwards (policy drop) must let the bridge through; one table cannot allow
    what another forbids. That, and a kernel that translates nothing, are warned of when the bridge is made.
    """
    if network.is_macvlan:
        _parent(network.name, network.options, ())
        return
    with _route_socket() as route:
        if _is_up(route, network):
            return
        _make_bridge(route, network, run)
    for text in _warnings():
        warnings.warn(f"network {network.name!r}: {text}", NetworkWarning, stacklevel=2)


def _make_bridge(route: RouteSocket, network: Network, run: str | os.PathLike[str]) -> None:
    with _lock(run):
        if _is_up(route, network):
            return
        # The device comes up last: that it is up says that the rest was done.
        translated = nettable.available()
        if translated:
            nettable.make(network)
        device = _find_device(route, network) or _make_device(route, network.bridge, network.mac)
        _add_gateway(route, device, network)
        if translated:
            _write_sysctl("net.ipv4.ip_forward", "1")
        _write_path(f"/proc/sys/net/ipv4/conf/{network.bridge}/route_localnet", "1")
        if network.subnet6 and translated:
            _forward_ipv6()
        route.execute([set_link(device.index, up=True, mtu=network.mtu)])


def _warnings() -> Iterator[str]:
    """What keeps containers from the world here."""
    if not nettable.available():
        yield "this kernel has no nf_tables: containers do not reach the world, and shims hand on what is published"
        return
    for chain in nettable.dropping():
        yield (
            f"the host's chain {chain.table} {chain.name} drops what is forwarded, and may drop what containers send: "
            "wherry doctor tells which rules let it through"
        )


def remove_bridge(connection: sqlite3.Connection, network: Network) -> None:
    """
    Take down what `ensure_bridge` made; the record stays, and all can be made again. Missing parts are fine.

    The connection must be inside a transaction that writes (BEGIN IMMEDIATE): nobody can be given an address
    meanwhile, and who has been given one before is seen here. Raises Conflict then. It is not called when the last
    container ends: making a bridge takes longer than keeping it, and docker0 stays too. It is for prune, for
    removing a network, and for tests that leave nothing behind.
    """
    row = connection.execute("SELECT count(*) FROM endpoints WHERE network = ?", (network.id,)).fetchone()
    if row[0]:
        raise NetworkInUse(network.name, row[0])
    if network.is_macvlan:
        return
    with _route_socket() as route:
        device = _find_device(route, network)
        if device is not None:
            _delete_device(route, device.name)
    if nettable.available():
        nettable.forget(network)


def collect(connection: sqlite3.Connection, alive: Collection[str], *, down: str = "") -> None:
    """
    Remove what containers that are not among *alive* (ids) left: addresses, devices, published ports, and bridges that
    were made for networks which were never committed. Of the container *down* devices and ports go, its addresses stay.

    The connection must be inside a transaction that writes, in which *alive* was determined; a container counts as
    alive from the moment its addresses are committed.
    """
    gone = [
        row[0]
        for row in connection.execute("SELECT DISTINCT container FROM endpoints")
        if row[0] not in alive  # a set may be too large for SQL's variables
    ]
    for container in gone:
        release(connection, container)
    known = networks(connection)
    rows = connection.execute("SELECT device, ipv4, ipv6 FROM endpoints WHERE container != ?", (down,)).fetchall()
    addresses = {int(row[1]).to_bytes(4, "big") for row in rows} | {subnets.packed(row[2]) for row in rows if row[2]}
    with _route_socket() as route:
        _collect_devices(route, root_mark(connection), known, {row[0] for row in rows})
    if known and nettable.available():
        nettable.collect(known[0].table, addresses)


def _collect_devices(route: RouteSocket, root: str, known: list[Network], devices: set[str]) -> None:
    links = route.links()
    ours = {network.bridge for network in known}
    bridges = {link.index: link for link in links if link.kind == "bridge" and link.address.startswith(_mark(root))}
    for link in links:
        orphan = link.master in bridges and link.kind == "veth" and link.name not in devices
        if orphan or (link.index in bridges and link.name not in ours):
            _delete_device(route, link.name)


def _is_up(route: RouteSocket, network: Network) -> bool:
    device = _find_device(route, network)
    if device is None or not device.up:
        return False
    try:
        with nftables.NftSocket() as netfilter:
            return nettable.is_there(netfilter, network)
    except OSError:
        return not nettable.available()


def _find_device(route: RouteSocket, network: Network) -> Link | None:
    try:
        device = route.link(network.bridge)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    if device.address != network.mac:
        raise Conflict(
            f"network {network.name!r}: the device {network.bridge} of this host is not wherry's, or another root's: "
            "remove or rename it, or remove and create the network"
        )
    return device


def _make_device(route: RouteSocket, name: str | None, mac: str, known: Collection[str] = ()) -> Link:
    """
    A bridge with that name, else the first free one of wherry0, wherry1, …; one left by a killed call makes room.

    Those of *known* networks are not left over, though two names may come to the same address.
    """
    number = 0
    while True:
        candidate = name or f"wherry{number}"
        try:
            _execute(route, new_bridge(candidate, address=mac))
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise Unavailable(str(error)) from error
            if candidate not in known and _is_left_over(route, candidate, mac):
                _delete_device(route, candidate)
            elif name:
                raise Conflict(f"device {name} is there already: choose another name for the bridge") from error
            else:
                number += 1
        else:
            return route.link(candidate)


def _is_left_over(route: RouteSocket, name: str, mac: str) -> bool:
    try:
        return route.link(name).address == mac
    except NetlinkError:
        return False  # gone meanwhile; the next name is as good


def _add_gateway(route: RouteSocket, device: Link, network: Network) -> None:
    addresses = [subnets.interface(network.subnet, network.gateway)]
    if network.subnet6:
        addresses.append(subnets.interface(network.subnet6, network.gateway6))
    _write_path(f"/proc/sys/net/ipv6/conf/{network.bridge}/disable_ipv6", "0" if network.subnet6 else "1")
    for address in addresses:
        try:
            route.execute([add_address(device.index, address)])
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise Unavailable(f"network {network.name!r}: {error}") from error


def _forward_ipv6() -> None:
    """A host that forwards listens to router advertisements no more, unless it is told to: its own routes stay."""
    base = "/proc/sys/net/ipv6/conf"
    if _read_sysctl(f"{base}/all/forwarding") == "1":
        return
    for device in os.listdir(base) if os.path.isdir(base) else ():
        if device not in ("all", "default") and _read_sysctl(f"{base}/{device}/accept_ra") == "1":
            _write_path(f"{base}/{device}/accept_ra", "2")
    _write_sysctl("net.ipv6.conf.all.forwarding", "1")


def _read_sysctl(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _delete_device(route: RouteSocket, name: str) -> None:
    try:
        _execute(route, delete_link(name))
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise Unavailable(str(error)) from error


# Subnets and addresses


def _take_subnet(
    route: RouteSocket,
    device: Link,
    subnet: str | None,
    gateway: str | None,
    ip_range: str | None,
    taken: Iterable[str],
) -> tuple[str, str, str]:
    """Subnet, gateway, which *device* has as its address already, and range."""
    if subnet is not None:
        if subnets.is_ipv6(subnet):
            raise InvalidArgument(f"subnet {subnet!r}: a network needs one of IPv4, too; give this one as the second")
        subnet, gateway, ip_range = subnets.checked(subnet, gateway, ip_range)
        _check_free(subnet, [*taken, *_in_use(route, device)])
        route.execute([add_address(device.index, subnets.interface(subnet, gateway))])
        return subnet, gateway, ip_range
    avoid = [*taken, *_in_use(route, device), *subnets.nameservers()]
    for candidate in subnets.pools():
        if any(subnets.overlap(candidate, other) for other in avoid):
            continue
        chosen = subnets.text(subnets.bounds(candidate)[0], candidate)
        route.execute([add_address(device.index, subnets.interface(candidate, chosen))])
        # Another root may have taken it in the same instant. Who sees the other yields; if both do, both go on.
        late = [other for index, other in route.addresses(AF_INET) if index != device.index]
        if not any(subnets.overlap(candidate, other) for other in late):
            return candidate, chosen, ""
        route.execute([delete_address(device.index, subnets.interface(candidate, chosen))])
    raise Unavailable(
        "no subnet is free: every one of 172.18.0.0/16 … 172.31.0.0/16, 192.168.0.0/16 and 10.89.0.0/16 overlaps a "
        "route: choose one, or remove networks"
    )


def _in_use(route: RouteSocket, device: Link, family: int = AF_INET) -> list[str]:
    """Destinations of the host's routes; the halves of the world by which VPNs replace the default route are none."""
    found = [destination for destination, index in route.routes(family) if index != device.index]
    found += [address for index, address in route.addresses(family) if index != device.index]
    return [subnet for subnet in found if subnets.prefix_length(subnet) > 1 and not subnet.startswith("fe80:")]


def _free_address(connection: sqlite3.Connection, network: Network) -> int:
    first, last = _given(network.subnet, network.ip_range)
    (start,) = connection.execute("SELECT next_ipv4 FROM networks WHERE id = ?", (network.id,)).fetchone()
    number = _gap(connection, network, start, last)
    if number is None:
        number = _gap(connection, network, first, start - 1)
    if number is None:
        pool = network.ip_range or network.subnet
        raise Unavailable(f"network {network.name!r}: all addresses of {pool} are in use: remove containers")
    connection.execute("UPDATE networks SET next_ipv4 = ? WHERE id = ?", (number + 1, network.id))
    return number


def _given(subnet: str, ip_range: str) -> tuple[int, int]:
    """The first and the last address that is given to who asks for none."""
    first, last = subnets.bounds(subnet)
    if not ip_range:
        return first, last
    inner_first, inner_last = subnets.bounds(ip_range)
    return max(first, inner_first - 1), min(last, inner_last + 1)  # its ends are addresses like others


def _gap(connection: sqlite3.Connection, network: Network, first: int, last: int) -> int | None:
    """The lowest free address from *first* to *last*."""
    gateway = subnets.number(network.gateway)
    while first <= last:
        row = connection.execute(
            "SELECT 1 FROM endpoints WHERE network = ? AND ipv4 = ?", (network.id, first)
        ).fetchone()
        if row is None and first != gateway:
            return first
        row = connection.execute(
            "SELECT ipv4 + 1 FROM endpoints AS one WHERE network = ? AND ipv4 >= ? AND NOT EXISTS"
            " (SELECT 1 FROM endpoints AS two WHERE two.network = one.network AND two.ipv4 = one.ipv4 + 1)"
            " ORDER BY ipv4 LIMIT 1",
            (network.id, first),
        ).fetchone()
        first = first + 1 if first == gateway else row[0]
    return None


def _wanted_address(connection: sqlite3.Connection, network: Network, ipv4: str) -> int:
    number = _inside(network, network.subnet, ipv4, "IPv4")
    row = connection.execute(
        "SELECT container FROM endpoints WHERE network = ? AND ipv4 = ?", (network.id, number)
    ).fetchone()
    if row is not None or ipv4 == network.gateway:
        raise _taken(network, ipv4, row)
    return number


def _second_address(connection: sqlite3.Connection, network: Network, number: int, wanted: str | None) -> str:
    """The IPv6 address: the *wanted* one, or one with the place in its subnet that *number* has in the other."""
    if not network.subnet6:
        if wanted:
            raise InvalidArgument(f"{wanted}: network {network.name!r} has no IPv6")
        return ""
    query = "SELECT container FROM endpoints WHERE network = ? AND ipv6 = ?"
    if wanted:
        address = subnets.text(_inside(network, network.subnet6, wanted, "IPv6"), wanted)
        row = connection.execute(query, (network.id, address)).fetchone()
        if row is not None or address == network.gateway6:
            raise _taken(network, wanted, row)
        return address
    first, last = subnets.bounds(network.subnet6)
    candidate = first + number - subnets.bounds(network.subnet)[0]
    while candidate <= last:
        address = subnets.text(candidate, network.subnet6)
        if address != network.gateway6 and connection.execute(query, (network.id, address)).fetchone() is None:
            return address
        candidate += 1 << 32 if last - candidate > 1 << 32 else 1  # not a neighbour, which has a place of its own
    raise Unavailable(f"network {network.name!r}: no address of {network.subnet6} is left: remove containers")


def _inside(network: Network, subnet: str, address: str, family: str) -> int:
    try:
        if subnets.is_ipv6(address) != subnets.is_ipv6(subnet):
            raise OSError
        number = subnets.number(address)
    except OSError:
        raise InvalidArgument(f"{address!r} is no {family} address") from None
    if not subnets.contains(subnet, address):
        raise InvalidArgument(f"{address} is no host's address of network {network.name!r} ({subnet})")
    return number


def _taken(network: Network, address: str, row: Sequence[Any] | None) -> Conflict:
    holder = f"container {row[0][:12]}" if row else "the gateway"
    return Conflict(f"{address} in network {network.name!r} is in use by {holder}: choose another address")


# Smaller things


def _network(row: Sequence[Any], root: str) -> Network:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    values |= {"internal": bool(values["internal"]), "attachable": bool(values["attachable"])}
    values |= {"options": json.loads(values["options"]), "labels": json.loads(values["labels"])}
    return Network(root=root, **values)


def _endpoint(row: Sequence[Any]) -> Endpoint:
    """Of _PLACES."""
    network, container, ipv4, mac, device, aliases, ipv6, links, wanted = row
    return Endpoint(
        network=network,
        container=container,
        ipv4=subnets.text(ipv4, "."),
        mac=mac,
        device=device,
        aliases=tuple(json.loads(aliases)),
        ipv6=ipv6,
        links=tuple((name, alias) for name, alias in json.loads(links)),
        wanted=json.loads(wanted),
    )


def root_mark(connection: sqlite3.Connection) -> str:
    """What marks as this root's what it has on the host."""
    root: str = connection.execute("SELECT id FROM network_root").fetchone()[0]
    return root


def _default_id(root: str) -> str:
    """The id of the network "bridge", known before it is made."""
    return predefined_id(root, DEFAULT)


def predefined_id(root: str, name: str) -> str:
    """The id of "bridge", "host" or "none" in that root."""
    from hashlib import sha256

    return sha256(f"{root} {name}".encode()).hexdigest()


def _mark(root: str) -> str:
    """How the MAC addresses of this root's bridges begin: locally administered, then three bytes of the root's mark."""
    return f"02:{root[0:2]}:{root[2:4]}:{root[4:6]}:"


def _bridge_mac(root: str, name: str) -> str:
    digest = zlib.crc32(name.encode())
    return f"{_mark(root)}{digest >> 8 & 0xFF:02x}:{digest & 0xFF:02x}"


@contextmanager
def _lock(run: str | os.PathLike[str]) -> Iterator[None]:
    """Only one of all processes and threads of this run directory at a time."""
    os.makedirs(run, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(run, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _route_socket() -> RouteSocket:
    try:
        return RouteSocket()
    except OSError as error:
        raise Unavailable(f"could not open a netlink socket: {error.strerror}") from error


def _execute(route: RouteSocket, message: Message) -> None:
    try:
        route.execute([message])
    except NetlinkError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PermissionDenied(f"{error}: bridge networks need root (CAP_NET_ADMIN)") from error
        raise


def _write_sysctl(name: str, value: str) -> None:
    _write_path("/proc/sys/" + name.replace(".", "/"), value)


def _write_path(path: str, value: str) -> None:
    name = path.removeprefix("/proc/sys/").replace("/", ".")
    try:
        # Read first: where /proc/sys is read-only, what is right already needs no writing.
        with open(path) as file:
            if file.read().strip() == value:
                return
        with open(path, "w") as file:
            file.write(value)
    except FileNotFoundError:
        if "ipv6" not in name:  # a kernel without IPv6 has nothing to turn off
            raise Unavailable(f"could not set {name}: the kernel has none") from None
    except OSError as error:
        raise Unavailable(f"could not set {name} to {value}: {error.strerror}") from error
