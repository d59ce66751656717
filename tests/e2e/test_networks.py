"""Networks that a user makes, with real containers in them."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from support import leftovers
from support.leftovers import settled
from support.namespace import output
from support.world import World
from wherry import Client, nettable
from wherry.container import Container
from wherry.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NetworkInUse,
    NetworkNotFound,
    NotFound,
    NotRunning,
    StartFailed,
)
from wherry.network import NetworkWarning

pytestmark = pytest.mark.e2e

_SERVE = ["sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -h /w -p 80"]


@pytest.fixture
def client(client: Client) -> Iterator[Client]:
    """As the folder's, and no network is left."""
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    client.networks.prune()


def _serve(client: Client, name: str, **options: object) -> Container:
    container = client.run("busybox", _SERVE, name=name, hostname=name, **options)  # type: ignore[arg-type] # whatever
    assert settled(lambda: [] if _get(container, "127.0.0.1") == name else ["no answer"]) == []
    return container


def _get(container: Container, address: str) -> str:
    """The page there, as a program in the container would get it."""
    host, _, port = address.partition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    descriptor = container._engine.socket(container.id, family, socket.SOCK_STREAM)
    with socket.socket(fileno=descriptor) as client:
        client.settimeout(2)
        try:
            client.connect((host, int(port or 80)))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                return answer.read().partition(b"\r\n\r\n")[2].decode().strip()
        except OSError:
            return "unreachable"


def _addresses(container: Container) -> dict[str, str]:
    """Network: address."""
    networks = container.attrs["NetworkSettings"]["Networks"]
    return {name: place["IPAddress"] for name, place in networks.items()}


def test_a_network_is_made_listed_inspected_and_removed(client: Client) -> None:
    """Beside the three that are always there; one in use stays."""
    made = client.networks.create(
        "front", subnet="10.99.0.0/24", gateway="10.99.0.254", ip_range="10.99.0.128/25", labels={"a": "b"}
    )
    assert [network.name for network in client.networks.list()] == ["bridge", "front", "host", "none"]
    assert client.networks.list(filters={"label": "a=b"}) == client.networks.list(["front"]) == [made]
    assert client.networks.list(filters={"type": "custom", "dangling": True}) == [made]
    document = made.attrs
    assert document["IPAM"]["Config"] == [
        {"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.254", "IPRange": "10.99.0.128/25"}
    ]
    assert (document["Driver"], document["Labels"], document["Containers"]) == ("bridge", {"a": "b"}, {})
    with client.run("busybox", ["sleep", "60"], network="front") as container:
        assert container.ip == "10.99.0.128"
        assert made.attrs["Containers"][container.id]["IPv4Address"] == "10.99.0.128/24"
        assert made.containers == [container]
        with pytest.raises(NetworkInUse):
            made.remove()
        assert client.networks.prune() == []
    with pytest.raises(AlreadyExists):
        client.networks.create("front")
    for name in ("bridge", "host", "none"):
        with pytest.raises(AlreadyExists):
            client.networks.create(name)
        with pytest.raises(Conflict):
            client.networks.get(name).remove()
    assert client.networks.get(made.short_id) == made
    made.remove()
    with pytest.raises(NetworkNotFound):
        client.networks.get("front")
    with pytest.raises(NetworkNotFound):
        client.create("busybox", network="front")
    assert client.containers.list(all=True) == []


def test_containers_are_in_several_networks_with_addresses_of_their_choice(client: Client) -> None:
    """Static IPv4, MAC, aliases; what inspect tells is what the container has."""
    client.networks.create("front", subnet="10.99.0.0/24")
    client.networks.create("back", options={"com.docker.network.driver.mtu": "1400"})
    places = {"back": None, "front": {"ipv4_address": "10.99.0.77", "aliases": ["web"]}}
    with client.run(
        "busybox", ["sleep", "60"], network="front", networks=places, mac_address="02:00:00:00:00:77"
    ) as container:
        front = container.attrs["NetworkSettings"]["Networks"]["front"]
        assert (front["IPAddress"], front["MacAddress"], front["Aliases"]) == (
            "10.99.0.77",
            "02:00:00:00:00:77",
            ["web"],
        )
        assert front["IPAMConfig"] == {"IPv4Address": "10.99.0.77"}
        shown = container.exec(["ip", "address"]).stdout.decode()
        assert "10.99.0.77/24" in shown
        assert "02:00:00:00:00:77" in shown
        assert _addresses(container)["back"] in shown
        assert "mtu 1400" in shown
        assert "default via 10.99.0.1 dev eth0" in container.exec(["ip", "route"]).stdout.decode()
        container.restart(timeout=0)
        assert _addresses(container)["front"] == "10.99.0.77"
        with pytest.raises(Conflict, match="in use by container"):
            client.create("busybox", networks={"front": {"ipv4_address": "10.99.0.77"}})
        with pytest.raises(InvalidArgument, match="no host's address"):
            client.create("busybox", networks={"front": {"ipv4_address": "10.98.0.77"}})


