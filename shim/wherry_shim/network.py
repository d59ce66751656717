"""
A container's network, made and held by its shim: namespace, devices, reserved and published ports.

What shall be is a plan, a dict that the sdk makes (`wherry.network.plan`); here it is carried out. The namespace has no
name anywhere: it lives as long as the shim's descriptor and the container's processes, and when all are gone the
kernel takes it down together with its devices. What outlives a killed shim is only its entries in the maps of
published ports, which the next container to get the port replaces and `wherry.network.collect` removes.

The plan:

    {
        "mode": "bridge" | "none" | "host" | "join",
        "container": ID,
        "path": "/proc/PID/ns/net",         # join: the namespace to join
        "process": [PID, START],            # join: whose it must be (records.start_time), or absent
        "table": "wherry-…",                # bridge: the nf_tables tables that have the maps PORTS and ADDRESSED
        "interfaces": [
            {
                "network": ID,
                "bridge": "wherry0",        # must be there
                "parent": "eth0",           # instead of a bridge: the device on whose wire it is (macvlan)
                "host_device": "veth…",     # of this container alone
                "device": "eth0" | None,    # None: the first free one
                "mac": "02:42:…",
                "mtu": 1500,
                "addresses": ["172.30.0.2/16", "fd00:…::2/64"],
                "gateways": ["172.30.0.1", "fd00:…::1"],          # none in an internal network
                "names": ["web", …],        # what it is called there, in a network with names
                "network_name": "front",
                "links": [["db", "store"]], # a name there, and what this container alone calls it
            },
        ],
        "resolver": {"servers": ["192.0.2.53"]},                  # in a network with names: whom to ask for others
        "sysctls": {"net.ipv6.conf.default.disable_ipv6": "1"},   # what the kernel lacks is passed over
        "ports": [{"host_ip": "0.0.0.0", "host_port": 8080, "container_port": 80, "protocol": "tcp"}],
        "proxy": False,                     # whether this process hands on what comes to them (proxy.py)
    }

The first interface that has a gateway has the default route and the published ports, of each family by itself.

A `host_port` of 0 lets the kernel choose a free one; with a `last_host_port` the first free one from the one to the
other is taken. What it came to is in the attachment's ports. A port on 0.0.0.0 is published on [::], too, where the
container has IPv6, unless it says `ipv4_only`.
"""

import errno
import os
import select
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPV6_V6ONLY,
    SO_RCVBUF,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    inet_aton,
    inet_ntop,
    inet_pton,
    socket,
)

from wherry_oci.errors import Conflict, Unavailable
from wherry_oci.linux import nftables
from wherry_oci.linux.namespaces import CLONE_NEWNET, setns, unshare
from wherry_oci.linux.netlink import NetlinkError
from wherry_oci.linux.rtnetlink import (
    RouteSocket,
    add_address,
    add_route,
    delete_link,
    new_macvlan,
    new_veth,
    reflect,
    set_link,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The maps of published ports. On every address of the host, and on one:
PORTS = "ports"  # protocol . port → address . port
ADDRESSED = "addressed"  # host's address . protocol . port → address . port

PROTOCOLS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "sctp": IPPROTO_SCTP}

Entries = dict[tuple[int, str], nftables.Elements]  # by family and map

_SIGKILL = 9
_MAC_PATIENCE_S = 5.0
_LOOPBACK = 1  # the index of lo in every namespace
_EVERYWHERE, _EVERYWHERE_6 = "0.0.0.0", "::"
_LOOPBACK_6 = "::1"
_PORT_TRIES = 32  # for a number that is free in both families


class PortInUse(Conflict):
    """A port that was to be published is taken on the host: `address`, `port`, `protocol`, and `holder` if known."""

    kind = "port_in_use"

    def __init__(self, address: str, port: int, protocol: str, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"{protocol} port {port} of {address} is in use{by}: publish another one, or end its holder")
        self.address = address
        self.port = port
        self.protocol = protocol
        self.holder = holder

    def facts(self) -> "dict[str, Any]":
        """The attributes, ready for JSON."""
        return {"address": self.address, "port": self.port, "protocol": self.protocol, "holder": self.holder}


