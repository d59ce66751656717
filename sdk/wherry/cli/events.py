"""events."""

import json
from collections.abc import Mapping
from typing import Any

import click

from wherry.cli import table
from wherry.cli.logs import when
from wherry.cli.parameters import filters_of
from wherry.client import Client
from wherry.container import timestamp
from wherry.gotemplate import FieldsOf, Template

_NANO = 1_000_000_000
_FIELDS = {"id": "ID"}


@click.command("events")
@click.option("-f", "--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="container, event, image, type, …")
@click.option("--since", help="From a time (2026-01-31T12:00:00, or seconds since 1970), or a span back from now (10m)")
@click.option("--until", help="As --since; it ends then")
@table.format_option
@click.pass_obj
def events_command(
    client: Client, chosen: tuple[str, ...], since: str | None, until: str | None, form: str | None
) -> None:
    """Show what happens to containers, images, networks and volumes, as it happens."""
    template = Template(form) if form not in (None, "", "json") else None
    first, last = when(since), when(until)
    with client.events(
        None if first is None else first / _NANO,
        None if last is None else last / _NANO,
        filters_of(chosen),
    ) as events:
        for event in events:
            if template is not None:
                click.echo(template.render(_fields(event)))
            else:
                click.echo(json.dumps(event, separators=(",", ":")) if form else _line(event))


def _fields(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """For templates, by docker's names for them; as JSON it is what the API tells."""
    return FieldsOf(event, {_FIELDS.get(name, name[0].upper() + name[1:]): value for name, value in event.items()})


def _line(event: Mapping[str, Any]) -> str:
    """`2026-01-31T12:00:00.000000000Z container start 1a2b… (image=busybox, name=web)`, as docker prints it."""
    actor = event["Actor"]
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(actor["Attributes"].items()))
    line = f"{timestamp(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']}"
    return f"{line} ({attributes})" if attributes else line
