"""One contract, several engines: this process' own, wherry's daemon, and Debian's dockerd."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import wherry
from support import engines, leftovers
from support.world import World
from wherry import Client
from wherry.errors import Conflict, NotFound

_RUNTIMES = ("runc", "crun", "wherry-oci")  # by their commands, in the place of the one in the shim's process
_ENGINES = ("local", "daemon", "dockerd", *_RUNTIMES)


@pytest.fixture(scope="session")
def dockerd() -> Iterator[str | None]:
    """The address of a dockerd that this process alone talks to; None where it is not installed."""
    if not all(map(shutil.which, ("dockerd", "docker", "runc"))):
        yield None
        return
    folder = Path(f"{leftovers.folder_prefix()}dockerd-{os.getpid()}")
    folder.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.enter_context(engines.docker(folder))
        yield f"unix://{folder}/docker.sock"


@pytest.fixture(params=_ENGINES)
def engine(request: pytest.FixtureRequest, world: World, dockerd: str | None) -> Iterator[Client]:
    """A client of each engine, which has busybox and nothing else."""
    world.push("busybox")
    with ExitStack() as stack:
        if request.param == "local":
            client = Client()
            client.images.pull("busybox")
        elif request.param in _RUNTIMES:
            client = Client(runtime=engines.runtime(request.param))
            client.images.pull("busybox")
        elif request.param == "daemon":
            client = Client(host=stack.enter_context(wherry.docker_host()))
            client.images.pull("busybox")
        elif dockerd is None:
            pytest.skip("dockerd is not installed")
        else:
            client = Client(host=dockerd)
            _load(client, world)
        stack.callback(client.close)
        stack.callback(_clean, client)
        yield client


def _load(client: Client, world: World) -> None:
    """Its network is its own: the image comes as an archive."""
    archive = world.path / "busybox.tar"
    with Client() as local, archive.open("wb") as file:
        local.images.pull("busybox")
        file.writelines(local.images.save("busybox"))
    client.images.load(archive)


def _clean(client: Client) -> None:
    for container in client.containers.list(all=True):
        with suppress(NotFound):
            container.remove(force=True, v=True)
    for network in client.networks.list(filters={"type": "custom"}):
        network.remove()
    for volume in client.volumes.list():
        volume.remove(force=True)
    for image in client.images.list():
        with suppress(NotFound, Conflict):
            client.images.remove(image.id, force=True)
