"""Containers' networks in real namespaces: what reaches what, what must not, and that failures leave nothing."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support import host as hosts
from support.host import ADDRESS as HOST
from support.host import NEIGHBOUR
from support.namespace import LOOPBACK, arrived, ask, inside, listening, new_namespace, output, udp
from wherry import network as networks
from wherry.portbinding import parse_ports
from wherry_images.database import Database
from wherry_oci.errors import NotFound
from wherry_oci.linux.netlink import NetlinkError
from wherry_oci.linux.nftables import NftSocket, Transaction
from wherry_oci.linux.rtnetlink import RouteSocket, add_route, delete_address
from wherry_shim import network, portmaps
from wherry_shim.attachment import AttachFailed, Attachment, PortInUse
from wherry_shim.network import attach, detach

pytestmark = pytest.mark.root


class World:
    """A host (the namespace that the test is in), a neighbour whose way out it is, and containers."""

    def __init__(self, folder: Path, host: int, neighbour: int, undo: ExitStack) -> None:
        self.host = host
        self.neighbour = neighbour
        self.run = folder / "run"
        self.database = Database(folder / "wherry.db")
        self.database.migrate(networks.COMPONENT, networks.MIGRATIONS)
        undo.callback(self.database.close)
        self._undo = undo

    def network(self, name: str = networks.DEFAULT, **options: Any) -> networks.Network:
        with self.database.transaction() as connection:
            try:
                found = networks.get_network(connection, name)
            except NotFound:
                found = networks.create_network(connection, name, **options)
        networks.ensure_bridge(found, self.run)
        return found

    def plan(
        self, container: str, ports: Any = None, network: str = networks.DEFAULT, **options: Any
    ) -> dict[str, Any]:
        its = self.network(network, **options)
        with self.database.transaction() as connection:
            place = (its, networks.allocate(connection, its, container))
        return networks.plan(container, [place], parse_ports(ports))

    def start(self, container: str, ports: Any = None, **options: Any) -> "Container":
        return self.attach(self.plan(container, ports, **options))

    def attach(self, plan: dict[str, Any]) -> "Container":
        attachment = attach(plan)
        self._undo.callback(detach, attachment)
        return Container(attachment, plan)


class Container:
    def __init__(self, attachment: Attachment, plan: dict[str, Any]) -> None:
        assert attachment.namespace is not None
        self.attachment = attachment
        self.plan = plan
        self.namespace = attachment.namespace
        self.address = plan["interfaces"][0]["addresses"][0].partition("/")[0]
        self.gateway = next(iter(plan["interfaces"][0]["gateways"]), "")

    def port(self, container_port: int) -> int:
        (found,) = (port for port in self.attachment.ports if port["container_port"] == container_port)
        number: int = found["host_port"]
        return number


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as undo:
        host = undo.enter_context(new_namespace())
        undo.enter_context(inside(host))
        neighbour = undo.enter_context(new_namespace())
        hosts.wire(hosts.Network(host), hosts.Network(neighbour))
        hosts.Network(neighbour).run(["ip", "route", "add", "default", "via", HOST], check=True)
        yield World(tmp_path, host, neighbour, undo)


# What reaches what


def test_a_published_port_answers_on_every_address_of_the_host(world: World) -> None:
    """By loopback, by its own address, and from a neighbour, whose address the container sees."""
    web = world.start("web", {80: 8080})
    with listening(web.namespace, 80) as server:
        assert ask(world.host, ("127.0.0.1", 8080), server) == web.gateway
        assert ask(world.host, ("127.0.0.9", 8080), server) == web.gateway
        assert ask(world.host, (HOST, 8080), server) == HOST
        assert ask(world.host, (web.gateway, 8080), server) == web.gateway
        assert ask(world.neighbour, (HOST, 8080), server) == NEIGHBOUR


def test_a_published_port_answers_to_containers_and_to_itself(world: World) -> None:
    """A neighbour by the gateway's or the host's address, and the container by its own published port (hairpin)."""
    web, other = world.start("web", {80: 8080}), world.start("other")
    with listening(web.namespace, 80) as server:
        for client in (other, web):
            assert ask(client.namespace, (HOST, 8080), server) == web.gateway
            assert ask(client.namespace, (web.gateway, 8080), server) == web.gateway


def test_containers_of_one_network_reach_each_other(world: World) -> None:
    """By address, unpublished, unchanged."""
    web, other = world.start("web"), world.start("other")
    with listening(web.namespace, 80) as server:
        assert ask(other.namespace, (web.address, 80), server) == other.address
        assert ask(world.host, (web.address, 80), server) == web.gateway, "and the host reaches all"


def test_a_container_reaches_the_world_under_the_hosts_address(world: World) -> None:
    """Masqueraded, because nobody out there knows the way back."""
    web = world.start("web")
    with listening(world.neighbour, 7000) as server:
        assert ask(web.namespace, (NEIGHBOUR, 7000), server) == HOST


def test_udp_is_published_and_answered(world: World) -> None:
    """Questions and answers, from the host's loopback and from a neighbour."""
    dns = world.start("dns", {"53/udp": 5353})
    with udp(dns.namespace, 53) as server:
        for client_namespace, address in ((world.host, "127.0.0.1"), (world.neighbour, HOST), (dns.namespace, HOST)):
            with udp(client_namespace) as client:
                client.sendto(b"question", (address, 5353))
                question, source = server.recvfrom(100)
                server.sendto(question + b"?", source)
                answer, responder = client.recvfrom(100)
                assert (answer, responder) == (b"question?", (address, 5353))


