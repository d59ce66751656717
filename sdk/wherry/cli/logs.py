"""logs."""

import re
import sys
from datetime import datetime
from time import time

import click

from wherry.cli.names import CONTAINER
from wherry.client import Client
from wherry.container import timestamp
from wherry.logreader import Line

_NANO = 1_000_000_000
_SPAN = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?")


@click.command("logs")
@click.argument("container", type=CONTAINER)
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends")
@click.option("-n", "--tail", default="all", help="Only the last N lines", show_default=True)
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line")
@click.option("--since", help="A time (2026-01-31T12:00:00, or seconds since 1970) or a span back from now (10m)")
@click.option("--until", help="As --since")
@click.pass_obj
def logs_command(
    client: Client, container: str, follow: bool, tail: str, timestamps: bool, since: str | None, until: str | None
) -> None:
    """Show what a container has written, each stream to its own."""
    first, last = when(since), when(until)
    for line in client.containers.get(container)._log_lines(
        follow,
        tail=tail if tail == "all" else _count(tail),
        since=0 if first is None else first / _NANO,
        until=None if last is None else last / _NANO,
    ):
        _write(line, timestamps)


def _write(line: Line, timestamps: bool) -> None:
    stream = sys.stdout.buffer if line.stream == 1 else sys.stderr.buffer
    if timestamps:
        stream.write(timestamp(line.time).encode() + b" ")
    stream.write(line.content)
    stream.flush()


def _count(text: str) -> int:
    if not text.isdigit():
        raise click.BadParameter(f"{text!r} is neither a number nor all", param_hint="--tail")
    return int(text)


def when(text: str | None) -> int | None:
    """Nanoseconds since 1970."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span is not None and text:
        back = int(span["h"] or 0) * 3600 + int(span["m"] or 0) * 60 + float(span["s"] or 0)
        return int((time() - back) * _NANO)
    try:
        return int(float(text) * _NANO)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(text).timestamp() * _NANO)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a time nor a span such as 10m", param_hint="--since") from None
