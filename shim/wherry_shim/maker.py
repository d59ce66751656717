"""
Who makes a container's first process: a child of the shim, which imports what that takes, does it, and is gone.

A shim lives as long as its container and keeps what it has imported, and making a container takes as much code as
watching over one. So that code goes into a child's memory. The child is forked when the shim begins: it imports its
part while the shim imports its own, on another processor. It waits in the container's cgroup, in which the process is
born; the shim never is in there. The process is the child's until that has ended, and then the shim's, as it is the
subreaper.
"""

import os
from _signal import set_wakeup_fd  # type: ignore[import-not-found] # signal itself brings enum
from _socket import socket

from wherry_oci.linux import process as p
from wherry_oci.runtime import quickjson
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.prepared import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_LINE = 3
_FIRST_UNNEEDED = 4
_LARGEST_DESCRIPTOR = 1 << 20
_SIGKILL = 9
_MODULES = ("wherry_oci.runtime.rootfs", "wherry_oci.runtime.init", "wherry_shim.making")  # some ms each


class Maker:
    """The shim's end of it."""

    def __init__(self, cgroup: str) -> None:
        """Fork the child, which enters *cgroup* and takes the shim out of it. Raises OSError."""
        ours, its = Channel.pair()
        try:
            shim = os.getpid()
            self._pid = os.fork()
            if self._pid == 0:
                _live(its, cgroup, shim)
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        self._line = ours

    def make(self, job: "dict[str, Any]", stdio: "tuple[int, int, int] | None") -> "Process":
        """
        The first process, up to its program, in the cgroup and with its limits.

        *job* has `config` (config.json), `entry` (the arguments of Entry, but seccomp), `seccomp` (a file with the
        filter) or null, `rootfs` (`path`, `mounts`), `run` (the container's run directory). Raises RuntimeFailure;
        nothing is left then but the cgroup.
        """
        from wherry_oci.runtime.failure import RuntimeFailure

        order = os.memfd_create("wherry-job", os.MFD_CLOEXEC)
        try:
            os.pwrite(order, quickjson.dumps(job).encode("utf-8", "surrogateescape"), 0)
            self._line.send({}, [order, *(stdio or ())])
            answer = self._line.receive()
        except OSError:  # it is dead already
            answer = None
        finally:
            os.close(order)
        if answer is None:
            raise RuntimeFailure("gone", "create", "the process that makes the container was killed")
        said, descriptors = answer
        if "failure" in said:
            raise RuntimeFailure.from_json(said["failure"])
        channel, *terminal = descriptors
        return _Made(said["pid"], Channel(socket(fileno=channel)), terminal[0] if terminal else None, self)

    def close(self, *, wait: bool = False) -> None:
        """
        Nothing more is wanted of it, and it ends; with *wait* it has ended. Without, it is reaped with the caller's
        other children, to which what it has made belongs then.
        """
        self._line.close()
        if wait:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                return


class _Made(Process):
    """The container's first process, whose parent stays until it runs: up to there it would die with it."""

    def __init__(self, pid: int, channel: Channel, terminal: int | None, maker: Maker) -> None:
        super().__init__(pid, channel, terminal)
        self._maker = maker

    def start(
        self, on_listener: "Callable[[int], None] | None" = None, *, told: "dict[str, Any] | None" = None
    ) -> None:
        super().start(on_listener, told=told)
        self._maker.close()

    def _reap(self) -> None:
        self._maker.close(wait=True)  # until then it is that one's child
        super()._reap()


# the child


def _live(line: Channel, cgroup: str, shim: int) -> "NoReturn":
    try:
        p.set_parent_death_signal(_SIGKILL)
        p.set_name(b"wherry-maker")
        set_wakeup_fd(-1)
        os.dup2(line.fileno(), _LINE, inheritable=False)
        os.closerange(_FIRST_UNNEEDED, _LARGEST_DESCRIPTOR)
        if os.getppid() == shim:  # else that signal does not come any more
            _work(Channel(socket(fileno=_LINE)), cgroup, shim)
    finally:
        os._exit(0)


def _work(line: Channel, cgroup: str, shim: int) -> None:
    from wherry_shim.shimgroup import Birthplace

    place = Birthplace(cgroup)
    place.begin(shim)
    for name in _MODULES:
        __import__(name)
        place.stay()
    from wherry_shim import making

    place.enter_ahead(line)
    order = line.receive()
    if order is None:
        return
    _, (file, *stdio) = order
    job = quickjson.loads(os.pread(file, os.fstat(file).st_size, 0).decode("utf-8", "surrogateescape"))
    try:
        process = making.make(job, (stdio[0], stdio[1], stdio[2]) if stdio else None, place)
    except BaseException as error:
        from wherry_shim import faults

        faults.note(job["run"], error)
        line.send({"failure": faults.failure_of(error).to_json()})
        return
    terminal = [process.terminal] if process.terminal is not None else []
    line.send({"pid": process.pid}, [process.channel.fileno(), *terminal])
    process.channel.close()
    for fd in terminal:
        os.close(fd)
    line.receive()  # until nobody needs it