class AttachFailed(Unavailable):
    """A *step* of the network's making failed with *errno*; all earlier ones are undone."""

    kind = "network"

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(f"{step}: {error.strerror}")
        self.step = step
        self.errno = error.errno or 0

    def facts(self) -> "dict[str, Any]":
        """The attributes, ready for JSON."""
        return {"step": self.step, "errno": self.errno}


class Attachment:
    """
    A container's network as it is: `namespace` (a descriptor; None for the host's own), `interfaces` (of the plan),
    `ports` as published, with the real host ports, and the sockets that keep them from others. Ended by `detach`.
    """

    __slots__ = ("_sockets", "interfaces", "namespace", "outside", "ports", "proxy", "reserved", "table")

    def __init__(self) -> None:
        self.namespace: int | None = None
        self.table = ""
        self.proxy = False  # the kernel translates nothing
        self.outside = False  # the sockets are in another network than the bridges, whose kernel translates for itself
        self.reserved: list[dict[str, Any]] = []  # ports, with no container's address yet
        self.ports: list[dict[str, Any]] = []
        self.interfaces: list[dict[str, Any]] = []
        self._sockets: list[tuple[dict[str, Any], socket]] = []

    def hold(self, port: "dict[str, Any]", reserved: socket) -> None:
        """Keep the socket that has the *port* open until the end."""
        self._sockets.append((port, reserved))

    def proxied(self) -> "list[tuple[socket, dict[str, Any]]]":
        """The sockets that are to be served, as no translation does it (on [::1], or at all), with their ports."""
        places = {(port["host_ip"], port["host_port"], port["protocol"]): port for port in self.ports}
        found = []
        for port, reserved in self._sockets:
            published = places.get((port["host_ip"], port["host_port"], port["protocol"]))
            proxied = self.proxy or self.outside or port["host_ip"] in (_EVERYWHERE_6, _LOOPBACK_6)
            if published is not None and proxied:
                found.append((reserved, published))
        return found

    def close(self) -> None:
        """Let go of ports and namespace, in that order; published or not."""
        while self._sockets:
            self._sockets.pop()[1].close()
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None


def attach(plan: "dict[str, Any]", bridges: "int | None" = None, owner: "int | None" = None) -> Attachment:
    """
    Make the network of *plan*, in a few milliseconds. This thread is in the host's namespace before and after.

    With *bridges*, a namespace that has the plan's bridges, this thread stays in that one: it may not come back. Ports
    are reserved before, in the host's. *owner* is the user namespace that the container's network is to belong to.

    The returned descriptor's namespace has its devices up, with addresses and routes, before its ports are published.
    Raises PortInUse or AttachFailed; then nothing is left of it.
    """
    attachment = Attachment()
    mode = plan["mode"]
    if mode == "host":
        return attachment
    try:
        if mode == "join":
            _enter(bridges)
            attachment.namespace = _step("open the network namespace " + plan["path"], _open, plan["path"])
            _check_process(plan)
        else:
            both = _has_ipv6(plan.get("interfaces", ()))
            for port in plan.get("ports", ()):
                _reserve(attachment, port, both)
            attachment.outside = bridges is not None
            _enter(bridges)
            attachment.proxy = bool(plan.get("proxy"))
            attachment.table = "" if attachment.proxy else plan.get("table") or ""
            _make_namespace(attachment, plan, owner)
            _check_ports(attachment)
            ports = _aimed(attachment)
            if ports and not attachment.proxy:
                _step("publish the ports", publish, attachment.table, ports)
            attachment.ports = ports
    except BaseException:
        _undo(attachment)
        raise
    return attachment


def _enter(namespace: "int | None") -> None:
    if namespace is not None:
        _step("enter the network of the bridges", setns, namespace, CLONE_NEWNET)


