"""What a further process in a container is to be, whichever engine starts it."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wherry.options import words
from wherry_oci.errors import InvalidArgument


@attrs.frozen(kw_only=True)
class ExecRequest:
    """The parameters of `Container.exec_create` and `Container.popen`, checked and in one form."""

    command: tuple[str, ...]
    user: str | None = None  # None: the container's
    environment: tuple[str, ...] = ()  # NAME=VALUE, beside the container's
    working_dir: str | None = None
    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    privileged: bool = False
    detach_keys: str = ""

    @classmethod
    def of(
        cls,
        command: str | Sequence[str],
        *,
        user: str | int | None = None,
        environment: Mapping[str, str] | Sequence[str] | None = None,
        **others: Any,
    ) -> "ExecRequest":
        """A text is split as a shell does it. Raises InvalidArgument for no command."""
        arguments = words(command, "command")
        if not arguments:
            raise InvalidArgument("command is empty: give a program")
        if isinstance(environment, Mapping):
            environment = [f"{name}={value}" for name, value in environment.items()]
        return cls(
            command=arguments,
            user=None if user is None else str(user),
            environment=tuple(environment or ()),
            **others,
        )
