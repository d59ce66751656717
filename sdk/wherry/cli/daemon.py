"""daemon."""

from importlib import import_module

import click

from wherry.client import Client


@click.command("daemon", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def daemon_command(client: Client, arguments: tuple[str, ...]) -> int:
    """Serve Docker's Engine API; --help tells how."""
    # The command line is where the parts meet: the library itself does not know the daemon.
    code: int = import_module("wherry_daemon.command").main(list(arguments), client)
    return code
