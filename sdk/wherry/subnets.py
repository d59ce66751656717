"""Subnets and addresses, of IPv4 and IPv6, as texts and numbers. Nothing here asks the host but for nameservers."""

import errno
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from collections.abc import Iterator

from wherry_oci.errors import InvalidArgument

_RESOLV_CONF = "/etc/resolv.conf"
_UNIQUE_LOCAL = 0xFD  # RFC 4193


def is_ipv6(address: str) -> bool:
    """Of an address or a subnet."""
    return ":" in address


def number(address: str) -> int:
    """An address as a number. Raises OSError for what is none."""
    return int.from_bytes(packed(address), "big")


def packed(address: str) -> bytes:
    """An address in network order. Raises OSError for what is none."""
    try:
        return inet_pton(AF_INET6 if is_ipv6(address) else AF_INET, address)
    except (OSError, ValueError):
        raise OSError(errno.EINVAL, "no address", address) from None


def text(value: int, like: str) -> str:
    """The address of that number, of the family of *like*."""
    size, family = (16, AF_INET6) if is_ipv6(like) else (4, AF_INET)
    return inet_ntop(family, value.to_bytes(size, "big"))


def prefix_length(subnet: str) -> int:
    return int(subnet.partition("/")[2])


def bounds(subnet: str) -> tuple[int, int]:
    """The first and the last address of the subnet that a host may have."""
    address, _, length = subnet.partition("/")
    size = 1 << ((128 if is_ipv6(address) else 32) - int(length))
    base = number(address) & -size
    return base + 1, base + size - 2


def overlap(one: str, other: str) -> bool:
    """Whether two subnets have an address in common."""
    if is_ipv6(one) != is_ipv6(other):
        return False
    shift = (128 if is_ipv6(one) else 32) - min(prefix_length(one), prefix_length(other))
    return number(one.partition("/")[0]) >> shift == number(other.partition("/")[0]) >> shift


def contains(subnet: str, address: str) -> bool:
    """Whether a host of the subnet may have the address. Raises OSError for what is no address."""
    first, last = bounds(subnet)
    return is_ipv6(subnet) == is_ipv6(address) and first <= number(address) <= last


def interface(subnet: str, address: str) -> str:
    """The address with the subnet's length."""
    return f"{address}/{subnet.partition('/')[2]}"


def pools() -> Iterator[str]:
    """
    The subnets to try: Docker's pools, without its own 172.17, from the end where Docker comes last. 172.31 waits,
    because clouds use it. When those thirty are gone, smaller ones.
    """
    for second in (30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 31):
        yield f"172.{second}.0.0/16"
    for third in range(240, -1, -16):
        yield f"192.168.{third}.0/20"
    for third in range(255, -1, -1):
        yield f"10.89.{third}.0/24"


def unique_local(seed: bytes) -> str:
    """A /64 that nobody else has: 56 bits of *seed* (RFC 4193, "Sample Code for Pseudo-Random Global ID Algorithm")."""
    return inet_ntop(AF_INET6, bytes((_UNIQUE_LOCAL,)) + seed[:7] + bytes(8)) + "/64"


def nameservers() -> list[str]:
    """The host's, which may lie behind its default route, as subnets of one address."""
    try:
        with open(_RESOLV_CONF, errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return []
    return [f"{word[1]}/32" for word in words if len(word) > 1 and word[0] == "nameserver" and ":" not in word[1]]


def checked(subnet: str, gateway: str | None, ip_range: str | None = None) -> tuple[str, str, str]:
    """Subnet, gateway (its first address unless given) and range ("": all of it), checked. Raises InvalidArgument."""
    import ipaddress

    try:
        network = ipaddress.ip_network(subnet)
    except ValueError as error:
        raise InvalidArgument(f"subnet {subnet!r}: {error}") from None
    if network.prefixlen > network.max_prefixlen - 2:
        raise InvalidArgument(f"subnet {subnet!r} has no room for a gateway and a container: make it larger")
    if gateway is None:
        gateway = str(network[1])
    try:
        inside = ipaddress.ip_address(gateway) in network
    except ValueError as error:
        raise InvalidArgument(f"gateway {gateway!r}: {error}") from None
    if not inside or gateway in (str(network[0]), str(network[-1])):
        raise InvalidArgument(f"gateway {gateway} is no host's address of {subnet}")
    return str(network), str(ipaddress.ip_address(gateway)), _checked_range(ip_range, str(network))


def _checked_range(ip_range: str | None, subnet: str) -> str:
    import ipaddress

    if not ip_range:
        return ""
    try:
        inner = ipaddress.ip_network(ip_range, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"ip_range {ip_range!r}: {error}") from None
    if not overlap(str(inner), subnet) or inner.prefixlen < prefix_length(subnet):
        raise InvalidArgument(f"ip_range {ip_range} is not inside of {subnet}")
    return str(inner)
