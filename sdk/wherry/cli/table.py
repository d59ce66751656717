"""Columns of text as docker prints them, times and sizes as people say them."""

from collections.abc import Iterable, Mapping, Sequence
from time import time
from typing import Any

import click

from wherry.spans import duration

_GAP = 3
_NANO = 1_000_000_000


def show(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose columns are as wide as they need to be."""
    lines = [list(heading), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    for line in lines:
        click.echo("".join(cell.ljust(width + _GAP) for cell, width in zip(line, widths, strict=True)).rstrip())


format_option = click.option("--format", "form", help="`json`, a Go template ({{.ID}}), or `table` and a template")


def show_as(
    form: str | None,
    heading: Sequence[str],
    keys: Sequence[str],
    rows: Iterable[Sequence[str]],
    more: Sequence[Mapping[str, Any]] = (),
    more_keys: Sequence[str] = (),
) -> None:
    """
    As a table; with `json` one JSON object a line, whose names are *keys*; or by a template, as docker's --format.

    *more* are further fields of each row, which only the latter two show, and *more_keys* their names.
    """
    if form in (None, "", "table"):
        show(heading, rows)
        return
    shown = list(rows)
    fields = [
        {**dict(zip(keys, row, strict=True)), **other}
        for row, other in zip(shown, more or [{}] * len(shown), strict=True)
    ]
    assert form is not None
    names = {**{key: key.upper() for key in more_keys}, **dict(zip(keys, heading, strict=True))}
    show_by(form, names, fields)


def show_by(form: str, heading: Mapping[str, str], fields: Iterable[Mapping[str, Any]]) -> None:
    """`json`, a template, or `table` and a template, under *heading*, which names each field."""
    if form == "json":
        form = "{{json .}}"
    text = form.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    from wherry.gotemplate import Template

    template = Template(text)
    lines = [template.render(one) for one in fields]
    if not form.startswith("table "):
        for line in lines:
            click.echo(line)
        return
    named = {**heading, "Label": lambda name: name}
    cells = [line.split("\t") for line in (template.render(named), *lines)]
    show(cells[0], cells[1:])


def confirm(force: bool, what: str) -> None:
    """Ask before *what* is removed, unless *force*."""
    if not force:
        click.confirm(f"WARNING! This will remove {what}.\nAre you sure you want to continue?", abort=True)


def ago(nanoseconds: int) -> str:
    """How long ago a time since 1970 was."""
    return f"{duration(time() - nanoseconds / _NANO)} ago"


def size(count: int) -> str:
    """`1.24MB`: powers of 1000 and at most three digits, as docker shows sizes."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


def binary_size(count: int) -> str:
    """`1.5MiB`: powers of 1024 and four digits, as docker shows memory."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.4g}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
