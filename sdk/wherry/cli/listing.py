"""ps, port, version."""

import json
from typing import Any

import click

from wherry.cli import table
from wherry.cli.parameters import filters_of
from wherry.client import Client
from wherry.container import timestamp
from wherry.containerstore import Record
from wherry.mounts import VOLUME
from wherry.portbinding import container_ports
from wherry.selection import select
from wherry.state import State
from wherry_oci.errors import NotFound

_SHOWN_COMMAND = 20
_SHORT = 12


@click.command("ps")
@click.option("-a", "--all", "show_all", is_flag=True, help="Those that do not run, too")
@click.option("-f", "--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="name, status, label, ancestor, …")
@click.option("-q", "--quiet", is_flag=True, help="Ids only")
@click.option("-n", "--last", type=int, help="The last N that were made")
@click.option("-l", "--latest", is_flag=True, help="The last one that was made")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands")
@table.format_option
@click.pass_obj
def ps_command(
    client: Client,
    show_all: bool,
    chosen: tuple[str, ...],
    quiet: bool,
    last: int | None,
    latest: bool,
    no_trunc: bool,
    form: str | None,
) -> None:
    """List containers."""
    found = select(client._engine, all=show_all, limit=1 if latest else last, filters=filters_of(chosen))
    if quiet:
        for record, _ in found:
            click.echo(record.id if no_trunc else record.id[:_SHORT])
        return
    rows = [_row(record, state, no_trunc) for record, state in found]
    heading = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
    keys = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
    table.show_as(form, heading, keys, rows, [_more(record, state) for record, state in found], _MORE)


_MORE = ("CreatedAt", "Labels", "LocalVolumes", "Mounts", "Networks", "State")


def _more(record: Record, state: State) -> dict[str, Any]:
    """What docker's templates have beside the columns."""
    points = record.settings["mount_points"]
    return {
        "CreatedAt": timestamp(record.created),
        "Label": lambda name: record.labels.get(name, ""),
        "Labels": ",".join(f"{name}={value}" for name, value in record.labels.items()),
        "LocalVolumes": str(sum(point["kind"] == VOLUME for point in points)),
        "Mounts": ",".join(str(point["name"] or point["source"]) for point in points),
        "Networks": ",".join(endpoint["network"] for endpoint in record.settings["endpoints"])
        or record.settings["network"],
        "State": state.status,
    }


def _row(record: Record, state: State, whole: bool) -> tuple[str, ...]:
    command = " ".join([*record.settings["entrypoint"], *record.settings["command"]])
    if not whole and len(command) > _SHOWN_COMMAND:
        command = command[: _SHOWN_COMMAND - 1] + "…"
    return (
        record.id if whole else record.id[:_SHORT],
        record.image,
        json.dumps(command, ensure_ascii=False),
        table.ago(record.created),
        status_text(state),
        ports_text(record, state),
        record.name,
    )


def status_text(state: State) -> str:
    """`Up 5 minutes (healthy)`, `Restarting`, `Exited (0) 2 hours ago`, `Created`."""
    from time import time

    if state.status in ("running", "paused"):
        up = f"Up {table.duration(time() - state.started / 1e9)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        if state.health is not None:
            health = state.health["status"]
            return f"{up} ({'health: starting' if health == 'starting' else health})"
        return up
    if state.status == "restarting":
        return "Restarting"
    if state.exit is not None:
        when = f" {table.ago(state.exit.finished)}" if state.exit.finished else ""
        return f"Exited ({state.exit.exit_code}){when}"
    return "Created"


def ports_text(record: Record, state: State) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`."""
    if state.status not in ("running", "paused"):
        return ""
    published = [
        f"{port['host_ip']}:{port['host_port']}->{port['container_port']}/{port['protocol']}" for port in state.ports
    ]
    taken = {f"{port['container_port']}/{port['protocol']}" for port in state.ports}
    return ", ".join([*published, *(port for port in record.settings["exposed_ports"] if port not in taken)])


@click.command("port")
@click.argument("container")
@click.argument("private_port", required=False)
@click.pass_obj
def port_command(client: Client, container: str, private_port: str | None) -> None:
    """Show a container's published ports, or where one of them is."""
    found = client.containers.get(container)
    bindings = {key: value for key, value in found.ports.items() if value}
    if private_port is not None:
        [(number, protocol)] = container_ports(private_port)
        key = f"{number}/{protocol}"
        if key not in bindings:
            raise NotFound(f"no public port {key!r} published for {container}")
        bindings = {key: bindings[key]}
    for key, bound in bindings.items():
        for place in bound:
            where = f"{place['HostIp']}:{place['HostPort']}"
            click.echo(where if private_port is not None else f"{key} -> {where}")


@click.command("top")
@click.argument("container")
@click.pass_obj
def top_command(client: Client, container: str) -> None:
    """Show the processes of a container."""
    shown = client.containers.get(container).top()
    table.show(shown["Titles"], shown["Processes"])


@click.command("version")
@click.pass_obj
def version_command(client: Client) -> None:
    """Show the version of wherry and of what it stands on."""
    for name, value in client.version().items():
        click.echo(f"{name + ':':<16}{value}")
