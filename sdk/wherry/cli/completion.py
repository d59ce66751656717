"""completion."""

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """
    Print what makes a shell complete verbs, flags and names.

    For bash: eval "$(wherry completion bash)", in ~/.bashrc.
    """
    root = context.find_root()
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(root.command, {}, "wherry", "_WHERRY_COMPLETE").source())
