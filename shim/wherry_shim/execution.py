"""A further process in the container (`exec`), with the client that asked for it at its streams."""

import os

from wherry_oci.linux.process import SECCOMP_FILTER_FLAG_SPEC_ALLOW
from wherry_oci.runtime import container
from wherry_oci.runtime.cgroups import Cgroup
from wherry_oci.runtime.init import Entry
from wherry_shim.connection import Connection
from wherry_shim.loop import Loop
from wherry_shim.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_shim.health import Probe

_BACKLOG_LIMIT = 1 << 20  # a client that lags so far behind makes the process wait, as a full pipe would


class Execution:
    """
    It runs until it ends by itself or is killed; its client may leave before.

    *request* has `exec_id`, `process` (as in config.json), `user`, `groups`, `terminal`, `stdin`.
    """

    def __init__(
        self,
        loop: Loop,
        request: "dict[str, Any]",
        connection: "Connection | Probe",
        *,
        init_pid: int,
        config: "dict[str, Any]",
        cgroup: Cgroup,
        seccomp: bytes | None,
    ) -> None:
        self._connection = connection
        self.id: str = request["exec_id"]
        terminal = bool(request.get("terminal"))
        self.streams = Streams(loop, terminal=terminal, stdin=bool(request.get("stdin")), on_output=self._on_output)
        try:
            entry = Entry(
                request["process"],
                user=request.get("user"),
                added_groups=request.get("groups") or [],
                seccomp=seccomp,
                seccomp_flags=SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                stdio=self.streams.child_ends,
                reap=False,
            )
            process = container.execute(init_pid, config, entry, cgroup=cgroup)
            if process.terminal is not None:
                self.streams.use_terminal(process.terminal)
            self.pid = process.pid
            process.start()
        except BaseException:
            self.streams.close()
            raise
        connection.on_drain = self.streams.resume
        connection.on_close.append(self._on_client_gone)
        connection.answer(pid=self.pid)
        self.streams.started()

    def kill(self, signal: int) -> None:
        """Send *signal* to the process; that it has ended is fine."""
        try:
            os.kill(self.pid, signal)
        except ProcessLookupError:
            pass

    def _on_output(self, stream: int, piece: bytes) -> None:
        self._connection.send_frame(stream, piece)
        if self._connection.backlog > _BACKLOG_LIMIT:
            self.streams.pause()

    def _on_client_gone(self) -> None:
        """Nobody reads any more: its output is thrown away, its input ends."""
        self.streams.end_input()
        self.streams.resume()

    def exited(self, exit_code: int) -> None:
        """It is reaped: send what it still wrote, and how it ended."""
        self._connection.on_drain = None
        self._connection.on_close.remove(self._on_client_gone)
        self.streams.drain()
        self._connection.ended(exit_code)