def test_a_udp_client_that_was_there_before_is_heard(world: World) -> None:
    """
    It sends from one port all the time: to nobody, to a first container, to the one that has the port after it. Flows
    that only look alike, to the same port of another machine, are left alone.
    """
    away = world.start("away")
    with udp(world.neighbour, 5353) as elsewhere, udp(away.namespace) as asking:
        asking.sendto(b"away", (NEIGHBOUR, 5353))
        assert elsewhere.recvfrom(100) == (b"away", (HOST, asking.getsockname()[1]))
        with udp(world.neighbour) as client:
            client.sendto(b"to nobody", (HOST, 5353))
            for name in ("first", "second"):
                container = world.start(name, {"53/udp": 5353})
                with udp(container.namespace, 53) as server:
                    client.sendto(name.encode(), (HOST, 5353))
                    message, source = server.recvfrom(100)
                    assert message == name.encode()
                    server.sendto(b"yes", source)
                    assert client.recvfrom(100) == (b"yes", (HOST, 5353))
                detach(container.attachment)
        elsewhere.sendto(b"still", (HOST, asking.getsockname()[1]))
        assert asking.recv(100) == b"still"


def test_sctp_is_translated_also_where_nobody_has_sockets_of_it(world: World) -> None:
    """A number must be given then, as there is none to keep it; the maps have it by its own protocol."""
    world.start("one", {"132/sctp": 9132, "133/sctp": (HOST, 9133)})
    shown = output("nft", "list", "table", world.network().table)
    assert re.search(r"sctp \. 9132 : 172\.\d+\.0\.2 \. 132", shown)
    assert re.search(rf"{HOST} \. sctp \. 9133 : 172\.\d+\.0\.2 \. 133", shown)
    if _has_sctp():
        assert world.start("two", {"132/sctp": None}).port(132)
    else:
        with pytest.raises(AttachFailed, match=r"reserve sctp port 0 of .*: Protocol not supported"):
            world.start("two", {"132/sctp": None})


