"""Which handler answers to which method and path; the path's parts come to it as arguments."""

import re
from collections.abc import Callable
from typing import Any

from wherry_daemon.http import Answer, Request
from wherry_daemon.refusals import NoSuchEndpoint, NotInSwarm
from wherry_oci.errors import NotFound, Unsupported

# What the daemon of Docker has and wherry does not: it says so, and is not asked again.
_UNSUPPORTED = re.compile(r"/(swarm|nodes|services|tasks|secrets|configs|plugins|build|session|grpc)(/.*)?")

_SPECIAL = {"name": "(.+)"}  # an image's name has slashes


class Routes:
    """A table that modules write their handlers into."""

    def __init__(self) -> None:
        self._table: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []
        self.listed: list[tuple[str, str]] = []  # method and path of each

    def __call__(self, method: str, path: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
        """Decorates the handler of *path*, in which `{id}` is one part and `{name}` may be several."""

        def add(handler: Callable[..., Answer]) -> Callable[..., Answer]:
            pattern = re.sub(r"\{(\w+)\}", lambda found: _SPECIAL.get(found[1], "([^/]+)"), path)
            self._table.append((method, re.compile(pattern), handler))
            self.listed.append((method, path))
            return handler

        return add

    def add_all(self, other: "Routes") -> None:
        """The handlers of another table, too; those that were there first win."""
        self._table.extend(other._table)

    def answer(self, context: Any, request: Request) -> Answer:
        """What the handler gives, called with *context*. Raises NoSuchEndpoint, Unsupported and what that does."""
        for method, pattern, handler in self._table:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                return handler(context, request, *found.groups())
        if request.path == "/swarm/leave":
            raise NotInSwarm("This node is not part of a swarm")
        if found := re.fullmatch("/plugins/(.+)/json", request.path):
            raise NotFound(f'plugin "{found[1]}" not found')  # docker inspect asks for one of each kind
        if _UNSUPPORTED.fullmatch(request.path):
            raise Unsupported(
                f"wherry has no {request.path.split('/')[1]}: it is an engine for containers of one machine"
            )
        raise NoSuchEndpoint("page not found")
