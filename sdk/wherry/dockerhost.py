"""Docker's Engine API for as long as a program needs it: what docker-py and testcontainers ask for."""

from contextlib import AbstractContextManager
from importlib import import_module

from wherry.client import Client


def docker_host(client: Client | None = None) -> AbstractContextManager[str]:
    """
    A context manager: the Engine API on *client*'s containers (those of `Client()`), at the address that it gives.

    `with wherry.docker_host() as address: docker.DockerClient(base_url=address)`. It is served by threads of this
    process, which are gone when the block is left; containers go on.
    """
    # The daemon stands on this package, so it is known here by name alone.
    served: AbstractContextManager[str] = import_module("wherry_daemon.guest").docker_host(client)
    return served