def _has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def test_a_port_of_one_address_is_published_there_alone(world: World) -> None:
    """Another container can have the same port of another address."""
    one = world.start("one", {80: (HOST, 8080)})
    two = world.start("two", {80: ("127.0.0.1", 8080)})
    with listening(one.namespace, 80) as first, listening(two.namespace, 80) as second:
        assert ask(world.neighbour, (HOST, 8080), first) == NEIGHBOUR
        assert ask(world.host, (HOST, 8080), first) == HOST
        assert ask(world.host, ("127.0.0.1", 8080), second) == two.gateway


def test_a_random_port_is_reserved_and_told(world: World) -> None:
    """Every container gets its own, tcp and udp, and the number is final."""
    made = [world.start(f"c{number}", {80: None, "53/udp": None, 81: None}) for number in range(5)]
    tcp = [container.port(port) for container in made for port in (80, 81)]
    assert len(set(tcp)) == 10
    assert all(port["host_port"] > 1023 for container in made for port in container.attachment.ports)
    with listening(made[3].namespace, 81) as server:
        assert ask(world.neighbour, (HOST, made[3].port(81)), server) == NEIGHBOUR


def test_the_first_free_port_of_a_range_is_taken(world: World) -> None:
    """And when none is left, it is an error."""
    assert [world.start(f"c{number}", {80: "9000-9002"}).port(80) for number in range(3)] == [9000, 9001, 9002]
    with pytest.raises(PortInUse, match=r"tcp port 9002 of 0\.0\.0\.0"):
        world.start("c3", {80: "9000-9002"})


def test_two_networks_give_two_interfaces(world: World) -> None:
    """Each has its own address; the first has the way out and the published ports."""
    front, back = world.network("front"), world.network("back")
    with world.database.transaction() as connection:
        places = [(one, networks.allocate(connection, one, "both")) for one in (front, back)]
    both = world.attach(networks.plan("both", places, parse_ports({80: 8080})))
    peer = world.start("peer", network="back")
    with listening(both.namespace, 80) as server:
        assert ask(peer.namespace, (places[1][1].ipv4, 80), server) == peer.address
        assert ask(world.neighbour, (HOST, 8080), server) == NEIGHBOUR
    with inside(both.namespace), RouteSocket() as route:
        (default,) = [index for destination, index in route.routes() if destination == "0.0.0.0/0"]
        assert route.link_at(default).name == "eth0"
        assert route.link("eth1").address == places[1][1].mac


def test_an_interface_comes_and_goes_while_the_container_runs(world: World) -> None:
    """connect and disconnect, repeated, leave what was there alone."""
    web, late = world.start("web"), world.network("late")
    with world.database.transaction() as connection:
        endpoint = networks.allocate(connection, late, "web")
    for _ in range(2):
        network.connect(web.attachment, networks.interface(late, endpoint), late.table)
        with inside(web.namespace), RouteSocket() as route:
            assert {"eth0", "eth1"} <= {link.name for link in route.links()}
        network.disconnect(web.attachment, late.id)
        network.disconnect(web.attachment, late.id)
    with inside(web.namespace), RouteSocket() as route:
        names = {link.name for link in route.links()}
        assert "eth0" in names
        assert "eth1" not in names


def test_the_device_is_as_planned(world: World) -> None:
    """Name, MAC, MTU, address, gateway; up on both ends; no IPv6 address that would have to be checked first."""
    web = world.start("web", network="small", options={networks.MTU_OPTION: "1400"})
    with inside(web.namespace), RouteSocket() as route:
        eth0, lo = route.link("eth0"), route.link("lo")
        assert (eth0.up, eth0.mtu, eth0.address) == (True, 1400, web.plan["interfaces"][0]["mac"])
        assert lo.up
        assert [address for index, address in route.addresses() if index == eth0.index] == [f"{web.address}/16"]
    with RouteSocket() as route:
        outer = route.link(web.plan["interfaces"][0]["host_device"])
        assert (outer.up, outer.master) == (True, route.link(web.plan["interfaces"][0]["bridge"]).index)


# What must not reach


