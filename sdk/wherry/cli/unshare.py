"""`wherry unshare`: to look around in the namespaces of an ordinary user's containers."""

import os
import sys

import click

from wherry.places import holder_directory


@click.command("unshare", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--network", is_flag=True, help="In the network of the bridges, too")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def unshare_command(network: bool, command: tuple[str, ...]) -> None:
    """
    Run COMMAND, or a shell, as root among the ids that this user's containers have.

    Files of images, containers and volumes belong to the ids there that they belong to in containers.
    """
    if os.geteuid() == 0:
        raise click.UsageError("root's containers have no namespaces of their own: run it as an ordinary user")
    from wherry.rootless import holder
    from wherry_oci.linux.namespaces import CLONE_NEWNET, setns

    namespace = holder.enter(holder_directory())
    if network:
        setns(namespace, CLONE_NEWNET)
    words = command or (os.environ.get("SHELL") or "/bin/sh",)
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise click.ClickException(f"{words[0]}: {(error.strerror or '').lower()}") from None
