"""What several verbs take: NAME=VALUE pairs and filters."""

from collections.abc import Iterable

import click

detach_keys_option = click.option("--detach-keys", default="", metavar="KEYS", help="Leave by these [ctrl-p,ctrl-q]")


def pairs(items: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE`, or a name alone for an empty value."""
    return {name: value for name, _, value in (item.partition("=") for item in items)}


def filters_of(items: Iterable[str]) -> dict[str, list[str]]:
    """`--filter NAME=VALUE`, each as often as one likes; `label!=x` is the filter `label!`."""
    found: dict[str, list[str]] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise click.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--filter")
        found.setdefault(name, []).append(value)
    return found
