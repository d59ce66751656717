"""
Which cgroup whoever makes a container is in: that of the shims, and the container's while its first process is born.

A move of a process waits for an RCU grace period (6 to 15 ms). A birth in a group does not, and neither does a move
that follows another one closely, of whichever process. So who makes a container moves, if only to where it is, again
and again until it is time. It enters the container's group late: what it allocates in there counts as the container's.
"""

import os

from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure

_SHIMS_GROUP = "/wherry/shims"
_READY_ROUNDS, _READY_PAUSE_MS = 100, 3


class Birthplace:
    """The container's group *path*, for the process that has the container's first one born in it."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self.group = Cgroup(path, Hierarchies.own())
        self._here: Cgroup | None = None  # where moves have succeeded

    def begin(self, shim: int) -> None:
        """Have this process and the *shim* in the group of shims, where they may not have been started. No error."""
        try:
            self._here = _enter_shims(self.group.hierarchies, shim, os.getpid())
        except OSError:  # it is tried again, and reported, when it matters
            return

    def stay(self) -> None:
        """Keep the next move free of cost. No error."""
        try:
            if self._here is not None:
                self._here.stay(os.getpid())
        except OSError:
            return

    def enter_ahead(self, line: Channel) -> None:
        """Be in there, at no cost later, until there is a message on *line*. No error: `enter` has it."""
        try:
            self.group.create()
            self.group.add(os.getpid())
            for _ in range(_READY_ROUNDS):
                if line.has_message(_READY_PAUSE_MS):
                    return
                self.group.stay(os.getpid())
        except OSError:
            return

    def enter(self) -> None:
        """Be in there. Raises RuntimeFailure."""
        try:
            self.group.create()
            if not _is_in(self.group):
                self.group.add(os.getpid())
        except OSError as error:
            raise RuntimeFailure.from_os_error("join cgroup", error) from None


def leave(hierarchies: Hierarchies) -> None:
    """Be in the group of shims: out of a container's, and out of whatever the starter lived in. Raises OSError."""
    if not _is_in(Cgroup(_SHIMS_GROUP, hierarchies)):
        _enter_shims(hierarchies, os.getpid())


def move_ahead(pid: int) -> None:
    """Begin with it while that process's interpreter still starts. No error: it does the same itself."""
    try:
        _enter_shims(Hierarchies.own(), pid)
    except OSError:
        return


def remove(path: str) -> None:
    """What is left of a container's group in which nothing was made; one that is in use is left alone. No error."""
    try:
        Cgroup(path, Hierarchies.own()).remove()
    except OSError:
        return


def _enter_shims(hierarchies: Hierarchies, *pids: int) -> Cgroup:
    shims = Cgroup(_SHIMS_GROUP, hierarchies)
    shims.create()
    for pid in pids:
        shims.add(pid)
    return shims


def _is_in(group: Cgroup) -> bool:
    """Whether this process is in the group in every hierarchy (cgroups(7), "/proc/pid/cgroup")."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    where = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        where.update(dict.fromkeys(controllers.split(","), path))
    names = [*group.hierarchies.v1, *([""] if group.hierarchies.unified is not None else [])]
    return all(where.get(name) == group.path for name in names)
