"""HTTP/1.1 on one connection: requests come out, answers go in, and a connection can become a plain stream (hijack)."""

import fcntl
import json
import os
import select
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import h11

from wherry.engineapi.document import parse
from wherry_oci.errors import InvalidArgument

if TYPE_CHECKING:
    from wherry_daemon.websocket import Opening

T = TypeVar("T")

JSON = "application/json"
TAR = "application/x-tar"
RAW_STREAM = "application/vnd.docker.raw-stream"
FRAMES = "application/vnd.docker.multiplexed-stream"

_READ_SIZE = 1 << 16
_MAX_HEAD = 1 << 16  # bytes of a request's line and headers
_HEADERS_S, _HEADERS_POLL_S = 0.1, 0.0005
_MAX_DOCUMENT = 4 << 20  # bytes of a JSON body


class ClientGone(Exception):
    """Nobody is there any more to answer to."""


class BadRequest(InvalidArgument):
    """What came is no HTTP, or no JSON."""


@attrs.frozen(kw_only=True)
class Json:
    """A document of `wherry.engineapi` as the answer, a list of such, or what `json` writes."""

    document: Any
    status: int = 200


@attrs.frozen(kw_only=True)
class Empty:
    """An answer without a body."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen(kw_only=True)
class Stream:
    """
    A body that comes in pieces, sent as they come.

    What *pieces* raises before the first one is an answer of its own, unless the headers are to go out *at_once*.
    """

    pieces: Iterable[bytes]
    type: str = JSON
    at_once: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen(kw_only=True)
class Hijack:
    """The connection becomes a stream of bytes both ways, which *serve* uses up: it is closed afterwards."""

    serve: "Callable[[Hijacked], None]"
    type: str = RAW_STREAM
    websocket: "Opening | None" = None


Answer = Json | Empty | Stream | Hijack


class Hijacked:
    """A client's end of a stream: what came with the request is read first."""

    def __init__(self, end: socket.socket, early: bytes) -> None:
        self._end, self._early = end, early

    def fileno(self) -> int:
        """For poll(2); `early` bytes do not show there."""
        return self._end.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is something to read that poll(2) does not know of."""
        return bool(self._early)

    def read(self) -> bytes | None:
        """Some bytes, b"" when the client sends no more, None when nothing has come yet. Raises ClientGone."""
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return self._end.recv(_READ_SIZE)
        except OSError as error:
            raise ClientGone from error

    def write(self, content: bytes) -> None:
        """All of it, however long the client takes. Raises ClientGone."""
        try:
            self._end.sendall(content)
        except OSError as error:
            raise ClientGone from error

    def end(self) -> None:
        """No more will be written."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            return


@attrs.define(eq=False)
class Request:
    """One request; its body can be read once."""

    method: str
    path: str  # decoded, without the version
    version: tuple[int, int] | None
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    connection: "HttpConnection"

    def text(self, name: str, default: str = "") -> str:
        """A parameter of the query."""
        return self.query.get(name, [default])[0]

    def flag(self, name: str, default: bool = False) -> bool:
        """A parameter that is true or not, as Docker reads it: empty, 0, no, false and none are false."""
        if name not in self.query:
            return default
        return self.text(name).strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int) -> int:
        """Raises InvalidArgument."""
        text = self.text(name)
        try:
            return int(text) if text else default
        except ValueError:
            raise InvalidArgument(f"{name}={text!r} is no number") from None

    def document(self) -> Any:
        """The body as JSON; None when there is none. Raises BadRequest."""
        content = self.connection.body(_MAX_DOCUMENT)
        if not content.strip():
            return None
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is no JSON: {error}") from None

    def object(self) -> dict[str, Any]:
        """The body as a JSON object, {} when there is none. Raises BadRequest."""
        found = self.document()
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise BadRequest(f"the body is a JSON {type(found).__name__}, not an object")
        return found

    def parsed(self, cls: type[T]) -> T:
        """The body as a document of `wherry.engineapi`. Raises BadRequest, Malformed."""
        return parse(self.object(), cls)

    def mapping(self, name: str) -> dict[str, Any]:
        """A parameter that is a JSON object, {} when there is none. Raises InvalidArgument."""
        text = self.text(name)
        if not text:
            return {}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidArgument(f"{name}={text[:200]!r} is no JSON") from None
        if not isinstance(found, dict):
            raise InvalidArgument(f"{name}={text[:200]!r} is no JSON object")
        return found

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        return self.connection.pieces()


