"""What the inspects print: documents as one JSON list, or each by a template."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from wherry.errors import WherryError
from wherry.gotemplate import Template

format_option = click.option("-f", "--format", "form", help="A Go template for each ({{.Id}}), or `json`")


def show(names: Sequence[str], look: Callable[[str], dict[str, Any]], form: str | None) -> int:
    """The document of each of *names*, going on after one that is not there. The exit code."""
    template = Template("{{json .}}" if form == "json" else form) if form else None
    found, failed = [], 0
    for name in names:
        try:
            document = look(name)
            if template is not None:
                click.echo(template.render(document))
            found.append(document)
        except WherryError as error:
            click.echo(f"wherry: {error}", err=True)
            failed = 1
    if template is None:
        click.echo(json.dumps(found, indent=4))
    return failed
