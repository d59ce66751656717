"""Which networks a container is to be in: every way in which it is said."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.network import DEFAULT, EndpointRequest
from wherry_oci.errors import InvalidArgument, Unsupported

OPTIONS = ("network", "network_mode", "networks", "networking_config", "network_disabled", "mac_address", "links")
CONTAINER = "container:"  # a mode: the network of another container

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# the Engine API's names, and compose's; all others are refused
_KEYS = {
    "aliases": "aliases",
    "links": "links",
    "ipv4address": "ipv4",
    "ipv6address": "ipv6",
    "macaddress": "mac",
    "ipamconfig": "ipam",
    "driveropts": "driver_opts",
    "linklocalips": "link_local",
    "gwpriority": "priority",
}


def has_endpoints(mode: str) -> bool:
    """Whether a container of that mode has places in networks of its own."""
    return mode not in ("none", "host") and not mode.startswith(CONTAINER)


def parse_networking(given: Mapping[str, Any]) -> tuple[str, tuple[EndpointRequest, ...]]:
    """
    The mode ("none", "host", "container:NAME", or the first network's name) and the places in networks.

    Raises InvalidArgument, Unsupported.
    """
    wanted = {**_requests(given.get("networks"), "networks"), **_requests(_config(given), "networking_config")}
    mode = _mode(given, wanted)
    if not has_endpoints(mode):
        for name in ("mac_address", "links"):
            if given.get(name):
                raise InvalidArgument(f"{name} does not go with network={mode!r}, which is not the container's own")
        if wanted:
            raise InvalidArgument(f"network={mode!r} and further networks exclude each other")
        return mode, ()
    first = wanted.pop(mode, EndpointRequest(network=mode))
    if mac := given.get("mac_address"):
        first = _with(first, mac=_mac(mac))
    if links := given.get("links"):
        first = _with(first, links=(*first.links, *parse_links(links)))
    return mode, (first, *wanted.values())


def _mode(given: Mapping[str, Any], wanted: Mapping[str, EndpointRequest]) -> str:
    names = [str(given[name]) for name in ("network", "network_mode") if given.get(name)]
    names = [DEFAULT if name == "default" else name for name in names]
    if len(set(names)) > 1:
        raise InvalidArgument(f"network={names[0]!r} and network_mode={names[1]!r} say two things: give one of them")
    if given.get("network_disabled"):
        if names and names[0] != "none":
            raise InvalidArgument("network_disabled and network exclude each other")
        return "none"
    return names[0] if names else next(iter(wanted), DEFAULT)


def _config(given: Mapping[str, Any]) -> Any:
    """docker-py's run() takes network → configuration, its low-level API one more level."""
    config = given.get("networking_config") or {}
    return config.get("EndpointsConfig", config) if isinstance(config, Mapping) else config


def _requests(value: Any, option: str) -> dict[str, EndpointRequest]:
    """Of a list of names, or a mapping to None or a configuration."""
    if value is None:
        return {}
    if isinstance(value, str):
        raise InvalidArgument(f"{option}={value!r}: give a list, as [{value!r}], or a mapping")
    pairs = value.items() if isinstance(value, Mapping) else ((name, None) for name in value)
    return {str(name): parse_endpoint(str(name), config) for name, config in pairs}


def parse_endpoint(network: str, config: Mapping[str, Any] | None = None) -> EndpointRequest:
    """
    A place in *network*, as the Engine API's EndpointConfig or in compose's words (aliases, ipv4_address,
    ipv6_address, mac_address, links). Raises InvalidArgument, Unsupported.
    """
    found: dict[str, Any] = {}
    for key, value in (config or {}).items():
        name = _KEYS.get(key.replace("_", "").lower())
        if name == "ipam":
            for inner, address in (value or {}).items():
                found[_KEYS.get(inner.replace("_", "").lower(), inner)] = address
        elif name is not None:
            found[name] = value
        elif value and key not in _REPORTED:
            raise InvalidArgument(f"network {network!r}: {key!r} is none of aliases, ipv4_address, ipv6_address, …")
    for name in ("driver_opts", "link_local", "priority"):
        if found.pop(name, None):
            raise Unsupported(f"network {network!r}: {name} of a container's place is not supported")
    return EndpointRequest(
        network=network,
        aliases=_texts(found.get("aliases")),
        links=parse_links(found.get("links") or ()),
        ipv4=found.get("ipv4") or "",
        ipv6=found.get("ipv6") or "",
        mac=_mac(found["mac"]) if found.get("mac") else "",
    )


# what inspect tells of a place, and clients send back
_REPORTED = frozenset(
    "EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway NetworkID "
    "DNSNames".split()
)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InvalidArgument(f"aliases={value!r}: give a list, as [{value!r}]")
    return tuple(str(item) for item in value or ())


def _mac(text: Any) -> str:
    mac = str(text).lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise InvalidArgument(f"mac_address={text!r} is not of the form 02:42:ac:11:00:02")
    if int(mac[:2], 16) & 1:
        raise InvalidArgument(f"mac_address={text!r} is a group's address, not one device's")
    return mac


def parse_links(value: Mapping[str, str] | Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """docker-py's mapping or pairs, or the command line's `container[:alias]`. Raises InvalidArgument."""
    items: Iterable[Any] = value.items() if isinstance(value, Mapping) else value
    found = []
    for item in items:
        name, alias = item.partition(":")[::2] if isinstance(item, str) else item
        name = os.path.basename(str(name))  # "/web" is how the Engine API writes a name
        if not name:
            raise InvalidArgument(f"links: {item!r} names no container")
        found.append((name, str(alias) or name))
    return tuple(found)


def parse_network_text(text: str) -> tuple[str, dict[str, Any]]:
    """The command line's `--network NAME`, or `name=NAME,alias=…,ip=…,ip6=…,mac-address=…`. Raises InvalidArgument."""
    if "=" not in text:
        return text, {}
    name, config = "", {"aliases": []}  # type: str, dict[str, Any]
    known = {"ip": "ipv4_address", "ip6": "ipv6_address", "mac-address": "mac_address"}
    for field in text.split(","):
        key, _, value = field.partition("=")
        if key == "name":
            name = value
        elif key == "alias":
            config["aliases"].append(value)
        elif key in known:
            config[known[key]] = value
        else:
            raise InvalidArgument(f"network: {key!r} of {text!r} is none of name, alias, ip, ip6, mac-address")
    if not name:
        raise InvalidArgument(f"network: {text!r} has no name=")
    return name, config


def _with(request: EndpointRequest, **changed: Any) -> EndpointRequest:
    import attrs

    return attrs.evolve(request, **changed)
