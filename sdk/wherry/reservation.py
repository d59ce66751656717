"""
A place for a container that is about to be made: its id, directory and lock, and a shim that waits for its order.

It needs nothing but the root directory's path, so the command line can have it before it has imported the rest, and the
shim's interpreter starts beside its own. Whoever is killed holding one leaves a directory with a free lock, which the
next client collects.
"""

import os
from fcntl import LOCK_EX, flock
from types import TracebackType

from wherry_shim import shimgroup
from wherry_shim.launch import NETWORK, PORTS, Shim
from wherry_shim.tree import remove_tree

DEFAULT_CGROUP_PARENT = "/wherry"
CONTAINERS = "containers"  # below the root
LOCK = "lock"
_ID_BYTES = 32


def modules_for(network: str, *, ports: bool) -> str:
    """What the shim of a container with that network, and perhaps published ports, is told to import ahead."""
    if network == "host":
        return ""
    return f"{NETWORK},{PORTS}" if ports else NETWORK


class Reservation:
    """A context manager; what was not taken by `take` when it is left is given up."""

    def __init__(
        self, root: str, cgroup_parent: str = DEFAULT_CGROUP_PARENT, *, with_shim: bool = True, ahead: str = ""
    ) -> None:
        """*ahead* is what the shim imports while it waits, see `Shim`. Raises OSError."""
        self.id, self.lock = _make(f"{root}/{CONTAINERS}")
        self.directory = f"{root}/{CONTAINERS}/{self.id}"
        self.cgroup = f"{cgroup_parent}/{self.id}"
        self._taken = self._left = False
        self.shim: Shim | None = None
        try:
            if with_shim:
                self.shim = Shim(self.directory, self.cgroup, ahead)
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()

    def take(self) -> None:
        """The container exists: from here on its files and its shim are not this reservation's to remove."""
        self._taken = True

    def give_up(self) -> None:
        """Remove what is there, unless it was taken; let the lock go. Safe to repeat."""
        if self._left:
            return
        self._left = True
        if not self._taken:
            if self.shim is not None:
                self.shim.dismiss()
                shimgroup.remove(self.cgroup)
            self._remove()
        else:
            os.close(self.lock)

    def _remove(self) -> None:
        remove_tree(self.directory)
        os.close(self.lock)


def _make(containers: str) -> tuple[str, int]:
    """A new container's id, its directory made and its lock taken."""
    os.makedirs(containers, 0o700, exist_ok=True)
    while True:
        container_id = os.urandom(_ID_BYTES).hex()
        directory = f"{containers}/{container_id}"
        os.mkdir(directory, 0o700)
        try:
            lock = os.open(f"{directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # a collector took the empty directory for a dead maker's
            continue
        flock(lock, LOCK_EX)
        if is_current(directory, lock):
            return container_id, lock
        os.close(lock)


def is_current(directory: str | os.PathLike[str], lock: int) -> bool:
    """Whether *lock* is still the lock of *directory*, not that of one which was removed meanwhile."""
    try:
        return os.path.samestat(os.stat(f"{os.fspath(directory)}/{LOCK}"), os.fstat(lock))
    except FileNotFoundError:
        return False
