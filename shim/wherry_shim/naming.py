"""A container's names: what it is called in its networks, told to others, and what it is told of them (resolver.py)."""

import os

from wherry_shim import nametable
from wherry_shim.loop import Loop
from wherry_shim.resolver import Resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Naming:
    """
    For the container whose live files are in *run_directory* and whose network namespace is the descriptor *namespace*.

    Ended by `close`.
    """

    def __init__(self, loop: Loop, run_directory: str, namespace: int, servers: "list[str]") -> None:
        """Raises OSError."""
        self._run, _, self._container = run_directory.rpartition("/")
        self._told: set[str] = set()
        self._resolver = Resolver(loop, self._run, namespace, servers)

    def tell(self, interfaces: "list[dict[str, Any]]", identity: "dict[str, Any]") -> None:
        """
        Be called in these networks as the plan's *interfaces* say, as long as *identity* (`shim`, `shim_start`, `pid`,
        `pid_start`) lives, and in no others. Raises OSError.
        """
        self._resolver.use(interfaces)
        named = {interface["network"]: interface for interface in interfaces if interface.get("names")}
        for network in self._told - named.keys():
            nametable.remove(self._run, network, self._container)
        for network, interface in named.items():
            record = {
                "names": interface["names"],
                "network": interface["network_name"],
                "addresses": [address.partition("/")[0] for address in interface["addresses"]],
                **identity,
            }
            nametable.write(self._run, network, self._container, record)
        self._told = set(named)

    def close(self) -> None:
        """Be called nothing any more."""
        for network in self._told:
            nametable.remove(self._run, network, self._container)
        self._resolver.close()


def needs_names(interfaces: "list[dict[str, Any]]") -> bool:
    """Whether one of a plan's interfaces leads to a network with names."""
    return any(interface.get("names") for interface in interfaces)


def identity(pid: int) -> "dict[str, Any]":
    """This shim and its container's first process."""
    from wherry_shim.records import start_time

    return {
        "shim": os.getpid(),
        "shim_start": start_time(os.getpid()),
        "pid": pid,
        "pid_start": start_time(pid) if pid else None,
    }
