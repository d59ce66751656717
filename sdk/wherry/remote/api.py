"""The Engine API as calls: paths, versions, JSON, and errors by their classes."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import attrs

from wherry.engineapi.document import Malformed, asked, parse
from wherry.errors import (
    ContainerNotFound,
    ExecNotFound,
    ExecutableNotFound,
    ExecutableNotRunnable,
    NameInUse,
    NetworkNotFound,
    NotRunning,
    PortInUse,
    StartFailed,
    UserNotFound,
    VolumeInUse,
    VolumeNotFound,
)
from wherry.remote.address import Address
from wherry.remote.connection import Connection, EngineUnreachable, Head
from wherry_images.errors import AuthRequired, ImageInUse, ImageNotFound, ManifestUnknown
from wherry_images.reference import parse_reference
from wherry_oci.errors import (
    Conflict,
    Error,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)

NEWEST = (1, 51)  # what this module was written for; an older engine is spoken to in its own version
OLDEST = (1, 24)

About = Mapping[str, str] | None  # what a request is about, by its kind: for the error
_NAME_IN_USE = re.compile(r'name "/?([^"]+)" is already in use by container "?([0-9a-f]+)')
_BOUND = re.compile(r"(?:Bind for |listen \w+ )\[?([0-9a-f.:]+?)\]?:(\d+)")
Body = Any  # bytes, an iterable of them, a document of wherry.engineapi, or a mapping; None for none
Query = Mapping[str, Any] | None
T = TypeVar("T")


class EngineError(Unavailable):
    """The engine failed at it: `status` is HTTP's, the text the engine's own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Request:
    """What an engine is asked; `path` is the API's, without a version."""

    method: str
    path: str
    query: Query = None
    body: Body = None
    about: About = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] | None = attrs.field(default=None, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)  # seconds for each part of the answer


@attrs.define(eq=False)
class Api:
    """
    One engine. It remembers the address, and the version once it is known: nothing is connected to before a call.

    Raises EngineUnreachable, and what the engine refuses with by its class.
    """

    address: Address
    _version: tuple[int, int] | None = None

    def __getstate__(self) -> tuple[Address]:
        return (self.address,)

    def __setstate__(self, state: tuple[Address]) -> None:
        self.address, self._version = state[0], None

    @property
    def version(self) -> tuple[int, int]:
        """The newest version that both speak. Raises Unsupported for an engine that is too old."""
        if self._version is None:
            connection = Connection(self.address)
            try:
                connection.send("GET", "/_ping", {}, None)
                said = connection.answer().headers.get("api-version", "")
            finally:
                connection.close()
            try:
                major, minor = (int(part) for part in said.split("."))
            except ValueError:
                raise EngineUnreachable(self.address, "what answers there names no API version") from None
            if (major, minor) < OLDEST:
                raise Unsupported(f"the engine at {self.address} speaks API {said} at most: 1.24 is needed")
            self._version = min((major, minor), NEWEST)
        return self._version

    # calls

    def get(self, path: str, query: Query = None, *, about: About = None) -> Any:
        """What a GET gives, as `json` reads it."""
        return self.json(Request("GET", path, query, about=about))

    def post(self, path: str, query: Query = None, body: Body = None, *, about: About = None) -> Any:
        return self.json(Request("POST", path, query, body, about=about))

    def delete(self, path: str, query: Query = None, *, about: About = None) -> Any:
        return self.json(Request("DELETE", path, query, about=about))

    def read(self, cls: type[T], path: str, query: Query = None, *, about: About = None) -> T:
        """What a GET gives, as a document."""
        return understood(self.get(path, query, about=about), cls)

    def read_all(self, cls: type[T], path: str, query: Query = None, *, about: About = None) -> list[T]:
        """The documents of a list that a GET gives."""
        return [understood(one, cls) for one in self.get(path, query, about=about) or ()]

    def ask(self, cls: type[T], path: str, query: Query = None, body: Body = None, *, about: About = None) -> T:
        """What a POST gives, as a document."""
        return understood(self.post(path, query, body, about=about), cls)

    def json(self, request: Request) -> Any:
        """The answer as `json` reads it, None when it has no body."""
        with self.exchange(request) as (_, connection):
            content = connection.body()
        return json.loads(content) if content.strip() else None

    @contextmanager
    def exchange(self, request: Request) -> Iterator[tuple[Head, Connection]]:
        """An answer whose body the caller reads; the connection is closed on leaving."""
        head, connection = self.open(request)
        try:
            yield head, connection
        finally:
            connection.close()

    def stream(self, request: Request) -> Iterator[bytes]:
        """The answer's body in pieces; errors come with the first one, or at once."""
        _, connection = self.open(request)
        return _closing(connection, connection.pieces())

    def lines(self, request: Request) -> Iterator[Any]:
        """What stands on each line of the answer, as `json` reads it, as they come."""
        _, connection = self.open(request)
        try:
            yield from lines_of(connection)
        finally:
            connection.close()

    def hijack(self, request: Request) -> tuple[Connection, bytes, Head]:
        """A stream both ways (Engine API, "Attach to a container"), what of it came along, and the answer's head."""
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        head, connection = self.open(attrs.evolve(request, headers=upgrade))
        return connection, connection.upgrade(), head

    def open(self, request: Request) -> tuple[Head, Connection]:
        """An answer whose body is still to come, on a connection that the caller closes."""
        path, query = quote(request.path, safe="/:@"), _query(request.query)
        target = "/v{}.{}{}{}".format(*self.version, path, query)
        lines, body = dict(request.headers or {}), request.body
        if attrs.has(type(body)):
            body = asked(body)
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
            lines["Content-Type"] = "application/json"
        elif body is not None:
            lines.setdefault("Content-Type", "application/x-tar")
        connection = Connection(self.address, request.timeout)
        try:
            connection.send(request.method, target, lines, body)
            head = connection.answer()
            if head.status >= 400:
                raise refused(head.status, _message(connection.body()), request.about or {})
        except BaseException:
            connection.close()
            raise
        return head, connection


