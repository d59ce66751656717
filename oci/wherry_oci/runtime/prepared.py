"""A process that a runtime has made and that waits to be let go, as its maker sees it."""

import os
from select import POLLIN, poll

from wherry_oci.runtime.cgroups import Cgroup
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LOOK_MS = 100  # how often it is looked whether who is waited for has been frozen
_SIGKILL = 9


class Process:
    """A process that is all prepared and waits for `start`; after that a running one. It is the caller's child."""

    def __init__(self, pid: int, channel: Channel, terminal: int | None, cgroup: Cgroup | None = None) -> None:
        """With *cgroup* nothing waits for a process that somebody stops with that group."""
        self.pid = pid
        self.cgroup = cgroup
        self.terminal = terminal  # the master of its terminal, the caller's to close
        self.channel = channel

    def start(
        self, on_listener: "Callable[[int], None] | None" = None, *, told: "dict[str, Any] | None" = None
    ) -> None:
        """
        Let it execute its program. Raises RuntimeFailure when that fails; it is gone then.

        *on_listener* gets the number that its seccomp listener has as a descriptor of the process's own. *told*, for an
        entry that is `told_later`, is the `process` whose `args`, `env` and `cwd` it takes.
        """
        try:
            let_start(self.channel, on_listener, told, self.cgroup)
        except RuntimeFailure:
            self._kill()  # it may wait for somebody to take its seccomp listener
            raise
        finally:
            self.channel.close()

    def leave_at_gate(self) -> None:
        """
        Let it wait, without this parent, for somebody to come to its entry's gate; then forget it.

        Raises RuntimeFailure when it has been killed.
        """
        try:
            self.channel.send({"leave": True})
            message = self.channel.receive()
        except OSError:
            message = None
        finally:
            self.channel.close()
        if message is None:
            raise RuntimeFailure("gone", "create", "the process was killed before it could be left alone")

    def abandon(self) -> None:
        """Kill and reap it before it ever ran."""
        self.channel.close()
        self._kill()
        if self.terminal is not None:
            os.close(self.terminal)

    def _kill(self) -> None:
        try:
            os.kill(self.pid, _SIGKILL)
        except ProcessLookupError:
            pass
        self._reap()

    def _reap(self) -> None:
        reap(self.pid, self.cgroup)


def receive(channel: Channel, cgroup: Cgroup | None) -> "tuple[dict[str, Any], list[int]] | None":
    """What a process says, or None at its end. Raises RuntimeFailure when it stops with its *cgroup* instead."""
    while cgroup is not None and not channel.has_message(_LOOK_MS):
        if cgroup.is_freezing() and not channel.has_message():
            raise RuntimeFailure(
                "conflict", "exec", "somebody has frozen the container's cgroup meanwhile: thaw it first"
            )
    return channel.receive()


def let_start(
    channel: Channel,
    on_listener: "Callable[[int], None] | None",
    told: "dict[str, Any] | None" = None,
    cgroup: Cgroup | None = None,
) -> None:
    """Say `start` to a process that waits for it, and see it execute. Raises RuntimeFailure."""
    gone = False
    try:
        channel.send({"start": True} if told is None else {"start": True, "process": told})
    except OSError:  # what it said before is still to be read
        gone = True
    while (message := receive(channel, cgroup)) is not None:
        said = message[0]
        if "failure" in said:
            raise RuntimeFailure.from_json(said["failure"])
        if "listener" in said:
            if on_listener is None:
                raise RuntimeFailure("invalid", "filter system calls", "nobody is there to take notifications")
            on_listener(said["listener"])
            channel.send({"go": True})
    if gone:
        raise RuntimeFailure("gone", "start", "the process was killed while it waited")


def reap(pid: int, cgroup: Cgroup | None = None) -> None:
    """
    Wait for the end of child *pid*.

    One that stops with its *cgroup* is left to whoever reaps the caller's children when it is thawed.
    """
    if cgroup is not None and not _ends(pid, cgroup):
        return
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def _ends(pid: int, cgroup: Cgroup) -> bool:
    """Whether process *pid* comes to its end before somebody freezes *cgroup*."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        waiting = poll()
        waiting.register(process, POLLIN)
        while not waiting.poll(_LOOK_MS):
            if cgroup.is_freezing():
                return False
        return True
    finally:
        os.close(process)
