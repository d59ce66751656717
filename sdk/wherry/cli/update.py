"""update."""

from typing import Any

import click

from wherry.cli.lifecycle import all_containers, for_each
from wherry.client import Client


@click.command("update")
@all_containers
@click.option("--cpu-period", type=int, help="Microseconds in which --cpu-quota counts")
@click.option("--cpu-quota", type=int, help="Microseconds of processor time in each period")
@click.option("-c", "--cpu-shares", type=int, help="Weight beside others")
@click.option("--cpus", type=float, help="How many processors it may use")
@click.option("--cpuset-cpus", metavar="LIST", help="On which processors: 0-3, 0,1")
@click.option("--cpuset-mems", metavar="LIST", help="On which memory nodes")
@click.option("-m", "--memory", "mem_limit", metavar="SIZE", help="Most memory: 512m")
@click.option("--memory-reservation", "mem_reservation", metavar="SIZE", help="Memory that is left to it")
@click.option("--memory-swap", "memswap_limit", metavar="SIZE", help="Most memory and swap together; -1 is no limit")
@click.option("--pids-limit", type=int, help="Most processes; -1 is no limit")
@click.option("--restart", "restart_policy", help="no, on-failure[:N], always, unless-stopped")
@click.pass_obj
def update_command(client: Client, /, containers: tuple[str, ...], **changes: Any) -> int:
    """Change limits and the restart policy of containers, while they run."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise click.UsageError("say what to change: one or more options are needed")
    return for_each(client, containers, lambda container: container.update(**given))