def understood(document: object, cls: type[T]) -> T:
    """An engine's answer as a document. Raises EngineError when it is another."""
    try:
        return parse(document, cls, "the answer")
    except Malformed as error:
        raise EngineError(f"the engine's answer is not of Docker's API: {error}", 200) from error


def lines_of(connection: Connection) -> Iterator[Any]:
    """What stands on each line of an answer's body."""
    rest = b""
    for piece in connection.pieces():
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())
    if rest.strip():
        yield json.loads(rest)


def _closing(connection: Connection, pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    finally:
        connection.close()


def _query(query: Mapping[str, Any] | None) -> str:
    """Docker's: true is 1, objects are JSON, what is None is not there."""
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if value is None:
            continue
        if isinstance(value, bool):
            pairs.append((name, "1" if value else "0"))
        elif isinstance(value, Mapping):
            pairs.append((name, json.dumps(value)))
        elif isinstance(value, list | tuple):
            pairs += [(name, str(item)) for item in value]
        else:
            pairs.append((name, str(value)))
    return f"?{urlencode(pairs)}" if pairs else ""


def filters(given: Mapping[str, Any] | None) -> dict[str, list[str]] | None:
    """docker-py's filters as the API has them: a list of texts for each name."""
    if not given:
        return None
    found = {}
    for name, value in given.items():
        values = value if isinstance(value, list | tuple | set) else [value]
        found[name] = [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
    return found


def _message(content: bytes) -> str:
    try:
        said = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        said = content.decode("utf-8", "replace").strip()
    return str(said)


def refused(status: int, message: str, names: Mapping[str, str]) -> Exception:
    """What the engine's refusal is here: by what the request was about, the status, and Docker's words."""
    lowered = message.lower()
    container = names.get("container")
    if container and (made := _of_container(container, status, message, lowered)) is not None:
        return made
    for name, kind, known in _KINDS:
        if (about := names.get(name)) and status in known and (made := kind(about, message, lowered)) is not None:
            return made
    if (path := names.get("container_file")) and status == 404 and "no such container" not in lowered:
        return NotFound(f"{path} in the container: no such file or directory")
    message = message or f"the engine refused with HTTP {status}"
    by_status: dict[int, type[Error]] = {
        400: InvalidArgument,
        401: PermissionDenied,
        403: PermissionDenied,
        404: NotFound,
        405: Unsupported,
        409: Conflict,
        501: Unsupported,
    }
    made_class = by_status.get(status)
    return made_class(message) if made_class is not None else EngineError(message, status)


def _of_container(container: str, status: int, message: str, lowered: str) -> Exception | None:
    if found := _NAME_IN_USE.search(message):
        return NameInUse(found[1], found[2])
    if "port is already allocated" in lowered or "address already in use" in lowered:
        return _port_in_use(container, message)
    if "executable file not found" in lowered or ("no such file or directory" in lowered and "exec" in lowered):
        return ExecutableNotFound(container, message, "exec")
    if "permission denied" in lowered and "exec" in lowered:
        return ExecutableNotRunnable(container, message, "exec")
    if "unable to find user" in lowered or "unable to find group" in lowered or "no matching entries" in lowered:
        return UserNotFound(container, message, "user")
    if status == 409 and "is not running" in lowered:
        return NotRunning(container, "exited", "do this to")
    if status == 404 and ("no such container" in lowered or "no container with" in lowered):
        return ContainerNotFound(container)
    if "failed to create" in lowered and ("runtime" in lowered or "shim" in lowered):
        return StartFailed(container, message)
    return None


def _port_in_use(container: str, message: str) -> PortInUse:
    found = _BOUND.search(message)
    address, port = (found[1], int(found[2])) if found else ("", 0)
    return PortInUse(container, message, address, port, "tcp", None)


def _registry_of(name: str) -> str:
    return parse_reference(name).registry


def _image(name: str, message: str, lowered: str) -> Exception | None:
    if "unable to delete" in lowered or "unable to remove" in lowered:
        return ImageInUse(name, message)
    return ImageNotFound(name)


def _pulled(name: str, message: str, lowered: str) -> Exception | None:
    if "denied" in lowered or "unauthorized" in lowered or "authentication required" in lowered:
        return AuthRequired(message, registry=_registry_of(name))
    if "manifest" in lowered or "not found" in lowered:
        return ManifestUnknown(message, registry=_registry_of(name))
    return None


_KINDS: tuple[tuple[str, Callable[[str, str, str], Exception | None], tuple[int, ...]], ...] = (
    ("pull", _pulled, (401, 403, 404, 500)),
    ("image", _image, (404, 409)),
    ("network", lambda name, message, lowered: NetworkNotFound(name), (404,)),
    ("network", lambda name, message, lowered: Conflict(message) if "active endpoints" in lowered else None, (403,)),
    ("volume", lambda name, message, lowered: VolumeNotFound(name), (404,)),
    ("volume", lambda name, message, lowered: VolumeInUse(name, []), (409,)),
    ("exec_id", lambda name, message, lowered: ExecNotFound(name), (404,)),
)

__all__ = ["Api", "EngineError", "Request", "filters", "refused"]