def test_networks_are_apart_and_internal_ones_have_no_way_out(client: Client, world: World) -> None:
    """Who is in both reaches both; a published port leads through."""
    client.networks.create("front")
    client.networks.create("back", internal=True)
    web = _serve(client, "web", network="front", ports={80: 8080})
    store = _serve(client, "store", network="back")
    both = client.run("busybox", ["sleep", "60"], name="both", networks=["front", "back"])
    assert _get(both, web.ip) == "web"
    assert _get(both, store.ip) == "store"
    assert _get(web, store.ip) == "unreachable"
    assert _get(store, web.ip) == "unreachable"
    assert _get(store, f"{world.host.address}:8080") == "unreachable"
    assert _get(web, f"{world.host.address}:8080") == "web"
    assert world.host.get("http://127.0.0.1:8080/") == b"web\n"
    assert "default" not in store.exec(["ip", "route"]).stdout.decode()


def test_a_running_container_is_connected_and_disconnected(client: Client) -> None:
    """Ports, default route and /etc/hosts follow; twice is a conflict; it lasts over a restart."""
    front, back = client.networks.create("front"), client.networks.create("back")
    web = _serve(client, "web", network="front", ports={80: None})
    peer = client.run("busybox", ["sleep", "60"], network="back")
    port = web.port(80)
    back.connect(web, aliases=["w"])
    with pytest.raises(Conflict, match="already"):
        back.connect(web)
    address = _addresses(web)["back"]
    assert _get(peer, address) == "web"
    assert f"{address}\tweb" in web.path("/etc/hosts").read_text()
    front.disconnect(web)
    with pytest.raises(NotFound, match="not in network"):
        front.disconnect(web)
    assert "front" not in _addresses(web)
    assert "default via" in web.exec(["ip", "route"]).stdout.decode()
    assert web.port(80) == port
    assert client.networks.get("back").attrs["Containers"].keys() == {web.id, peer.id}
    gateway = web.attrs["NetworkSettings"]["Networks"]["back"]["Gateway"]
    assert _get(peer, f"{gateway}:{port}") == "web"
    web.restart(timeout=0)
    assert _addresses(web) == {"back": address}
    back.disconnect(web)
    assert _addresses(web) == {}
    assert web.ports == {"80/tcp": None} or web.ports == {}
    back.connect(web)
    assert _get(peer, _addresses(web)["back"]) in ("web", "unreachable")


def test_a_stopped_container_is_connected_too(client: Client) -> None:
    """It has the place when it is started."""
    late = client.networks.create("late")
    container = client.create("busybox", ["sleep", "60"])
    late.connect(container.name)
    assert container.attrs["NetworkSettings"]["Networks"]["late"]["IPAddress"] == ""
    container.start()
    assert len(_addresses(container)) == 2
    assert _addresses(container)["late"] in container.exec(["ip", "address"]).stdout.decode()
    container.stop(timeout=0)
    late.disconnect(container)
    container.start()
    assert list(_addresses(container)) == ["bridge"]


def test_who_has_no_network_of_its_own_cannot_be_connected(client: Client) -> None:
    """host, none and another's."""
    network = client.networks.create("front")
    with (
        client.run("busybox", ["sleep", "60"], network="host") as host,
        client.run("busybox", ["sleep", "60"], network="none") as none,
        client.run("busybox", ["sleep", "60"], network=f"container:{none.id}") as joined,
    ):
        for container in (host, none, joined):
            with pytest.raises(Conflict, match="cannot be connected"):
                network.connect(container)
        with pytest.raises(Conflict):
            client.networks.get("none").connect(joined)


