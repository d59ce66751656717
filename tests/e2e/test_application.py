"""A real application of three containers: a page in Python that talks to PostgreSQL and Redis by their names."""

import re
from collections.abc import Iterator

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container

pytestmark = pytest.mark.e2e

_PASSWORD = "secret"


@pytest.fixture
def client(world: World, client: Client) -> Iterator[Client]:
    """As the folder's, with the three images; networks and volumes go at the end."""
    world.push("postgres", "redis", "web-app")
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    client.networks.prune()
    client.volumes.prune({"all": True})


def _database(client: Client) -> Container:
    return client.run(
        "postgres",
        ["-c", "fsync=off"],
        name="db",
        network="app",
        volumes=["pgdata:/var/lib/postgresql/data"],
        environment={"POSTGRES_PASSWORD": _PASSWORD},
    )


def _page(world: World, port: int) -> tuple[int, int]:
    """What the application counts in the one and the other; it may still be starting."""
    found: list[str] = []

    def look() -> list[str]:
        try:
            found[:] = re.findall(r"\d+", world.host.get(f"http://127.0.0.1:{port}/").decode())
        except OSError:
            return ["no answer"]
        return []

    assert settled(look, 60) == []
    stored, counted = map(int, found)
    return stored, counted


def test_an_application_keeps_its_data_over_its_database_containers(client: Client, world: World) -> None:
    """Names lead to whoever has them now; what is in the volume stays when its container is removed and made anew."""
    client.networks.create("app")
    _database(client)
    client.run("redis", name="cache", networks={"app": {"aliases": ["redis"]}}, volumes=["redisdata:/data"])
    app = client.run("web-app", network="app", environment={"PASSWORD": _PASSWORD}, ports={8000: None})
    port = app.port(8000)
    first, counted = _page(world, port)
    assert _page(world, port) == (first + 1, counted + 1)
    old = client.containers.get("db")
    old.stop(timeout=30)
    old.remove()
    new = _database(client)
    assert new.id != old.id
    stored, _ = _page(world, port)
    assert stored >= first + 2
    assert sorted(volume.name for volume in client.volumes.list()) == ["pgdata", "redisdata"]
