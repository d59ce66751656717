"""rtnetlink(7): devices, addresses and routes. Functions make requests, `RouteSocket` sends them and asks."""

from _socket import AF_INET, AF_INET6, AF_UNSPEC, inet_ntop, inet_pton
from _struct import Struct

from wherry_oci.linux.netlink import (
    CREATE,
    EXCLUSIVE,
    ROUTE,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    string,
    text,
    u32,
)

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26

# linux/if_link.h: IFLA_*
_ADDRESS, _IFNAME, _MTU, _LINK_TO, _MASTER, _LINKINFO, _NET_NS_PID, _NET_NS_FD = 1, 3, 4, 5, 10, 18, 19, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BRPORT_MODE = 4
_VETH_PEER = 1
_MACVLAN_MODE, _MACVLAN_BRIDGE = 1, 4
# linux/if_addr.h: IFA_*; linux/rtnetlink.h: RTA_*
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_RTA_DESTINATION, _RTA_OUTPUT, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15

_UP = 1  # IFF_UP
_NO_DUPLICATE_CHECK = 0x02  # IFA_F_NODAD
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _TYPE_UNICAST = 254, 3, 0, 253, 1

_LINK = Struct("=BxHiII")  # family, type, index, flags, change
_ADDR = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = Struct("=BBBBBBBBI")  # family, destination's and source's length, tos, table, protocol, scope, type, flags


class Link:
    """One network device as the kernel described it when it was asked."""

    __slots__ = ("address", "index", "kind", "master", "mtu", "name", "up")

    def __init__(self, body: bytes) -> None:
        _family, _type, self.index, flags, _change = _LINK.unpack_from(body)
        found = attributes(body, _LINK.size)
        information = attributes(found.get(_LINKINFO, b""))
        self.up = bool(flags & _UP)
        self.name = string(found[_IFNAME])
        self.address = ":".join(f"{byte:02x}" for byte in found.get(_ADDRESS, b""))  # the MAC
        self.mtu = int.from_bytes(found.get(_MTU, b""), "little")  # both machines of ours are little-endian
        self.master = int.from_bytes(found.get(_MASTER, b""), "little")  # an index, 0 for none
        self.kind = string(information.get(_INFO_KIND, b""))  # "veth", "bridge", …; "" for real ones


def new_bridge(name: str, *, address: str | None = None, mtu: int | None = None, up: bool = False) -> Message:
    """
    Make a bridge. EEXIST if the name is taken.

    Without an *address* (MAC) it takes the lowest one of its ports, and so changes it as they come and go.
    """
    body = _link_header(up=up) + text(_IFNAME, name) + _device(address, mtu)
    body += nested(_LINKINFO, text(_INFO_KIND, "bridge"))
    return Message(_NEWLINK, CREATE | EXCLUSIVE, body, f"could not make bridge {name}")


def new_veth(
    name: str,
    peer: str,
    *,
    peer_namespace: int,
    peer_address: str | None = None,
    address: str | None = None,
    master: int | None = None,
    mtu: int | None = None,
) -> Message:
    """
    Make a pair of joined devices: *name* here, up, below bridge *master* (an index), and *peer*, down, in the network
    namespace behind the descriptor *peer_namespace*. EEXIST if a name is taken.
    """
    # drivers/net/veth.c makes the peer first, and cannot bring it up while it is alone.
    other = _link_header() + text(_IFNAME, peer) + _device(peer_address, mtu)
    other += u32(_NET_NS_FD, peer_namespace)
    body = _link_header(up=True) + text(_IFNAME, name) + _device(address, mtu)
    if master is not None:
        body += u32(_MASTER, master)
    body += nested(_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, nested(_VETH_PEER, other)))
    return Message(_NEWLINK, CREATE | EXCLUSIVE, body, f"could not make device {name} with its peer {peer}")


