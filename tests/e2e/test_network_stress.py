"""Many networks and containers by many processes at once, and kills in the middle of things."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import Conflict

pytestmark = pytest.mark.e2e

_WORK = """
import json, sys
from wherry import Client

client, number, seen = Client(), sys.argv[1], []
networks = [client.networks.create(f"n{number}-{one}") for one in range({networks})]
for network in networks:
    made = [
        client.run("busybox", ["sleep", "1000"], network=network.name, name=f"{network.name}-{one}")
        for one in range({containers})
    ]
    for container in made:
        place = container.attrs["NetworkSettings"]["Networks"][network.name]
        seen.append((network.name, place["IPAddress"], place["MacAddress"]))
    for container in made:
        container.remove(force=True)
    network.remove()
print(json.dumps(seen))
"""


@pytest.fixture
def client(client: Client) -> Iterator[Client]:
    """As the folder's, and no network is left."""
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    client.networks.prune()


def test_many_processes_make_and_remove_networks_and_containers(client: Client, world: World) -> None:
    """4 processes: 52 networks and 208 containers; no address is given twice, and nothing is left over."""
    client.images.pull("busybox")
    script = _WORK.replace("{networks}", "13").replace("{containers}", "4")
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    said = [worker.communicate(timeout=150)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    seen = [tuple(place) for text in said for place in json.loads(text)]
    assert len(seen) == 208
    assert len(set(seen)) == 208
    assert [network.name for network in client.networks.list()] == ["bridge", "host", "none"]
    assert client.containers.list(all=True) == []
    assert client.check() == []
    _nothing_on_the_host(world)


def _nothing_on_the_host(world: World) -> None:
    devices = [name for name in os.listdir("/sys/class/net") if name.startswith(("veth", "wherry"))]
    assert settled(lambda: [name for name in devices if os.path.exists(f"/sys/class/net/{name}")]) == []


_CONNECT = """
import os, signal, sys
from wherry import Client, membership, network

client = Client()
step = sys.argv[1]

def kill(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

module, _, name = step.partition(".")
target = {"membership": membership, "network": network}[module]
setattr(target, name, kill)
client.networks.get("late").connect("web")
"""


@pytest.mark.parametrize("step", ["network.ensure_bridge", "membership._call", "membership._write_hosts"])
def test_a_connecting_client_that_is_killed_can_be_repeated(client: Client, world: World, step: str) -> None:
    """The place is kept or not; either way the next one completes it, and disconnecting takes it away."""
    late = client.networks.create("late")
    web = client.run("busybox", ["sleep", "1000"], name="web")
    assert world.python(_CONNECT, step, check=False).returncode == -signal.SIGKILL
    with suppress(Conflict):  # it was all done
        late.connect(web)
    address = web.attrs["NetworkSettings"]["Networks"]["late"]["IPAddress"]
    assert address in web.exec(["ip", "address"]).stdout.decode()
    late.disconnect(web)
    assert address not in web.exec(["ip", "address"]).stdout.decode()
    web.remove(force=True)
    assert client.networks.prune() == ["late"]
    _nothing_on_the_host(world)


def test_a_killed_shim_breaks_no_other_containers_network(client: Client, world: World) -> None:
    """Its ports are free for the next one, the others' answer as before, and what it left is told and collected."""
    front = client.networks.create("front", enable_ipv6=True)
    serve = ["sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -h /w -p 80"]

    def start(name: str, port: int) -> Container:
        return client.run("busybox", serve, name=name, hostname=name, network="front", ports={80: port})

    def get(port: int) -> list[str]:
        try:
            return [world.host.get(f"http://127.0.0.1:{port}/").decode().strip()]
        except OSError:
            return []

    one, two = start("one", 8080), start("two", 8081)
    assert settled(lambda: [] if get(8080) and get(8081) else ["no answer"]) == []
    os.kill(client._engine.state(one._record).shim, signal.SIGKILL)
    assert settled(lambda: [] if client._engine.state(one._record).shim == 0 else ["alive"]) == []
    assert get(8081) == ["two"]
    [check] = [check for check in client.doctor() if check.name == "shim"]
    assert "container one goes on" in check.found
    assert check.remedy == "wherry restart one"
    one.remove(force=True)
    assert "shim" not in {check.name for check in client.doctor()}
    assert get(8080) == []
    three = start("three", 8080)
    four = client.run("busybox", ["sleep", "1000"], name="four", network="front")
    os.kill(client._engine.state(four._record).shim, signal.SIGKILL)
    world.wherry("restart", "--time", "0", "four")  # as the doctor says
    assert client._engine.state(four._record).shim
    four.remove(force=True)
    assert settled(lambda: [] if get(8080) == ["three"] else ["no answer"]) == []
    assert get(8081) == ["two"]
    for container in (two, three):
        container.remove(force=True)
    front.remove()
    _nothing_on_the_host(world)
