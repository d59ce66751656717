"""
What happens in a root, on disk: one JSON object a line in `root/events/current`, and before that in `previous`.

Every process that makes something happen appends, the shims among them, each line under flock(2) of the file: so lines
are whole, in the order of their times, and a file that has been renamed away gets none any more.
"""

import os
from fcntl import LOCK_EX, flock
from time import time_ns

from wherry_oci.runtime import quickjson

CURRENT, PREVIOUS = "current", "previous"
LARGEST = 4 << 20  # bytes; then `current` becomes `previous`, in whose place it goes


class EventLog:
    """The events of the root whose *directory* `events` is given. Remembers the path; nothing is open between calls."""

    def __init__(self, directory: str, largest: int = LARGEST) -> None:
        self.directory, self._largest = directory, largest

    def append(self, kind: str, action: str, actor: str, **attributes: object) -> None:
        """
        Add an event in Docker's words: *kind* such as "container", *action* such as "start", the *actor*'s id or name.

        What happens has happened whether it can be noted or not: a full disk is no error here, the event is missing.
        """
        try:
            current = self._locked()
        except OSError:
            return
        try:
            self._write(current, kind, action, actor, attributes)
        except OSError:
            return
        finally:
            os.close(current)

    def _locked(self) -> int:
        """`current`, for this process alone, and not too large."""
        path = f"{self.directory}/{CURRENT}"
        while True:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                os.makedirs(self.directory, 0o700, exist_ok=True)
                continue
            try:
                flock(fd, LOCK_EX)
                if _is_at(fd, path):
                    if os.fstat(fd).st_size < self._largest:
                        return fd
                    os.rename(path, f"{self.directory}/{PREVIOUS}")
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    @staticmethod
    def _write(fd: int, kind: str, action: str, actor: str, attributes: "dict[str, object]") -> None:
        now = time_ns()
        event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": {name: str(value) for name, value in attributes.items()}},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        line = quickjson.dumps(event).encode("utf-8", "surrogateescape") + b"\n"
        size = os.fstat(fd).st_size
        if os.write(fd, line) != len(line):  # the disk is full
            os.ftruncate(fd, size)


def _is_at(fd: int, path: str) -> bool:
    """Whether the open file is the one that has the name."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