def _send_then_mark(sender: socket.socket, target: tuple[str, int], mark: tuple[str, int]) -> None:
    """Packets on one way stay in order: when the second has arrived, the first will not any more."""
    sender.sendto(b"attack", target)
    sender.sendto(b"mark", mark)


def _lead_loopback_out(namespace: int, device: str, gateway: str) -> None:
    """Let packets for 127.0.0.0/8 leave a namespace, as its root may: no loopback address, and a route."""
    with inside(namespace), RouteSocket() as route:
        Path(f"/proc/sys/net/ipv4/conf/{device}/route_localnet").write_text("1")
        route.execute([delete_address(LOOPBACK, "127.0.0.1/8")])
        route.execute([add_route(route.link(device).index, destination="127.0.0.0/8", gateway=gateway)])


@pytest.mark.parametrize("guarded", [True, False])
def test_a_container_cannot_reach_the_hosts_loopback(world: World, guarded: bool) -> None:
    """
    route_localnet, without which 127.0.0.1 would not reach published ports, opens the host's loopback to the bridge;
    the guard chain closes it. Without that chain the same attack succeeds, so it is a real one.
    """
    evil = world.start("evil")
    _lead_loopback_out(evil.namespace, "eth0", evil.gateway)
    if not guarded:
        _empty_chain(world, "guard")
    with (
        udp(world.host, 9999, "127.0.0.1") as service,
        udp(world.host, 9998) as marked,
        udp(evil.namespace, 0, evil.address) as sender,
    ):
        _send_then_mark(sender, ("127.0.0.1", 9999), (evil.gateway, 9998))
        assert marked.recv(100) == b"mark"
        assert arrived(service) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_neighbour_cannot_reach_a_port_published_on_loopback(world: World, guarded: bool) -> None:
    """
    Who sends a packet for 127.0.0.1 to the host's MAC address would have it translated before routing refuses it;
    the guard chain is before that. Without it the attack succeeds.
    """
    web = world.start("web", {"80/udp": ("127.0.0.1", 8080), "81/udp": 8081})
    _lead_loopback_out(world.neighbour, hosts.DEVICE, HOST)
    if not guarded:
        _empty_chain(world, "guard")
    with (
        udp(web.namespace, 80) as service,
        udp(web.namespace, 81) as marked,
        udp(world.neighbour, 0, NEIGHBOUR) as sender,
    ):
        _send_then_mark(sender, ("127.0.0.1", 8080), (HOST, 8081))
        assert marked.recv(100) == b"mark"
        assert arrived(service) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_neighbour_cannot_reach_what_is_not_published(world: World, guarded: bool) -> None:
    """The host forwards, but to containers only what was published or asked for."""
    web = world.start("web", {"81/udp": 8081})
    if not guarded:
        _empty_chain(world, "forward")
    with (
        udp(web.namespace, 80) as service,
        udp(web.namespace, 81) as marked,
        udp(world.neighbour) as sender,  # its default route leads through the host
    ):
        _send_then_mark(sender, (web.address, 80), (HOST, 8081))
        assert marked.recv(100) == b"mark"
        assert arrived(service) is not guarded


def test_networks_are_apart_but_for_published_ports(world: World) -> None:
    """Docker's rule: from one bridge to another only by what the other publishes."""
    web = world.start("web", {"81/udp": 8081}, network="front")
    other = world.start("other", network="back")
    with udp(web.namespace, 80) as service, udp(web.namespace, 81) as marked, udp(other.namespace) as sender:
        _send_then_mark(sender, (web.address, 80), (HOST, 8081))
        assert marked.recv(100) == b"mark"
        assert not arrived(service)


