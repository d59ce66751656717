"""inspect."""

from collections.abc import Callable
from typing import Any

import click

from wherry.cli import documents
from wherry.cli.names import ANYTHING
from wherry.client import Client
from wherry.engineapi.document import told
from wherry.errors import NotFound
from wherry.inspection import image_document

# kind: what is known of the one of that name
_KINDS: dict[str, Callable[[Client, str], dict[str, Any]]] = {
    "container": lambda client, name: client.containers.get(name).attrs,
    "image": lambda client, name: told(image_document(client.images.get(name))),
    "network": lambda client, name: client.networks.get(name).attrs,
    "volume": lambda client, name: client.volumes.get(name).attrs,
}


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, type=ANYTHING)
@click.option("--type", "kind", type=click.Choice(list(_KINDS)), help="Only one of these")
@documents.format_option
@click.pass_obj
def inspect_command(client: Client, names: tuple[str, ...], kind: str | None, form: str | None) -> int:
    """Show all that is known of containers, images, networks or volumes, as JSON."""
    return documents.show(names, lambda name: _inspect(client, name, kind), form)


def _inspect(client: Client, name: str, kind: str | None) -> dict[str, Any]:
    """The first of that name, in docker's order. Raises NotFound."""
    for one, look in _KINDS.items():
        if kind in (None, one):
            try:
                return look(client, name)
            except NotFound:
                continue
    raise NotFound(f"no such {kind or 'object'}: {name}")
