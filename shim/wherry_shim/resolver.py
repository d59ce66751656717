"""
A container's name server, at 127.0.0.11 in its own network namespace, and in its shim's loop.

Names of containers it answers out of the tables of the container's networks (nametable.py), the rest it hands on to
the host's servers, or those that were asked for: from the container's own network, so that what its networks forbid it
is not reached by way of its questions; a container of internal networks alone gets no answer from outside. Only servers
on the host's loopback are asked from the host's network, as no container reaches those.

It never waits: every socket is non-blocking, and what is under way is bounded in number, size and time. It ends with
its shim, and takes nobody else's names along.
"""

import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    inet_aton,
    socket,
)
from time import monotonic

from wherry_oci.linux import nftables
from wherry_oci.linux.namespaces import CLONE_NEWNET, setns
from wherry_shim import dns
from wherry_shim.loop import READABLE, WRITABLE, Loop
from wherry_shim.nametable import NameTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ADDRESS = "127.0.0.11"
_PORT = 53
_TABLE, _CHAIN, _MAP = "wherry-resolver", "output", "ports"
_MOST_MESSAGES = 32  # of one turn of the loop
_MOST_FORWARDED = 128  # at a time
_MOST_CONNECTIONS = 32
_PATIENCE_S = 2.0  # with one server
_IDLE_S = 10.0  # of a connection
_TICK_S = 0.25
_UDP_MESSAGE, _TCP_MESSAGE = 4096, 65535
_FLAGS = SOCK_NONBLOCK | SOCK_CLOEXEC