def test_a_container_shares_anothers_network(client: Client) -> None:
    """Interfaces, ports, host name and name files are the other's, which must run."""
    client.networks.create("front")
    web = _serve(client, "web", network="front")
    with client.run("busybox", ["sleep", "60"], network="container:web") as side:
        assert _get(side, "127.0.0.1") == "web"
        assert side.exec(["hostname"]).stdout == b"web\n"
        assert f"{web.ip}\tweb" in side.path("/etc/hosts").read_text()
        assert side.attrs["HostConfig"]["NetworkMode"] == f"container:{web.id}"
        assert side.attrs["NetworkSettings"]["Networks"] == {}
        assert side.ip == ""
    late = client.create("busybox", ["true"], network="container:web")
    web.stop(timeout=0)
    with pytest.raises(NotRunning, match="join"):
        late.start()
    web.start()
    late.start()
    assert late.wait().exit_code == 0


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft(8), of Debian's package nftables")
def test_a_firewall_that_drops_what_is_forwarded_is_warned_of(client: Client) -> None:
    """When a network comes up, once; its chains are left as they are."""
    client.networks.create("front")
    output("nft", "add table ip filter")
    try:
        output("nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
        before = output("nft", "list table ip filter")
        with pytest.warns(NetworkWarning, match="filter FORWARD drops"):
            client.run("busybox", ["sleep", "60"], network="front")
        client.run("busybox", ["sleep", "60"], network="front")  # another one is no news: warnings are errors here
        assert output("nft", "list table ip filter") == before
    finally:
        output("nft", "delete table ip filter")


def test_macvlan_puts_containers_on_the_hosts_wire(client: Client, world: World) -> None:
    """A neighbour reaches them, and they it and each other, with addresses of that wire; the host itself not."""
    given = {"driver": "macvlan", "options": {"parent": world.host.device}}
    wire = client.networks.create("wire", subnet="192.0.2.0/24", gateway=world.host.neighbour_address, **given)  # type: ignore[arg-type] # whatever
    assert (wire.attrs["Driver"], wire.attrs["Options"]) == ("macvlan", {"parent": world.host.device})
    options = {"networks": {"wire": {"ipv4_address": "192.0.2.100"}}, "network": "wire"}
    web = _serve(client, "web", **options)
    peer = client.run("busybox", ["sleep", "60"], networks={"wire": {"ipv4_address": "192.0.2.101"}}, network="wire")
    assert world.host.neighbour.get("http://192.0.2.100/") == b"web\n"
    assert _get(peer, "192.0.2.100") == "web"
    with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
        world.host.get("http://192.0.2.100/", 0.5)
    with pytest.raises(Conflict, match=f"on device {world.host.device} already"):
        client.networks.create("again", subnet="198.51.100.0/24", **given)  # type: ignore[arg-type] # whatever
    with pytest.raises(InvalidArgument, match="needs a subnet"):
        client.networks.create("again", driver="macvlan", options={"parent": "lo"})
    with pytest.raises(NotFound, match="no device 'none0'"):
        client.networks.create("again", driver="macvlan", subnet="198.51.100.0/24", options={"parent": "none0"})
    web.restart(timeout=0)
    assert settled(lambda: [] if _get(peer, "192.0.2.100") == "web" else ["no answer"]) == []
    wire.disconnect(peer)
    assert _get(peer, "192.0.2.100") != "web"
    wire.connect(peer)
    assert _get(peer, "192.0.2.100") == "web"


def test_a_port_has_a_url(client: Client) -> None:
    """As it is published on this host; without that in the container's network."""
    web = client.run("busybox", _SERVE, ports={80: 8080, 81: ("127.0.0.1", 8081)})
    assert (web.url(80), web.url(81, "https")) == ("http://127.0.0.1:8080", "https://127.0.0.1:8081")
    assert web.url(82) == f"http://{web.ip}:82"
    with pytest.raises(NotFound, match="connect"):
        client.run("busybox", ["sleep", "60"], network="none").url(80)


@pytest.mark.filterwarnings("ignore::wherry.network.NetworkWarning")  # again and again: this kernel has them after all
def test_without_nf_tables_the_shim_hands_published_ports_on(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers of one network reach each other and the host, their ports answer, and nothing else is forwarded."""
    monkeypatch.setattr(nettable, "available", lambda: False)
    client.networks.create("front")
    client.networks.create("back")
    with pytest.warns(NetworkWarning, match="no nf_tables"):
        web = _serve(client, "web", network="front", ports={80: 8080, "81/udp": None})
    peer, other = (client.run("busybox", ["sleep", "60"], network=name) for name in ("front", "back"))
    assert world.host.get("http://127.0.0.1:8080/") == b"web\n"

    def from_the_neighbour() -> list[str]:
        try:
            page = world.host.neighbour.get(f"http://{world.host.address}:8080/", 5)
        except OSError as error:  # a new connection has another port: an old one's traces can be in its way
            return [str(error)]
        assert page == b"web\n"
        return []

    assert settled(from_the_neighbour, 20) == []
    assert _get(peer, web.ip) == "web"
    assert _get(peer, f"{world.host.address}:8080") == "web"
    assert leftovers.tables() == []
    gateway = other.attrs["NetworkSettings"]["Networks"]["back"]["Gateway"]
    assert _get(other, f"{gateway}:8080") == "web"
    web.restart(timeout=0)
    assert settled(lambda: [] if _get(peer, f"{world.host.address}:8080") == "web" else ["no answer"]) == []
    with pytest.raises(StartFailed, match="sctp"):
        client.run("busybox", ["true"], network="front", ports={"9/sctp": 9})
    os.kill(client._engine.state(web._record).shim, signal.SIGKILL)
    for container in (web, peer, other):
        container.remove(force=True)
    assert client.networks.prune() == ["back", "front"]


def test_inspect_of_none_and_host_is_dockers(client: Client) -> None:
    """One entry without an address."""
    with client.run("busybox", ["sleep", "60"], network="none") as none:
        settings = none.attrs["NetworkSettings"]
        assert list(settings["Networks"]) == ["none"]
        assert settings["Networks"]["none"]["NetworkID"] == client.networks.get("none").id
        assert (settings["IPAddress"], settings["Ports"]) == ("", {})


def test_links_in_the_default_network_are_lines_of_hosts(client: Client) -> None:
    """There nobody has a name otherwise."""
    web = _serve(client, "web")
    with client.run("busybox", ["sleep", "60"], links={"web": "store"}) as container:
        hosts = container.path("/etc/hosts").read_text()
        assert f"{web.ip}\tstore\n" in hosts
        web.remove(force=True)
        client.networks.create("late").connect(container)
        assert "store" not in container.path("/etc/hosts").read_text()


def test_the_commands_are_dockers(world: World, client: Client) -> None:
    """network create, ls, inspect, connect, disconnect, rm, prune; --network with fields."""
    create = ["network", "create", "--subnet", "10.99.0.0/24", "--label", "a=b", "-o", "mtu=1400", "front"]
    assert len(world.wherry(*create).stdout.strip()) == 64
    listed = world.wherry("network", "ls").stdout.splitlines()
    assert listed[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line.split()[1] for line in listed[1:]] == ["bridge", "front", "host", "none"]
    assert world.wherry("network", "ls", "-q", "--filter", "label=a").stdout.count("\n") == 1
    run = ["run", "--detach", "--name", "one", "--network", "name=front,alias=x,ip=10.99.0.9", "busybox", "sleep", "60"]
    world.wherry(*run)
    world.wherry("run", "-d", "--name", "two", "--network", "front", "--ip", "10.99.0.10", "busybox", "sleep", "60")
    [document] = json.loads(world.wherry("network", "inspect", "front").stdout)
    assert sorted(one["IPv4Address"] for one in document["Containers"].values()) == ["10.99.0.10/24", "10.99.0.9/24"]
    world.wherry("network", "create", "back")
    world.wherry("network", "connect", "--alias", "y", "back", "one")
    assert sorted(_addresses(client.containers.get("one"))) == ["back", "front"]
    world.wherry("network", "disconnect", "back", "one")
    failed = world.wherry("network", "rm", "front", check=False)
    assert failed.returncode == 1
    assert "has 2 containers" in failed.stderr
    world.wherry("rm", "-f", "one", "two")
    assert world.wherry("network", "rm", "front").stdout == "front\n"
    assert world.wherry("network", "prune", "--force").stdout == "Deleted Networks:\nback\n"


def test_what_is_done_to_networks_and_volumes_is_told(client: Client) -> None:
    """As docker's events: create, connect, disconnect, destroy."""
    before = time.time()
    front = client.networks.create("front")
    with client.run("busybox", ["sleep", "60"]) as container:
        front.connect(container)
        front.disconnect(container)
    front.remove()
    client.volumes.create("data")
    client.volumes.get("data").remove()
    events = [
        (event["Type"], event["Action"], event["Actor"]["ID"])
        for event in client.events(since=before, filters={"type": ["network", "volume"]}, follow=False)
    ]
    actions = ("create", "connect", "disconnect", "destroy")
    assert events == [
        *(("network", action, front.id) for action in actions),
        ("volume", "create", "data"),
        ("volume", "destroy", "data"),
    ]