def test_an_internal_network_has_no_way_out(world: World) -> None:
    """Neither a default route nor a host that would forward; its containers reach each other."""
    one, two = (world.start(name, network="inner", internal=True) for name in ("one", "two"))
    gateway = world.network("inner").gateway
    with inside(one.namespace), RouteSocket() as route:
        assert all(destination != "0.0.0.0/0" for destination, _ in route.routes())
        route.execute([add_route(route.link("eth0").index, gateway=gateway)])
    with udp(world.neighbour, 80) as service, udp(two.namespace, 81) as marked, udp(one.namespace) as sender:
        _send_then_mark(sender, (NEIGHBOUR, 80), (two.address, 81))
        assert marked.recv(100) == b"mark"
        with udp(world.host, 82, gateway) as behind:
            sender.sendto(b"mark", (gateway, 82))
            assert behind.recv(100) == b"mark"
        assert not arrived(service)


def test_the_namespace_and_the_sockets_are_not_inherited(world: World) -> None:
    """Nothing of the shim's reaches the container by exec."""
    before = _descriptors()
    world.start("web", {80: 8080})
    made = _descriptors() - before
    assert len(made) == 2
    assert not any(os.get_inheritable(fd) for fd in made)


# Ports and their holders


def test_a_published_port_cannot_be_taken(world: World) -> None:
    """By anybody, tcp or udp: the shim holds it."""
    world.start("web", {80: 8080, "53/udp": 5353})
    for kind, port in ((socket.SOCK_STREAM, 8080), (socket.SOCK_DGRAM, 5353)):
        with socket.socket(socket.AF_INET, kind) as taker:
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
            with pytest.raises(OSError, match="Address already in use"):
                _take(taker, ("127.0.0.1", port))


@pytest.mark.parametrize(("published", "taken"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), (HOST, HOST)])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_in_use_is_named_with_its_holder(world: World, published: str, taken: str, protocol: str) -> None:
    """Address, port, protocol, and who has it."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    plan = world.plan("web", {f"80/{protocol}": (published, 8080)})
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind((taken, 8080))
        if protocol == "tcp":
            holder.listen()
        with pytest.raises(PortInUse) as caught:
            attach(plan)
    me = Path("/proc/self/comm").read_text().strip()
    assert caught.value.facts() == {
        "address": published,
        "port": 8080,
        "protocol": protocol,
        "holder": f"{me} (pid {os.getpid()})",
    }
    assert f"{protocol} port 8080 of {published} is in use by {me}" in str(caught.value)
    world.attach(plan)  # free again, so it works


def test_a_holder_that_listens_on_ipv6_is_found(world: World) -> None:
    """A dual-stack socket has the IPv4 port too."""
    plan = world.plan("web", {80: 8080})
    with (
        socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True),
        pytest.raises(PortInUse) as caught,
    ):
        attach(plan)
    assert f"(pid {os.getpid()})" in str(caught.value.holder)


def test_a_port_that_just_served_can_be_published_at_once(world: World) -> None:
    """Connections of its last holder that linger in TIME_WAIT are no holder."""
    with socket.create_server(("127.0.0.1", 8080)) as server, socket.create_connection(("127.0.0.1", 8080)) as client:
        connection, _ = server.accept()
        connection.close()  # the side that closes first is the one that waits
        assert client.recv(1) == b""
    assert world.start("web", {80: 8080}).port(80) == 8080


def test_an_address_that_the_host_does_not_have_is_an_error(world: World) -> None:
    """Which names it."""
    with pytest.raises(AttachFailed, match=r"tcp port 8080 of 198\.51\.100\.1: .*assign") as caught:
        world.start("web", {80: ("198.51.100.1", 8080)})
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_entries_of_a_killed_shim_are_replaced(world: World) -> None:
    """Its socket is gone, so the port is free, and the next container gets it in spite of the old entry."""
    plan = world.plan("dead", {80: 8080, "53/udp": ("127.0.0.1", 5353)})
    dead = attach(plan)
    dead.close()  # as the kernel does when the shim is killed

    web = world.start("web", {80: 8080, "53/udp": ("127.0.0.1", 5353)})
    with listening(web.namespace, 80) as server:
        assert ask(world.host, ("127.0.0.1", 8080), server) == web.gateway
    portmaps.unpublish(dead.table, dead.ports)  # late, and it must not take what is another's now
    with listening(web.namespace, 80) as server:
        assert ask(world.host, ("127.0.0.1", 8080), server) == web.gateway


def test_ports_are_published_again_after_somebody_emptied_the_rules(world: World) -> None:
    """ensure_bridge restores the table, publish the entries; both may be repeated."""
    web = world.start("web", {80: 8080})
    change = Transaction(web.attachment.table)
    change.delete_table()
    with NftSocket() as netfilter:
        netfilter.commit(change)
    for _ in range(2):
        networks.ensure_bridge(world.network(), world.run)
        portmaps.publish(web.attachment.table, web.attachment.ports)
    with listening(web.namespace, 80) as server:
        assert ask(world.host, ("127.0.0.1", 8080), server) == web.gateway


def test_detach_unpublishes_and_lets_go(world: World) -> None:
    """The port is free, its entry gone, others' stay; once more is fine."""
    web, other = world.start("web", {80: 8080}), world.start("other", {80: 8081})
    table = web.attachment.table
    before = len(os.listdir("/proc/self/fd"))
    detach(web.attachment)
    detach(web.attachment)
    assert len(os.listdir("/proc/self/fd")) == before - 2, "socket and namespace"
    with NftSocket() as netfilter:
        assert set(netfilter.elements(table, portmaps.PORTS)) == {portmaps.entry_key(other.attachment.ports[0])[1]}
    with socket.create_server(("0.0.0.0", 8080)):
        pass