class Resolver:
    """*namespace* is a descriptor of the container's, *run* the directory of the tables. Ended by `close`."""

    def __init__(self, loop: Loop, run: str, namespace: int, servers: "list[str]") -> None:
        """Listen. Raises OSError."""
        self._loop, self._run, self._namespace, self._servers = loop, run, namespace, servers
        self._tables: dict[str, NameTable] = {}
        self._calls: dict[str, str] = {}  # what this container alone calls others: name
        self._outward = False
        self._forwarded: dict[int, _Forwarded] = {}
        self._connections: dict[int, _Connection] = {}
        self._ticking = False
        self._udp: socket
        self._tcp: socket
        self._udp, self._tcp = _within(namespace, _listen)
        loop.watch(self._udp.fileno(), READABLE, self._on_datagram)
        loop.watch(self._tcp.fileno(), READABLE, self._on_connect)

    def use(self, interfaces: "list[dict[str, Any]]") -> None:
        """The container is in these networks from now on (a plan's interfaces)."""
        named = [interface for interface in interfaces if interface.get("names")]
        self._tables = {
            one["network"]: self._tables.get(one["network"]) or NameTable(self._run, one["network"]) for one in named
        }
        self._calls = {alias.lower(): name.lower() for one in named for name, alias in one.get("links") or ()}
        self._outward = any(interface["gateways"] for interface in interfaces)

    def close(self) -> None:
        """Let everything go."""
        for pending in list(self._forwarded.values()):
            self._release(pending)
        for connection in list(self._connections.values()):
            self._hang_up(connection)
        for listener in (self._udp, self._tcp):
            self._loop.forget(listener.fileno())
            listener.close()

    # questions

    def _on_datagram(self, events: int) -> None:
        for _ in range(_MOST_MESSAGES):
            try:
                message, sender = self._udp.recvfrom(_UDP_MESSAGE)
            except OSError:  # none, or an earlier answer was not taken
                return
            self._ask(message, _DatagramReply(self._udp, sender), dns.UDP_SIZE)

    def _ask(self, message: bytes, reply: "_DatagramReply | _Connection", limit: int) -> None:
        question = dns.parse(message)
        if question is None:
            if len(message) >= 12 and not message[2] & 0x80:  # never an answer to an answer
                reply.answer(dns.error_answer(message, dns.NOT_IMPLEMENTED if message[2] & 0x78 else dns.FORMAT_ERROR))
            return
        answer = self._own_answer(message, question, limit)
        if answer is not None:
            reply.answer(answer)
        elif not self._servers or not self._outward or len(self._forwarded) >= _MOST_FORWARDED:
            reply.answer(dns.error_answer(message, dns.SERVER_FAILURE))
        else:
            self._forward(_Forwarded(message, reply, stream=reply.stream))

    def _own_answer(self, message: bytes, question: "dns.Question", limit: int) -> "bytes | None":
        """None when nobody here is called so."""
        address = dns.reversed_address(question.name)
        if address is not None:
            for table in self._tables.values():
                record = table.at(address)
                if record is not None:
                    return dns.name_answer(message, question, f"{record['names'][0]}.{record['network']}", limit)
            return None
        wanted = self._calls.get(question.name, question.name)
        found = [record for table in self._tables.values() for record in table.find(wanted)]
        if not found:
            return None
        turn = os.urandom(1)[0] % len(found)  # several of one name share the work
        addresses = [address for record in found[turn:] + found[:turn] for address in record["addresses"]]
        return dns.address_answer(message, question, addresses, limit)

    # handing on

    def _forward(self, pending: "_Forwarded") -> None:
        """Ask the next server; when there is none left, say that nobody answered."""
        while pending.server < len(self._servers):
            server = self._servers[pending.server]
            pending.server += 1
            try:
                pending.open(server, self._socket_for(server, pending.stream))
            except OSError:
                pending.shut()
                continue
            self._forwarded[pending.fileno] = pending
            wanted = WRITABLE if pending.stream else READABLE
            self._loop.watch(pending.fileno, wanted, lambda events: self._on_upstream(pending))
            self._tick()
            return
        pending.reply.answer(dns.error_answer(pending.message, dns.SERVER_FAILURE))

    def _socket_for(self, server: str, stream: bool) -> socket:
        family = AF_INET6 if ":" in server else AF_INET
        kind = (SOCK_STREAM if stream else SOCK_DGRAM) | _FLAGS
        if server.startswith("127.") or server == "::1":
            return socket(family, kind)
        made: socket = _within(self._namespace, lambda: socket(family, kind))
        return made

    def _on_upstream(self, pending: "_Forwarded") -> None:
        try:
            answer = pending.advance()
        except OSError:  # refused, unreachable, or broken off
            self._release(pending)
            self._forward(pending)
            return
        if pending.sent:
            self._loop.watch(pending.fileno, READABLE, lambda events: self._on_upstream(pending))
        if answer is not None:
            self._release(pending)
            pending.reply.answer(pending.message[:2] + answer[2:])

    def _release(self, pending: "_Forwarded") -> None:
        self._forwarded.pop(pending.fileno, None)
        self._loop.forget(pending.fileno)
        pending.shut()

    # connections

    def _on_connect(self, events: int) -> None:
        try:
            fd, _ = self._tcp._accept()  # type: ignore[attr-defined] # what socket.accept itself calls
        except OSError:
            return
        accepted = socket(fileno=fd)
        accepted.setblocking(False)
        if len(self._connections) >= _MOST_CONNECTIONS:
            accepted.close()
            return
        connection = _Connection(accepted, self._hang_up)
        self._connections[fd] = connection
        self._loop.watch(fd, READABLE, lambda events: self._on_stream(connection))
        self._tick()

    def _on_stream(self, connection: "_Connection") -> None:
        try:
            messages = connection.receive()
        except OSError:
            self._hang_up(connection)
            return
        for message in messages:
            self._ask(message, connection, _TCP_MESSAGE)

    def _hang_up(self, connection: "_Connection") -> None:
        if self._connections.pop(connection.fileno, None) is not None:
            self._loop.forget(connection.fileno)
            connection.shut()

    # time

    def _tick(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._loop.after(_TICK_S, self._expire)

    def _expire(self) -> None:
        self._ticking = False
        now = monotonic()
        for pending in [one for one in self._forwarded.values() if now >= one.deadline]:
            self._release(pending)
            self._forward(pending)
        for connection in [one for one in self._connections.values() if now >= one.deadline]:
            self._hang_up(connection)
        if self._forwarded or self._connections:
            self._tick()


class _DatagramReply:
    """Whoever asked by a datagram."""

    stream = False

    def __init__(self, listener: socket, sender: "Any") -> None:
        self._listener, self._sender = listener, sender

    def answer(self, message: bytes) -> None:
        try:
            self._listener.sendto(message, self._sender)
        except (OSError, ValueError):  # its buffer is full, or the resolver has ended: it asks again
            return


class _Connection:
    """Whoever asks by a connection, as often as he likes."""

    stream = True

    def __init__(self, end: socket, hang_up: "Callable[[_Connection], None]") -> None:
        self._end, self._hang_up = end, hang_up
        self.fileno = end.fileno()
        self.deadline = monotonic() + _IDLE_S
        self._received = b""

    def receive(self) -> "list[bytes]":
        """Whole questions that have come. Raises OSError at the end."""
        piece = self._end.recv(_TCP_MESSAGE)
        if not piece:
            raise ConnectionResetError
        self._received += piece
        self.deadline = monotonic() + _IDLE_S
        found = []
        while len(self._received) >= 2:
            size = int.from_bytes(self._received[:2], "big")
            if len(self._received) < 2 + size:
                break
            found.append(self._received[2 : 2 + size])
            self._received = self._received[2 + size :]
        return found

    def answer(self, message: bytes) -> None:
        framed = len(message).to_bytes(2, "big") + message
        try:
            whole = self._end.send(framed) == len(framed)
        except OSError:
            whole = False
        if not whole:  # who does not read what he asked for is not waited for
            self._hang_up(self)

    def shut(self) -> None:
        self._end.close()


class _Forwarded:
    """A question on its way to one server after the other."""

    def __init__(self, message: bytes, reply: "_DatagramReply | _Connection", stream: bool) -> None:
        self.message, self.reply, self.stream = message, reply, stream
        self.server = 0
        self.deadline = 0.0
        self.fileno = -1
        self.sent = False
        self._end: socket | None = None
        self._query = b""
        self._received = b""

    def open(self, server: str, end: socket) -> None:
        """Send, or begin to connect. Raises OSError."""
        self._end, self.fileno = end, end.fileno()
        self.deadline = monotonic() + _PATIENCE_S
        self._query = os.urandom(2) + self.message[2:]  # with a number and a port that nobody can guess
        self._received = b""
        self.sent = False
        try:
            end.connect((server, _PORT))
        except BlockingIOError:
            pass
        if not self.stream:
            end.send(self._query)

    def advance(self) -> "bytes | None":
        """What can be done without waiting; the answer once it is there. Raises OSError."""
        assert self._end is not None
        if not self.stream:
            return self._checked(self._end.recv(_TCP_MESSAGE))
        if not self.sent:
            error = self._end.getsockopt(SOL_SOCKET, SO_ERROR)
            if error:
                raise OSError(error, "not connected")
            self._end.send(len(self._query).to_bytes(2, "big") + self._query)
            self.sent = True
            return None
        piece = self._end.recv(_TCP_MESSAGE)
        if not piece:
            raise ConnectionResetError
        self._received += piece
        size = int.from_bytes(self._received[:2], "big")
        return self._checked(self._received[2:]) if len(self._received) >= 2 + size else None

    def _checked(self, answer: bytes) -> "bytes | None":
        """None for what is no answer to this question."""
        if len(answer) < 12 or answer[:2] != self._query[:2] or not dns.same_question(self._query, answer):
            return None
        return answer

    def shut(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None


def _within(namespace: int, make: "Callable[[], Any]") -> "Any":
    """What *make* returns, called in that network namespace. Raises OSError."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            return make()
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def _listen() -> "tuple[socket, socket]":
    """
    The two sockets, at ports of their own to which the name servers' port leads: a container may have a name server
    itself, on all its addresses. Where the kernel has no nf_tables they have that port themselves.
    """
    sockets = _bound(0)
    try:
        _redirect(*(one.getsockname()[1] for one in sockets))
    except OSError:
        for one in sockets:
            one.close()
        return _bound(_PORT)
    return sockets


def _bound(port: int) -> "tuple[socket, socket]":
    udp = socket(AF_INET, SOCK_DGRAM | _FLAGS)
    try:
        udp.bind((ADDRESS, port))
        tcp = socket(AF_INET, SOCK_STREAM | _FLAGS)
        try:
            tcp.bind((ADDRESS, port))
            tcp.listen(_MOST_CONNECTIONS)
        except BaseException:
            tcp.close()
            raise
    except BaseException:
        udp.close()
        raise
    return udp, tcp


def _redirect(udp_port: int, tcp_port: int) -> None:
    """Of this network namespace. Raises NetlinkError."""
    change = nftables.Transaction(_TABLE)
    change.make_table()
    change.make_map(_MAP, ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
    change.make_chain(_CHAIN, "nat", nftables.OUTPUT, nftables.DESTINATION_NAT)
    change.flush_chain(_CHAIN)
    address = nftables.address(inet_aton(ADDRESS))
    change.add_rule(
        _CHAIN,
        nftables.payload("network", 16, 4, 0),
        nftables.compare(0, inet_aton(ADDRESS)),
        nftables.payload("network", 9, 1, 0),
        nftables.payload("transport", 2, 2, 1),
        nftables.lookup(_MAP, 0, into=0),
        nftables.translate_destination(0, 1),
    )
    places = {
        nftables.protocol(number) + nftables.port(_PORT): address + nftables.port(port)
        for number, port in ((IPPROTO_UDP, udp_port), (IPPROTO_TCP, tcp_port))
    }
    change.add_elements(_MAP, places)
    with nftables.NftSocket() as netfilter:
        netfilter.commit(change)
