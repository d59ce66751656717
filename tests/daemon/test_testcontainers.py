"""testcontainers on the daemon: its containers, its waiting, its ports, and its reaper's socket."""

import urllib.request
from collections.abc import Iterator

import pytest
import testcontainers.core.config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy, PortWaitStrategy

import wherry
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e


@pytest.fixture
def address(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A daemon's socket where testcontainers looks for one; its reaper's image is not there."""
    world.push("busybox", "nginx")
    monkeypatch.setattr(testcontainers.core.config.testcontainers_config, "ryuk_disabled", True)
    with wherry.docker_host(Client(host="")) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        yield host


def test_a_container_is_waited_for_and_reached(address: str) -> None:
    """By its log and by its port; exec, logs, and nothing is left."""
    with (
        DockerContainer("nginx")
        .with_exposed_ports(80)
        .with_env("A", "b")
        .waiting_for(PortWaitStrategy(80).with_startup_timeout(30)) as web
    ):
        place = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
        with urllib.request.urlopen(place, timeout=20) as answer:
            assert answer.status == 200
        code, output = web.exec(["sh", "-c", "echo $A; exit 3"])
        assert (code, output) == (3, b"b\n")
    assert Client(host="").containers.list(all=True) == []


def test_two_find_each_other_in_a_network(address: str) -> None:
    """By an alias; the second one's log is waited for."""
    with (
        Network() as network,
        DockerContainer("nginx").with_network(network).with_network_aliases("web") as _,
        DockerContainer("busybox")
        .with_network(network)
        .with_command(["sh", "-c", "until wget -q -O /page http://web/; do sleep 0.1; done; echo fetched; sleep 1000"])
        .waiting_for(LogMessageWaitStrategy("fetched").with_startup_timeout(30)) as other,
    ):
        stdout, _ = other.get_logs()
        assert stdout == b"fetched\n"


def test_what_a_reaper_needs(address: str) -> None:
    """A stand-in for Ryuk: the socket, mounted, by which it removes what has the session's label."""
    path = address.removeprefix("unix://")
    reaper = DockerContainer("busybox").with_volume_mapping(path, "/var/run/docker.sock", "rw")
    with reaper.with_command(["sleep", "1000"]) as made:
        assert made.exec(["test", "-S", "/var/run/docker.sock"])[0] == 0
