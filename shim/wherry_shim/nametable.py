"""
Who is called what in a network: `run/names/NETWORK/CONTAINER`, one small file for each place of a container that runs.

A container's shim writes its own files and takes them away at its end; the resolvers of all others read them. So there
is no process whose end would take the names of others away. What a killed shim left is known by its `shim` and `pid`
(records.py): when neither lives the file counts for nothing.

    {"names": ["web", …], "network": "front", "addresses": ["172.29.0.2", …],
     "shim": PID, "shim_start": …, "pid": PID, "pid_start": …}
"""

import os
from errno import ENOENT
from time import time_ns

from wherry_oci.runtime import quickjson
from wherry_shim.records import start_time
from wherry_shim.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMES = "names"
_TRIES = 10
_FRESH_NS = 100_000_000  # a directory may change again, unseen, in the tick of the clock in which it did


def _directory(run: str, network: str) -> str:
    return f"{run}/{_NAMES}/{network}"


def write(run: str, network: str, container: str, record: "dict[str, Any]") -> None:
    """Put *record* in the place of what the container was called there. Raises OSError."""
    directory = _directory(run, network)
    temporary = f"{directory}/.{container}.new"
    for _ in range(_TRIES):
        os.makedirs(directory, 0o700, exist_ok=True)
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(quickjson.dumps(record))
        except FileNotFoundError:  # the last one before has just taken the directory away
            continue
        os.rename(temporary, f"{directory}/{container}")
        return
    raise OSError(ENOENT, "is taken away again and again", directory)


def remove(run: str, network: str, container: str) -> None:
    """That it is gone already is fine."""
    try:
        os.unlink(f"{_directory(run, network)}/{container}")
    except FileNotFoundError:
        pass


def forget_container(run: str, container: str) -> None:
    """In every network; for what a killed shim left."""
    try:
        networks = os.listdir(f"{run}/{_NAMES}")
    except FileNotFoundError:
        return
    for network in networks:
        remove(run, network, container)


def forget_network(run: str, network: str) -> None:
    """When the network itself is removed."""
    remove_tree(_directory(run, network))
    try:
        os.rmdir(f"{run}/{_NAMES}")
    except OSError:  # there are others, or none ever was
        return


class NameTable:
    """The names of one network, read anew when they have changed."""

    def __init__(self, run: str, network: str) -> None:
        self._path = _directory(run, network)
        self._changed = -1
        self._records: list[dict[str, Any]] = []

    def find(self, name: str) -> "list[dict[str, Any]]":
        """Who is called *name* (lower case) here, by itself or with the network's name behind it."""
        found = []
        for record in self._current():
            bare = name.removesuffix("." + record["network"].lower())
            if (name in record["names"] or bare in record["names"]) and _lives(record):
                found.append(record)
        return found

    def at(self, address: str) -> "dict[str, Any] | None":
        """Who has that address."""
        for record in self._current():
            if address in record["addresses"] and _lives(record):
                return record
        return None

    def _current(self) -> "list[dict[str, Any]]":
        try:
            changed = os.stat(self._path).st_mtime_ns
        except FileNotFoundError:
            return []
        if changed != self._changed:
            self._records = self._read()
            self._changed = changed if time_ns() - changed > _FRESH_NS else -1
        return self._records

    def _read(self) -> "list[dict[str, Any]]":
        found = []
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return []
        for name in sorted(names):
            if name.startswith("."):
                continue
            try:
                with open(f"{self._path}/{name}", encoding="utf-8") as file:
                    record = quickjson.loads(file.read())
                record["names"] = [one.lower() for one in record["names"]]
                found.append(record)
            except (OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or written by nobody of ours
                continue
        return found


def _lives(record: "dict[str, Any]") -> bool:
    return any(record.get(one) and start_time(record[one]) == record[f"{one}_start"] for one in ("shim", "pid"))
