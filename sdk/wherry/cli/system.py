"""info, system df, system check, and the prunes."""

import click

from wherry.cli import documents, table
from wherry.client import Client
from wherry.doctor import MISSING
from wherry.engineapi.document import told
from wherry.engineapi.images import ImageSummary
from wherry.engineapi.volumes import UsageData, Volume

_force = click.option("-f", "--force", is_flag=True, help="Do not ask")


@click.command("df")
@click.option("-v", "--verbose", is_flag=True, help="Each image")
@click.pass_obj
def df_command(client: Client, verbose: bool) -> None:
    """Show how much room images, containers and volumes take."""
    usage = client.df()
    images, containers, volumes = usage.images or (), usage.containers or (), usage.volumes or ()
    in_use = [image for image in images if image.containers > 0]
    rows = [
        ("Images", len(images), len(in_use), usage.layers_size, usage.layers_size - sum(map(_own_size, in_use))),
        _row("Containers", [(one.size_rw, one.state in _ALIVE) for one in containers]),
        _row("Local Volumes", [(_used(one).size, _used(one).ref_count > 0) for one in volumes]),
    ]
    heading = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
    table.show(heading, [(*map(str, row[:3]), *(table.size(max(0, size)) for size in row[3:])) for row in rows])
    if verbose:
        click.echo()
        each = [
            [
                ", ".join(image.repo_tags or ()) or image.id,
                table.size(image.size),
                table.size(max(0, image.shared_size)),
            ]
            for image in images
        ]
        table.show(["IMAGE", "SIZE", "SHARED SIZE"], each)


_ALIVE = ("running", "paused", "restarting")


def _own_size(image: ImageSummary) -> int:
    return image.size - max(0, image.shared_size)


def _used(volume: Volume) -> UsageData:
    return volume.usage_data or UsageData()


def _row(kind: str, each: list[tuple[int, bool]]) -> tuple[str, int, int, int, int]:
    """The line of things with a size each, of which some are in use."""
    idle = sum(size for size, active in each if not active)
    return kind, len(each), sum(active for _, active in each), sum(size for size, _ in each), idle


@click.command("info")
@documents.format_option
@click.pass_obj
def info_command(client: Client, form: str | None) -> None:
    """Show what the engine is and has."""
    found = client.info()
    if form:
        from wherry.gotemplate import Template

        click.echo(Template("{{json .}}" if form == "json" else form).render(told(found)))
        return
    for name, value in (
        ("Containers", found.containers),
        (" Running", found.containers_running),
        (" Paused", found.containers_paused),
        (" Stopped", found.containers_stopped),
        ("Images", found.images),
        ("Server Version", found.server_version),
        ("Storage Driver", found.driver),
        ("Logging Driver", found.logging_driver),
        ("Cgroup Driver", found.cgroup_driver),
        ("Cgroup Version", found.cgroup_version),
        ("Runtimes", " ".join(sorted(found.runtimes))),
        ("Default Runtime", found.default_runtime),
        ("Kernel Version", found.kernel_version),
        ("Operating System", found.operating_system),
        ("OSType", found.os_type),
        ("Architecture", found.architecture),
        ("CPUs", found.ncpu),
        ("Total Memory", table.binary_size(found.mem_total)),
        ("Name", found.name),
        ("Docker Root Dir", found.docker_root_dir),
    ):
        click.echo(f"{name}: {value}")


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
