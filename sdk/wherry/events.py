"""Reading what happened, and what happens (wherry_shim.eventlog), with Docker's filters."""

import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from select import POLLIN, poll
from time import time_ns
from types import TracebackType
from typing import Any

from wherry.filters import Filters
from wherry_oci.linux import inotify
from wherry_shim.eventlog import CURRENT, PREVIOUS

_NANO = 1_000_000_000
_READ_SIZE = 1 << 16
_ID_SIZE = 64
FILTERS = ("container", "daemon", "event", "image", "label", "network", "scope", "type", "volume")


class EventStream:
    """
    Events as `GET /events` gives them, the oldest first. An iterator, and a context manager that closes it.

    `close` may be called by another thread while this one waits for the next event: the iteration ends then.
    """

    def __init__(
        self,
        directory: Path,
        *,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
        filters: Mapping[str, Any] | None = None,
        follow: bool = True,
    ) -> None:
        self._file = self._watch = self._wake = -1
        self._using = threading.Lock()  # the descriptors: by who waits for the next event, or who closes them
        self._closed = False
        self._filters = Filters.parse(filters, FILTERS)
        self._since = 0 if since is None else _nanoseconds(since)
        self._until = None if until is None else _nanoseconds(until)
        self._follow = follow
        os.makedirs(directory, 0o700, exist_ok=True)
        self._directory = directory
        self._rest = b""
        self._ready: deque[dict[str, Any]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._watch = inotify.inotify_init1()
        inotify.inotify_add_watch(self._watch, directory, inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO)
        only_new = follow and since is None and until is None
        self._file = self._open_first(only_new)

    def _open_first(self, only_new: bool) -> int:
        if not only_new and (previous := self._open(PREVIOUS)) is not None:
            return previous
        current = os.open(self._directory / CURRENT, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if only_new:
            os.lseek(current, 0, os.SEEK_END)
        return current

    def _open(self, name: str) -> int | None:
        try:
            return os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat, and from any thread."""
        self._closed = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        with self._using:
            for name in ("_file", "_watch", "_wake"):
                if (fd := getattr(self, name)) >= 0:
                    setattr(self, name, -1)
                    os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_using"):
            self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        with self._using:
            while not self._closed:
                if self._ready:
                    return self._ready.popleft()
                if not self._read() and not self._next_file() and not self._wait():
                    break
        self.close()
        raise StopIteration

    def _read(self) -> bool:
        """Whether there was more in this file."""
        piece = os.read(self._file, _READ_SIZE)
        if not piece:
            return False
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:  # of a writer that was killed at it
                continue
            if self._wants(event):
                self._ready.append(_with_old_names(event))
        return True

    def _next_file(self) -> bool:
        """Go on to the file that came after this one, if there is one; whoever wrote to this has been waited for."""
        here = _identity(os.fstat(self._file))
        try:
            if here == _identity(os.stat(self._directory / CURRENT)):
                return False
        except FileNotFoundError:  # just renamed: the next one is about to be made
            return False
        if self._read():  # written between the last look and the renaming
            return True
        previous = self._open(PREVIOUS)
        if previous is not None and _identity(os.fstat(previous)) == here:
            os.close(previous)
            previous = self._open(CURRENT)
        if previous is None:
            return False
        os.close(self._file)
        self._file, self._rest = previous, b""
        return True

    def _wait(self) -> bool:
        """Until something is written; False when nothing will be that is wanted."""
        left_ms = None if self._until is None else (self._until - time_ns()) / 1e6
        if not self._follow or (left_ms is not None and left_ms <= 0):
            return False
        waiting = poll()
        waiting.register(self._wake, POLLIN)
        waiting.register(self._watch, POLLIN)
        waiting.poll(None if left_ms is None else left_ms + 1)
        try:
            os.read(self._watch, _READ_SIZE)
        except BlockingIOError:
            pass
        return True

    def _wants(self, event: Mapping[str, Any]) -> bool:
        if event["timeNano"] < self._since or (self._until is not None and event["timeNano"] > self._until):
            return False
        return matches(event, self._filters)


def matches(event: Mapping[str, Any], filters: Filters) -> bool:
    """Docker's rules: of one name any value will do, and every name must be satisfied."""
    action, attributes = event["Action"], event["Actor"]["Attributes"]
    return (
        filters.equals("type", event["Type"])
        and filters.equals("scope", event["scope"])
        and (filters.equals("event", action) or filters.equals("event", action.partition(":")[0]))
        and filters.labels_fit(attributes)
        and all(
            _is_about(event, kind, filters.of(kind))
            for kind in ("container", "image", "network", "volume", "daemon")
            if kind in filters
        )
    )


def _is_about(event: Mapping[str, Any], kind: str, wanted: tuple[str, ...]) -> bool:
    """Whether it happened to one of the *wanted*, which are names, or the beginnings of ids."""
    actor, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
    names = []
    if event["Type"] == kind:
        names = [actor, attributes.get("name", "")]
    elif kind == "container":
        names = [attributes.get("container", "")]
    if kind == "image":
        own = attributes.get("image", "") if event["Type"] == "container" else attributes.get("name", "")
        names += [own, _without_tag(own)]
    return any(_fits(name, value) for name in names for value in wanted)


def _without_tag(reference: str) -> str:
    repository, colon, tag = reference.partition("@")[0].rpartition(":")
    return repository if colon and "/" not in tag else reference


def _fits(name: str, wanted: str) -> bool:
    return name == wanted or (len(name) >= _ID_SIZE and name.removeprefix("sha256:").startswith(wanted))


def _with_old_names(event: dict[str, Any]) -> dict[str, Any]:
    """Beside the newer names Docker gives the older ones, which scripts read: `status`, `id`, `from`."""
    if event["Type"] not in ("container", "image"):
        return event
    older = {"status": event["Action"], "id": event["Actor"]["ID"]}
    if event["Type"] == "container":
        older["from"] = event["Actor"]["Attributes"].get("image", "")
    return {**older, **event}


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _nanoseconds(when: float | datetime) -> int:
    return int((when.timestamp() if isinstance(when, datetime) else when) * _NANO)