def new_macvlan(
    name: str, parent: int, *, namespace: int, address: str | None = None, mtu: int | None = None
) -> Message:
    """
    Make a device with a MAC of its own on the wire of device *parent* (an index), in the network namespace behind the
    descriptor *namespace*; those of one parent reach each other (mode bridge). EEXIST if the name is taken there.
    """
    body = _link_header() + text(_IFNAME, name) + _device(address, mtu) + u32(_LINK_TO, parent)
    body += u32(_NET_NS_FD, namespace)
    body += nested(_LINKINFO, text(_INFO_KIND, "macvlan"), nested(_INFO_DATA, u32(_MACVLAN_MODE, _MACVLAN_BRIDGE)))
    return Message(_NEWLINK, CREATE | EXCLUSIVE, body, f"could not make the macvlan device {name}")


def new_dummy(name: str, *, up: bool = True) -> Message:
    """Make a device that leads nowhere. EEXIST if the name is taken."""
    body = _link_header(up=up) + text(_IFNAME, name) + nested(_LINKINFO, text(_INFO_KIND, "dummy"))
    return Message(_NEWLINK, CREATE | EXCLUSIVE, body, f"could not make device {name}")


def reflect(name: str) -> Message:
    """Let a bridge send back to its port *name* what came from there (hairpin mode)."""
    slave = nested(_INFO_SLAVE_DATA, attribute(_BRPORT_MODE, b"\1"))
    body = _link_header() + text(_IFNAME, name) + nested(_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), slave)
    return Message(_NEWLINK, 0, body, f"could not set hairpin mode of device {name}")


def set_link(
    index: int,
    *,
    up: bool | None = None,
    master: int | None = None,
    name: str | None = None,
    address: str | None = None,
    mtu: int | None = None,
    namespace_fd: int | None = None,
    namespace_pid: int | None = None,
) -> Message:
    """Change the device *index*; what is None stays. *master* 0 takes it off its bridge."""
    body = _LINK.pack(AF_UNSPEC, 0, index, _UP if up else 0, _UP if up is not None else 0) + _device(address, mtu)
    if name is not None:
        body += text(_IFNAME, name)
    if master is not None:
        body += u32(_MASTER, master)
    if namespace_fd is not None:
        body += u32(_NET_NS_FD, namespace_fd)
    if namespace_pid is not None:
        body += u32(_NET_NS_PID, namespace_pid)
    return Message(_NEWLINK, 0, body, f"could not change device {index}")


def delete_link(name: str) -> Message:
    """Remove a device (and its peer). ENODEV if there is none."""
    return Message(_DELLINK, 0, _link_header() + text(_IFNAME, name), f"could not remove device {name}")


def add_address(index: int, address: str) -> Message:
    """Give the device *index* the *address*, as "172.30.0.2/16" or "fd00::2/64". EEXIST if it has it."""
    family, packed, length = interface(address)
    flags = _NO_DUPLICATE_CHECK if family == AF_INET6 else 0
    body = _ADDR.pack(family, length, flags, _SCOPE_UNIVERSE, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if family == AF_INET and length < 31:
        host = (1 << (32 - length)) - 1
        body += attribute(_IFA_BROADCAST, (int.from_bytes(packed, "big") | host).to_bytes(4, "big"))
    return Message(_NEWADDR, CREATE | EXCLUSIVE, body, f"could not add address {address} to device {index}")


def delete_address(index: int, address: str) -> Message:
    """Take *address* from the device *index*. EADDRNOTAVAIL if it has it not."""
    family, packed, length = interface(address)
    body = _ADDR.pack(family, length, 0, 0, index) + attribute(_IFA_LOCAL, packed)
    return Message(_DELADDR, 0, body, f"could not take address {address} from device {index}")


def add_route(index: int, *, gateway: str | None = None, destination: str | None = None) -> Message:
    """Route *destination* ("10.0.0.0/8"; None is all) through the device *index*, by *gateway* unless it is on it."""
    family, packed, length = AF_INET, b"", 0
    if destination is not None:
        family, packed, length = interface(destination)
    elif gateway is not None:
        family = _family(gateway)
    scope = _SCOPE_LINK if gateway is None else _SCOPE_UNIVERSE
    body = _ROUTE.pack(family, length, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, scope, _TYPE_UNICAST, 0)
    if length:
        body += attribute(_RTA_DESTINATION, packed)
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, inet_pton(family, gateway))
    body += u32(_RTA_OUTPUT, index)
    way = f" via {gateway}" if gateway is not None else ""
    what = f"could not add route to {destination or 'everywhere'}{way} through device {index}"
    return Message(_NEWROUTE, CREATE | EXCLUSIVE, body, what)


