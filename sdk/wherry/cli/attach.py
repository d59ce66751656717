"""attach: a terminal or pipe joined to a container that runs already."""

import os

import click

from wherry.cli.interactive import attend
from wherry.cli.names import CONTAINER
from wherry.cli.parameters import detach_keys_option
from wherry.client import Client
from wherry.detachkeys import DetachKeys
from wherry.errors import NotRunning


@click.command("attach")
@click.argument("container", type=CONTAINER)
@detach_keys_option
@click.option("--no-stdin", is_flag=True, help="Give it nothing to read")
@click.option("--sig-proxy", type=bool, default=True, help="Pass signals on to it", show_default=True)
@click.pass_obj
def attach_command(client: Client, /, container: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Join a running container's streams, and end as it does; the detach keys leave it running."""
    keys, found = DetachKeys(detach_keys), client.containers.get(container)
    if (status := found.status) not in ("running", "paused", "restarting"):
        raise NotRunning(found.name, status, "attach to")
    terminal, stdin_open = found._stdio
    stdin = stdin_open and not no_stdin
    if terminal and stdin and not os.isatty(0):
        raise click.UsageError("the input device is not a TTY")
    with found._ending() as ended, found.attach() as process:
        return attend(found, process, ended, terminal=terminal, stdin=stdin, keys=keys, signals=sig_proxy)
