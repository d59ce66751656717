"""ctnetlink (linux/netfilter/nfnetlink_conntrack.h): connections that the kernel keeps track of, to be forgotten."""

import errno
from _socket import AF_INET, IPPROTO_UDP
from _struct import Struct

from wherry_oci.linux.netlink import NETFILTER, Message, Netlink, NetlinkError, attribute, attributes, nested, u32

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = (_SUBSYSTEM | number for number in (0, 1, 2))
_TUPLE_ORIGINAL, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IPV4_SOURCE, _IPV4_DESTINATION = 1, 2
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FILTER_ORIGINAL = 1
_BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 3, 1 << 5

_NFGENMSG = Struct(">BBH")  # family, version, resource


class Flow:
    """One connection of IPv4, as it began and as it is answered; addresses and ports in network order."""

    __slots__ = ("destination", "original", "port", "responder", "responder_port")

    def __init__(self, body: bytes) -> None:
        found = attributes(body, _NFGENMSG.size)
        self.original = found[_TUPLE_ORIGINAL]  # to name it by
        addresses, protocol = _tuple(self.original)
        self.destination = addresses.get(_IPV4_DESTINATION, b"")
        self.port = protocol.get(_DESTINATION_PORT, b"")
        addresses, protocol = _tuple(found.get(_TUPLE_REPLY, b""))
        self.responder = addresses.get(_IPV4_SOURCE, b"")  # whom its packets really go to
        self.responder_port = protocol.get(_SOURCE_PORT, b"")


class ConntrackSocket(Netlink):
    """A netlink socket for connections."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETFILTER)

    def __enter__(self) -> "ConntrackSocket":
        return self

    def udp_flows(self, port: int) -> list[Flow]:
        """The udp flows that were sent to *port* of whatever address. NetlinkError if the kernel has no ctnetlink."""
        packed = port.to_bytes(2, "big")
        wanted = nested(
            _TUPLE_ORIGINAL,
            nested(
                _TUPLE_PROTOCOL,
                attribute(_PROTOCOL_NUMBER, bytes((IPPROTO_UDP,))),
                attribute(_DESTINATION_PORT, packed),
            ),
        )
        by = nested(_FILTER, u32(_FILTER_ORIGINAL, _BY_PROTOCOL | _BY_DESTINATION_PORT))
        question = Message(_GET, 0, _NFGENMSG.pack(AF_INET, 0, 0) + wanted + by, "could not list connections")
        flows = []
        for kind, body in self.dump(question):
            if kind == _NEW:  # Linux < 5.8 does not filter, so look again
                flow = Flow(body)
                if flow.port == packed and _tuple(flow.original)[1].get(_PROTOCOL_NUMBER) == bytes((IPPROTO_UDP,)):
                    flows.append(flow)
        return flows

    def forget(self, flow: Flow) -> None:
        """Let the flow's next packet be a first one; that it is forgotten already is fine. Raises NetlinkError."""
        body = _NFGENMSG.pack(AF_INET, 0, 0) + nested(_TUPLE_ORIGINAL, flow.original)
        try:
            self.execute([Message(_DELETE, 0, body, "could not forget a connection")])
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise


def _tuple(packed: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Addresses and protocol of one direction."""
    parts = attributes(packed)
    return attributes(parts.get(_TUPLE_IP, b"")), attributes(parts.get(_TUPLE_PROTOCOL, b""))