def detach(attachment: Attachment) -> None:
    """Stop publishing and let everything go; safe to repeat. Raises AttachFailed, having let go all the same."""
    netfilter: nftables.NftSocket | None = None
    try:
        if attachment.ports and not attachment.proxy:
            netfilter = _step("talk to nf_tables", nftables.NftSocket)
            entries = _entries(attachment.ports)
            _step("stop publishing the ports", remove_entries, netfilter, attachment.table, entries)
            attachment.ports = []
    finally:
        attachment.close()
        if netfilter is not None:
            netfilter.close()  # last: it waits some milliseconds until no packet can see what was removed


def connect(attachment: Attachment, interface: "dict[str, Any]", table: str) -> None:
    """
    Give a running container one more interface, to a network whose published ports are in *table*.

    That it has it already is fine. Raises AttachFailed, having undone.
    """
    if any(one["network"] == interface["network"] for one in attachment.interfaces):
        return
    assert attachment.namespace is not None
    if not attachment.proxy:
        attachment.table = attachment.table or table
    with RouteSocket() as outer:
        inner = _socket_in(attachment.namespace)
        try:
            step = f"connect to bridge {interface['bridge']}"
            _step(step, _add_interface, outer, inner, attachment, interface)
            attachment.interfaces.append(interface)
            try:
                _settle(attachment, inner)
            except BaseException:
                attachment.interfaces.remove(interface)
                _delete_device(outer, interface["host_device"])
                raise
        finally:
            inner.close()


def disconnect(attachment: Attachment, network: str) -> None:
    """Take a running container's interface to *network* (an id) away; that it has none is fine. Raises AttachFailed."""
    for interface in attachment.interfaces:
        if interface["network"] == network:
            break
    else:
        return
    assert attachment.namespace is not None
    inner = _socket_in(attachment.namespace)
    try:
        step = f"disconnect from {interface.get('parent') or interface['bridge']}"
        if interface.get("parent"):
            _step(step, _delete_device, inner, interface["device"])
        else:
            with RouteSocket() as outer:
                _step(step, _delete_device, outer, interface["host_device"])
        attachment.interfaces.remove(interface)
        _settle(attachment, inner)
    finally:
        inner.close()


def _settle(attachment: Attachment, inner: RouteSocket) -> None:
    """After an interface has come or gone: default routes, and where the published ports lead."""
    _step("set the default route", _set_default_routes, inner, attachment.interfaces)
    ports = _aimed(attachment)
    if attachment.proxy:
        attachment.ports = ports
    elif ports != attachment.ports:
        _step("stop publishing the ports", unpublish, attachment.table, attachment.ports)
        attachment.ports = []
        _step("publish the ports", publish, attachment.table, ports)
        attachment.ports = ports


def _socket_in(namespace: int) -> RouteSocket:
    """A netlink socket of that network namespace. Raises AttachFailed."""
    host = _step("open the host's network namespace", _own_namespace)
    try:
        _step("enter the container's network namespace", setns, namespace, CLONE_NEWNET)
        try:
            return RouteSocket()
        finally:
            setns(host, CLONE_NEWNET)
    finally:
        os.close(host)


def publish(table: str, ports: "list[dict[str, Any]]") -> None:
    """
    Send what comes to these host ports to their containers. Repeating it is fine, and entries that a killed shim left
    for the same host ports are replaced: the sockets say whose a port is. Raises NetlinkError.
    """
    _put_entries(table, _entries(ports))
    for port in ports:
        if port["protocol"] == "udp" and ":" not in port["host_ip"]:
            _redirect_flows(port)


def _put_entries(table: str, entries: Entries) -> None:
    with nftables.NftSocket() as netfilter:
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
    with nftables.NftSocket() as netfilter:
        remove_entries(netfilter, table, _entries(ports))


def remove_entries(netfilter: nftables.NftSocket, table: str, entries: Entries) -> None:
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


# Ports


