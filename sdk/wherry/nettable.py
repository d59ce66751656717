"""
The nf_tables tables of one root's networks: one of IPv4, and one of IPv6 where a network has that.

What is the same for every network stands in chains, what a network has of its own in sets, so that networks come and
go by a few elements. Published ports are elements of the maps that the shims fill (`wherry_shim.portmaps`).
"""

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wherry import subnets
from wherry_oci.errors import Unavailable
from wherry_oci.linux import nftables
from wherry_oci.linux.netlink import NetlinkError
from wherry_shim.portmaps import ADDRESSED, PORTS, Entries, remove_entries

if TYPE_CHECKING:
    from wherry.network import Network

_CHAINS = ("guard", "prerouting", "output", "postrouting", "forward")
_PORT = (2, 2)  # the destination's, in the header of tcp, udp and sctp
_LOOPBACK_NET = b"\x7f"  # the first byte of 127.0.0.0/8
_LOOPBACK_6 = bytes(15) + b"\1"
_LOCAL_ADDRESS = (2).to_bytes(4, "little")  # RTN_LOCAL
_ESTABLISHED_OR_RELATED = 0x6
_TRANSLATED = 0x20  # IPS_DST_NAT


class _Family:
    """Where the two families differ: names, sizes, and offsets in their headers."""

    def __init__(self, number: int, type: str, size: int, source: int, destination: int) -> None:
        self.number, self.type, self.size = number, type, size
        self.source, self.destination = (source, size), (destination, size)
        self.after = size // 4  # the register behind an address's


_IPV4 = _Family(nftables.IPV4, "ipv4_addr", 4, 12, 16)
_IPV6 = _Family(nftables.IPV6, "ipv6_addr", 16, 8, 24)


def available() -> bool:
    """
    Whether this kernel has nf_tables. Without it nothing is forwarded: networks are apart, nobody reaches the world,
    and published ports are handed on by the shims (their proxy).
    """
    try:
        with nftables.NftSocket() as netfilter:
            netfilter.generation()
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def dropping() -> list[nftables.Chain]:
    """Others' chains that drop by their policy what is forwarded: what one table accepts another may still drop."""
    with nftables.NftSocket() as netfilter:
        try:
            chains = [chain for family in (nftables.IPV4, nftables.INET) for chain in netfilter.chains(family)]
        except OSError:  # not root
            return []
    ours = "wherry-"
    return [one for one in chains if one.hook == nftables.FORWARD and one.drops and not one.table.startswith(ours)]


def is_there(netfilter: nftables.NftSocket, network: "Network") -> bool:
    """Whether the network is in its tables: others may empty the whole rule set ("systemctl restart nftables")."""
    device = nftables.device(network.bridge)
    return all(netfilter.has_element(network.table, "bridges", device, family.number) for family in _families(network))


def make(network: "Network") -> None:
    """
    The tables with all that is the same for every network, and the network's own entries in their sets.

    One transaction, the same whether it makes or mends; entries that are there stay. Raises Unavailable.
    """
    changes = nftables.Transaction(network.table)
    for family in _families(network):
        change = nftables.Transaction(network.table, family.number)
        _make_table(change, family)
        _enter(change, family, network)
        changes.messages += change.messages
    with nftables.NftSocket() as netfilter:
        try:
            netfilter.commit(changes)
        except NetlinkError as error:
            raise Unavailable(f"network {network.name!r}: {error}") from error


def forget(network: "Network") -> None:
    """Take the network's entries out of the tables, and a table away with its last network. Raises Unavailable."""
    for family in _families(network):
        _forget(network, family)


def collect(table: str, addresses: set[bytes]) -> None:
    """Remove all published ports that lead to none of *addresses*."""
    found: Entries = {}
    with nftables.NftSocket() as netfilter:
        for family in (_IPV4, _IPV6):
            for name in (PORTS, ADDRESSED):
                try:
                    elements = netfilter.elements(table, name, family.number)
                except NetlinkError as error:
                    if error.errno == errno.ENOENT:
                        continue
                    raise
                dead = {key: data for key, data in elements.items() if data[: family.size] not in addresses}
                if dead:
                    found[family.number, name] = dead
        if found:
            remove_entries(netfilter, table, found)


def _families(network: "Network") -> Iterable[_Family]:
    return (_IPV4, _IPV6) if network.subnet6 else (_IPV4,)