def test_the_kernel_takes_all_down_with_the_last_holder(world: World) -> None:
    """No name, no bind mount: when the descriptor is closed, the pair of devices goes."""
    web = world.start("web")
    device = web.plan["interfaces"][0]["host_device"]
    with RouteSocket() as route:
        assert route.link(device).up
        detach(web.attachment)
        _until_gone(route, device)


def test_a_container_starts_again_at_once_with_the_same_device(world: World) -> None:
    """The old namespace may still be on its way out with a device of the same name."""
    plan = world.plan("web", {80: 8080})
    for _ in range(5):
        web = world.attach(plan)
        with listening(web.namespace, 80) as server:
            assert ask(world.host, ("127.0.0.1", 8080), server) == web.gateway
        detach(web.attachment)


# Other modes


def test_none_has_its_loopback_and_nothing_else(world: World) -> None:
    """An own namespace, in which 127.0.0.1 works."""
    attachment = attach(networks.plan("quiet", mode="none"))
    assert attachment.namespace is not None
    try:
        with inside(attachment.namespace), RouteSocket() as route:
            assert [link.name for link in route.links() if link.up] == ["lo"]
            assert route.routes() == []
        with listening(attachment.namespace, 80) as server:
            assert ask(attachment.namespace, ("127.0.0.1", 80), server) == "127.0.0.1"
    finally:
        detach(attachment)


def test_host_makes_nothing(world: World) -> None:
    """No namespace, no socket."""
    before = os.listdir("/proc/self/fd")
    attachment = attach(networks.plan("open", mode="host"))
    assert (attachment.namespace, attachment.ports) == (None, [])
    detach(attachment)
    assert os.listdir("/proc/self/fd") == before


def test_a_namespace_is_joined_by_its_path(world: World) -> None:
    """As container:ID does: the same namespace, by a descriptor of its own."""
    web = world.start("web")
    joined = attach(networks.plan("side", mode="join", path=f"/proc/self/fd/{web.namespace}"))
    assert joined.namespace is not None
    try:
        assert os.fstat(joined.namespace).st_ino == os.fstat(web.namespace).st_ino
    finally:
        detach(joined)
    with pytest.raises(AttachFailed, match="open the network namespace /proc/self/fd/999999: No such file"):
        attach(networks.plan("side", mode="join", path="/proc/self/fd/999999"))


# Failures


