"""What every handler is given: the engine, by its client and directly."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from wherry.client import Client
from wherry.container import Container
from wherry_daemon.refusals import BadParameter

if TYPE_CHECKING:
    from wherry.local import LocalEngine

MINIMUM_VERSION = (1, 24)
VERSION = (1, 51)


def version_text(version: tuple[int, int]) -> str:
    """(1, 51) as 1.51."""
    return f"{version[0]}.{version[1]}"


@attrs.frozen
class Context:
    """One engine behind the door."""

    client: Client
    failed_execs: dict[str, int] = attrs.field(factory=dict)  # exit codes of what could not be started

    @property
    def engine(self) -> "LocalEngine":
        return self.client._engine

    def container(self, name: str) -> Container:
        """By name, with or without a slash before it, id or prefix. Raises ContainerNotFound."""
        return self.client.containers.get(name.removeprefix("/"))


def filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Docker's `filters`: a list of values for each name, or, as old clients send it, an object whose keys are the values.

    Raises BadParameter.
    """
    found: dict[str, Any] = {}
    for name, values in given.items():
        if isinstance(values, Mapping):
            found[name] = [value for value, wanted in values.items() if wanted]
        elif isinstance(values, list | str):
            found[name] = values
        else:
            raise BadParameter(f"invalid filter {name!r}: {values!r:.200}")
    return found
