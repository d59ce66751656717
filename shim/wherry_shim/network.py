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
from _socket import AF_INET, AF_INET6

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
from wherry_shim.attachment import AttachFailed, Attachment, attempt, family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_oci.linux.nftables import NftSocket

_SIGKILL = 9
_MAC_PATIENCE_S = 5.0
_LOOPBACK = 1  # the index of lo in every namespace


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
            attachment.namespace = attempt("open the network namespace " + plan["path"], _open, plan["path"])
            _check_process(plan)
        else:
            _reserve_ports(attachment, plan)
            attachment.outside = bridges is not None
            _enter(bridges)
            attachment.proxy = bool(plan.get("proxy"))
            attachment.table = "" if attachment.proxy else plan.get("table") or ""
            _make_namespace(attachment, plan, owner)
            _check_ports(attachment)
            _publish(attachment, _aimed(attachment))
    except BaseException:
        _undo(attachment)
        raise
    return attachment


def _reserve_ports(attachment: Attachment, plan: "dict[str, Any]") -> None:
    both = _has_ipv6(plan.get("interfaces", ()))
    for port in plan.get("ports", ()):
        from wherry_shim import ports

        ports.reserve(attachment, port, both)


def _publish(attachment: Attachment, ports: "list[dict[str, Any]]") -> None:
    if ports and not attachment.proxy:
        from wherry_shim import portmaps

        attempt("publish the ports", portmaps.publish, attachment.table, ports)
    attachment.ports = ports


def _enter(namespace: "int | None") -> None:
    if namespace is not None:
        attempt("enter the network of the bridges", setns, namespace, CLONE_NEWNET)


def detach(attachment: Attachment) -> None:
    """Stop publishing and let everything go; safe to repeat. Raises AttachFailed, having let go all the same."""
    netfilter: NftSocket | None = None
    try:
        if attachment.ports and not attachment.proxy:
            from wherry_oci.linux import nftables
            from wherry_shim import portmaps

            netfilter = attempt("talk to nf_tables", nftables.NftSocket)
            entries = portmaps.entries_of(attachment.ports)
            attempt("stop publishing the ports", portmaps.remove_entries, netfilter, attachment.table, entries)
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
            attempt(step, _add_interface, outer, inner, attachment, interface)
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
            attempt(step, _delete_device, inner, interface["device"])
        else:
            with RouteSocket() as outer:
                attempt(step, _delete_device, outer, interface["host_device"])
        attachment.interfaces.remove(interface)
        _settle(attachment, inner)
    finally:
        inner.close()


def _settle(attachment: Attachment, inner: RouteSocket) -> None:
    """After an interface has come or gone: default routes, and where the published ports lead."""
    attempt("set the default route", _set_default_routes, inner, attachment.interfaces)
    ports = _aimed(attachment)
    if attachment.proxy:
        attachment.ports = ports
    elif ports != attachment.ports:
        from wherry_shim import portmaps

        attempt("stop publishing the ports", portmaps.unpublish, attachment.table, attachment.ports)
        attachment.ports = []
        _publish(attachment, ports)


def _socket_in(namespace: int) -> RouteSocket:
    """A netlink socket of that network namespace. Raises AttachFailed."""
    host = attempt("open the host's network namespace", _own_namespace)
    try:
        attempt("enter the container's network namespace", setns, namespace, CLONE_NEWNET)
        try:
            return RouteSocket()
        finally:
            setns(host, CLONE_NEWNET)
    finally:
        os.close(host)


# Namespace and devices


def _make_namespace(attachment: Attachment, plan: "dict[str, Any]", owner: "int | None") -> None:
    """
    A new namespace in *attachment*, with all that the plan wants in it.

    It is entered only for what cannot be done from outside: opening it, sysctls, and a socket that stays in it.
    """
    host = attempt("open the host's network namespace", _own_namespace)
    inner: RouteSocket | None = None
    outer: RouteSocket | None = None
    try:
        if owner is None:
            attempt("make a network namespace", unshare, CLONE_NEWNET)
        else:
            attempt("make a network namespace", _enter_new_of, owner)
        try:
            attachment.namespace = attempt("open the new network namespace", _own_namespace)
            for name, value in plan.get("sysctls", {}).items():
                attempt(f"set {name}", _write_sysctl, name, str(value))
            inner = attempt("talk to the new network namespace", RouteSocket)
        finally:
            setns(host, CLONE_NEWNET)
        attempt("bring the loopback device up", inner.execute, [set_link(_LOOPBACK, up=True)])
        interfaces = plan.get("interfaces", ())
        if interfaces:
            outer = attempt("talk to the host's network", RouteSocket)
        for interface in interfaces:
            assert outer is not None
            step = f"connect {interface['device']} to bridge {interface['bridge']}"
            attempt(step, _add_interface, outer, inner, attachment, interface)
            attachment.interfaces.append(interface)
        attempt("set the default route", _set_default_routes, inner, attachment.interfaces, True)
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
        target = _outward(bridged, family_of(port["host_ip"]))
        if target is not None:
            ports.append({"container_ip": target[0], **port})
    return ports


def _outward(interfaces: "list[dict[str, Any]]", family: int) -> "tuple[str, str, str] | None":
    """Address, gateway and device of the first interface that leads out in that family."""
    for interface in interfaces:
        addresses = [one.partition("/")[0] for one in interface["addresses"] if family_of(one) == family]
        gateways = [one for one in interface["gateways"] if family_of(one) == family]
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