def _reserve(attachment: Attachment, port: "dict[str, Any]", both: bool) -> None:
    """Take the port, on 0.0.0.0 and with *both* families on the same number of [::]."""
    addresses = [port["host_ip"]]
    if both and port["host_ip"] == _EVERYWHERE and not port.get("ipv4_only"):
        addresses.append(_EVERYWHERE_6)
    port = {key: value for key, value in port.items() if key != "ipv4_only"}
    numbers = list(range(port["host_port"], port.get("last_host_port", port["host_port"]) + 1))
    if numbers == [0] and len(addresses) > 1:
        numbers *= _PORT_TRIES  # what is free in one family may be taken in the other
    for tried, number in enumerate(numbers, 1):
        try:
            taken = _reserved_on(addresses, number, port["protocol"])
        except PortInUse:
            if tried == len(numbers):
                raise
            continue
        for address, reserved in taken:
            bound = {**port, "host_ip": address, "host_port": number}
            if reserved is not None:
                bound["host_port"] = reserved.getsockname()[1]
                attachment.hold(bound, reserved)
            attachment.reserved.append(bound)
        return


def _reserved_on(addresses: "list[str]", number: int, protocol: str) -> "list[tuple[str, socket | None]]":
    """A socket for each of *addresses*, all of the same number. Raises PortInUse, AttachFailed."""
    taken: list[tuple[str, socket | None]] = []
    try:
        for address in addresses:
            reserved = _reserve_one(address, number, protocol)
            taken.append((address, reserved))
            if reserved is not None:
                number = reserved.getsockname()[1]
    except BaseException:
        for _, reserved in taken:
            if reserved is not None:
                reserved.close()
        raise
    return taken


