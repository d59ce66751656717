"""nginx from a registry, on a published port, with no daemon."""

import pytest

from support import leftovers
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e

SCRIPT = """
from wherry import Client
web = Client().run("nginx", ports={80: 80}, name="docker-nginx")
print(web.status, web.port(80))
"""


def _pages(world: World) -> list[bytes]:
    """nginx's page by loopback, by the machine's own address, and as another machine gets it; once it answers."""
    address = world.host.address
    return [
        world.host.get("http://127.0.0.1:80/"),
        world.host.get(f"http://{address}:80/"),
        world.host.neighbour.get(f"http://{address}:80/"),
    ]


def test_nginx_serves_after_the_script_that_started_it_has_ended(world: World) -> None:
    """The example, word for word: the starter exits, nginx goes on, every other process finds it."""
    world.push("nginx")
    assert world.python(SCRIPT).stdout == "running 80\n"
    try:
        for page in _pages(world):
            assert b"Welcome to nginx" in page
        assert "docker-nginx" in world.wherry("ps").stdout
        assert "nginx version" in world.wherry("exec", "docker-nginx", "nginx", "-v").stderr
        assert "GET / HTTP/1.1" in world.wherry("logs", "docker-nginx").stdout
    finally:
        world.wherry("stop", "docker-nginx")
        world.wherry("rm", "docker-nginx")
    assert world.wherry("ps", "-aq").stdout == ""


def test_its_only_companion_is_the_shim(world: World) -> None:
    """Between init and nginx there is one process, and it is nobody else's child."""
    world.push("nginx")
    with Client().run("nginx", ports={80: 8081}) as web:
        state = web._engine.state(web._record)
        parents = {pid: _parent(pid) for pid in (state.pid, state.shim)}
        assert parents[state.pid] == state.shim
        assert _children(state.shim) == [state.pid]
        name = leftovers._read(state.shim, "comm").decode().strip()
        assert name == "wherry-shim"


def _parent(pid: int) -> int:
    return int(leftovers._read(pid, "stat").rpartition(b")")[2].split()[1])


def _children(pid: int) -> list[int]:
    return [int(child) for child in leftovers._read(pid, f"task/{pid}/children").split()]
