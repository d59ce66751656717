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
import sqlite3
import zlib
from _socket import AF_INET, inet_aton, inet_ntoa
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from wherry.portbinding import PortBinding
from wherry_oci.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, PermissionDenied, Unavailable
from wherry_oci.linux import nftables
from wherry_oci.linux.netlink import Message, NetlinkError
from wherry_oci.linux.rtnetlink import Link, RouteSocket, add_address, delete_address, delete_link, new_bridge, set_link
from wherry_shim.network import ADDRESSED, PORTS, remove_entries

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
)

DEFAULT = "bridge"  # the name of the network of containers that name none

MTU_OPTION = "com.docker.network.driver.mtu"
BRIDGE_OPTION = "com.docker.network.bridge.name"

_COLUMNS = "id, name, driver, subnet, gateway, bridge, internal, options, labels, created"
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
    bridge: str  # the device
    internal: bool  # no way out of it
    options: Mapping[str, str]
    labels: Mapping[str, str]
    created: str  # RFC 3339
    root: str  # the mark of the root directory that it belongs to

    @property
    def prefix_length(self) -> int:
        return int(self.subnet.partition("/")[2])

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
        raise NotFound(f"no network is called {name!r}: create it, or list those that are there")
    return _network(row, _root(connection))


def networks(connection: sqlite3.Connection) -> list[Network]:
    """All networks of this root, by name."""
    root = _root(connection)
    return [_network(row, root) for row in connection.execute(f"SELECT {_COLUMNS} FROM networks ORDER BY name")]


