"""The Engine API as one function: a request in, an answer out."""

from wherry_daemon import containers, images, networks, system
from wherry_daemon.context import MINIMUM_VERSION, VERSION, Context, version_text
from wherry_daemon.http import Answer, Request
from wherry_daemon.refusals import BadParameter
from wherry_daemon.routes import Routes

HEADERS = (
    ("Api-Version", version_text(VERSION)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", "Docker/28.5.0 (wherry)"),
)


class Api:
    """Every endpoint, on one engine."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._routes = Routes()
        for part in (system, containers, images, networks):
            self._routes.add_all(part.route)

    def __call__(self, request: Request) -> Answer:
        """Raises what the engine does, and BadParameter for a version of the API that there is not."""
        if request.version is not None:
            asked = version_text(request.version)
            if request.version > VERSION:
                raise BadParameter(
                    f"client version {asked} is too new. Maximum supported API version is {version_text(VERSION)}"
                )
            if request.version < MINIMUM_VERSION:
                raise BadParameter(
                    f"client version {asked} is too old. Minimum supported API version is "
                    f"{version_text(MINIMUM_VERSION)}, please upgrade your client to a newer version"
                )
        return self._routes.answer(self._context, request)
