"""volume create, inspect, ls, prune, rm."""

import click

from wherry.cli import documents, table
from wherry.cli.each import each
from wherry.cli.names import VOLUME
from wherry.cli.parameters import filters_of, pairs
from wherry.client import Client


@click.command("create")
@click.option("-d", "--driver", default="local", help="Only local is known")
@click.option("--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="A label")
@click.option(
    "-o", "--opt", "options", multiple=True, metavar="NAME=VALUE", help="type, o, device, as mount(8) has them"
)
@click.argument("name", required=False)
@click.pass_obj
def volume_create_command(
    client: Client, driver: str, labels: tuple[str, ...], options: tuple[str, ...], name: str | None
) -> None:
    """Make a volume, and print its name; one that is there already is left as it is."""
    made = client.volumes.create(name, driver=driver, driver_opts=pairs(options), labels=pairs(labels))
    click.echo(made.name)


@click.command("ls")
@click.option("-f", "--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="name, label, driver, dangling")
@click.option("-q", "--quiet", is_flag=True, help="Names only")
@table.format_option
@click.pass_obj
def volume_ls_command(client: Client, chosen: tuple[str, ...], quiet: bool, form: str | None) -> None:
    """List volumes."""
    found = client.volumes.list(filters_of(chosen))
    if quiet:
        for volume in found:
            click.echo(volume.name)
        return
    rows = [("local", volume.name) for volume in found]
    table.show_as(form, ("DRIVER", "VOLUME NAME"), ("Driver", "Name"), rows)


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, type=VOLUME)
@documents.format_option
@click.pass_obj
def volume_inspect_command(client: Client, names: tuple[str, ...], form: str | None) -> int:
    """Show all that is known of volumes, as JSON."""
    return documents.show(names, lambda name: client.volumes.get(name).attrs, form)


@click.command("rm")
@click.argument("names", nargs=-1, required=True, type=VOLUME)
@click.option("-f", "--force", is_flag=True, help="One that is not there is no error")
@click.pass_obj
def volume_rm_command(client: Client, names: tuple[str, ...], force: bool) -> int:
    """Remove volumes with all that is in them."""
    return each(names, lambda name: client.volumes.remove(name, force=force))


@click.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Those with a name, too")
@click.option("--filter", "chosen", multiple=True, metavar="NAME=VALUE", help="label, label!")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.pass_obj
def volume_prune_command(client: Client, every: bool, chosen: tuple[str, ...], force: bool) -> None:
    """Remove the volumes that no container has: those without a name, or --all."""
    what = "all volumes" if every else "all volumes without a name"
    table.confirm(force, f"{what} that no container has")
    pruned = client.volumes.prune({**filters_of(chosen), **({"all": True} if every else {})})
    for name in pruned.names:
        click.echo(name)
    click.echo(f"Total reclaimed space: {table.size(pruned.size)}")
