"""What a container's network has come to, and how its making fails."""

import os
from _socket import AF_INET, AF_INET6

from wherry_oci.errors import Conflict, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

EVERYWHERE, EVERYWHERE_6 = "0.0.0.0", "::"
_LOOPBACK_6 = "::1"


class PortInUse(Conflict):
    """A port that was to be published is taken on the host: `address`, `port`, `protocol`, and `holder` if known."""

    kind = "port_in_use"

    def __init__(self, address: str, port: int, protocol: str, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"{protocol} port {port} of {address} is in use{by}: publish another one, or end its holder")
        self.address = address
        self.port = port
        self.protocol = protocol
        self.holder = holder

    def facts(self) -> "dict[str, Any]":
        """The attributes, ready for JSON."""
        return {"address": self.address, "port": self.port, "protocol": self.protocol, "holder": self.holder}


class AttachFailed(Unavailable):
    """A *step* of the network's making failed with *errno*; all earlier ones are undone."""

    kind = "network"

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(f"{step}: {error.strerror}")
        self.step = step
        self.errno = error.errno or 0

    def facts(self) -> "dict[str, Any]":
        """The attributes, ready for JSON."""
        return {"step": self.step, "errno": self.errno}


class Attachment:
    """
    A container's network as it is: `namespace` (a descriptor; None for the host's own), `interfaces` (of the plan),
    `ports` as published, with the real host ports, and the sockets that keep them from others. Ended by `detach`.
    """

    __slots__ = ("_sockets", "interfaces", "namespace", "outside", "ports", "proxy", "reserved", "table")

    def __init__(self) -> None:
        self.namespace: int | None = None
        self.table = ""
        self.proxy = False  # the kernel translates nothing
        self.outside = False  # the sockets are in another network than the bridges, whose kernel translates for itself
        self.reserved: list[dict[str, Any]] = []  # ports, with no container's address yet
        self.ports: list[dict[str, Any]] = []
        self.interfaces: list[dict[str, Any]] = []
        self._sockets: list[tuple[dict[str, Any], socket]] = []

    def hold(self, port: "dict[str, Any]", reserved: "socket") -> None:
        """Keep the socket that has the *port* open until the end."""
        self._sockets.append((port, reserved))

    def proxied(self) -> "list[tuple[socket, dict[str, Any]]]":
        """The sockets that are to be served, as no translation does it (on [::1], or at all), with their ports."""
        places = {(port["host_ip"], port["host_port"], port["protocol"]): port for port in self.ports}
        found = []
        for port, reserved in self._sockets:
            published = places.get((port["host_ip"], port["host_port"], port["protocol"]))
            proxied = self.proxy or self.outside or port["host_ip"] in (EVERYWHERE_6, _LOOPBACK_6)
            if published is not None and proxied:
                found.append((reserved, published))
        return found

    def close(self) -> None:
        """Let go of ports and namespace, in that order; published or not."""
        while self._sockets:
            self._sockets.pop()[1].close()
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None


def attempt(what: str, do: "Any", *arguments: "Any") -> "Any":
    """What *do* returns. Raises AttachFailed with *what* was tried, for an OSError."""
    try:
        return do(*arguments)
    except OSError as error:
        raise AttachFailed(what, error) from error


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET6 if ":" in address else AF_INET
