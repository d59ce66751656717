"""A client in the test's own world, with the images that tests ask for most."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.world import World
from wherry import Client
from wherry.errors import ContainerNotFound


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    """A Client whose registry has busybox and whose containers are removed at the end."""
    world.push("busybox")
    with Client() as made:
        yield made
        for container in made.containers.list(all=True):
            with suppress(ContainerNotFound):  # it removes itself just now
                container.remove(force=True)