class HttpConnection:
    """One client's connection, request by request."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._is_head = self._has_body = False

    def next_request(self) -> Request | None:
        """The next one, None when the client has gone. Raises BadRequest, after which the connection is no more."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        try:
            event = self._event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(str(error)) from None
        if not isinstance(event, h11.Request):
            return None
        return self._parsed(event)

    def _parsed(self, event: h11.Request) -> Request:
        self._is_head, self._has_body = event.method == b"HEAD", True
        parts = urlsplit(event.target.decode("latin-1"))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        version, path = _versioned(parts.path)
        return Request(
            method=event.method.decode("ascii"),
            path=unquote(path),
            version=version,
            query=parse_qs(parts.query, keep_blank_values=True),
            headers=headers,
            connection=self,
        )

    def _event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            try:
                piece = self._end.recv(_READ_SIZE)
            except OSError as error:
                raise ClientGone from error
            self._http.receive_data(piece)

    # bodies

    def pieces(self) -> Iterator[bytes]:
        """The body of the request that came last. Raises BadRequest, ClientGone."""
        while self._has_body:
            try:
                event = self._event()
            except h11.RemoteProtocolError as error:
                raise BadRequest(str(error)) from None
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._has_body = False
            else:
                raise ClientGone

    def body(self, limit: int) -> bytes:
        """The whole body. Raises BadRequest when it is longer than *limit*."""
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise BadRequest(f"the body has more than {limit} bytes")
        return bytes(found)

    # answers

    def _send(self, event: Any) -> None:
        content = self._http.send(event)
        if content:
            self.send_bytes(content)

    def send_bytes(self, content: bytes) -> None:
        """As they are. Raises ClientGone."""
        try:
            self._end.sendall(content)
        except OSError as error:
            raise ClientGone from error

    def answer_bytes(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        """An answer whose length is known."""
        if status in (204, 304):
            content = b""  # these have no body
        else:
            headers = [*headers, ("Content-Length", str(len(content)))]
        head = self._http.send(h11.Response(status_code=status, headers=headers, reason=_reason(status))) or b""
        body = b""
        if content and self._http.our_state is h11.SEND_BODY and not self._is_head:
            body = self._http.send(h11.Data(data=content)) or b""
        self.send_bytes(head + body + (self._http.send(h11.EndOfMessage()) or b""))

    def answer_stream(self, headers: list[tuple[str, str]], pieces: Iterable[bytes]) -> None:
        """A chunked answer. Raises ClientGone, and what *pieces* raises; the connection can go on only without that."""
        self._send(h11.Response(status_code=200, headers=headers, reason=b"OK"))
        for piece in pieces:
            if piece:
                self._send(h11.Data(data=piece))
        self._send(h11.EndOfMessage())

    def hijack(self, status_headers: list[tuple[str, str]], *, upgrade: bool) -> Hijacked:
        """Say 101 (200 to clients that do not ask for an upgrade), and give the connection away."""
        for _ in self.pieces():
            continue
        early, _ = self._http.trailing_data
        lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK"]
        lines += [f"{name}: {value}" for name, value in status_headers]
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        self.send_bytes("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._let_headers_be_read()
        return Hijacked(self._end, bytes(early))

    def open_websocket(self, opening: "Opening") -> Hijacked:
        """Give the connection away as a WebSocket."""
        from wherry_daemon.websocket import WebSocket

        for _ in self.pieces():
            continue
        early, _ = self._http.trailing_data
        self.send_bytes(opening.answer)
        return WebSocket(self._end, bytes(early), opening)

    def _let_headers_be_read(self) -> None:
        """
        Wait a moment until the client has taken what was sent.

        docker-py reads the headers through a buffer and the stream past it: what came along with them it loses.
        """
        deadline = monotonic() + _HEADERS_S
        waiting = bytearray(4)
        while monotonic() < deadline:
            fcntl.ioctl(self._end.fileno(), termios.TIOCOUTQ, waiting)
            if not int.from_bytes(waiting, sys.byteorder):
                return
            sleep(_HEADERS_POLL_S)

    @property
    def reusable(self) -> bool:
        """Whether another request can come on it."""
        if self._http.their_state is h11.SEND_BODY:  # what it still sends is of no use: up to a limit it is skipped
            try:
                self.body(_MAX_DOCUMENT)
            except BadRequest:
                return False
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def client_left(self) -> bool:
        """Whether the client has hung up, as far as can be seen without reading."""
        watched = select.poll()
        watched.register(self._end.fileno(), select.POLLRDHUP)
        return bool(watched.poll(0))

    @contextmanager
    def when_left(self, leave: Callable[[], None]) -> Iterator[None]:
        """Within it *leave* is called, by another thread, if the client hangs up while something else is waited for."""
        done = os.eventfd(0, os.EFD_CLOEXEC)

        def watch() -> None:
            watched = select.poll()
            watched.register(self._end.fileno(), select.POLLRDHUP)
            watched.register(done, select.POLLIN)
            if done not in dict(watched.poll()):
                leave()

        thread = threading.Thread(target=watch, name="wherry hang-up", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.eventfd_write(done, 1)
            thread.join()
            os.close(done)

    def fileno(self) -> int:
        """For poll(2): POLLRDHUP tells that the client has hung up."""
        return self._end.fileno()


def _versioned(path: str) -> tuple[tuple[int, int] | None, str]:
    """`/v1.41/x` is version (1, 41) of `/x`."""
    first, slash, rest = path[1:].partition("/")
    major, dot, minor = first[1:].partition(".")
    if path.startswith("/v") and slash and dot and major.isdigit() and minor.isdigit():
        return (int(major), int(minor)), f"/{rest}"
    return None, path


_REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified"}


def _reason(status: int) -> bytes:
    from http import HTTPStatus

    return (_REASONS.get(status) or HTTPStatus(status).phrase).encode("ascii")
