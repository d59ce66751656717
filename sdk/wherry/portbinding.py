"""Published ports: every way in which they are said, and what is meant."""

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from wherry_oci.errors import InvalidArgument

PROTOCOLS = ("tcp", "udp", "sctp")
EVERY_ADDRESS = "0.0.0.0"


@attrs.frozen(kw_only=True)
class PortBinding:
    """One port of a container that shall be reachable by one of the host's."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = EVERY_ADDRESS
    host_port: int = 0  # 0: any free one
    last_host_port: int = 0  # not 0: the first free one from host_port to this
    ipv4_only: bool = False  # 0.0.0.0 was asked for by name; else [::] comes along where the container has IPv6

    def plan(self) -> dict[str, Any]:
        """As `wherry_shim.network` takes it."""
        planned: dict[str, Any] = {
            "host_ip": self.host_ip,
            "host_port": self.host_port,
            "container_port": self.container_port,
            "protocol": self.protocol,
        }
        if self.last_host_port:
            planned["last_host_port"] = self.last_host_port
        if self.ipv4_only:
            planned["ipv4_only"] = True
        return planned


def parse_ports(ports: Mapping[Any, Any] | Iterable[Any] | None) -> list[PortBinding]:
    """
    The `ports` of `run()`, as docker-py has them: container's port → host's.

    Keys: 80, "80", "80/udp", (80, "udp"), "8000-8010". Values: None (any free port), 8080, "8080", "8000-8010",
    "127.0.0.1:8080", "[::1]:8080", ("127.0.0.1", 8080), ("::1",) (any free one there), or a list of these. A list or
    tuple instead: what the command line's `--publish` takes, "127.0.0.1:8080:80/tcp", or a key, for any free port.

    Raises InvalidArgument, which names the key.
    """
    if ports is None:
        return []
    found: list[PortBinding] = []
    if isinstance(ports, Mapping):
        for key, value in ports.items():
            found += _bindings(key, value)
    elif isinstance(ports, str | int):
        raise InvalidArgument(f"ports={ports!r}: give a mapping of container's ports to host's, as {{80: 8080}}")
    else:
        for spec in ports:
            found += parse_publish(spec) if isinstance(spec, str) else _bindings(spec, None)
    return _distinct(found)


def parse_publish(spec: str) -> list[PortBinding]:
    """
    What `docker run --publish` takes: [[address:][host's port or range]:]container's port or range[/protocol].

    Raises InvalidArgument.
    """
    ports, slash, protocol = spec.rpartition("/") if "/" in spec else (spec, "", "tcp")
    host, _, container = ports.rpartition(":")
    key = f"{container}/{protocol}" if slash else container
    if not host:
        return _bindings(key, None, spec)
    address, colon, host_port = (host, ":", "") if host.endswith("]") else host.rpartition(":")
    if not colon:
        return _bindings(key, host_port, spec)
    return _bindings(key, (address, host_port or None), spec)


def publish_all(exposed: Iterable[Any], published: Iterable[PortBinding] = ()) -> list[PortBinding]:
    """A free host port for each of the image's *exposed* ports ("80/tcp") that is not *published* already."""
    known = {(binding.container_port, binding.protocol) for binding in published}
    wanted = [port for key in exposed for port in container_ports(key)]
    return [
        PortBinding(container_port=port, protocol=protocol)
        for port, protocol in wanted
        if (port, protocol) not in known
    ]


def container_ports(key: Any) -> list[tuple[int, str]]:
    """The ports and protocols that a key of `ports`, or an image's exposed port, means. Raises InvalidArgument."""
    first, last, protocol = _container_range(key, key)
    return [(port, protocol) for port in range(first, last + 1)]


def port_map(published: Iterable[Mapping[str, Any]], exposed: Iterable[Any] = ()) -> dict[str, Any]:
    """
    `NetworkSettings.Ports` of the Engine API: "80/tcp" → its addresses on the host, None if it is *exposed* only.

    *published* are an attachment's ports.
    """
    found: dict[str, Any] = {f"{port}/{protocol}": None for key in exposed for port, protocol in container_ports(key)}
    for port in published:
        key = f"{port['container_port']}/{port['protocol']}"
        binding = {"HostIp": port["host_ip"], "HostPort": str(port["host_port"])}
        found[key] = [*(found.get(key) or []), binding]
    return found


def _bindings(key: Any, value: Any, said: Any = None) -> list[PortBinding]:
    said = key if said is None else said
    first, last, protocol = _container_range(key, said)
    if isinstance(value, list) or (isinstance(value, tuple) and not _is_address_pair(value)):
        return [binding for one in value for binding in _bindings(key, one, said)]
    address, low, high = _host_range(value, said)
    count = last - first + 1
    common: dict[str, Any] = {"protocol": protocol, "host_ip": address or EVERY_ADDRESS}
    common["ipv4_only"] = address == EVERY_ADDRESS
    if low == 0:
        return [PortBinding(container_port=port, **common) for port in range(first, last + 1)]
    if count == 1 and high > low:
        return [PortBinding(container_port=first, host_port=low, last_host_port=high, **common)]
    if high - low + 1 != count:
        raise InvalidArgument(
            f"ports[{said!r}]: {count} ports of the container cannot be {high - low + 1} of the host: "
            "give ranges of the same length"
        )
    return [PortBinding(container_port=first + offset, host_port=low + offset, **common) for offset in range(count)]


def _is_address_pair(value: tuple[Any, ...]) -> bool:
    """Whether it is (address, port) or (address,), as docker-py has it, and not several ports."""
    if not value or len(value) > 2 or not isinstance(value[0], str):
        return False
    return not value[0].isdecimal() and "-" not in value[0] and (len(value) == 1 or not isinstance(value[1], tuple))


def _container_range(key: Any, said: Any) -> tuple[int, int, str]:
    protocol: Any = "tcp"
    ports = key
    if isinstance(key, tuple) and len(key) == 2:
        ports, protocol = key
    elif isinstance(key, str) and "/" in key:
        ports, _, protocol = key.partition("/")
    if not isinstance(protocol, str) or protocol.lower() not in PROTOCOLS:
        raise InvalidArgument(f"ports[{said!r}]: protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
    first, last = _range(ports, said, "the container's port")
    if first == 0:
        raise InvalidArgument(f"ports[{said!r}]: the container's port must be from 1 to 65535")
    return first, last, protocol.lower()


def _host_range(value: Any, said: Any) -> tuple[str, int, int]:
    address = ""
    if isinstance(value, tuple):
        address, value = value if len(value) == 2 else (value[0], None)
    elif isinstance(value, str) and ":" in value:
        address, _, value = (value, "", "") if value.endswith("]") else value.rpartition(":")
    if value in (None, ""):
        return _address(address, said), 0, 0
    return _address(address, said), *_range(value, said, "the host's port")


def _range(value: Any, said: Any, what: str) -> tuple[int, int]:
    low, dash, high = str(value).partition("-")
    if isinstance(value, bool) or not isinstance(value, int | str) or not low.isdecimal() or len(low) > 5:
        raise InvalidArgument(f"ports[{said!r}]: {what} must be a number or a range, not {value!r}")
    if dash and (not high.isdecimal() or len(high) > 5):
        raise InvalidArgument(f"ports[{said!r}]: {what} must be a number or a range, not {value!r}")
    first, last = int(low), int(high) if dash else int(low)
    if first > last or last > 65535:
        raise InvalidArgument(f"ports[{said!r}]: {what} must be from 0 to 65535, low to high, not {value!r}")
    return first, last


def _address(address: Any, said: Any) -> str:
    """As the kernel writes it; "" for none."""
    if not isinstance(address, str):
        raise InvalidArgument(f"ports[{said!r}]: the host's address must be text, not {address!r}")
    if address == "":
        return ""
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    family = AF_INET6 if ":" in bare else AF_INET
    try:
        return inet_ntop(family, inet_pton(family, bare))
    except (OSError, ValueError):
        raise InvalidArgument(f"ports[{said!r}]: {address!r} is no IP address of the host") from None


def _distinct(bindings: list[PortBinding]) -> list[PortBinding]:
    seen: set[tuple[str, int, str]] = set()
    for binding in bindings:
        place = (binding.host_ip, binding.host_port, binding.protocol)
        if binding.host_port and not binding.last_host_port and place in seen:
            raise InvalidArgument(
                f"ports: {binding.protocol} port {binding.host_port} of the host is given twice: "
                "it can lead to one port of a container only"
            )
        seen.add(place)
    return bindings


def published_url(scheme: str, address: str, port: int, everywhere: str = "127.0.0.1") -> str:
    """The URL of a port on *address*, for which *everywhere* stands when it is every address of the host."""
    host = {"0.0.0.0": everywhere, "": everywhere, "::": "::1"}.get(address, address)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
