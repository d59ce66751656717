"""
Published ports by this process instead of the kernel's translation: for [::1], whose packets the kernel lets go to no
container, and for all addresses where the kernel has no nf_tables.

Bytes of connections go from socket to socket by splice(2) and never come up here; datagrams do. All is bounded, and
nothing waits: what one side does not take is not read from the other.
"""

import os
import select
from _socket import (
    AF_INET,
    AF_INET6,
    SHUT_WR,
    SO_ERROR,
    SO_RCVBUF,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from time import monotonic

from wherry_shim.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BACKLOG = 128
_MOST_RELAYS = 128  # of one container; who comes later waits in the backlog
_PIPE_SIZE = 1 << 16
_SPLICE = 1 | 2  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK
_TURNS = 16  # of one relay, before others have theirs
_MOST_PEERS = 256  # of datagrams
_DATAGRAM = 65535
_RECEIVE_BUFFER = 1 << 18
_IDLE_S = 30.0
_TICK_S = 5.0
_IN, _OUT = select.POLLIN, select.POLLOUT
_FLAGS = SOCK_NONBLOCK | SOCK_CLOEXEC


class Proxy:
    """Of one container; ended by `close`. The sockets stay the caller's."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._doors: dict[int, _StreamDoor | _DatagramDoor] = {}

    def use(self, published: "list[tuple[socket, dict[str, Any]]]") -> None:
        """Hand what comes to each socket on to the container, as its port (network.py) says; others are left alone."""
        wanted = {listener.fileno(): (listener, port) for listener, port in published if port["protocol"] != "sctp"}
        for fd in [fd for fd in self._doors if fd not in wanted]:
            self._doors.pop(fd).close()
        for fd, (listener, port) in wanted.items():
            target = (port["container_ip"], port["container_port"])
            door = self._doors.get(fd)
            if door is None:
                kind = _DatagramDoor if port["protocol"] == "udp" else _StreamDoor
                self._doors[fd] = kind(self._loop, listener, target)
            else:
                door.target = target

    def close(self) -> None:
        """End everything that goes through it."""
        for door in self._doors.values():
            door.close()
        self._doors = {}


def _socket_to(target: "tuple[str, int]", kind: int) -> socket:
    """Connected, or on the way to it. Raises OSError."""
    made = socket(AF_INET6 if ":" in target[0] else AF_INET, kind | _FLAGS)
    try:
        made.connect(target)
    except BlockingIOError:
        pass
    except BaseException:
        made.close()
        raise
    return made


class _StreamDoor:
    """A listening socket, and what came by it."""

    def __init__(self, loop: Loop, listener: socket, target: "tuple[str, int]") -> None:
        self._loop, self._listener, self.target = loop, listener, target
        self._relays: set[_Relay] = set()
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        loop.watch(listener.fileno(), _IN, self._on_connect)

    def _on_connect(self, events: int) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined] # what socket.accept itself calls
        except OSError:
            return
        client = socket(fileno=fd)
        client.setblocking(False)
        try:
            self._relays.add(_Relay(self._loop, client, _socket_to(self.target, SOCK_STREAM), self._on_end))
        except OSError:  # nobody is there, or descriptors ran out
            client.close()
        if len(self._relays) >= _MOST_RELAYS:
            self._loop.forget(self._listener.fileno())

    def _on_end(self, relay: "_Relay") -> None:
        self._relays.discard(relay)
        if len(self._relays) == _MOST_RELAYS - 1:
            self._loop.watch(self._listener.fileno(), _IN, self._on_connect)

    def close(self) -> None:
        self._loop.forget(self._listener.fileno())
        for relay in list(self._relays):
            relay.close()
        self._loop.forget(self._listener.fileno())


class _Way:
    """One direction of a relay: from *source* through a pipe to *target*."""

    def __init__(self, source: socket, target: socket) -> None:
        self.source, self.target = source, target
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        self.ended = self.shut = False

    def pump(self) -> None:
        """Move what goes without waiting. Raises OSError when one side is broken."""
        for _ in range(_TURNS):
            moved = self._fill() + self._drain()
            if not moved:
                break
        if self.ended and not self.held and not self.shut:
            self.shut = True
            self.target.shutdown(SHUT_WR)

    def _fill(self) -> int:
        if self.ended or self.held >= _PIPE_SIZE:
            return 0
        try:
            count = os.splice(self.source.fileno(), self.writer, _PIPE_SIZE - self.held, flags=_SPLICE)
        except BlockingIOError:
            return 0
        self.ended = count == 0
        self.held += count
        return count

    def _drain(self) -> int:
        if not self.held:
            return 0
        try:
            count = os.splice(self.reader, self.target.fileno(), self.held, flags=_SPLICE)
        except BlockingIOError:
            return 0
        self.held -= count
        return count

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class _Relay:
    """A client's connection and the one to the container."""

    def __init__(self, loop: Loop, client: socket, server: socket, on_end: "Any") -> None:
        self._loop, self._client, self._server, self._on_end = loop, client, server, on_end
        self._connected = False
        try:
            self._there, self._back = _Way(client, server), _Way(server, client)
        except OSError:
            server.close()
            raise
        loop.watch(server.fileno(), _OUT, self._on_event)

    def _on_event(self, events: int) -> None:
        try:
            if not self._connected:
                error = self._server.getsockopt(SOL_SOCKET, SO_ERROR)
                if error:
                    raise OSError(error, "not connected")
                self._connected = True
            self._there.pump()
            self._back.pump()
        except OSError:
            self.close()
            return
        if self._there.shut and self._back.shut:
            self.close()
            return
        self._watch(self._client, self._there, self._back)
        self._watch(self._server, self._back, self._there)

    def _watch(self, end: socket, outgoing: _Way, incoming: _Way) -> None:
        """What *end* can do next: be read from while the pipe has room, be written to while the other has bytes."""
        events = (_IN if not outgoing.ended and outgoing.held < _PIPE_SIZE else 0) | (_OUT if incoming.held else 0)
        if events:
            self._loop.watch(end.fileno(), events, self._on_event)
        else:
            self._loop.forget(end.fileno())  # poll(2) would tell of its hanging up again and again

    def close(self) -> None:
        for end in (self._client, self._server):
            self._loop.forget(end.fileno())
            end.close()
        self._there.close()
        self._back.close()
        self._on_end(self)


class _DatagramDoor:
    """A bound socket, and a socket of its own to the container for each peer."""

    def __init__(self, loop: Loop, listener: socket, target: "tuple[str, int]") -> None:
        self._loop, self._listener, self.target = loop, listener, target
        self._peers: dict[Any, tuple[socket, list[float]]] = {}
        self._closed = False
        listener.setblocking(False)
        listener.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER)
        loop.watch(listener.fileno(), _IN, self._on_datagram)

    def _on_datagram(self, events: int) -> None:
        for _ in range(_TURNS):
            try:
                piece, peer = self._listener.recvfrom(_DATAGRAM)
            except OSError:
                return
            try:
                end, last = self._peers.get(peer) or self._meet(peer)
                last[0] = monotonic()
                end.send(piece)
            except OSError:  # nobody is there, too many are, or its buffer is full: that is how datagrams get lost
                continue

    def _meet(self, peer: "Any") -> "tuple[socket, list[float]]":
        if len(self._peers) >= _MOST_PEERS:
            raise OSError
        end = _socket_to(self.target, SOCK_DGRAM)
        if not self._peers:
            self._loop.after(_TICK_S, self._expire)
        self._peers[peer] = end, [monotonic()]
        self._loop.watch(end.fileno(), _IN, lambda events: self._on_answer(end, peer))
        return self._peers[peer]

    def _on_answer(self, end: socket, peer: "Any") -> None:
        for _ in range(_TURNS):
            try:
                self._listener.sendto(end.recv(_DATAGRAM), peer)
            except OSError:
                return

    def _expire(self) -> None:
        now = monotonic()
        for peer, (_, last) in list(self._peers.items()):
            if now - last[0] > _IDLE_S:
                self._part(peer)
        if self._peers and not self._closed:
            self._loop.after(_TICK_S, self._expire)

    def _part(self, peer: "Any") -> None:
        end, _ = self._peers.pop(peer)
        self._loop.forget(end.fileno())
        end.close()

    def close(self) -> None:
        self._closed = True
        self._loop.forget(self._listener.fileno())
        for peer in list(self._peers):
            self._part(peer)
