"""Names of what there is, as types of arguments that a shell can complete."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from wherry.client import Client

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Name(click.ParamType):  # type: ignore[type-arg] # it has none before click 8.3
    """A text, for which *known* of a client offers what there is."""

    def __init__(self, kind: str, known: Callable[[Client], Iterable[str]]) -> None:
        self.name, self._known = kind, known

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As it is: the engine says whether there is such a thing."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """Those that begin so; none when no engine can tell."""
        from click.shell_completion import CompletionItem

        given = ctx.find_root().params
        try:
            with client_of(**given) as client:
                return [CompletionItem(name) for name in self._known(client) if name.startswith(incomplete)]
        except Exception:  # a completion has nowhere to say what is wrong
            return []


def client_of(
    root: str | None = None,
    run_directory: str | None = None,
    host: str | None = None,
    docker_context: str | None = None,
) -> Client:
    """The client that the command's own flags ask for. Raises UsageError."""
    if host is not None and docker_context is not None:
        raise click.UsageError("--host and --context both name an engine: give one of them")
    chosen = host if docker_context is None else f"context:{docker_context}"
    return Client(root=root, run=run_directory, host=chosen)


def _containers(client: Client) -> Iterable[str]:
    return (name.removeprefix("/") for one in client.containers.summaries(all=True) for name in one.names)


def _images(client: Client) -> Iterable[str]:
    return (tag for image in client.images.list() for tag in image.tags)


def _networks(client: Client) -> Iterable[str]:
    return (network.name for network in client.networks.list())


def _volumes(client: Client) -> Iterable[str]:
    return (volume.name for volume in client.volumes.list())


def _anything(client: Client) -> Iterable[str]:
    for known in (_containers, _images, _networks, _volumes):
        yield from known(client)


CONTAINER, IMAGE = Name("container", _containers), Name("image", _images)
NETWORK, VOLUME = Name("network", _networks), Name("volume", _volumes)
ANYTHING = Name("name", _anything)
