"""What a container finds in /etc/hostname, /etc/hosts and /etc/resolv.conf: Docker's rules, as pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry_oci.errors import InvalidArgument

HOST_GATEWAY = "host-gateway"  # in extra_hosts: the address at which containers reach the host

RESOLV_CONF = "/etc/resolv.conf"
# Where systemd-resolved keeps the servers that its own, on loopback, asks.
RESOLVED_CONF = "/run/systemd/resolve/resolv.conf"
RESOLVER = "127.0.0.11"  # a container's own, in a network with names (wherry_shim.resolver)
_RESOLVED_STUB = "127.0.0.53"

# For a host that has only servers on its loopback, which no container can reach.
_FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")

_LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hostname_file(hostname: str) -> str:
    """/etc/hostname."""
    return hostname + "\n"


def hosts_file(
    hostname: str,
    *,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra_hosts: Iterable[tuple[str, str]] = (),
) -> str:
    """
    /etc/hosts of a container whose own *addresses* are these (none with network "none").

    *extra_hosts* are names and addresses, as `parse_extra_hosts` gives them.
    """
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines = [f"{address}\t{name}\n" for name, address in extra_hosts]
    lines += [f"{address}\t{names}\n" for address in addresses]
    return _LOCALHOST + "".join(lines)


def parse_extra_hosts(extra_hosts: Any, gateway: str | None = None) -> list[tuple[str, str]]:
    """
    The `extra_hosts` of `run()`: {"name": "address"}, or a list of "name:address" or "name=address"; an IPv6 address
    may be in brackets. The address "host-gateway" is *gateway*. Raises InvalidArgument, which names the entry.
    """
    if not extra_hosts:
        return []
    if isinstance(extra_hosts, Mapping):
        pairs = list(extra_hosts.items())
    elif isinstance(extra_hosts, str):
        raise InvalidArgument(f"extra_hosts={extra_hosts!r}: give a list, as [{extra_hosts!r}], or a mapping")
    else:
        pairs = [_pair(entry) for entry in extra_hosts]
    return [(_name(name), _host_address(name, address, gateway)) for name, address in pairs]


def resolv_conf(
    host: str,
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
    loopback: bool = False,
    named: bool = False,
) -> str:
    """
    /etc/resolv.conf of a container on a host that has *host* in its own.

    *dns*, *search* and *options* take the place of the host's if given; a search domain of "." means none. Servers on
    the host's loopback are left out, and so are IPv6 ones, unless *loopback* (the container is in the host's network
    namespace); if that leaves none, public ones stand in. Of a *named* one, in a network with names, the only server is
    its shim's, which asks these. Raises InvalidArgument for a server that is no IP address.
    """
    servers, domains, choices = _parsed(host)
    if dns:
        servers = [_server(address) for address in dns]
    elif not loopback:
        servers = [server for server in servers if not _unreachable(server)] or list(_FALLBACK_SERVERS)
    if search is not None and len(search):
        domains = [] if list(search) == ["."] else [domain for domain in search if domain]
    if options is not None and len(options):
        choices = [option for option in options if option]
    if named:
        servers = [RESOLVER]
        if not any(option.startswith("ndots:") for option in choices):
            choices.append("ndots:0")  # "web" is a whole name: asked for as it is before any domain is tried
    lines = [f"nameserver {server}\n" for server in servers]
    if domains:
        lines.append(f"search {' '.join(domains)}\n")
    if choices:
        lines.append(f"options {' '.join(choices)}\n")
    return "".join(lines)


def servers(host: str, dns: Sequence[str] = ()) -> list[str]:
    """Whom a container's resolver asks: *dns* if given, else those of *host*'s resolv.conf, those on loopback, too."""
    if dns:
        return [_server(address) for address in dns]
    return _parsed(host)[0] or list(_FALLBACK_SERVERS)


def host_resolv_conf(path: str = RESOLV_CONF, resolved: str = RESOLVED_CONF) -> str:
    """
    The host's resolv.conf; where systemd-resolved is the only server, the one that names the servers behind it. "" if
    the host has none.
    """
    text = _read(path)
    servers, _, _ = _parsed(text)
    if servers == [_RESOLVED_STUB]:
        return _read(resolved) or text
    return text


def _pair(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        # The sign that comes first: an IPv6 address has colons of its own.
        ends = [at for at in (entry.find("="), entry.find(":")) if at > 0]
        if ends:
            return entry[: min(ends)], entry[min(ends) + 1 :]
    raise InvalidArgument(f"extra_hosts: {entry!r} is not of the form name:address")


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name or any(character.isspace() for character in name):
        raise InvalidArgument(f"extra_hosts: {name!r} is no host's name")
    return name


def _host_address(name: Any, address: Any, gateway: str | None) -> str:
    if address == HOST_GATEWAY:
        if gateway is None:
            raise InvalidArgument(f"extra_hosts: {name!r}: host-gateway needs a bridge network")
        return gateway
    text = str(address)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if not _is_address(text):
        raise InvalidArgument(f"extra_hosts: {name!r}: {address!r} is no IP address")
    return text


def _server(address: Any) -> str:
    if not isinstance(address, str) or not _is_address(address):
        raise InvalidArgument(f"dns: {address!r} is no IP address")
    return address


def _is_address(text: str) -> bool:
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def _unreachable(server: str) -> bool:
    """On the host's loopback, or by IPv6, which no network of ours has yet."""
    return server.startswith("127.") or ":" in server


def _parsed(text: str) -> tuple[list[str], list[str], list[str]]:
    """Servers, search domains and options of a resolv.conf(5); the last search or domain line counts."""
    servers: list[str] = []
    domains: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            domains = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return servers, domains, options


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
