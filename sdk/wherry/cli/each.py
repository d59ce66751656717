"""Commands that take several names: what fails for one is said, and the others have their turn."""

from collections.abc import Callable

import click

from wherry.errors import WherryError


def each(names: tuple[str, ...], action: Callable[[str], str | None]) -> int:
    """Do *action* to every name; print the name, or what *action* returns, or its error. The exit code."""
    failed = 0
    for name in names:
        try:
            said = action(name)
        except WherryError as error:
            click.echo(f"wherry: {error}", err=True)
            failed = 1
        else:
            click.echo(name if said is None else said)
    return failed
