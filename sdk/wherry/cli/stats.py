"""stats."""

import sys
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import Any

import click

from wherry.cli import table
from wherry.cli.names import CONTAINER
from wherry.client import Client
from wherry.container import Container
from wherry.errors import ContainerNotFound, NotRunning
from wherry.stats import Sampler, Stats

_INTERVAL_S = 1.0
_CLEAR = "\033[H\033[J"
_SHORT = 12
_HEADING = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
_KEYS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


@click.command("stats")
@click.argument("containers", nargs=-1, type=CONTAINER)
@click.option("--no-stream", is_flag=True, help="Show it once, measured over one second")
@click.option("--no-trunc", is_flag=True, help="Whole ids")
@table.format_option
@click.pass_obj
def stats_command(
    client: Client, containers: tuple[str, ...], no_stream: bool, no_trunc: bool, form: str | None
) -> None:
    """Show what running containers use, all of them or some, every second."""
    chosen = [client.containers.get(name) for name in containers]
    look = _look_elsewhere(client, chosen, no_stream) if client._remote else _look(client, chosen, no_stream)
    look()
    while True:
        sleep(_INTERVAL_S)
        rows = [_row(stats, no_trunc) for stats in look()]
        if not no_stream and form is None and sys.stdout.isatty():
            click.echo(_CLEAR, nl=False)
        table.show_as(form, _HEADING, _KEYS, rows)
        if no_stream or (chosen and not rows):
            return


def _look(client: Client, chosen: list[Container], strict: bool) -> Callable[[], list[Stats]]:
    """Gives a sample of each at a call; with *strict* one that does not run is an error."""
    sampler = Sampler(client._engine)

    def look() -> list[Stats]:
        if not chosen:
            return sampler.all()
        return _of_each([partial(sampler.sample, container._record) for container in chosen], strict)

    return look


def _look_elsewhere(client: Client, chosen: list[Container], strict: bool) -> Callable[[], list[Stats]]:
    """As `_look`: what was before, an engine elsewhere need not be asked."""
    before: dict[str, Any] = {}

    def look() -> list[Stats]:
        asked = chosen or client.containers.list()
        found = _of_each([partial(container.stats, stream=False) for container in asked], strict and bool(chosen))
        for sample in found:
            sample["precpu_stats"] = before.get(sample["id"], {})
            before[sample["id"]] = sample["cpu_stats"]
        return found

    return look


def _of_each(looks: list[Callable[[], Stats]], strict: bool) -> list[Stats]:
    found = []
    for look in looks:
        try:
            found.append(look())
        except (NotRunning, ContainerNotFound):
            if strict:
                raise
    return found


def _row(stats: Stats, whole: bool) -> tuple[str, ...]:
    return (
        stats["id"] if whole else stats["id"][:_SHORT],
        stats["name"].removeprefix("/"),
        f"{stats.cpu_percent:.2f}%",
        f"{table.binary_size(stats.memory_usage)} / {table.binary_size(stats.memory_limit)}",
        f"{stats.memory_percent:.2f}%",
        f"{table.size(stats.network_received)} / {table.size(stats.network_sent)}",
        f"{table.size(stats.block_read)} / {table.size(stats.block_written)}",
        str(stats.pids),
    )