def _reserve_one(address: str, number: int, protocol: str) -> "socket | None":
    try:
        return _reserved(address, number, protocol)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT and protocol == "sctp" and number:
            # A kernel without sctp sockets has nobody who could take the port, and still translates.
            return None
        if error.errno == errno.EACCES:
            lowest = _read("/proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
            refused = OSError(
                errno.EACCES,
                f"only root may have ports below {lowest} here: choose another one, or set "
                "the sysctl net.ipv4.ip_unprivileged_port_start",
            )
            raise AttachFailed(f"reserve {protocol} port {number} of {address}", refused) from error
        if error.errno != errno.EADDRINUSE:
            raise AttachFailed(f"reserve {protocol} port {number} of {address}", error) from error
        raise PortInUse(address, number, protocol, port_holder(address, number, protocol)) from None


def _reserved(address: str, number: int, protocol: str) -> socket:
    family = AF_INET6 if ":" in address else AF_INET
    reserved = socket(family, SOCK_DGRAM if protocol == "udp" else SOCK_STREAM, PROTOCOLS[protocol])
    try:
        if family == AF_INET6:
            reserved.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        _bind(reserved, address, number, protocol)
    except BaseException:
        reserved.close()
        raise
    return reserved


def _bind(reserved: socket, address: str, number: int, protocol: str) -> None:
    if protocol == "udp":
        reserved.setsockopt(SOL_SOCKET, SO_RCVBUF, 1)  # nothing is ever read from it
    elif number:
        # For connections of an earlier holder that linger in TIME_WAIT; two listeners it does not allow. A chosen
        # port comes without, so that the kernel chooses one that nobody else is bound to either.
        reserved.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    reserved.bind((address, number))
    if protocol != "udp":
        reserved.listen(0)


def port_holder(address: str, number: int, protocol: str) -> str | None:
    """Who has the port in this network namespace, as "nginx (pid 12)", so far as /proc tells."""
    inodes = _socket_inodes(address, number, protocol)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in os.listdir("/proc"):
        if pid.isdecimal() and _has_descriptor(pid, wanted):
            return f"{_command(pid)} (pid {pid})"
    return None


def _socket_inodes(address: str, number: int, protocol: str) -> set[str]:
    """The sockets in the way of binding there (proc_net_tcp: the address's words are in machine order)."""
    found = set()
    for name in (protocol, f"{protocol}6"):
        try:
            lines = _read(f"/proc/thread-self/net/{name}").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if int(port, 16) != number or (protocol == "tcp" and fields[3] != "0A"):  # listening
                continue
            its = _address_of(host)
            if address in (its, _EVERYWHERE, "::") or its in (_EVERYWHERE, "::"):
                found.add(fields[9])
    return found


def _address_of(words: str) -> str:
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _has_descriptor(pid: str, wanted: set[str]) -> bool:
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                    return True
            except OSError:
                continue  # closed meanwhile
    except OSError:
        pass  # ended meanwhile, or not ours to see
    return False


def _command(pid: str) -> str:
    try:
        return _read(f"/proc/{pid}/comm").strip()
    except OSError:
        return "a process"


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


# Maps


def _entries(ports: "list[dict[str, Any]]") -> Entries:
    """The elements of each map."""
    entries: Entries = {}
    for port in ports:
        place, key = entry_key(port)
        target = inet_pton(_family(port["container_ip"]), port["container_ip"])
        entries.setdefault(place, {})[key] = nftables.address(target) + nftables.port(port["container_port"])
    return entries


def entry_key(port: "dict[str, Any]") -> tuple[tuple[int, str], bytes]:
    """The family and map, and the key, of a published port."""
    host_ip = port["host_ip"]
    family = nftables.IPV6 if ":" in host_ip else nftables.IPV4
    key = nftables.protocol(PROTOCOLS[port["protocol"]]) + nftables.port(port["host_port"])
    if host_ip in (_EVERYWHERE, _EVERYWHERE_6):
        return (family, PORTS), key
    return (family, ADDRESSED), nftables.address(inet_pton(_family(host_ip), host_ip)) + key


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


def _add_entries(netfilter: nftables.NftSocket, table: str, entries: Entries) -> None:
    change = nftables.Transaction(table)
    for (family, name), elements in entries.items():
        part = nftables.Transaction(table, family)
        part.add_elements(name, elements)
        change.messages += part.messages
    netfilter.commit(change)


def _replace_entries(netfilter: nftables.NftSocket, table: str, entries: Entries) -> None:
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
    if host_ip != _EVERYWHERE:
        return {inet_aton(host_ip)}
    with RouteSocket() as route:
        return {inet_aton(address.partition("/")[0]) for _, address in route.addresses(AF_INET)}


# Namespace and devices


def _make_namespace(attachment: Attachment, plan: "dict[str, Any]", owner: "int | None") -> None:
    """
    A new namespace in *attachment*, with all that the plan wants in it.

    It is entered only for what cannot be done from outside: opening it, sysctls, and a socket that stays in it.
    """
    host = _step("open the host's network namespace", _own_namespace)
    inner: RouteSocket | None = None
    outer: RouteSocket | None = None
    try:
        if owner is None:
            _step("make a network namespace", unshare, CLONE_NEWNET)
        else:
            _step("make a network namespace", _enter_new_of, owner)
        try:
            attachment.namespace = _step("open the new network namespace", _own_namespace)
            for name, value in plan.get("sysctls", {}).items():
                _step(f"set {name}", _write_sysctl, name, str(value))
            inner = _step("talk to the new network namespace", RouteSocket)
        finally:
            setns(host, CLONE_NEWNET)
        _step("bring the loopback device up", inner.execute, [set_link(_LOOPBACK, up=True)])
        interfaces = plan.get("interfaces", ())
        if interfaces:
            outer = _step("talk to the host's network", RouteSocket)
        for interface in interfaces:
            assert outer is not None
            step = f"connect {interface['device']} to bridge {interface['bridge']}"
            _step(step, _add_interface, outer, inner, attachment, interface)
            attachment.interfaces.append(interface)
        _step("set the default route", _set_default_routes, inner, attachment.interfaces, True)
    finally:
        os.close(host)
        if inner is not None:
            inner.close()
        if outer is not None:
            outer.close()


def _enter_new_of(owner: int) -> None:
    """Enter a new network namespace that belongs to that user namespace, made by a child: there is no way back."""
    from wherry_oci.linux.namespaces import CLONE_NEWUSER, clone

    hears, says = os.pipe2(os.O_CLOEXEC)
    pid = clone(0)
    if pid == 0:
        try:
            setns(owner, CLONE_NEWUSER)
            unshare(CLONE_NEWNET)
            os.write(says, b"made")
            while True:
                select.select([], [], [])  # it is all there is in the namespace, until it is killed
        finally:
            os._exit(1)
    os.close(says)
    try:
        if os.read(hears, 100) != b"made":
            raise OSError(errno.EPERM, "it cannot be made in the container's user namespace")
        made = _open(f"/proc/{pid}/ns/net")
        try:
            setns(made, CLONE_NEWNET)
        finally:
            os.close(made)
    finally:
        os.close(hears)
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)


