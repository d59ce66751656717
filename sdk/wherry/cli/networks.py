"""network create, connect, disconnect, inspect, ls, prune, rm."""

import click

from wherry.cli import documents, table
from wherry.cli.each import each
from wherry.cli.names import CONTAINER, NETWORK
from wherry.cli.parameters import filters_of, pairs
from wherry.client import Client

_SHORT = 12


@click.command("create")
@click.option("-d", "--driver", default="bridge", help="bridge, or macvlan (-o parent=DEVICE, --subnet)")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Its addresses; one of IPv4, one of IPv6")
@click.option("--gateway", "gateways", multiple=True, metavar="ADDRESS", help="The host's address in it")
@click.option("--ip-range", metavar="CIDR", help="The part of the subnet to give addresses from")
@click.option("--internal", is_flag=True, help="No way out of it")
@click.option("--attachable", is_flag=True, help="Shown by inspect; every network is")
@click.option("--ipv6", is_flag=True, help="IPv6, too")
@click.option("--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="A label")
@click.option("-o", "--opt", "options", multiple=True, metavar="NAME=VALUE", help="mtu, or docker's whole names")
@click.argument("name")
@click.pass_obj
def network_create_command(
    client: Client,
    driver: str,
    subnets: tuple[str, ...],
    gateways: tuple[str, ...],
    ip_range: str | None,
    internal: bool,
    attachable: bool,
    ipv6: bool,
    labels: tuple[str, ...],
    options: tuple[str, ...],
    name: str,
) -> None:
    """Make a network, and print its id."""
    from wherry.network import MTU_OPTION

    chosen = {MTU_OPTION if key == "mtu" else key: value for key, value in pairs(options).items()}
    made = client.networks.create(
        name,
        driver=driver,
        subnet=subnets,
        gateway=gateways,
        ip_range=ip_range,
        internal=internal,
        attachable=attachable,
        enable_ipv6=ipv6,
        labels=pairs(labels),
        options=chosen,
    )
    click.echo(made.id)


@click.command("connect")
@click.option("--alias", "aliases", multiple=True, help="A further name in this network")
@click.option("--ip", help="Its IPv4 address")
@click.option("--ip6", help="Its IPv6 address")
@click.option("--link", "links", multiple=True, metavar="CONTAINER[:ALIAS]", help="What it calls another container")
@click.argument("network", type=NETWORK)
@click.argument("container", type=CONTAINER)
@click.pass_obj
def network_connect_command(
    client: Client,
    aliases: tuple[str, ...],
    ip: str | None,
    ip6: str | None,
    links: tuple[str, ...],
    network: str,
    container: str,
) -> None:
    """Give a container, running or not, a place in a network."""
    client.networks.get(network).connect(container, aliases=aliases, links=links, ipv4_address=ip, ipv6_address=ip6)


@click.command("disconnect")
@click.option("-f", "--force", is_flag=True, help="Even if the container's shim does not answer")
@click.argument("network", type=NETWORK)
@click.argument("container", type=CONTAINER)
@click.pass_obj
def network_disconnect_command(client: Client, force: bool, network: str, container: str) -> None:
    """Take a container, running or not, out of a network."""
    client.networks.get(network).disconnect(container, force=force)


@click.command("ls")
@click.option("-f", "--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="name, id, label, driver, type, …")
@click.option("-q", "--quiet", is_flag=True, help="Ids only")
@click.option("--no-trunc", is_flag=True, help="Whole ids")
@table.format_option
@click.pass_obj
def network_ls_command(client: Client, chosen: tuple[str, ...], quiet: bool, no_trunc: bool, form: str | None) -> None:
    """List networks."""
    found = [network.attrs for network in client.networks.list(filters=filters_of(chosen))]
    rows = [(one["Id"] if no_trunc else one["Id"][:_SHORT], one["Name"], one["Driver"], one["Scope"]) for one in found]
    if quiet:
        for row in rows:
            click.echo(row[0])
    else:
        table.show_as(form, ("NETWORK ID", "NAME", "DRIVER", "SCOPE"), ("ID", "Name", "Driver", "Scope"), rows)


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, type=NETWORK)
@documents.format_option
@click.pass_obj
def network_inspect_command(client: Client, names: tuple[str, ...], form: str | None) -> int:
    """Show all that is known of networks, as JSON."""
    return documents.show(names, lambda name: client.networks.get(name).attrs, form)


@click.command("rm")
@click.argument("names", nargs=-1, required=True, type=NETWORK)
@click.pass_obj
def network_rm_command(client: Client, names: tuple[str, ...]) -> int:
    """Remove networks in which no container has a place."""
    return each(names, lambda name: client.networks.get(name).remove())


@click.command("prune")
@click.option("--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="label, label!")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.pass_obj
def network_prune_command(client: Client, chosen: tuple[str, ...], force: bool) -> None:
    """Remove the networks in which no container has a place."""
    table.confirm(force, "all networks in which no container has a place")
    removed = client.networks.prune(filters_of(chosen))
    if removed:
        click.echo("Deleted Networks:")
    for name in removed:
        click.echo(name)
