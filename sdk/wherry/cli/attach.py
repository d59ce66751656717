"""attach: a terminal or pipe joined to a container that runs already."""

import os

import click

from wherry.attachment import Attachment
from wherry.cli.interactive import attend
from wherry.client import Client
from wherry.errors import NotRunning


@click.command("attach")
@click.argument("container")
@click.option("--no-stdin", is_flag=True, help="Give it nothing to read")
@click.pass_obj
def attach_command(client: Client, /, container: str, no_stdin: bool) -> int:
    """Join a running container's streams, and end as it does; ctrl-p ctrl-q leaves it running."""
    engine = client._engine
    record = engine.record(container)
    state = engine.state(record)
    if not state.alive:
        raise NotRunning(record.name, state.status, "attach to")
    terminal, stdin = record.settings["tty"], record.settings["stdin_open"] and not no_stdin
    if terminal and stdin and not os.isatty(0):
        raise click.UsageError("the input device is not a TTY")
    with Attachment.to(engine, record.id, logs=False) as attachment:
        return attend(client, record.id, attachment.conversation, terminal=terminal, stdin=stdin)
