"""ps, port, version."""

import json
from typing import Any

import click

from wherry.cli import table
from wherry.cli.names import CONTAINER
from wherry.cli.parameters import filters_of
from wherry.client import Client
from wherry.container import timestamp
from wherry.engineapi.containerlist import ContainerSummary, PortSummary
from wherry.mounts import VOLUME
from wherry.portbinding import container_ports
from wherry_oci.errors import NotFound

_SHOWN_COMMAND = 20
_SHORT = 12
_NANO = 1_000_000_000


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
    found = client.containers.summaries(all=show_all, limit=1 if latest else last, filters=filters_of(chosen))
    if quiet:
        for one in found:
            click.echo(one.id if no_trunc else one.id[:_SHORT])
        return
    rows = [_row(one, no_trunc) for one in found]
    heading = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
    keys = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
    table.show_as(form, heading, keys, rows, [_more(one) for one in found], _MORE)


_MORE = ("CreatedAt", "Labels", "LocalVolumes", "Mounts", "Networks", "State")


def _more(one: ContainerSummary) -> dict[str, Any]:
    """What docker's templates have beside the columns."""
    mounts, labels = one.mounts or (), one.labels or {}
    networks = (one.network_settings.networks if one.network_settings is not None else None) or {}
    return {
        "CreatedAt": timestamp(one.created * _NANO),
        "Label": lambda name: labels.get(name, ""),
        "Labels": ",".join(f"{name}={value}" for name, value in labels.items()),
        "LocalVolumes": str(sum(mount.type == VOLUME for mount in mounts)),
        "Mounts": ",".join(mount.name or mount.source for mount in mounts),
        "Networks": ",".join(networks) or one.host_config.network_mode,
        "State": one.state,
    }


def _row(one: ContainerSummary, whole: bool) -> tuple[str, ...]:
    command = one.command
    if not whole and len(command) > _SHOWN_COMMAND:
        command = command[: _SHOWN_COMMAND - 1] + "…"
    return (
        one.id if whole else one.id[:_SHORT],
        one.image,
        json.dumps(command, ensure_ascii=False),
        table.ago(one.created * _NANO),
        one.status,
        ", ".join(map(_port_text, one.ports)),
        ",".join(name.removeprefix("/") for name in one.names if name.count("/") == 1),
    )


def _port_text(port: PortSummary) -> str:
    """`0.0.0.0:8080->80/tcp`, or `443/tcp` of one that is not published."""
    private = f"{port.private_port}/{port.type}"
    if not port.public_port:
        return private
    address = f"[{port.ip}]" if ":" in port.ip else port.ip
    return f"{address}:{port.public_port}->{private}"


@click.command("port")
@click.argument("container", type=CONTAINER)
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
@click.argument("container", type=CONTAINER)
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