def _check_process(plan: "dict[str, Any]") -> None:
    """The process whose namespace was opened is still the one that was meant."""
    if plan.get("process") is None:
        return
    from wherry_shim.records import start_time

    pid, start = plan["process"]
    if start_time(pid) != start:
        raise AttachFailed(
            "open the network namespace " + plan["path"], OSError(errno.ESRCH, "its container has ended")
        )


def _has_ipv6(interfaces: "list[dict[str, Any]]") -> bool:
    return any(":" in address for interface in interfaces for address in interface["addresses"])


def _check_ports(attachment: Attachment) -> None:
    """A port of an IPv6 address can lead to IPv6 only, and a proxy hands no sctp on."""
    for port in attachment.reserved:
        if attachment.proxy and port["protocol"] == "sctp":
            error = OSError(errno.EPROTONOSUPPORT, "this kernel has no nf_tables, and without it there is no sctp")
            raise AttachFailed(f"publish sctp port {port['host_port']}", error)
        if attachment.outside and port["protocol"] == "sctp":
            error = OSError(errno.EPROTONOSUPPORT, "ports of who is not root go through a proxy, which knows no sctp")
            raise AttachFailed(f"publish sctp port {port['host_port']}", error)
    if not attachment.interfaces or _has_ipv6(attachment.interfaces):
        return
    for port in attachment.reserved:
        if ":" in port["host_ip"]:
            step = f"publish {port['protocol']} port {port['host_port']} of {port['host_ip']}"
            raise AttachFailed(
                step, OSError(errno.EAFNOSUPPORT, "the container has no IPv6: give it a network that has")
            )


def _aimed(attachment: Attachment) -> "list[dict[str, Any]]":
    """
    The ports that can be published now, each with the address that it leads to: that of its family on the interface
    which has the default route.
    """
    ports = []
    for port in attachment.reserved:
        bridged = [one for one in attachment.interfaces if not one.get("parent")]  # others the host cannot reach
        target = _outward(bridged, _family(port["host_ip"]))
        if target is not None:
            ports.append({"container_ip": target[0], **port})
    return ports


def _outward(interfaces: "list[dict[str, Any]]", family: int) -> "tuple[str, str, str] | None":
    """Address, gateway and device of the first interface that leads out in that family."""
    for interface in interfaces:
        addresses = [one.partition("/")[0] for one in interface["addresses"] if _family(one) == family]
        gateways = [one for one in interface["gateways"] if _family(one) == family]
        if addresses and gateways:
            return addresses[0], gateways[0], interface["device"]
    return None


def _set_default_routes(inner: RouteSocket, interfaces: "list[dict[str, Any]]", fresh: bool = False) -> None:
    """Where there is no default route (as in a *fresh* namespace), by the first interface that leads out."""
    for family, everywhere in ((AF_INET, "0.0.0.0/0"), (AF_INET6, "::/0")):
        way = _outward(interfaces, family)
        if way is None or not (fresh or all(destination != everywhere for destination, _ in inner.routes(family))):
            continue
        inner.execute([add_route(inner.link(way[2]).index, gateway=way[1])])


