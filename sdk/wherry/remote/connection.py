"""One connection to an engine: HTTP/1.1 by h11 on any socket, which an answer can turn into a plain stream."""

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import attrs
import h11

from wherry.remote.address import Address, Tls
from wherry_oci.errors import InvalidArgument, Unavailable

_READ_SIZE = 1 << 16
_CONNECT_S = 30.0
_MAX_HEAD = 1 << 18  # bytes of an answer's headers


class EngineUnreachable(Unavailable):
    """Nobody answers at the address, or the connection broke: `address`."""

    def __init__(self, address: Address, message: str) -> None:
        super().__init__(f"no engine at {address}: {message}; is it running, and may you reach it?")
        self.address = address


class Connection:
    """
    A connection for one request. What breaks it is an EngineUnreachable.

    The body of the answer is read with `pieces` or `body`; after `upgrade` the bytes both ways are the caller's.
    """

    def __init__(self, address: Address, timeout: float | None = None) -> None:
        """*timeout* holds for each wait for the engine, None waits for ever; connecting has a limit of its own."""
        self._address = address
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._helper: subprocess.Popen[bytes] | None = None
        self.socket = self._connected()
        self.socket.settimeout(timeout)

    def _connected(self) -> socket.socket:
        address = self._address
        try:
            if address.scheme == "ssh":
                return self._by_ssh()
            if address.scheme == "unix":
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    made.settimeout(_CONNECT_S)
                    made.connect(address.path)
                except BaseException:
                    made.close()
                    raise
                return made
            made = socket.create_connection((address.host, address.port), timeout=_CONNECT_S)
            return made if address.tls is None else _secured(made, address.host, address.tls)
        except OSError as error:
            raise EngineUnreachable(address, error.strerror or str(error)) from error

    def _by_ssh(self) -> socket.socket:
        """Through ssh(1) and the docker command there, as docker does it: `docker system dial-stdio`."""
        ours, theirs = socket.socketpair()
        port = ["-p", str(self._address.port)] if self._address.port else []
        command = ["ssh", *port, "-o", "ConnectTimeout=30", "-T", "--", self._address.destination]
        with theirs:
            try:
                self._helper = subprocess.Popen(
                    [*command, "docker", "system", "dial-stdio"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """Safe to repeat."""
        self.socket.close()
        if self._helper is not None:
            self._helper.terminate()
            self._helper.wait()
            self._helper = None

    def fileno(self) -> int:
        return self.socket.fileno()

    # one exchange

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None) -> None:
        """The whole request; a body in pieces goes out chunked."""
        lines = {"Host": self._address.host or "docker", "User-Agent": "wherry", **headers}
        if isinstance(body, bytes):
            lines["Content-Length"] = str(len(body))
        elif body is not None:
            lines["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            lines["Content-Length"] = "0"
        self._send(h11.Request(method=method, target=target, headers=list(lines.items())))
        try:
            for piece in (body,) if isinstance(body, bytes) else body or ():
                if piece:
                    self._send(h11.Data(data=piece))
        except EngineUnreachable:
            # It refuses what comes, and has said why before it hung up; the answer tells, if there is one.
            if self._http.our_state is not h11.SEND_BODY:
                raise
            return
        self._send(h11.EndOfMessage())

    def _send(self, event: Any) -> None:
        try:
            self.socket.sendall(self._http.send(event) or b"")
        except OSError as error:
            raise EngineUnreachable(self._address, f"the connection broke: {error.strerror or error}") from error

    def answer(self) -> "Head":
        """The status and headers that come back."""
        while True:
            event = self._event()
            if isinstance(event, h11.InformationalResponse) and event.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
                continue
            if isinstance(event, h11.Response | h11.InformationalResponse):
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                return Head(event.status_code, headers)
            raise EngineUnreachable(self._address, "it hung up without an answer")

    def pieces(self) -> Iterator[bytes]:
        """The answer's body as it comes."""
        while True:
            event = self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            elif isinstance(event, h11.ConnectionClosed):
                raise EngineUnreachable(self._address, "the connection broke in the middle of an answer")

    def body(self) -> bytes:
        """The answer's whole body."""
        return b"".join(self.pieces())

    def upgrade(self) -> bytes:
        """What came right behind the headers; everything after it is on the socket."""
        early, _ = self._http.trailing_data
        return bytes(early)

    def _event(self) -> Any:
        try:
            while True:
                event = self._http.next_event()
                if event is h11.PAUSED:  # after 101: what follows is no HTTP
                    return h11.ConnectionClosed()
                if event is not h11.NEED_DATA:
                    return event
                self._http.receive_data(self.socket.recv(_READ_SIZE))
        except h11.RemoteProtocolError as error:
            raise EngineUnreachable(self._address, f"what answers there is no engine: {error}") from error
        except TimeoutError:
            raise TimeoutError(
                f"the engine at {self._address} did not answer in {self.socket.gettimeout():g} s"
            ) from None
        except OSError as error:
            raise EngineUnreachable(self._address, f"the connection broke: {error.strerror or error}") from error


@attrs.frozen
class Head:
    """An answer's first lines; names of headers are in lower case, as h11 gives them."""

    status: int
    headers: Mapping[str, str]


def _secured(plain: socket.socket, host: str, tls: Tls) -> socket.socket:
    import ssl

    try:
        settings = ssl.create_default_context(cafile=tls.ca)
        if not tls.verify:
            settings.check_hostname = False
            settings.verify_mode = ssl.CERT_NONE
        if tls.certificate and tls.key:
            settings.load_cert_chain(os.fspath(tls.certificate), os.fspath(tls.key))
        return settings.wrap_socket(plain, server_hostname=host)
    except ssl.SSLError as error:
        plain.close()
        raise InvalidArgument(f"TLS with {host}: {error}") from error
    except BaseException:
        plain.close()
        raise
