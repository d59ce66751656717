"""Names of containers in networks that a user makes; and of the rest of the world."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from support.leftovers import settled
from support.nameserver import answering
from support.world import World
from wherry import Client
from wherry.container import Container

pytestmark = pytest.mark.e2e

_IDLE = ["sleep", "1000"]


@pytest.fixture
def client(world: World, client: Client) -> Iterator[Client]:
    """As the folder's, with an image whose C library asks name servers; no network is left."""
    world.push("nginx")
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    client.networks.prune()


def _run(client: Client, name: str, **options: object) -> Container:
    options.setdefault("dns", ["127.0.0.1"])  # where nobody is: what no container is called is refused at once
    return client.run("nginx", _IDLE, name=name, entrypoint=[], **options)  # type: ignore[arg-type] # whatever


def _resolve(container: Container, name: str) -> list[str]:
    """The addresses that the container's C library finds, each once."""
    done = container.exec(["getent", "ahosts", name], timeout=60)
    return sorted({line.split()[0] for line in done.stdout.decode().splitlines()})


def test_containers_find_each_other_by_name_alias_and_id(client: Client) -> None:
    """Also with the network's name behind, in any case, and back from address to name; in the default network not."""
    client.networks.create("front")
    web = _run(client, "web", network="front", networks={"front": {"aliases": ["www"]}}, hostname="host-of-web")
    other = _run(client, "other", network="front")
    outside = _run(client, "outside")
    for name in ("web", "www", web.short_id, "WEB", "web.front", "host-of-web"):
        assert _resolve(other, name) == [web.ip], name
    assert other.exec(["getent", "hosts", web.ip]).stdout.decode().split() == [web.ip, "web.front"]
    assert _resolve(web, "other") == [other.ip]
    assert _resolve(outside, "web") == []
    assert "nameserver 127.0.0.11" in web.path("/etc/resolv.conf").read_text()
    assert "127.0.0.11" not in outside.path("/etc/resolv.conf").read_text()


def test_names_come_and_go_with_their_containers(client: Client) -> None:
    """Started, stopped, renamed, connected, disconnected, removed: whoever runs sees it at once."""
    front = client.networks.create("front")
    seer = _run(client, "seer", network="front")
    assert _resolve(seer, "late") == []
    late = _run(client, "late", network="front")
    assert _resolve(seer, "late") == [late.ip]
    late.rename("later")
    assert (_resolve(seer, "late"), _resolve(seer, "later")) == ([], [late.ip])
    late.stop(timeout=0)
    assert settled(lambda: _resolve(seer, "later")) == []
    late.start()
    assert _resolve(seer, "later") == [late.ip]
    front.disconnect(late)
    assert _resolve(seer, "later") == []
    front.connect(late, aliases=["again"])
    assert _resolve(seer, "again") == [late.ip]
    stray = _run(client, "stray")
    assert _resolve(stray, "later") == []
    front.connect(stray)
    assert _resolve(stray, "later") == [late.ip]
    late.remove(force=True)
    assert _resolve(seer, "later") == []


def test_each_network_has_its_own_names(client: Client) -> None:
    """Who is in two knows both; the same alias twice is two addresses; a link is one container's own name."""
    for name in ("front", "back"):
        client.networks.create(name)
    one = _run(client, "one", networks={"front": {"aliases": ["pool"]}})
    two = _run(client, "two", networks={"front": {"aliases": ["pool"]}, "back": None})
    back = _run(client, "back-one", network="back", links={"two": "store"})
    assert _resolve(one, "pool") == sorted([one.ip, two.ip])
    assert _resolve(one, "back-one") == []
    assert _resolve(two, "back-one") == [back.ip]
    its = two.attrs["NetworkSettings"]["Networks"]["back"]["IPAddress"]
    assert _resolve(back, "store") == [its]
    assert _resolve(two, "store") == []


def test_other_names_are_asked_of_the_servers_that_were_given(client: Client, world: World) -> None:
    """From the container's network; a container of internal networks alone gets no answer from outside."""
    client.networks.create("front")
    client.networks.create("closed", internal=True)
    with answering(world.host.address) as server:
        options = {"dns": [world.host.address], "dns_search": ["corp.example"], "dns_opt": ["timeout:1"]}
        inside = _run(client, "inside", network="front", **options)
        assert _resolve(inside, "www.example.com") == ["203.0.113.7"]
        assert "search corp.example\n" in inside.path("/etc/resolv.conf").read_text()
        assert server.asked
        server.asked.clear()
        closed = _run(client, "closed", network="closed", **options)
        assert _resolve(closed, "www.example.com") == []
        assert _resolve(closed, "closed") == [closed.ip]
        assert server.asked == []


def test_the_answer_to_a_big_question_comes_by_a_connection(client: Client, world: World) -> None:
    """Cut off, asked again by tcp, and handed on by tcp."""
    client.networks.create("front")
    with answering(world.host.address):
        inside = _run(client, "inside", network="front", dns=[world.host.address])
        assert len(_resolve(inside, "many.example.com")) == 60


def test_a_container_may_have_a_name_server_itself(client: Client) -> None:
    """Its port 53 is its own, on every address, in spite of the resolver."""
    client.networks.create("front")
    own = _run(client, "own", network="front")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(fileno=own._engine.socket(own.id, socket.AF_INET, kind)) as server:
            server.bind(("0.0.0.0", 53))
    assert _resolve(own, "own") == [own.ip]


def test_extra_hosts_and_the_hosts_gateway_are_found(client: Client) -> None:
    """In a network that a user made the gateway is that network's."""
    front = client.networks.create("front")
    container = _run(client, "one", network="front", extra_hosts={"far": "203.0.113.9", "host": "host-gateway"})
    assert _resolve(container, "far") == ["203.0.113.9"]
    assert _resolve(container, "host") == [front.attrs["IPAM"]["Config"][0]["Gateway"]]


def test_a_killed_shim_takes_nobody_elses_names_along(client: Client) -> None:
    """Its container goes on, and keeps its own name as long as it does; what it leaves is collected."""
    front = client.networks.create("front")
    one, two = _run(client, "one", network="front"), _run(client, "two", network="front")
    address = one.ip
    os.kill(client._engine.state(one._record).shim, signal.SIGKILL)
    assert settled(lambda: [] if client._engine.state(one._record).shim == 0 else ["alive"]) == []
    assert _resolve(two, "two") == [two.ip]
    assert _resolve(two, "one") == [address]
    one.remove(force=True)
    assert _resolve(two, "one") == []
    two.remove(force=True)
    front.remove()
    assert not (client._engine.run_directory / "names" / front.id).exists()


def test_names_are_of_both_families(client: Client) -> None:
    """AAAA, and back; a container without IPv6 has no such address, but is there all the same."""
    client.networks.create("six", enable_ipv6=True, subnet=["10.98.0.0/24", "fd00:98::/64"])
    client.networks.create("four")
    web = _run(client, "web", network="six")
    peer = _run(client, "peer", networks=["six", "four"])
    old = _run(client, "old", network="four")
    ipv6 = web.attrs["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"]
    assert ipv6 == "fd00:98::2"
    assert _resolve(peer, "web") == sorted([web.ip, ipv6])
    assert peer.exec(["getent", "hosts", ipv6]).stdout.decode().split() == [ipv6, "web.six"]
    assert _resolve(peer, "old") == [old.ip]
    assert peer.exec(["getent", "ahostsv6", "old"]).stdout.decode().split()[:1] in ([], [f"::ffff:{old.ip}"])
