"""IPv6 networks: published ports, both ways through the host, and what stays apart."""

import socket
from collections.abc import Iterator

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import Conflict, InvalidArgument, PortInUse, StartFailed

pytestmark = pytest.mark.e2e

_SERVE = ["sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -h /w -p 80"]
_SUBNETS = ["10.98.0.0/24", "fd00:98::/64"]


@pytest.fixture
def client(client: Client) -> Iterator[Client]:
    """As the folder's, with a network of both families; it goes at the end."""
    client.networks.create("six", subnet=_SUBNETS)
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    client.networks.prune()


def _serve(client: Client, name: str, **options: object) -> Container:
    container = client.run("busybox", _SERVE, name=name, hostname=name, **options)  # type: ignore[arg-type] # whatever
    assert settled(lambda: [] if _get(container, "::1") == name else ["no answer"]) == []
    return container


def _get(container: Container, host: str, port: int = 80) -> str:
    descriptor = container._engine.socket(container.id, socket.AF_INET6, socket.SOCK_STREAM)
    with socket.socket(fileno=descriptor) as client:
        client.settimeout(2)
        try:
            client.connect((host, port))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                return answer.read().partition(b"\r\n\r\n")[2].decode().strip()
        except OSError:
            return "unreachable"


def _address(container: Container, network: str = "six") -> str:
    found: str = container.attrs["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"]
    return found


def test_a_published_port_answers_by_ipv6_to_everybody(client: Client, world: World) -> None:
    """To a neighbour, the host by its address and by loopback, another container, and the container itself."""
    web = _serve(client, "web", network="six", ports={80: 8080})
    peer = client.run("busybox", ["sleep", "60"], network="six")
    host = world.host
    assert host.neighbour.get(f"http://[{host.address_6}]:8080/") == b"web\n"
    assert host.get(f"http://[{host.address_6}]:8080/") == b"web\n"
    assert host.get("http://[::1]:8080/") == b"web\n"
    assert host.get("http://127.0.0.1:8080/") == b"web\n"
    assert _get(peer, host.address_6, 8080) == "web"
    assert _get(web, host.address_6, 8080) == "web"
    assert _get(peer, _address(web)) == "web"
    assert [place["HostIp"] for place in web.ports["80/tcp"]] == ["0.0.0.0", "::"]


def test_a_port_of_one_address_is_published_there_alone(client: Client, world: World) -> None:
    """[::1] is for this machine; 0.0.0.0 for IPv4."""
    _serve(client, "web", network="six", ports={80: ["[::1]:8080", "0.0.0.0:8081"]})
    host = world.host
    assert host.get("http://[::1]:8080/") == b"web\n"
    assert host.get("http://127.0.0.1:8081/") == b"web\n"
    for url in (f"http://[{host.address_6}]:8080/", "http://[::1]:8081/", "http://127.0.0.1:8080/"):
        with pytest.raises(OSError, match=r".*"):
            host.get(url, timeout_s=2)


def test_a_container_reaches_the_world_and_networks_are_apart(client: Client, world: World) -> None:
    """Under the host's address; not another network's containers, and those of an internal one not the world."""
    client.networks.create("other", enable_ipv6=True)
    client.networks.create("closed", enable_ipv6=True, internal=True)
    web = _serve(client, "web", network="six")
    other = client.run("busybox", ["sleep", "60"], network="other")
    closed = client.run("busybox", ["sleep", "60"], network="closed")
    assert _address(other, "other").startswith("fd")
    assert _get(other, _address(web)) == "unreachable"

    def listen() -> socket.socket:
        return socket.create_server((world.host.neighbour_address_6, 7000), family=socket.AF_INET6)

    with world.host.neighbour.call(listen) as server:
        server.settimeout(10)
        descriptor = web._engine.socket(web.id, socket.AF_INET6, socket.SOCK_STREAM)
        with socket.socket(fileno=descriptor) as asker:
            asker.settimeout(10)
            asker.connect((world.host.neighbour_address_6, 7000))
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == world.host.address_6
        assert _get(closed, world.host.neighbour_address_6, 7000) == "unreachable"


def test_a_random_port_is_the_same_in_both_families(client: Client) -> None:
    """Reserved in both before it is announced; one that is taken in one of them is in use, and by whom."""
    with client.run("busybox", ["sleep", "60"], network="six", ports={80: None, "81/udp": None}) as container:
        for places in container.ports.values():
            assert len({place["HostPort"] for place in places}) == 1
            assert len(places) == 2
    with (
        socket.create_server(("::1", 8080), family=socket.AF_INET6),
        pytest.raises(PortInUse, match=r"tcp port 8080 of :: is in use by .*pid"),
    ):
        client.run("busybox", ["sleep", "60"], network="six", ports={80: 8080})
    assert client.containers.list(all=True) == []


def test_an_ipv6_port_needs_a_container_that_has_it(client: Client) -> None:
    """In the default network there is none."""
    with pytest.raises(StartFailed, match="the container has no IPv6"):
        client.run("busybox", ["true"], ports={80: "[::1]:8080"})


def test_addresses_can_be_chosen(client: Client) -> None:
    """Inside of the subnet, by one container at a time."""
    options = {"networks": {"six": {"ipv6_address": "fd00:98::77"}}}
    with client.run("busybox", ["sleep", "60"], networks=options["networks"]) as container:
        assert _address(container) == "fd00:98::77"
        container.restart(timeout=0)
        assert _address(container) == "fd00:98::77"
        for wrong in ("fd00:99::7", "fd00:98::1", "fd00:98::77", "10.98.0.7"):
            with pytest.raises((Conflict, InvalidArgument)):
                client.create("busybox", networks={"six": {"ipv6_address": wrong}})
