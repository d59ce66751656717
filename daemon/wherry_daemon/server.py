"""
The door: sockets that listen, and a thread for each client.

What a request does is a call of the engine, which waits for the kernel and for shims; so each connection has a thread
of its own. A client that is slow, or that follows a log for days, holds up nobody but itself.
"""

import logging
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from time import monotonic

import attrs

from wherry.engineapi.system import ErrorResponse
from wherry_daemon.http import (
    JSON,
    Answer,
    BadRequest,
    ClientGone,
    Empty,
    Hijack,
    HttpConnection,
    Request,
    Stream,
)
from wherry_daemon.refusals import refusal
from wherry_daemon.streams import encoded
from wherry_oci.errors import Unavailable

log = logging.getLogger("wherry.daemon")

_BACKLOG = 512
_MAX_CLIENTS = 2048
_STACK_SIZE = 512 << 10  # bytes of a thread's stack; they are many
_HANDSHAKE_S = 10.0
_LEAVING_S = 3.0  # for a thread to notice that its client was hung up on

Handler = Callable[[Request], Answer]


def listen_unix(path: str, group: int | None = None) -> socket.socket:
    """
    A socket that root and *group* can reach (mode 0660); one that nobody listens on any more is replaced.

    Raises Unavailable when somebody does, or the place cannot be used.
    """
    try:
        if _is_dead_socket(path):
            os.unlink(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.fchmod(made.fileno(), 0o660)  # what bind(2) makes has no more than this: never is it open to all
        made.bind(path)
        os.chmod(path, 0o660)
        if group is not None:
            os.chown(path, -1, group)
        made.listen(_BACKLOG)
    except OSError as error:
        raise Unavailable(f"cannot listen on {path}: {(error.strerror or str(error)).lower()}") from error
    return made


def _is_dead_socket(path: str) -> bool:
    """Raises Unavailable when somebody answers there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    raise Unavailable(f"cannot listen on {path}: another daemon answers there")


def listen_tcp(host: str, port: int) -> socket.socket:
    """Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=False)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}") from error
    return made


class Server:
    """Serves *handle* on any number of sockets until `close`; a context manager."""

    def __init__(self, handle: Handler, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._handle, self._headers = handle, list(headers)
        self._listeners: list[socket.socket] = []
        self._acceptors: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards the two below
        self._idle: set[socket.socket] = set()  # between two requests
        self._busy: dict[socket.socket, threading.Thread] = {}
        self._room = threading.BoundedSemaphore(_MAX_CLIENTS)
        self._closing = False

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def serve(
        self,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        check: Callable[[Request], None] = lambda request: None,
    ) -> None:
        """Begin to accept on *listener*, which is closed with the server; *check* may refuse what comes from there."""
        self._listeners.append(listener)
        acceptor = threading.Thread(target=self._accept, args=(listener, tls, check), name="wherry accept", daemon=True)
        self._acceptors.append(acceptor)
        acceptor.start()

    def close(self, patience_s: float = 0.0) -> None:
        """Accept nobody any more, let who is being served go on for *patience_s* seconds, and hang up. Once."""
        self._closing = True
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        for acceptor in self._acceptors:
            acceptor.join()
        for listener in self._listeners:
            listener.close()
        with self._lock:
            idle, busy = list(self._idle), dict(self._busy)
        for end in idle:
            _hang_up(end)
        _join([thread for end, thread in busy.items() if end not in idle], patience_s)
        for end in busy:
            _hang_up(end)
        _join(list(busy.values()), _LEAVING_S)

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None, check: Callable[[Request], None]) -> None:
        while not self._closing:
            self._room.acquire()
            try:
                end, _ = listener.accept()
            except OSError:  # closed, or out of descriptors
                self._room.release()
                if self._closing:
                    return
                log.exception("accept failed")
                continue
            self._start(end, tls, check)

    def _start(self, end: socket.socket, tls: ssl.SSLContext | None, check: Callable[[Request], None]) -> None:
        thread = threading.Thread(target=self._serve, args=(end, tls, check), name="wherry client", daemon=True)
        with self._lock:
            self._busy[end] = thread
        before = threading.stack_size(_STACK_SIZE)
        try:
            thread.start()
        finally:
            threading.stack_size(before)

    def _serve(self, end: socket.socket, tls: ssl.SSLContext | None, check: Callable[[Request], None]) -> None:
        secured = end
        try:
            if tls is not None:
                end.settimeout(_HANDSHAKE_S)
                secured = tls.wrap_socket(end, server_side=True)
                secured.settimeout(None)
            self._converse(end, HttpConnection(secured), check)
        except (ClientGone, ssl.SSLError, OSError) as error:
            log.debug("a client left: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            with self._lock:
                self._busy.pop(end, None)
                self._idle.discard(end)
            secured.close()
            self._room.release()

    def _converse(self, end: socket.socket, connection: HttpConnection, check: Callable[[Request], None]) -> None:
        while not self._closing:
            with self._lock:
                self._idle.add(end)
            try:
                request = connection.next_request()
            except BadRequest as error:
                connection.send_bytes(_bad_request(error))
                return
            finally:
                with self._lock:
                    self._idle.discard(end)
            if request is None or not self._answer(request, check):
                return

    def _answer(self, request: Request, check: Callable[[Request], None]) -> bool:
        """Whether the connection can go on."""
        connection = request.connection
        try:
            check(request)
            answer = self._handle(request)
            if isinstance(answer, Stream):
                answer = answer if answer.at_once else _begun(answer)
        except ClientGone:
            raise
        except Exception as error:
            answer = refusal(error)
            if answer.status == 500:
                log.warning("%s %s: %s", request.method, request.path, error, exc_info=error)
        log.debug("%s %s: %s", request.method, request.path, type(answer).__name__)
        return self._send(connection, request, answer)

    def _send(self, connection: HttpConnection, request: Request, answer: Answer) -> bool:
        if isinstance(answer, Hijack) and answer.websocket is not None:
            answer.serve(connection.open_websocket(answer.websocket))
            return False
        if isinstance(answer, Hijack):
            upgrade = "upgrade" in request.headers.get("connection", "").lower()
            hijacked = connection.hijack([*self._headers, ("Content-Type", answer.type)], upgrade=upgrade)
            answer.serve(hijacked)
            return False
        if isinstance(answer, Stream):
            headers = [*self._headers, ("Content-Type", answer.type), *answer.headers]
            connection.answer_stream(headers, answer.pieces)
        elif isinstance(answer, Empty):
            connection.answer_bytes(answer.status, [*self._headers, *answer.headers], b"")
        else:
            content = encoded(answer.document)
            connection.answer_bytes(answer.status, [*self._headers, ("Content-Type", JSON)], content)
        return connection.reusable


def _begun(answer: Stream) -> Stream:
    """The same with its first piece there: what goes wrong before it is an answer of its own."""
    pieces = iter(answer.pieces)
    first = next(pieces, b"")
    return attrs.evolve(answer, pieces=chain((first,), pieces))


def _bad_request(error: BadRequest) -> bytes:
    body = encoded(ErrorResponse(message=str(error)))
    head = (
        f"HTTP/1.1 400 Bad Request\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _join(threads: Sequence[threading.Thread], patience_s: float) -> None:
    """Wait for all of them, together no longer than *patience_s*."""
    deadline = monotonic() + patience_s
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is gone already
        return