def interface(address: str) -> tuple[int, bytes, int]:
    """Family, bytes and prefix length of "172.30.0.2/16". Raises ValueError."""
    host, slash, length = address.partition("/")
    family = _family(host)
    try:
        packed = inet_pton(family, host)
    except OSError:
        raise ValueError(f"{address!r} is no IP address") from None
    most = len(packed) * 8
    if slash and not (length.isdecimal() and int(length) <= most):
        raise ValueError(f"{address!r}: the prefix length must be a number up to {most}")
    return family, packed, int(length) if slash else most


class RouteSocket(Netlink):
    """A netlink socket for the functions above, and for questions."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(ROUTE)

    def __enter__(self) -> "RouteSocket":
        return self

    def link(self, name: str) -> Link:
        """The device of that name. NetlinkError ENODEV if there is none."""
        return self._one_link(_link_header() + text(_IFNAME, name), f"could not find device {name}")

    def link_at(self, index: int) -> Link:
        """The device of that index. NetlinkError ENODEV if there is none."""
        return self._one_link(_LINK.pack(AF_UNSPEC, 0, index, 0, 0), f"could not find device {index}")

    def links(self, master: int | None = None) -> list[Link]:
        """All devices, or those below the bridge *master* (an index)."""
        body = _link_header() + (u32(_MASTER, master) if master is not None else b"")
        answers = self.dump(Message(_GETLINK, 0, body, "could not list network devices"))
        found = [Link(body) for kind, body in answers if kind == _NEWLINK]
        return [link for link in found if master is None or link.master == master]

    def addresses(self, family: int = AF_UNSPEC) -> list[tuple[int, str]]:
        """Device index and "address/length" of every address here."""
        body = _ADDR.pack(family, 0, 0, 0, 0)
        found = []
        for kind, answer in self.dump(Message(_GETADDR, 0, body, "could not list addresses")):
            if kind == _NEWADDR:
                its_family, length, _flags, _scope, index = _ADDR.unpack_from(answer)
                its = attributes(answer, _ADDR.size)
                packed = its.get(_IFA_LOCAL) or its.get(_IFA_ADDRESS)
                if packed is not None and its_family in (AF_INET, AF_INET6):
                    found.append((index, f"{inet_ntop(its_family, packed)}/{length}"))
        return found

    def routes(self, family: int = AF_INET) -> list[tuple[str, int]]:
        """Destination ("0.0.0.0/0" is the default route) and device index (0 if several) of every unicast route."""
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        found = []
        for kind, answer in self.dump(Message(_GETROUTE, 0, body, "could not list routes")):
            if kind != _NEWROUTE:
                continue
            its_family, length, _, _, _table, _protocol, _scope, its_type, _flags = _ROUTE.unpack_from(answer)
            if its_type != _TYPE_UNICAST or its_family != family:
                continue  # local and broadcast addresses are routes too
            its = attributes(answer, _ROUTE.size)
            packed = its.get(_RTA_DESTINATION) or bytes(4 if family == AF_INET else 16)
            found.append((f"{inet_ntop(family, packed)}/{length}", int.from_bytes(its.get(_RTA_OUTPUT, b""), "little")))
        return found

    def _one_link(self, body: bytes, what: str) -> Link:
        answers = self.execute([Message(_GETLINK, 0, body, what)])
        return Link(answers[0][1])


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


def _link_header(*, up: bool = False) -> bytes:
    return _LINK.pack(AF_UNSPEC, 0, 0, _UP if up else 0, _UP if up else 0)


def _device(address: str | None, mtu: int | None) -> bytes:
    body = b""
    if address is not None:
        body += attribute(_ADDRESS, bytes.fromhex(address.replace(":", "")))
    if mtu is not None:
        body += u32(_MTU, mtu)
    return body