def create_network(
    connection: sqlite3.Connection,
    name: str,
    *,
    subnet: str | None = None,
    gateway: str | None = None,
    internal: bool = False,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Network:
    """
    A new bridge network. Its device is made at once, still down, because that is what takes the device's name and the
    addresses in an instant on a host where several roots look for free ones; `ensure_bridge` does the rest.

    Without *subnet* one that overlaps neither a route of the host nor a nameserver's address is chosen. Raises
    AlreadyExists, InvalidArgument, PermissionDenied, or Conflict if the subnet overlaps another one.
    """
    if connection.execute("SELECT 1 FROM networks WHERE name = ?", (name,)).fetchone():
        raise AlreadyExists(f"a network is called {name!r} already: choose another name, or remove it first")
    options = dict(options or {})
    root = _root(connection)
    taken = [row[0] for row in connection.execute("SELECT subnet FROM networks")]
    with _route_socket() as route:
        device = _make_device(route, options.get(BRIDGE_OPTION), _bridge_mac(root, name))
        try:
            subnet, gateway = _take_subnet(route, device, subnet, gateway, taken)
        except BaseException:
            route.execute([delete_link(device.name)])
            raise
    first, _ = _bounds(subnet)
    identity = os.urandom(32).hex()
    connection.execute(
        "INSERT INTO networks(id, name, driver, subnet, gateway, bridge, internal, options, labels, next_ipv4)"
        " VALUES (?, ?, 'bridge', ?, ?, ?, ?, ?, ?, ?)",
        (identity, name, subnet, gateway, device.name, internal, json.dumps(options), json.dumps(labels or {}), first),
    )
    return get_network(connection, identity)


def remove_network(connection: sqlite3.Connection, network: Network) -> None:
    """Remove the record and what is on the host. Raises Conflict while containers have addresses in it."""
    remove_bridge(connection, network)
    connection.execute("DELETE FROM networks WHERE id = ?", (network.id,))


def endpoints(connection: sqlite3.Connection, container: str) -> list[tuple[Network, Endpoint]]:
    """The container's places, first joined first."""
    rows = connection.execute(
        "SELECT network, ipv4, mac, device, aliases FROM endpoints WHERE container = ? ORDER BY rowid", (container,)
    ).fetchall()
    return [(get_network(connection, row[0]), _endpoint(container, *row)) for row in rows]


def members(connection: sqlite3.Connection, network: Network) -> list[Endpoint]:
    """All places in the network, by address."""
    rows = connection.execute(
        "SELECT container, network, ipv4, mac, device, aliases FROM endpoints WHERE network = ? ORDER BY ipv4",
        (network.id,),
    )
    return [_endpoint(*row) for row in rows]


def allocate(
    connection: sqlite3.Connection,
    network: Network,
    container: str,
    *,
    ipv4: str | None = None,
    mac: str | None = None,
    aliases: Sequence[str] = (),
) -> Endpoint:
    """
    Give the container an address in the network, or the one that it has already.

    An address that was given back comes up again only after all others, so that nobody's caches mistake its new owner
    for the old one. Raises InvalidArgument for an *ipv4* outside the subnet, Conflict if it is taken, Unavailable if
    no address is left.
    """
    query = "SELECT network, ipv4, mac, device, aliases FROM endpoints WHERE network = ? AND container = ?"
    row = connection.execute(query, (network.id, container)).fetchone()
    if row is not None:
        return _endpoint(container, *row)
    number = _free_address(connection, network) if ipv4 is None else _wanted_address(connection, network, ipv4)
    endpoint = Endpoint(
        network=network.id,
        container=container,
        ipv4=_dotted(number),
        mac=mac or "02:42:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(4, "big")),
        device="veth" + os.urandom(6).hex()[:11],  # 15 characters, the most that Linux takes
        aliases=tuple(aliases),
    )
    connection.execute(
        "INSERT INTO endpoints(network, container, ipv4, mac, device, aliases) VALUES (?, ?, ?, ?, ?, ?)",
        (network.id, container, number, endpoint.mac, endpoint.device, json.dumps(aliases)),
    )
    return endpoint


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
    sysctls: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    What the container's shim shall make (`wherry_shim.network`), ready for JSON.

    *mode* is "bridge" with *places* (the first gives the default route), "none", "host", or "join" with the *path* of
    a namespace.
    """
    made: dict[str, Any] = {"container": container, "mode": mode}
    if mode == "join":
        made["path"] = path
    if mode in ("bridge", "none"):
        # No network of ours has IPv6 yet: without its link-local address nothing waits for duplicate detection.
        made["sysctls"] = {"net.ipv6.conf.default.disable_ipv6": "1", **(sysctls or {})}
    if mode == "bridge":
        made["table"] = places[0][0].table if places else ""
        made["interfaces"] = [interface(*place, number) for number, place in enumerate(places)]
        made["ports"] = [port.plan() for port in ports]
    return made


def interface(network: Network, endpoint: Endpoint, number: int) -> dict[str, Any]:
    """One interface of a plan, the container's eth*number*."""
    return {
        "bridge": network.bridge,
        "host_device": endpoint.device,
        "device": f"eth{number}",
        "mac": endpoint.mac,
        "mtu": network.mtu,
        "addresses": [f"{endpoint.ipv4}/{network.prefix_length}"],
        "gateway": network.gateway if number == 0 and not network.internal else None,
    }


# The host's side


def ensure_bridge(network: Network, run: str | os.PathLike[str]) -> None:
    """
    Make all of the network that is on the host, or the part that is missing: table, bridge, address, sysctls.

    Two questions to the kernel if all is there. Call it when a container's endpoint is committed and before its shim
    starts: a network with endpoints is never taken down. Safe from everywhere at once. Raises PermissionDenied,
    Conflict if the device's name is another's.

    A host whose own firewall drops what it forwards (policy drop) must let the bridge through; one table cannot allow
    what another forbids.
    """
    with _route_socket() as route:
        if _is_up(route, network):
            return
        with _lock(run):
            if _is_up(route, network):
                return
            # The device comes up last: that it is up says that the rest was done.
            _make_table(network)
            device = _find_device(route, network) or _make_device(route, network.bridge, network.mac)
            _add_gateway(route, device, network)
            _write_sysctl("net.ipv4.ip_forward", "1")
            _write_sysctl(f"net.ipv4.conf.{network.bridge}.route_localnet", "1")
            _write_sysctl(f"net.ipv6.conf.{network.bridge}.disable_ipv6", "1")
            route.execute([set_link(device.index, up=True, mtu=network.mtu)])


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
        raise Conflict(f"network {network.name!r} has {row[0]} containers: remove or disconnect them first")
    with _route_socket() as route:
        device = _find_device(route, network)
        if device is not None:
            _delete_device(route, device.name)
    _forget_in_table(network)


def collect(connection: sqlite3.Connection, alive: Collection[str]) -> None:
    """
    Remove what containers that are not among *alive* (ids) left: addresses, devices, published ports, and bridges that
    were made for networks which were never committed.

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
    devices = {row[0] for row in connection.execute("SELECT device FROM endpoints")}
    addresses = {int(row[0]).to_bytes(4, "big") for row in connection.execute("SELECT ipv4 FROM endpoints")}
    with _route_socket() as route:
        _collect_devices(route, _root(connection), known, devices)
    if known:
        _collect_entries(known[0].table, addresses)


def _collect_devices(route: RouteSocket, root: str, known: list[Network], devices: set[str]) -> None:
    links = route.links()
    ours = {network.bridge for network in known}
    bridges = {link.index: link for link in links if link.kind == "bridge" and link.address.startswith(_mark(root))}
    for link in links:
        orphan = link.master in bridges and link.kind == "veth" and link.name not in devices
        if orphan or (link.index in bridges and link.name not in ours):
            _delete_device(route, link.name)


def _collect_entries(table: str, addresses: set[bytes]) -> None:
    found: dict[str, nftables.Elements] = {}
    with nftables.NftSocket() as netfilter:
        for name in (PORTS, ADDRESSED):
            try:
                elements = netfilter.elements(table, name)
            except NetlinkError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            found[name] = {key: data for key, data in elements.items() if data[:4] not in addresses}
        if any(found.values()):
            remove_entries(netfilter, table, found)


def _is_up(route: RouteSocket, network: Network) -> bool:
    device = _find_device(route, network)
    if device is None or not device.up:
        return False
    with nftables.NftSocket() as netfilter:
        # Others may empty the whole rule set ("systemctl restart nftables").
        return netfilter.has_element(network.table, "bridges", nftables.device(network.bridge))


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


def _make_device(route: RouteSocket, name: str | None, mac: str) -> Link:
    """A bridge with that name, else the first free one of wherry0, wherry1, …; one left by a killed call makes room."""
    number = 0
    while True:
        candidate = name or f"wherry{number}"
        try:
            _execute(route, new_bridge(candidate, address=mac))
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise Unavailable(str(error)) from error
            if _is_left_over(route, candidate, mac):
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
    try:
        route.execute([add_address(device.index, f"{network.gateway}/{network.prefix_length}")])
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise Unavailable(f"network {network.name!r}: {error}") from error


def _delete_device(route: RouteSocket, name: str) -> None:
    try:
        _execute(route, delete_link(name))
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise Unavailable(str(error)) from error


# Subnets and addresses


def _take_subnet(
    route: RouteSocket, device: Link, subnet: str | None, gateway: str | None, taken: Iterable[str]
) -> tuple[str, str]:
    """Subnet and gateway, which *device* has as its address already."""
    if subnet is not None:
        subnet, gateway = _checked_subnet(subnet, gateway)
        conflict = next((other for other in [*taken, *_in_use(route, device)] if _overlap(subnet, other)), None)
        if conflict is not None:
            raise Conflict(f"subnet {subnet} overlaps {conflict}, which is in use: choose another one")
        route.execute([add_address(device.index, _interface(subnet, gateway))])
        return subnet, gateway
    avoid = [*taken, *_in_use(route, device), *_nameservers()]
    for candidate in _pools():
        if any(_overlap(candidate, other) for other in avoid):
            continue
        chosen = _dotted(_bounds(candidate)[0])
        route.execute([add_address(device.index, _interface(candidate, chosen))])
        # Another root may have taken it in the same instant. Who sees the other yields; if both do, both go on.
        late = [other for index, other in route.addresses(AF_INET) if index != device.index]
        if not any(_overlap(candidate, other) for other in late):
            return candidate, chosen
        route.execute([delete_address(device.index, _interface(candidate, chosen))])
    raise Unavailable(
        "no subnet is free: every one of 172.18.0.0/16 … 172.31.0.0/16 and 192.168.0.0/16 overlaps a route"
    )


def _pools() -> Iterator[str]:
    """
    The subnets to try: Docker's pools, without its own 172.17, from the end where Docker comes last. 172.31 waits,
    because clouds use it.
    """
    for second in (30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 31):
        yield f"172.{second}.0.0/16"
    for third in range(240, -1, -16):
        yield f"192.168.{third}.0/20"


def _in_use(route: RouteSocket, device: Link) -> list[str]:
    """Destinations of the host's routes; the halves of the world by which VPNs replace the default route are none."""
    found = [destination for destination, index in route.routes() if index != device.index]
    found += [address for index, address in route.addresses(AF_INET) if index != device.index]
    return [subnet for subnet in found if int(subnet.partition("/")[2]) > 1]


def _nameservers() -> list[str]:
    """The host's, which may lie behind its default route."""
    try:
        with open("/etc/resolv.conf", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return []
    return [f"{word[1]}/32" for word in words if len(word) > 1 and word[0] == "nameserver" and ":" not in word[1]]


def _checked_subnet(subnet: str, gateway: str | None) -> tuple[str, str]:
    import ipaddress

    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise InvalidArgument(f"subnet {subnet!r}: {error}") from None
    if network.prefixlen > 30:
        raise InvalidArgument(f"subnet {subnet!r} has no room for a gateway and a container: make it /30 or larger")
    if gateway is None:
        return str(network), str(network[1])
    try:
        inside = ipaddress.IPv4Address(gateway) in network
    except ValueError as error:
        raise InvalidArgument(f"gateway {gateway!r}: {error}") from None
    if not inside or gateway in (str(network[0]), str(network[-1])):
        raise InvalidArgument(f"gateway {gateway} is no host's address of {subnet}")
    return str(network), gateway


def _free_address(connection: sqlite3.Connection, network: Network) -> int:
    first, last = _bounds(network.subnet)
    (start,) = connection.execute("SELECT next_ipv4 FROM networks WHERE id = ?", (network.id,)).fetchone()
    number = _gap(connection, network, start, last)
    if number is None:
        number = _gap(connection, network, first, start - 1)
    if number is None:
        raise Unavailable(f"network {network.name!r}: all addresses of {network.subnet} are in use: remove containers")
    connection.execute("UPDATE networks SET next_ipv4 = ? WHERE id = ?", (number + 1, network.id))
    return number


def _gap(connection: sqlite3.Connection, network: Network, first: int, last: int) -> int | None:
    """The lowest free address from *first* to *last*."""
    gateway = _number(network.gateway)
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
    first, last = _bounds(network.subnet)
    try:
        number = _number(ipv4)
    except OSError:
        raise InvalidArgument(f"{ipv4!r} is no IPv4 address") from None
    if not first <= number <= last:
        raise InvalidArgument(f"{ipv4} is no host's address of network {network.name!r} ({network.subnet})")
    query = "SELECT container FROM endpoints WHERE network = ? AND ipv4 = ?"
    row = connection.execute(query, (network.id, number)).fetchone()
    if row is not None or ipv4 == network.gateway:
        holder = f"container {row[0][:12]}" if row else "the gateway"
        raise Conflict(f"{ipv4} in network {network.name!r} is in use by {holder}: choose another address")
    return number


def _bounds(subnet: str) -> tuple[int, int]:
    """The first and the last address of the subnet that a host may have."""
    address, _, length = subnet.partition("/")
    size = 1 << (32 - int(length))
    base = _number(address) & -size
    return base + 1, base + size - 2


def _overlap(one: str, other: str) -> bool:
    shift = 32 - min(int(one.partition("/")[2]), int(other.partition("/")[2]))
    return _number(one.partition("/")[0]) >> shift == _number(other.partition("/")[0]) >> shift


def _interface(subnet: str, address: str) -> str:
    return f"{address}/{subnet.partition('/')[2]}"


def _number(ipv4: str) -> int:
    if ipv4.count(".") != 3:
        raise OSError(errno.EINVAL, "not in dotted form", ipv4)  # inet_aton takes 172.30 too
    return int.from_bytes(inet_aton(ipv4), "big")


def _dotted(number: int) -> str:
    return inet_ntoa(number.to_bytes(4, "big"))


# The table

_PROTOCOL, _SOURCE, _DESTINATION = (9, 1), (12, 4), (16, 4)  # offset and size in an IPv4 header
_PORT = (2, 2)  # the destination's, in the header of tcp, udp and sctp
_LOOPBACK_NET = b"\x7f"  # the first byte of 127.0.0.0/8
_LOCAL_ADDRESS = (2).to_bytes(4, "little")  # RTN_LOCAL
_ESTABLISHED_OR_RELATED = 0x6
_TRANSLATED = 0x20  # IPS_DST_NAT


def _make_table(network: Network) -> None:
    """
    The table with all that is the same for every network, and the network's own entries in its sets.

    One transaction, the same whether it makes or mends; entries that are there stay.
    """
    change = nftables.Transaction(network.table)
    change.make_table()
    change.make_set("bridges", ("ifname",))
    change.make_set("internal", ("ifname",))
    change.make_set("within", ("ifname", "ifname"))
    change.make_set("subnets", ("ipv4_addr",), interval=True)
    change.make_map(PORTS, ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
    change.make_map(ADDRESSED, ("ipv4_addr", "inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
    change.make_chain("guard", "filter", nftables.PREROUTING, nftables.RAW)
    change.make_chain("prerouting", "nat", nftables.PREROUTING, nftables.DESTINATION_NAT)
    change.make_chain("output", "nat", nftables.OUTPUT, nftables.DESTINATION_NAT)
    change.make_chain("postrouting", "nat", nftables.POSTROUTING, nftables.SOURCE_NAT)
    change.make_chain("forward", "filter", nftables.FORWARD, nftables.FILTER)
    for chain in ("guard", "prerouting", "output", "postrouting", "forward"):
        change.flush_chain(chain)
    _guard(change)
    for chain in ("prerouting", "output"):
        _send_to_containers(change, chain)
    _masquerade(change)
    _forward(change)
    _enter(change, network)
    with nftables.NftSocket() as netfilter:
        try:
            netfilter.commit(change)
        except NetlinkError as error:
            raise Unavailable(f"network {network.name!r}: {error}") from error


def _guard(change: nftables.Transaction) -> None:
    # route_localnet on the bridges lets this machine reach published ports by 127.0.0.1; without this rule it would
    # let containers reach whatever listens on the host's loopback. And a port published on 127.0.0.1 would be open to
    # neighbours, who need only send a packet with that destination: translation comes before routing refuses it.
    change.add_rule(
        "guard",
        nftables.meta("iifname", 0),
        nftables.compare(0, nftables.device("lo"), equal=False),
        nftables.payload("network", 16, 1, 0),
        nftables.compare(0, _LOOPBACK_NET),
        nftables.drop(),
    )


def _send_to_containers(change: nftables.Transaction, chain: str) -> None:
    change.add_rule(
        chain,
        nftables.payload("network", *_DESTINATION, 0),
        nftables.payload("network", *_PROTOCOL, 1),
        nftables.payload("transport", *_PORT, 2),
        nftables.lookup(ADDRESSED, 0, into=0),
        nftables.translate_destination(0, 1),
    )
    change.add_rule(
        chain,
        nftables.destination_type(0),
        nftables.compare(0, _LOCAL_ADDRESS),
        nftables.payload("network", *_PROTOCOL, 0),
        nftables.payload("transport", *_PORT, 1),
        nftables.lookup(PORTS, 0, into=0),
        nftables.translate_destination(0, 1),
    )


def _masquerade(change: nftables.Transaction) -> None:
    to_bridge = (nftables.meta("oifname", 0), nftables.lookup("bridges", 0))
    from_container = (nftables.payload("network", *_SOURCE, 0), nftables.lookup("subnets", 0))
    # A container could not answer 127.0.0.1.
    change.add_rule(
        "postrouting",
        nftables.payload("network", 12, 1, 0),
        nftables.compare(0, _LOOPBACK_NET),
        *to_bridge,
        nftables.masquerade(),
    )
    # To the world.
    change.add_rule(
        "postrouting",
        *from_container,
        nftables.meta("oifname", 0),
        nftables.lookup("bridges", 0, found=False),
        nftables.masquerade(),
    )
    # To itself or a neighbour by a published port: the answer must come back by the host, which knows the port.
    change.add_rule(
        "postrouting",
        *from_container,
        *to_bridge,
        nftables.conntrack("status", 0),
        nftables.any_bit(0, _TRANSLATED),
        nftables.masquerade(),
    )


def _forward(change: nftables.Transaction) -> None:
    # Containers of one network reach each other, of an internal one nobody else.
    change.add_rule(
        "forward",
        nftables.meta("iifname", 0),
        nftables.meta("oifname", 4),
        nftables.lookup("within", 0),
        nftables.accept(),
    )
    for direction in ("iifname", "oifname"):
        change.add_rule("forward", nftables.meta(direction, 0), nftables.lookup("internal", 0), nftables.drop())
    # What leads to no bridge is none of ours; to a bridge comes what was asked for, or published.
    change.add_rule(
        "forward", nftables.meta("oifname", 0), nftables.lookup("bridges", 0, found=False), nftables.accept()
    )
    for key, bits in (("state", _ESTABLISHED_OR_RELATED), ("status", _TRANSLATED)):
        change.add_rule("forward", nftables.conntrack(key, 0), nftables.any_bit(0, bits), nftables.accept())
    change.add_rule("forward", nftables.drop())


def _enter(change: nftables.Transaction, network: Network) -> None:
    device = nftables.device(network.bridge)
    change.add_elements("bridges", [device])
    change.add_elements("within", [device + device])
    if network.internal:
        change.add_elements("internal", [device])
    else:
        change.add_interval("subnets", *_interval(network))


def _interval(network: Network) -> tuple[bytes, bytes]:
    first, last = _bounds(network.subnet)
    return (first - 1).to_bytes(4, "big"), ((last + 2) & 0xFFFFFFFF).to_bytes(4, "big")


def _forget_in_table(network: Network) -> None:
    """Take the network's entries out of the table, and the table away if it was the last one."""
    device = nftables.device(network.bridge)
    with nftables.NftSocket() as netfilter:
        while True:
            try:
                generation = netfilter.generation()
                bridges = netfilter.elements(network.table, "bridges")
                change = nftables.Transaction(network.table)
                if not set(bridges) - {device}:
                    change.delete_table()
                elif device in bridges:
                    change.delete_elements("bridges", [device])
                    change.delete_elements("within", [device + device])
                    if network.internal:
                        change.delete_elements("internal", [device])
                    else:
                        change.delete_interval("subnets", *_interval(network))
                netfilter.commit(change, generation)
                return
            except NetlinkError as error:
                if error.errno == errno.ENOENT:
                    return
                if error.errno != errno.ERESTART:  # somebody else's commit came between
                    raise Unavailable(f"network {network.name!r}: {error}") from error


# Smaller things


def _network(row: Sequence[Any], root: str) -> Network:
    identity, name, driver, subnet, gateway, bridge, internal, options, labels, created = row
    return Network(
        id=identity,
        name=name,
        driver=driver,
        subnet=subnet,
        gateway=gateway,
        bridge=bridge,
        internal=bool(internal),
        options=json.loads(options),
        labels=json.loads(labels),
        created=created,
        root=root,
    )


def _endpoint(container: str, network: str, ipv4: int, mac: str, device: str, aliases: str) -> Endpoint:
    return Endpoint(
        network=network,
        container=container,
        ipv4=_dotted(ipv4),
        mac=mac,
        device=device,
        aliases=tuple(json.loads(aliases)),
    )


def _root(connection: sqlite3.Connection) -> str:
    root: str = connection.execute("SELECT id FROM network_root").fetchone()[0]
    return root


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
    path = "/proc/sys/" + name.replace(".", "/")
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
