"""A hijacked connection over a WebSocket (RFC 6455): its messages carry the stream, and closing it ends both ways."""

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from wherry_daemon.http import BadRequest, ClientGone, Hijacked

if TYPE_CHECKING:
    from wsproto.connection import Connection

_READ_SIZE = 1 << 16


class WebSocket(Hijacked):
    """A client's end; each write is a message of its own."""

    def __init__(self, end: socket.socket, early: bytes, opening: "Opening") -> None:
        super().__init__(end, early)
        self._frames, self._discards = opening.frames, opening.discards

    def read(self) -> bytes | None:
        """As `Hijacked.read`, of the messages that are whole; None when there is none yet. Raises ClientGone."""
        from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
        from wsproto.utilities import RemoteProtocolError

        self._frames.receive_data(super().read() or None)
        found = bytearray()
        try:
            for event in self._frames.events():
                if isinstance(event, BytesMessage):
                    found += event.data
                elif isinstance(event, TextMessage):
                    found += event.data.encode()
                elif isinstance(event, Ping):
                    super().write(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    self._answer_close(event)
                    return b""
        except RemoteProtocolError as error:
            raise ClientGone from error
        return None if self._discards else bytes(found) or None

    def _answer_close(self, event: "object") -> None:
        from wsproto.connection import ConnectionState
        from wsproto.events import CloseConnection

        assert isinstance(event, CloseConnection)
        if self._frames.state is ConnectionState.REMOTE_CLOSING:
            super().write(self._frames.send(event.response()))
        super().end()

    def write(self, content: bytes) -> None:
        """As one message. Raises ClientGone."""
        from wsproto.events import BytesMessage
        from wsproto.utilities import LocalProtocolError

        try:
            super().write(self._frames.send(BytesMessage(data=content)))
        except LocalProtocolError as error:  # it was closed
            raise ClientGone from error

    def end(self) -> None:
        """Close it: no more will be written."""
        from wsproto.events import CloseConnection
        from wsproto.utilities import LocalProtocolError

        try:
            super().write(self._frames.send(CloseConnection(code=1000)))
        except (LocalProtocolError, ClientGone):  # it was closed by the client
            pass
        super().end()


@attrs.frozen
class Opening:
    """A WebSocket that was agreed upon, and is still to be opened."""

    frames: "Connection"
    answer: bytes  # what the client is told
    discards: bool  # what it sends nobody reads


def accept(headers: Mapping[str, str], target: str, *, discards: bool) -> Opening:
    """Raises BadRequest when a request with these *headers* asks for no WebSocket."""
    from wsproto import ConnectionType
    from wsproto.events import AcceptConnection, Request
    from wsproto.handshake import H11Handshake
    from wsproto.utilities import RemoteProtocolError

    handshake = H11Handshake(ConnectionType.SERVER)
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    try:
        handshake.initiate_upgrade_connection(lines, target)
        asked = next(event for event in handshake.events() if isinstance(event, Request))
        answer = handshake.send(AcceptConnection(subprotocol=next(iter(asked.subprotocols), None)))
    except (RemoteProtocolError, StopIteration) as error:
        raise BadRequest(f"this is no request for a WebSocket: {error}") from None
    assert handshake.connection is not None
    return Opening(handshake.connection, answer, discards)
