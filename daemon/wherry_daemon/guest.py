"""The door inside a program that needs it: open for as long as a block lasts, with no daemon installed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from wherry.client import Client
from wherry_daemon.api import HEADERS, Api
from wherry_daemon.context import Context
from wherry_daemon.server import Server, listen_unix


@contextmanager
def docker_host(client: Client | None = None) -> Iterator[str]:
    """
    The Engine API on *client*'s containers (without one, this process' own), as an address for DOCKER_HOST.

    It is served by threads of this process, which are gone when the block is left; containers go on.
    """
    with (
        tempfile.TemporaryDirectory(prefix="wherry-") as directory,
        nullcontext(client) if client is not None else Client(host="") as engine,
        Server(Api(Context(engine)), HEADERS) as server,
    ):
        path = os.path.join(directory, "docker.sock")
        server.serve(listen_unix(path))
        yield f"unix://{path}"
