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
        "path": "/proc/PID/fd/N",           # join: the namespace to join
        "table": "wherry-…",                # bridge: the nf_tables table that has the maps PORTS and ADDRESSED
        "interfaces": [                     # bridge: the first one has the default route and the published ports
            {
                "bridge": "wherry0",        # must be there
                "host_device": "veth…",     # of this container alone
                "device": "eth0",
                "mac": "02:42:…",
                "mtu": 1500,
                "addresses": ["172.30.0.2/16"],
                "gateway": "172.30.0.1" | None,
            },
        ],
        "sysctls": {"net.ipv6.conf.default.disable_ipv6": "1"},   # what the kernel lacks is passed over
        "ports": [{"host_ip": "0.0.0.0", "host_port": 8080, "container_port": 80, "protocol": "tcp"}],
    }

A `host_port` of 0 lets the kernel choose a free one; with a `last_host_port` the first free one from the one to the
other is taken. What it came to is in the attachment's ports.
"""

import errno
import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
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
from wherry_oci.linux.rtnetlink import RouteSocket, add_address, add_route, delete_link, new_veth, reflect, set_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The maps of published ports. On every address of the host, and on one:
PORTS = "ports"  # protocol . port → address . port
ADDRESSED = "addressed"  # host's address . protocol . port → address . port

PROTOCOLS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "sctp": IPPROTO_SCTP}

_LOOPBACK = 1  # the index of lo in every namespace
_EVERYWHERE = "0.0.0.0"


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
    A container's network as it is: `namespace` (a descriptor; None for the host's own), `ports` as published, with the
    real host ports, and the sockets that keep them from others. Ended by `detach`.
    """

    __slots__ = ("_sockets", "host_devices", "namespace", "ports", "table")

    def __init__(self) -> None:
        self.namespace: int | None = None
        self.table = ""
        self.ports: list[dict[str, Any]] = []
        self.host_devices: list[str] = []
        self._sockets: list[socket] = []

    def record(self) -> "dict[str, Any]":
        """What `detach` needs when this process is no more, ready for JSON."""
        return {"table": self.table, "ports": self.ports, "host_devices": self.host_devices}

    def hold(self, reserved: socket) -> None:
        """Keep a socket open until the end."""
        self._sockets.append(reserved)

    def close(self) -> None:
        """Let go of ports and namespace, in that order; published or not."""
        while self._sockets:
            self._sockets.pop().close()
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None


def attach(plan: "dict[str, Any]") -> Attachment:
    """
    Make the network of *plan*, in a few milliseconds. This thread is in the host's namespace before and after.

    The returned descriptor's namespace has its devices up, with addresses and routes, before its ports are published.
    Raises PortInUse or AttachFailed; then nothing is left of it.
    """
    attachment = Attachment()
    mode = plan["mode"]
    if mode == "host":
        return attachment
    try:
        if mode == "join":
            attachment.namespace = _step("open the network namespace " + plan["path"], _open, plan["path"])
        else:
            for port in plan.get("ports", ()):
                _reserve(attachment, port)
            _make_namespace(attachment, plan)
            if attachment.ports:
                attachment.table = plan["table"]
                _step("publish the ports", publish, attachment.table, attachment.ports)
    except BaseException:
        _undo(attachment)
        raise
    return attachment


def detach(attachment: Attachment) -> None:
    """Stop publishing and let everything go; safe to repeat. Raises AttachFailed, having let go all the same."""
    netfilter: nftables.NftSocket | None = None
    try:
        if attachment.ports:
            netfilter = _step("talk to nf_tables", nftables.NftSocket)
            entries = _entries(attachment.ports)
            _step("stop publishing the ports", remove_entries, netfilter, attachment.table, entries)
            attachment.ports = []
    finally:
        attachment.close()
        if netfilter is not None:
            netfilter.close()  # last: it waits some milliseconds until no packet can see what was removed


def connect(namespace: int, interface: "dict[str, Any]") -> None:
    """Give a running container's *namespace* (a descriptor) one more interface. Raises NetlinkError, having undone."""
    outer = RouteSocket()
    inner = None
    host = _own_namespace()
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            inner = RouteSocket()
        finally:
            setns(host, CLONE_NEWNET)
        _add_interface(outer, inner, namespace, interface)
    finally:
        os.close(host)
        outer.close()
        if inner is not None:
            inner.close()


def disconnect(host_device: str) -> None:
    """Take the interface with this end on the host away; that it is gone already is fine. Raises NetlinkError."""
    with RouteSocket() as outer:
        _delete_device(outer, host_device)


def publish(table: str, ports: "list[dict[str, Any]]") -> None:
    """
    Send what comes to these host ports to their containers. Repeating it is fine, and entries that a killed shim left
    for the same host ports are replaced: the sockets say whose a port is. Raises NetlinkError.
    """
    _put_entries(table, _entries(ports))
    for port in ports:
        if port["protocol"] == "udp":
            _redirect_flows(port)


def _put_entries(table: str, entries: "dict[str, nftables.Elements]") -> None:
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
    with nftables.NftSocket() as netfilter:
        remove_entries(netfilter, table, _entries(ports))