def _make_table(change: nftables.Transaction, family: _Family) -> None:
    change.make_table()
    change.make_set("bridges", ("ifname",))
    change.make_set("internal", ("ifname",))
    change.make_set("within", ("ifname", "ifname"))
    change.make_set("subnets", (family.type,), interval=True)
    change.make_map(PORTS, ("inet_proto", "inet_service"), (family.type, "inet_service"))
    change.make_map(ADDRESSED, (family.type, "inet_proto", "inet_service"), (family.type, "inet_service"))
    change.make_chain("guard", "filter", nftables.PREROUTING, nftables.RAW)
    change.make_chain("prerouting", "nat", nftables.PREROUTING, nftables.DESTINATION_NAT)
    change.make_chain("output", "nat", nftables.OUTPUT, nftables.DESTINATION_NAT)
    change.make_chain("postrouting", "nat", nftables.POSTROUTING, nftables.SOURCE_NAT)
    change.make_chain("forward", "filter", nftables.FORWARD, nftables.FILTER)
    for chain in _CHAINS:
        change.flush_chain(chain)
    if family is _IPV4:
        _guard(change)
    if family is _IPV6:
        _spare_loopback(change)
    for chain in ("prerouting", "output"):
        _send_to_containers(change, chain, family)
    _masquerade(change, family)
    _forward(change)


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


def _spare_loopback(change: nftables.Transaction) -> None:
    """What comes from ::1 no device but lo lets pass, whatever it is translated to: a shim hands it on (its proxy)."""
    change.add_rule(
        "output", nftables.payload("network", 24, 16, 0), nftables.compare(0, _LOOPBACK_6), nftables.accept()
    )


def _protocol(family: _Family, register: int) -> bytes:
    """Other headers may stand between that of IPv6 and the protocol's."""
    return nftables.payload("network", 9, 1, register) if family is _IPV4 else nftables.meta("l4proto", register)


def _send_to_containers(change: nftables.Transaction, chain: str, family: _Family) -> None:
    change.add_rule(
        chain,
        nftables.payload("network", *family.destination, 0),
        _protocol(family, family.after),
        nftables.payload("transport", *_PORT, family.after + 1),
        nftables.lookup(ADDRESSED, 0, into=0),
        nftables.translate_destination(0, family.after, family.number),
    )
    change.add_rule(
        chain,
        nftables.destination_type(0),
        nftables.compare(0, _LOCAL_ADDRESS),
        _protocol(family, 0),
        nftables.payload("transport", *_PORT, 1),
        nftables.lookup(PORTS, 0, into=0),
        nftables.translate_destination(0, family.after, family.number),
    )


def _masquerade(change: nftables.Transaction, family: _Family) -> None:
    to_bridge = (nftables.meta("oifname", 0), nftables.lookup("bridges", 0))
    from_container = (nftables.payload("network", *family.source, 0), nftables.lookup("subnets", 0))
    if family is _IPV4:  # a container could not answer 127.0.0.1
        change.add_rule(
            "postrouting",
            nftables.payload("network", family.source[0], 1, 0),
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


def _enter(change: nftables.Transaction, family: _Family, network: "Network") -> None:
    device = nftables.device(network.bridge)
    change.add_elements("bridges", [device])
    change.add_elements("within", [device + device])
    if network.internal:
        change.add_elements("internal", [device])
    else:
        change.add_interval("subnets", *_interval(family, network))


def _interval(family: _Family, network: "Network") -> tuple[bytes, bytes]:
    first, last = subnets.bounds(network.subnet if family is _IPV4 else network.subnet6)
    most = (1 << family.size * 8) - 1
    return (first - 1).to_bytes(family.size, "big"), ((last + 2) & most).to_bytes(family.size, "big")


def _forget(network: "Network", family: _Family) -> None:
    device = nftables.device(network.bridge)
    with nftables.NftSocket() as netfilter:
        while True:
            try:
                generation = netfilter.generation()
                bridges = netfilter.elements(network.table, "bridges", family.number)
                change = nftables.Transaction(network.table, family.number)
                if not set(bridges) - {device}:
                    change.delete_table()
                elif device in bridges:
                    change.delete_elements("bridges", [device])
                    change.delete_elements("within", [device + device])
                    if network.internal:
                        change.delete_elements("internal", [device])
                    else:
                        change.delete_interval("subnets", *_interval(family, network))
                netfilter.commit(change, generation)
                return
            except NetlinkError as error:
                if error.errno == errno.ENOENT:
                    return
                if error.errno != errno.ERESTART:  # somebody else's commit came between
                    raise Unavailable(f"network {network.name!r}: {error}") from error
