"""
Host ports, taken with sockets before they are published: nobody else gets them meanwhile, and whoever has one already
is named.
"""

import errno
import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPV6_V6ONLY,
    SO_RCVBUF,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    inet_ntop,
    socket,
)

from wherry_shim.attachment import EVERYWHERE, EVERYWHERE_6, AttachFailed, Attachment, PortInUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOLS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "sctp": IPPROTO_SCTP}

_PORT_TRIES = 32  # for a number that is free in both families


def reserve(attachment: Attachment, port: "dict[str, Any]", both: bool) -> None:
    """Take the port, on 0.0.0.0 and with *both* families on the same number of [::]."""
    addresses = [port["host_ip"]]
    if both and port["host_ip"] == EVERYWHERE and not port.get("ipv4_only"):
        addresses.append(EVERYWHERE_6)
    port = {key: value for key, value in port.items() if key != "ipv4_only"}
    numbers = list(range(port["host_port"], port.get("last_host_port", port["host_port"]) + 1))
    if numbers == [0] and len(addresses) > 1:
        numbers *= _PORT_TRIES  # what is free in one family may be taken in the other
    for tried, number in enumerate(numbers, 1):
        try:
            taken = _reserved_on(addresses, number, port["protocol"])
        except PortInUse:
            if tried == len(numbers):
                raise
            continue
        for address, reserved in taken:
            bound = {**port, "host_ip": address, "host_port": number}
            if reserved is not None:
                bound["host_port"] = reserved.getsockname()[1]
                attachment.hold(bound, reserved)
            attachment.reserved.append(bound)
        return


def _reserved_on(addresses: "list[str]", number: int, protocol: str) -> "list[tuple[str, socket | None]]":
    """A socket for each of *addresses*, all of the same number. Raises PortInUse, AttachFailed."""
    taken: list[tuple[str, socket | None]] = []
    try:
        for address in addresses:
            reserved = _reserve_one(address, number, protocol)
            taken.append((address, reserved))
            if reserved is not None:
                number = reserved.getsockname()[1]
    except BaseException:
        for _, reserved in taken:
            if reserved is not None:
                reserved.close()
        raise
    return taken


def _reserve_one(address: str, number: int, protocol: str) -> "socket | None":
    try:
        return _reserved(address, number, protocol)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT and protocol == "sctp" and number:
            # A kernel without sctp sockets has nobody who could take the port, and still translates.
            return None
        if error.errno == errno.EACCES:
            lowest = _read("/proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
            refused = OSError(
                errno.EACCES,
                f"only root may have ports below {lowest} here: choose another one, or set "
                "the sysctl net.ipv4.ip_unprivileged_port_start",
            )
            raise AttachFailed(f"reserve {protocol} port {number} of {address}", refused) from error
        if error.errno != errno.EADDRINUSE:
            raise AttachFailed(f"reserve {protocol} port {number} of {address}", error) from error
        raise PortInUse(address, number, protocol, port_holder(address, number, protocol)) from None


def _reserved(address: str, number: int, protocol: str) -> socket:
    family = AF_INET6 if ":" in address else AF_INET
    reserved = socket(family, SOCK_DGRAM if protocol == "udp" else SOCK_STREAM, PROTOCOLS[protocol])
    try:
        if family == AF_INET6:
            reserved.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        _bind(reserved, address, number, protocol)
    except BaseException:
        reserved.close()
        raise
    return reserved


def _bind(reserved: socket, address: str, number: int, protocol: str) -> None:
    if protocol == "udp":
        reserved.setsockopt(SOL_SOCKET, SO_RCVBUF, 1)  # nothing is ever read from it
    elif number:
        # For connections of an earlier holder that linger in TIME_WAIT; two listeners it does not allow. A chosen
        # port comes without, so that the kernel chooses one that nobody else is bound to either.
        reserved.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    reserved.bind((address, number))
    if protocol != "udp":
        reserved.listen(0)


def port_holder(address: str, number: int, protocol: str) -> str | None:
    """Who has the port in this network namespace, as "nginx (pid 12)", so far as /proc tells."""
    inodes = _socket_inodes(address, number, protocol)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in os.listdir("/proc"):
        if pid.isdecimal() and _has_descriptor(pid, wanted):
            return f"{_command(pid)} (pid {pid})"
    return None


def _socket_inodes(address: str, number: int, protocol: str) -> set[str]:
    """The sockets in the way of binding there (proc_net_tcp: the address's words are in machine order)."""
    found = set()
    for name in (protocol, f"{protocol}6"):
        try:
            lines = _read(f"/proc/thread-self/net/{name}").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if int(port, 16) != number or (protocol == "tcp" and fields[3] != "0A"):  # listening
                continue
            its = _address_of(host)
            if address in (its, EVERYWHERE, "::") or its in (EVERYWHERE, "::"):
                found.add(fields[9])
    return found


def _address_of(words: str) -> str:
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _has_descriptor(pid: str, wanted: set[str]) -> bool:
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                    return True
            except OSError:
                continue  # closed meanwhile
    except OSError:
        pass  # ended meanwhile, or not ours to see
    return False


def _command(pid: str) -> str:
    try:
        return _read(f"/proc/{pid}/comm").strip()
    except OSError:
        return "a process"


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()