def _broken(plan: dict[str, Any], **changed: Any) -> dict[str, Any]:
    interface = {**plan["interfaces"][0], **changed}
    return {**plan, "interfaces": [interface]}


@pytest.mark.parametrize(
    ("changed", "step"),
    [
        ({"bridge": "nobridge"}, "connect eth0 to bridge nobridge: could not find device nobridge"),
        ({"mtu": 1}, "connect eth0 to bridge wherry0: could not make device veth.*Invalid argument"),
        ({"device": "n" * 16}, "connect n+ to bridge wherry0: could not make device"),
        ({"gateways": ["198.51.100.1"]}, "set the default route: could not add route .* via 198.51.100.1"),
        ({"addresses": ["172.30.0.2/16", "172.30.0.2/16"]}, "connect eth0 .*could not add address 172.30.0.2/16"),
    ],
)
def test_a_step_that_fails_is_named_and_all_is_undone(world: World, changed: dict[str, Any], step: str) -> None:
    """Descriptors, devices, ports: as before. This thread is in the host's namespace, and the same plan can work."""
    plan = world.plan("web", {80: 8080, "53/udp": None})
    with RouteSocket() as route:
        before = (len(os.listdir("/proc/self/fd")), sorted(link.name for link in route.links()), _where())
        with pytest.raises(AttachFailed, match=step) as caught:
            attach(_broken(plan, **changed))
        assert (len(os.listdir("/proc/self/fd")), sorted(link.name for link in route.links()), _where()) == before
    assert caught.value.facts() == {"step": caught.value.step, "errno": caught.value.errno}
    assert caught.value.errno
    world.attach(plan)


def test_a_missing_table_is_named_and_all_is_undone(world: World) -> None:
    """The last step: even then the devices and sockets of the earlier ones go."""
    plan = {**world.plan("web", {80: 8080}), "table": "nothing"}
    with RouteSocket() as route:
        before = (len(os.listdir("/proc/self/fd")), sorted(link.name for link in route.links()))
        with pytest.raises(AttachFailed, match="publish the ports: could not add to set nothing ports: No such file"):
            attach(plan)
        assert (len(os.listdir("/proc/self/fd")), sorted(link.name for link in route.links())) == before


def test_a_wrong_sysctl_value_is_an_error_and_an_unknown_one_is_passed_over(world: World) -> None:
    """Named by its name; the thread is back in the host's namespace."""
    plan = world.plan("web")
    before = _where()
    with pytest.raises(AttachFailed, match=r"set net\.ipv4\.ip_forward: Invalid argument"):
        attach({**plan, "sysctls": {"net.ipv4.ip_forward": "many"}})
    assert _where() == before
    web = world.attach({**plan, "sysctls": {"net.not.there": "1", "net.ipv4.ip_default_ttl": "61"}})
    with inside(web.namespace):
        assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() == "61\n"
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "61\n"


def test_many_containers_leave_nothing(world: World) -> None:
    """Descriptors and entries after 50 of them are as before."""
    world.network()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        detach(attach(world.plan(f"c{number}", {80: None, 81: 8081, "82/udp": None})))
    assert len(os.listdir("/proc/self/fd")) == before
    with NftSocket() as netfilter:
        assert netfilter.elements(world.network().table, portmaps.PORTS) == {}


def _take(taker: socket.socket, address: tuple[str, int]) -> None:
    taker.bind(address)
    if taker.type == socket.SOCK_STREAM:
        taker.listen()


def _descriptors() -> set[int]:
    """The open ones, without the listing's own."""
    return {int(fd) for fd in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{fd}").exists()}


def _where() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _empty_chain(world: World, chain: str) -> None:
    change = Transaction(world.network().table)
    change.flush_chain(chain)
    with NftSocket() as netfilter:
        netfilter.commit(change)


def _until_gone(route: RouteSocket, device: str) -> None:
    for _ in range(100_000):
        try:
            route.link(device)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        os.sched_yield()
    raise AssertionError(f"{device} is still there")
