"""
netlink(7) sockets: requests with acknowledgements, attributes, and the kernel's own words when it refuses.

Part of a container's start path, so it imports C modules alone. The families beside it say what messages mean:
`rtnetlink` (devices, addresses, routes) and `nftables` (packet filter and address translation).
"""

import os
from _socket import AF_NETLINK, SOCK_RAW, socket
from _struct import Struct, pack, unpack_from

ROUTE = 0  # linux/netlink.h: protocols
NETFILTER = 12

REQUEST = 0x1  # flags of every request
ACK = 0x4
ROOT_AND_MATCH = 0x300  # "dump": answer with all of a kind
REPLACE = 0x100  # flags of requests that make something
EXCLUSIVE = 0x200
CREATE = 0x400
APPEND = 0x800

NESTED = 0x8000  # flag of an attribute's type

_NOOP, _ERROR, _DONE, _OVERRUN = 1, 2, 3, 4  # message types below 16 are netlink's own
_CAPPED, _ACK_TLVS, _DUMP_INTERRUPTED = 0x100, 0x200, 0x10  # flags of answers
_SOL_SOCKET, _SO_SNDBUFFORCE = 1, 32
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ACK_MESSAGE = 1  # linux/netlink.h: NLMSGERR_ATTR_MSG

_HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # length with this header, type
_RECEIVE = 1 << 16  # the kernel fills at most 32 KiB of a dump at once
_AT_ONCE = 100  # requests whose answers the receive buffer surely holds
_SEND = 1 << 17  # below the default send buffer (212,992 bytes, overhead included)


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = len(data) + 4
    if size > 0xFFFF:
        raise ValueError(f"netlink attribute {kind}: {len(data)} bytes do not fit into one attribute")
    return _ATTRIBUTE.pack(size, kind) + data + b"\0" * (-size & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An unsigned number in the machine's byte order (rtnetlink)."""
    return attribute(kind, pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """A number in network byte order (nf_tables); negative ones as two's complement."""
    return attribute(kind, pack(">I", value & 0xFFFFFFFF))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes of *data* from *start* on by type; of several with one type the last. Flags are left out."""
    found: dict[int, bytes] = {}
    for kind, value in each(data, start):
        found[kind] = value
    return found


def each(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """The attributes of *data* from *start* on, in their order, types without flags."""
    found: list[tuple[int, bytes]] = []
    end = len(data)
    while start + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, start)
        if size < 4:
            break
        found.append((kind & 0x3FFF, data[start + 4 : start + size]))
        start += (size + 3) & ~3
    return found


def string(value: bytes) -> str:
    """What a NUL-terminated string attribute says."""
    return value.split(b"\0", 1)[0].decode(errors="surrogateescape")


class Message:
    """One request: *what* completes "could not …" in the error if the kernel refuses it."""

    __slots__ = ("body", "flags", "type", "what")

    def __init__(self, type: int, flags: int, body: bytes, what: str) -> None:
        self.type = type
        self.flags = flags
        self.body = body
        self.what = what


class NetlinkError(OSError):
    """The kernel refused a request: `errno`, `what` was asked, and `reason`, its own words ("" if it has none)."""

    def __init__(self, errno: int, what: str, reason: str = "") -> None:
        words = f"{what}: {os.strerror(errno)}"
        super().__init__(errno, f"{words} ({reason})" if reason else words)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return str(self.strerror)


class Netlink:
    """
    One netlink socket. It belongs for ever to the network namespace in which it was made, wherever its owner goes.

    For one thread at a time. A context manager; `close` may be called twice.
    """

    __slots__ = ("_sequence", "_socket")

    def __init__(self, protocol: int) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW, protocol)  # Python makes it close-on-exec
        self._sequence = 0
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # answers need not repeat the request
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)  # but shall say what is wrong with it

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def execute(self, messages: list[Message]) -> list[tuple[int, bytes]]:
        """
        Send *messages* at once, wait until each is acknowledged, and give what was answered: (type, body) in order.

        The kernel carries out every message, those after one that fails too. Raises NetlinkError for the first that
        was refused, when all are done.
        """
        answers: list[tuple[int, bytes]] = []
        failure: NetlinkError | None = None
        for start in range(0, len(messages), _AT_ONCE):
            waiting: dict[int, str] = {}
            packet = []
            for message in messages[start : start + _AT_ONCE]:
                packet.append(self._numbered(message, REQUEST | ACK))
                waiting[self._sequence] = message.what
            self._send(b"".join(packet))
            refused = self._gather(waiting, answers)
            failure = failure or refused
        if failure is not None:
            raise failure
        return answers

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """All objects that *message* asks for. Raises NetlinkError. A list that changed meanwhile is read again."""
        while True:
            self._send(self._numbered(message, REQUEST | ROOT_AND_MATCH))
            answers: list[tuple[int, bytes]] = []
            try:
                failure = self._gather({self._sequence: message.what}, answers)
            except _Interrupted:
                continue
            if failure is not None:
                raise failure
            return answers

    def transact(self, begin: Message, messages: list[Message], end: Message) -> None:
        """
        Send *messages* of which the kernel does all or none, as nfnetlink does between *begin* and *end*.

        Raises NetlinkError for the first that was refused.
        """
        packet = [self._numbered(begin, REQUEST)]
        first = self._sequence
        what = {first: begin.what}
        for message in messages:
            # Before Linux 6.10 an end is not acknowledged, so the last change is.
            packet.append(self._numbered(message, REQUEST | ACK if message is messages[-1] else REQUEST))
            what[self._sequence] = message.what
        last = self._sequence
        packet.append(self._numbered(end, REQUEST))
        data = b"".join(packet)
        if len(data) > _SEND:
            self._socket.setsockopt(_SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
        self._send(data)
        self._gather_transaction(what, first, last)

    def _numbered(self, message: Message, flags: int) -> bytes:
        self._sequence += 1
        body = message.body
        size = 16 + len(body)
        header = _HEADER.pack(size, message.type, message.flags | flags, self._sequence, 0)
        return header + body + b"\0" * (-size & 3)

    def _send(self, data: bytes) -> None:
        self._socket.sendto(data, (0, 0))

    def _gather(self, waiting: dict[int, str], answers: list[tuple[int, bytes]]) -> NetlinkError | None:
        """Read until all of *waiting* are acknowledged; the first failure, if any."""
        failure: NetlinkError | None = None
        interrupted = False
        while waiting:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                if sequence not in waiting:
                    continue  # of an earlier call that an exception (a signal's) left in the middle
                interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    what = waiting.pop(sequence)
                    failure = failure or _refusal(kind, flags, body, what)
                elif kind > _OVERRUN:
                    answers.append((kind, body))
        if interrupted:
            raise _Interrupted
        return failure

    def _gather_transaction(self, what: dict[int, str], first: int, last: int) -> None:
        failures: dict[int, NetlinkError] = {}
        done = False
        while not done:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                if kind != _ERROR or sequence not in what:
                    continue
                failure = _refusal(kind, flags, body, what[sequence])
                if failure is not None:
                    failures[sequence] = failure
                # The kernel answers before sendto returns, but it reports a begin that it refuses (no right to do
                # so, no nf_tables) or a commit that fails for the begin's number and says no more.
                done = done or sequence == last or (sequence == first and failure is not None)
        if failures:
            raise failures[min(failures)]


class _Interrupted(Exception):
    """A dump's objects changed while they were listed."""


def _messages(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """type, flags, sequence and body of each message in one datagram."""
    found = []
    start = 0
    while start + 16 <= len(data):
        size, kind, flags, sequence, _port = _HEADER.unpack_from(data, start)
        if size < 16:
            break
        found.append((kind, flags, sequence, data[start + 16 : start + size]))
        start += (size + 3) & ~3
    return found


def _refusal(kind: int, flags: int, body: bytes, what: str) -> NetlinkError | None:
    """What an acknowledgement, or a dump's end, says; None if it was done."""
    (error,) = unpack_from("=i", body) if len(body) >= 4 else (0,)
    if error >= 0:
        return None
    start = 4
    if kind == _ERROR:
        (size,) = unpack_from("=I", body, 4)
        start = 20 if flags & _CAPPED else 4 + ((size + 3) & ~3)  # the request, or its header alone, comes first
    reason = string(attributes(body, start).get(_ACK_MESSAGE, b"")) if flags & _ACK_TLVS else ""
    return NetlinkError(-error, what, reason)
