"""A further process in the container (`exec`), with the client that asked for it at its streams."""

import os

from wherry_shim.connection import Connection
from wherry_shim.loop import Loop
from wherry_shim.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from wherry_shim.health import Probe

    class Prepared(Protocol):
        """A process that a runtime has made, up to its program: a child of this one, as `container.Process` is."""

        pid: int
        terminal: int | None  # the master of its terminal

        def start(self, *, told: "dict[str, Any] | None" = None) -> None:
            """Let it execute its program. Raises RuntimeFailure when that fails; it is gone then."""

        def abandon(self) -> None:
            """Kill and reap it before it ever ran."""


_BACKLOG_LIMIT = 1 << 20  # a client that lags so far behind makes the process wait, as a full pipe would


class Execution:
    """
    It runs until it ends by itself or is killed; its client may leave before.

    *request* has `exec_id`, `process` (as in config.json), `user`, `groups`, `terminal`, `stdin`; *make* has a runtime
    make the process, with these descriptors as its streams, or with a terminal.
    """

    def __init__(
        self,
        loop: Loop,
        request: "dict[str, Any]",
        connection: "Connection | Probe",
        make: "Callable[[dict[str, Any], tuple[int, int, int] | None], Prepared]",
    ) -> None:
        self._connection = connection
        self.id: str = request["exec_id"]
        terminal = bool(request.get("terminal"))
        self.streams = Streams(loop, terminal=terminal, stdin=bool(request.get("stdin")), on_output=self._on_output)
        try:
            process = make(request, self.streams.child_ends)
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
