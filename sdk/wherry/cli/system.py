"""system df, system check, and the prunes."""

import click

from wherry.cli import table
from wherry.client import Client
from wherry.doctor import MISSING

_force = click.option("-f", "--force", is_flag=True, help="Do not ask")


@click.command("df")
@click.option("-v", "--verbose", is_flag=True, help="Each image")
@click.pass_obj
def df_command(client: Client, verbose: bool) -> None:
    """Show how much room images, containers and volumes take."""
    usage = client.images.usage()
    containers = client.containers.list(all=True)
    running = client.containers.list()
    written = sum(container.size for container in containers)
    idle = sum(container.size for container in containers if container not in running)
    in_use = sum(1 for image in usage.images if image.holders)
    rows = [
        [
            "Images",
            str(len(usage.images)),
            str(in_use),
            table.size(usage.layers + usage.blobs),
            table.size(usage.reclaimable),
        ],
        ["Containers", str(len(containers)), str(len(running)), table.size(written), table.size(idle)],
        _volumes_row(client),
    ]
    table.show(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], rows)
    if verbose:
        click.echo()
        each = [
            [", ".join(image.names) or image.id, table.size(image.unique + image.shared), table.size(image.shared)]
            for image in usage.images
        ]
        table.show(["IMAGE", "SIZE", "SHARED SIZE"], each)


def _volumes_row(client: Client) -> list[str]:
    sizes = {volume: volume.size for volume in client.volumes.list()}
    idle = client.volumes.list({"dangling": True})
    free = sum(sizes.get(volume, 0) for volume in idle)
    return [
        "Local Volumes",
        str(len(sizes)),
        str(len(sizes) - len(idle)),
        table.size(sum(sizes.values())),
        table.size(free),
    ]


@click.command("doctor")
@table.format_option
@click.pass_obj
def doctor_command(client: Client, form: str | None) -> int:
    """Show what this host has of what containers need, and what would mend a lack; exit code 1 if they cannot start."""
    checks = client.doctor()
    rows = [(check.name, check.status, check.found) for check in checks]
    if form not in (None, "", "table"):
        keys = ("Name", "Status", "Found", "Remedy")
        table.show_as(form, keys, keys, [(*row, check.remedy) for row, check in zip(rows, checks, strict=True)])
    else:
        table.show_as(form, ("CHECK", "STATUS", "FOUND"), (), rows)
        for check in checks:
            if check.remedy:
                click.echo(f"\n{check.name}: {check.remedy}")
    return 1 if any(check.status == MISSING for check in checks) else 0


@click.command("check")
@click.option("--content", is_flag=True, help="Read every blob and check its digest")
@click.pass_obj
def check_command(client: Client, content: bool) -> int:
    """Look for what is not as the records say; nothing is changed. Exit code 1 when something is found."""
    problems = client.check(content=content)
    for problem in problems:
        click.echo(problem)
    return 1 if problems else 0


@click.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Every image that no container has")
@_force
@click.pass_obj
def image_prune_command(client: Client, every: bool, force: bool) -> None:
    """Remove images without a name."""
    table.confirm(force, "all images that no container has" if every else "all images without a name")
    pruned = client.images.prune(all=every)
    for line in pruned.removed:
        click.echo(line)
    click.echo(f"Total reclaimed space: {table.size(pruned.size)}")


@click.command("prune")
@_force
@click.pass_obj
def container_prune_command(client: Client, force: bool) -> None:
    """Remove every container that does not run."""
    table.confirm(force, "all containers that do not run")
    for container in client.containers.prune():
        click.echo(container)


@click.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Every image that no container has")
@click.option("--volumes", "with_volumes", is_flag=True, help="Volumes without a name that no container has, too")
@_force
@click.pass_obj
def prune_command(client: Client, every: bool, with_volumes: bool, force: bool) -> None:
    """Remove containers that do not run, unused networks, and images without a name."""
    volumes = ", volumes without a name that no container has" if with_volumes else ""
    table.confirm(force, f"containers that do not run, unused networks{volumes}, and images that nobody needs")
    for container in client.containers.prune():
        click.echo(f"deleted container: {container}")
    for network in client.networks.prune():
        click.echo(f"deleted network: {network}")
    reclaimed = 0
    if with_volumes:
        gone = client.volumes.prune()
        reclaimed += gone.size
        for name in gone.names:
            click.echo(f"deleted volume: {name}")
    pruned = client.images.prune(all=every)
    for line in pruned.removed:
        click.echo(line)
    click.echo(f"Total reclaimed space: {table.size(reclaimed + pruned.size)}")


@click.command("restore")
@click.pass_obj
def restore_command(client: Client) -> int:
    """Start the containers whose restart policy is always, or unless-stopped if nobody stopped them: after a reboot."""
    restored = client.restore()
    for name in restored.started:
        click.echo(name)
    for name, error in restored.failed:
        click.echo(f"wherry: {name}: {error}", err=True)
    return 1 if restored.failed else 0
