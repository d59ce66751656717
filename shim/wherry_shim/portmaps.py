"""
The maps of published ports in nf_tables: which address and port of a container's network what comes to the host's port
is sent to.
"""

import errno
from _socket import AF_INET, inet_aton, inet_pton

from wherry_oci.linux import nftables
from wherry_oci.linux.netlink import NetlinkError
from wherry_oci.linux.nftables import NftSocket
from wherry_oci.linux.rtnetlink import RouteSocket
from wherry_shim.attachment import EVERYWHERE, EVERYWHERE_6, family_of
from wherry_shim.ports import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The maps of published ports. On every address of the host, and on one:
PORTS = "ports"  # protocol . port → address . port
ADDRESSED = "addressed"  # host's address . protocol . port → address . port

Entries = dict[tuple[int, str], nftables.Elements]  # by family and map


def publish(table: str, ports: "list[dict[str, Any]]") -> None:
    """
    Send what comes to these host ports to their containers. Repeating it is fine, and entries that a killed shim left
    for the same host ports are replaced: the sockets say whose a port is. Raises NetlinkError.
    """
    _put_entries(table, entries_of(ports))
    for port in ports:
        if port["protocol"] == "udp" and ":" not in port["host_ip"]:
            _redirect_flows(port)


def _put_entries(table: str, entries: Entries) -> None:
    with NftSocket() as netfilter:
        try:
            _add_entries(netfilter, table, entries)
        except NetlinkError as error:
            if error.errno not in (errno.EEXIST, errno.EBUSY):
                raise
            while True:
                try:
                    _replace_entries(netfilter, table, entries)
                    return
                except NetlinkError as again:
                    if again.errno != errno.ERESTART:  # somebody else's commit came between
                        raise


def unpublish(table: str, ports: "list[dict[str, Any]]") -> None:
    """Remove these ports from the maps, unless they lead to another container by now. Raises NetlinkError."""
    if not ports:
        return
    with NftSocket() as netfilter:
        remove_entries(netfilter, table, entries_of(ports))


def remove_entries(netfilter: NftSocket, table: str, entries: Entries) -> None:
    """Remove those of *entries* that are there with the same data. Raises NetlinkError."""
    while True:
        try:
            generation = netfilter.generation()
            change = nftables.Transaction(table)
            for (family, name), elements in entries.items():
                there = netfilter.find(table, name, elements, family)
                part = nftables.Transaction(table, family)
                part.delete_elements(name, [key for key, data in elements.items() if there.get(key) == data])
                change.messages += part.messages
            netfilter.commit(change, generation)
            return
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return  # the table itself is gone
            if error.errno != errno.ERESTART:  # somebody else's commit came between
                raise


def entries_of(ports: "list[dict[str, Any]]") -> Entries:
    """The elements of each map."""
    entries: Entries = {}
    for port in ports:
        place, key = entry_key(port)
        target = inet_pton(family_of(port["container_ip"]), port["container_ip"])
        entries.setdefault(place, {})[key] = nftables.address(target) + nftables.port(port["container_port"])
    return entries


def entry_key(port: "dict[str, Any]") -> tuple[tuple[int, str], bytes]:
    """The family and map, and the key, of a published port."""
    host_ip = port["host_ip"]
    family = nftables.IPV6 if ":" in host_ip else nftables.IPV4
    key = nftables.protocol(PROTOCOLS[port["protocol"]]) + nftables.port(port["host_port"])
    if host_ip in (EVERYWHERE, EVERYWHERE_6):
        return (family, PORTS), key
    return (family, ADDRESSED), nftables.address(inet_pton(family_of(host_ip), host_ip)) + key


def _add_entries(netfilter: NftSocket, table: str, entries: Entries) -> None:
    change = nftables.Transaction(table)
    for (family, name), elements in entries.items():
        part = nftables.Transaction(table, family)
        part.add_elements(name, elements)
        change.messages += part.messages
    netfilter.commit(change)


def _replace_entries(netfilter: NftSocket, table: str, entries: Entries) -> None:
    generation = netfilter.generation()
    change = nftables.Transaction(table)
    for (family, name), elements in entries.items():
        part = nftables.Transaction(table, family)
        part.delete_elements(name, list(netfilter.find(table, name, elements, family)))
        part.add_elements(name, elements)
        change.messages += part.messages
    netfilter.commit(change, generation)


def _redirect_flows(port: "dict[str, Any]") -> None:
    """
    Let clients that sent to the port before it was published, or to a container that had it before, find this one.

    The maps are asked for the first packet of a flow only, and without connections a flow ends when nothing was sent
    for half a minute: a client that asks again and again from one port would never be heard.
    """
    from wherry_oci.linux.conntrack import ConntrackSocket

    target = (inet_aton(port["container_ip"]), port["container_port"].to_bytes(2, "big"))
    with ConntrackSocket() as connections:
        try:
            flows = connections.udp_flows(port["host_port"])
        except NetlinkError:
            return  # a kernel without ctnetlink: such clients are heard when they have been silent for long enough
        stale = [flow for flow in flows if (flow.responder, flow.responder_port) != target]
        addresses = _addresses(port["host_ip"]) if stale else set()
        for flow in stale:
            if flow.destination in addresses:
                connections.forget(flow)


def _addresses(host_ip: str) -> set[bytes]:
    if host_ip != EVERYWHERE:
        return {inet_aton(host_ip)}
    with RouteSocket() as route:
        return {inet_aton(address.partition("/")[0]) for _, address in route.addresses(AF_INET)}
