"""events."""

import json
from collections.abc import Mapping
from typing import Any

import click

from wherry.cli.logs import when
from wherry.cli.parameters import filters_of
from wherry.client import Client
from wherry.container import timestamp

_NANO = 1_000_000_000


@click.command("events")
@click.option("-f", "--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="container, event, image, type, …")
@click.option("--since", help="From a time (2026-01-31T12:00:00, or seconds since 1970), or a span back from now (10m)")
@click.option("--until", help="As --since; it ends then")
@click.option("--format", "form", help="`json` for one JSON object a line")
@click.pass_obj
def events_command(
    client: Client, chosen: tuple[str, ...], since: str | None, until: str | None, form: str | None
) -> None:
    """Show what happens to containers, images, networks and volumes, as it happens."""
    if form not in (None, "json"):
        raise click.BadParameter("only json is known yet", param_hint="--format")
    first, last = when(since), when(until)
    with client.events(
        None if first is None else first / _NANO,
        None if last is None else last / _NANO,
        filters_of(chosen),
    ) as events:
        for event in events:
            click.echo(json.dumps(event, separators=(",", ":")) if form else _line(event))


def _line(event: Mapping[str, Any]) -> str:
    """`2026-01-31T12:00:00.000000000Z container start 1a2b… (image=busybox, name=web)`, as docker prints it."""
    actor = event["Actor"]
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(actor["Attributes"].items()))
    line = f"{timestamp(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']}"
    return f"{line} ({attributes})" if attributes else line
