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
        self._hierarchies = Hierarchies.own()
        self.group = Cgroup(path, self._hierarchies)
        self._here: Cgroup | None = None  # where moves have succeeded

    def begin(self, shim: int) -> None:
        """Have this process and the *shim* in the group of shims, where they may not have been started. No error."""
        shims = Cgroup(_SHIMS_GROUP, self._hierarchies)
        try:
            shims.create()
            for pid in (shim, os.getpid()):
                shims.add(pid)
            self._here = shims
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
    shims = Cgroup(_SHIMS_GROUP, hierarchies)
    if not _is_in(shims):
        shims.create()
        shims.add(os.getpid())


def move_ahead(pid: int) -> None:
    """Begin with it while that process's interpreter still starts. No error: it does the same itself."""
    try:
        shims = Cgroup(_SHIMS_GROUP, Hierarchies.own())
        shims.create()
        shims.add(pid)
    except OSError:
        return


def remove(path: str) -> None:
    """Nothing was wanted: remove the container's group, and do not be in it. No error."""
    try:
        group = Cgroup(path, Hierarchies.own())
        leave(group.hierarchies)
        group.remove()
    except OSError:
        return


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