def remove_entries(netfilter: nftables.NftSocket, table: str, entries: "dict[str, nftables.Elements]") -> None:
    """Remove those of *entries* (by map) that are there with the same data. Raises NetlinkError."""
    while True:
        try:
            generation = netfilter.generation()
            change = nftables.Transaction(table)
            for name, elements in entries.items():
                there = netfilter.find(table, name, elements)
                change.delete_elements(name, [key for key, data in elements.items() if there.get(key) == data])
            netfilter.commit(change, generation)
            return
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return  # the table itself is gone
            if error.errno != errno.ERESTART:  # somebody else's commit came between
                raise


# Ports


def _reserve(attachment: Attachment, port: "dict[str, Any]") -> None:
    address, protocol = port["host_ip"], port["protocol"]
    numbers = range(port["host_port"], port.get("last_host_port", port["host_port"]) + 1)
    for number in numbers:
        step = f"reserve {protocol} port {number} of {address}"
        try:
            reserved = _reserved(address, number, protocol)
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT and protocol == "sctp":
                # A kernel without sctp sockets has nobody who could take the port, and still translates.
                attachment.ports.append(port)
                return
            if error.errno != errno.EADDRINUSE:
                raise AttachFailed(step, error) from error
            if number == numbers[-1]:
                raise PortInUse(address, number, protocol, port_holder(address, number, protocol)) from None
        else:
            attachment.hold(reserved)
            attachment.ports.append({**port, "host_port": reserved.getsockname()[1]})
            return


def _reserved(address: str, number: int, protocol: str) -> socket:
    family = AF_INET6 if ":" in address else AF_INET
    reserved = socket(family, SOCK_DGRAM if protocol == "udp" else SOCK_STREAM, PROTOCOLS[protocol])
    try:
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


def _entries(ports: "list[dict[str, Any]]") -> "dict[str, nftables.Elements]":
    """The elements of each map."""
    entries: dict[str, nftables.Elements] = {}
    for port in ports:
        name, key = entry_key(port)
        target = inet_aton(port["container_ip"])
        entries.setdefault(name, {})[key] = nftables.address(target) + nftables.port(port["container_port"])
    return entries


def entry_key(port: "dict[str, Any]") -> tuple[str, bytes]:
    """The map and the key of a published port."""
    key = nftables.protocol(PROTOCOLS[port["protocol"]]) + nftables.port(port["host_port"])
    if port["host_ip"] == _EVERYWHERE:
        return PORTS, key
    return ADDRESSED, nftables.address(inet_pton(AF_INET, port["host_ip"])) + key


def _add_entries(netfilter: nftables.NftSocket, table: str, entries: "dict[str, nftables.Elements]") -> None:
    change = nftables.Transaction(table)
    for name, elements in entries.items():
        change.add_elements(name, elements)
    netfilter.commit(change)


def _replace_entries(netfilter: nftables.NftSocket, table: str, entries: "dict[str, nftables.Elements]") -> None:
    generation = netfilter.generation()
    change = nftables.Transaction(table)
    for name, elements in entries.items():
        change.delete_elements(name, list(netfilter.find(table, name, elements)))
        change.add_elements(name, elements)
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


def _make_namespace(attachment: Attachment, plan: "dict[str, Any]") -> None:
    """
    A new namespace in *attachment*, with all that the plan wants in it.

    It is entered only for what cannot be done from outside: opening it, sysctls, and a socket that stays in it.
    """
    host = _step("open the host's network namespace", _own_namespace)
    inner: RouteSocket | None = None
    outer: RouteSocket | None = None
    try:
        _step("make a network namespace", unshare, CLONE_NEWNET)
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
            _step(step, _add_interface, outer, inner, attachment.namespace, interface)
            attachment.host_devices.append(interface["host_device"])
    finally:
        os.close(host)
        if inner is not None:
            inner.close()
        if outer is not None:
            outer.close()
    _aim(attachment, plan)


def _aim(attachment: Attachment, plan: "dict[str, Any]") -> None:
    """Note in each port the address that it leads to: the first interface's first IPv4 one."""
    addresses = [address for interface in plan.get("interfaces", ()) for address in interface["addresses"]]
    target = next((address.partition("/")[0] for address in addresses if ":" not in address), None)
    attachment.ports = [{"container_ip": target, **port} for port in attachment.ports]


def _add_interface(outer: RouteSocket, inner: RouteSocket, namespace: int, interface: "dict[str, Any]") -> None:
    device, host_device = interface["device"], interface["host_device"]
    pair = new_veth(
        host_device,
        device,
        peer_namespace=namespace,
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
        index = inner.link(device).index
        requests = [set_link(index, up=True)]
        requests += [add_address(index, address) for address in interface["addresses"]]
        if interface.get("gateway"):
            requests.append(add_route(index, gateway=interface["gateway"]))
        inner.execute(requests)
    except BaseException:
        _delete_device(outer, host_device)
        raise


def _undo(attachment: Attachment) -> None:
    """After a failure. What the kernel removes with the namespace is removed here too, but at once."""
    try:
        if attachment.host_devices:
            with RouteSocket() as outer:
                for device in attachment.host_devices:
                    _delete_device(outer, device)
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
