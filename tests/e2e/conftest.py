"""A client in the test's own world, with the images that tests ask for most."""

from collections.abc import Iterator

import pytest

from support.world import World
from wherry import Client


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    """A Client whose registry has busybox and whose containers are removed at the end."""
    world.push("busybox")
    with Client() as made:
        yield made
        for container in made.containers.list(all=True):
            container.remove(force=True)
