"""Beside a real dockerd, whose firewall drops what is forwarded; on a host of the test's own, with a neighbour."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import engines
from support import host as hosts
from support.host import Network
from support.leftovers import settled
from support.namespace import inside, new_namespace, output
from wherry import Client
from wherry.network import NetworkWarning

pytestmark = pytest.mark.e2e

_SERVE = ["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -h /tmp -p 80"]


@pytest.fixture
def neighbour(client: Client) -> Iterator[Network]:
    """This thread is on another host, which has the image already; that one's neighbour."""
    engines.needed("nft", "iptables")
    client.images.pull("busybox")
    with ExitStack() as stack:
        host = stack.enter_context(new_namespace())
        stack.enter_context(inside(host))
        made = Network(stack.enter_context(new_namespace()))
        hosts.wire(Network(host), made)
        yield made
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.networks.prune()


def _got(network: Network | None, address: str, port: int) -> str:
    """The page there, fetched from *network*, or from here; "" for none."""
    prefix = network.prefix if network else ()
    descriptors = [network.fd] if network else []
    command = [*prefix, "curl", "--silent", "--noproxy", "*", "--max-time", "2", f"http://{address}:{port}/"]
    done = subprocess.run(command, pass_fds=descriptors, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _foreign_rules() -> list[str]:
    """All rules but wherry's own, without their counters."""
    own, shown = False, []
    for line in output("nft", "--stateless", "list", "ruleset").splitlines():
        own = "wherry-" in line if line.startswith("table") else own
        if not own:
            shown.append(line)
    return shown


def test_beside_dockerd_the_doctor_names_what_lets_containers_through(
    client: Client, neighbour: Network, tmp_path: Path
) -> None:
    """The host reaches a published port at once, others by the doctor's commands; dockerd's rules are left alone."""
    with engines.docker(tmp_path, own_network=False) as docker:
        docker.output("network", "create", "theirs")
        assert "-P FORWARD DROP" in output("iptables", "-S", "FORWARD")
        before = _foreign_rules()
        with pytest.warns(NetworkWarning, match="FORWARD drops"):
            web = client.run("busybox", _SERVE, hostname="web", ports={80: 8080})
        assert settled(lambda: [] if _got(None, "127.0.0.1", 8080) == "web" else ["no answer"]) == []
        assert _got(None, hosts.ADDRESS, 8080) == "web"
        assert _got(neighbour, hosts.ADDRESS, 8080) == ""
        assert _foreign_rules() == before
        check = next(check for check in client.doctor() if check.name == "firewall")
        for command in check.remedy.split("; "):
            output("sh", "-c", command.replace("'", '\\"'))
        assert _got(neighbour, hosts.ADDRESS, 8080) == "web"
        with (
            neighbour.call(lambda: socket.create_server((hosts.NEIGHBOUR, 0))) as server,
            socket.socket(fileno=web._engine.socket(web.id, socket.AF_INET, socket.SOCK_STREAM)) as asker,
        ):
            asker.settimeout(10)
            asker.connect(server.getsockname())
        web.remove(force=True)
        docker.output("network", "rm", "theirs")