def _add_interface(outer: RouteSocket, inner: RouteSocket, attachment: Attachment, interface: "dict[str, Any]") -> None:
    assert attachment.namespace is not None
    if interface["device"] is None:
        interface["device"] = _free_device(inner)
    if interface.get("parent"):
        _add_macvlan(outer, inner, attachment, interface)
        return
    device, host_device = interface["device"], interface["host_device"]
    pair = new_veth(
        host_device,
        device,
        peer_namespace=attachment.namespace,
        peer_address=interface["mac"],
        master=outer.link(interface["bridge"]).index,
        mtu=interface["mtu"],
    )
    try:
        outer.execute([pair])
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        # This container's, from before: a namespace is taken down some time after its last process has ended.
        _delete_device(outer, host_device)
        outer.execute([pair])
    try:
        # Where br_netfilter is loaded, a container that calls itself by its published port is not routed but bridged.
        outer.execute([reflect(host_device)])
        _address(inner, attachment.namespace, interface)
    except BaseException:
        _delete_device(outer, host_device)
        raise


def _add_macvlan(outer: RouteSocket, inner: RouteSocket, attachment: Attachment, interface: "dict[str, Any]") -> None:
    assert attachment.namespace is not None
    device = interface["device"]
    parent = outer.link(interface["parent"]).index
    made = new_macvlan(device, parent, namespace=attachment.namespace, address=interface["mac"], mtu=interface["mtu"])
    outer.execute([made])
    try:
        _up_when_free(inner, device)
        _address(inner, attachment.namespace, interface)
    except BaseException:
        _delete_device(inner, device)
        raise


def _up_when_free(inner: RouteSocket, device: str) -> None:
    """Bring a macvlan up. The container's last one may still have the MAC: its namespace is taken down in time."""
    from time import monotonic, sleep

    deadline = monotonic() + _MAC_PATIENCE_S
    while True:
        try:
            inner.execute([set_link(inner.link(device).index, up=True)])
            return
        except NetlinkError as error:
            if error.errno != errno.EADDRINUSE or monotonic() >= deadline:
                raise
        sleep(0.005)


def _address(inner: RouteSocket, namespace: int, interface: "dict[str, Any]") -> None:
    """Bring a container's device up, with its addresses."""
    index = inner.link(interface["device"]).index
    if _has_ipv6([interface]):
        _enable_ipv6(namespace, interface["device"])
    requests = [set_link(index, up=True)]
    requests += [add_address(index, address) for address in interface["addresses"]]
    inner.execute(requests)


def _free_device(inner: RouteSocket) -> str:
    taken = {link.name for link in inner.links()}
    number = 0
    while f"eth{number}" in taken:
        number += 1
    return f"eth{number}"


def _enable_ipv6(namespace: int, device: str) -> None:
    """On this device alone, and with nothing that waits for duplicate detection: the addresses are of our choosing."""
    host = _own_namespace()
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            for name, value in (("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")):
                _write_sysctl(f"net.ipv6.conf.{device}.{name}", value)
        finally:
            setns(host, CLONE_NEWNET)
    finally:
        os.close(host)


def _undo(attachment: Attachment) -> None:
    """After a failure. What the kernel removes with the namespace is removed here too, but at once."""
    try:
        if attachment.interfaces:
            with RouteSocket() as outer:
                for interface in attachment.interfaces:
                    _delete_device(outer, interface["host_device"])
    except OSError:
        pass  # the first error is the one to report; the devices go with the namespace
    attachment.close()


def _delete_device(outer: RouteSocket, name: str) -> None:
    try:
        outer.execute([delete_link(name)])
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _write_sysctl(name: str, value: str) -> None:
    """Set a sysctl of the namespace that this thread is in; one that this kernel does not have is passed over."""
    try:
        fd = os.open("/proc/sys/" + name.replace(".", "/"), os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _step(step: str, do: "Any", *arguments: "Any") -> "Any":
    try:
        return do(*arguments)
    except OSError as error:
        raise AttachFailed(step, error) from error
