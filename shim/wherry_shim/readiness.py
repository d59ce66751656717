"""
Is the container ready? Looked at by its shim, again and again, so that who waits is told at that moment.

A condition is an object with a `kind`: `port` (`port`: something listens), `log` (`pattern`, `times`), `http` (`port`,
`path`, `statuses`), `file` (`path` exists), `exec` (`command` ends with 0), `health` (the health check says so).
"""

import os
from _socket import AF_INET, SOCK_NONBLOCK, SOCK_STREAM, socket

from wherry_oci.linux.openat2 import RESOLVE_IN_ROOT, openat2
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim.health import Probe
from wherry_shim.loop import READABLE, WRITABLE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_shim.execution import Execution
    from wherry_shim.supervisor import Supervisor

_PAUSE_S = 0.01
_LONGEST_LINE = 1 << 16
_LISTENING = "0A"  # proc_pid_net(5), "tcp"
_LONGEST_ANSWER_S = 5.0
_SIGKILL = 9


class Readiness:
    """
    Calls *on_ready* once, when all *conditions* have come true, one after the other; `cancel` ends it.

    What is found out before the first look back: the output of this run up to now counts, too.
    """

    def __init__(
        self,
        loop: Loop,
        supervisor: "Supervisor",
        conditions: "list[dict[str, Any]]",
        on_ready: "Callable[[], None]",
    ) -> None:
        self._loop, self._supervisor, self._on_ready = loop, supervisor, on_ready
        self._conditions = [dict(condition) for condition in conditions]
        self._cancelled = False
        self._lines: list[_LineCounter] = []
        self._looks: dict[str, Callable[[dict[str, Any]], None]] = {
            "port": lambda condition: self._came_to(self._listens(int(condition["port"]))),
            "file": lambda condition: self._came_to(self._exists(str(condition["path"]))),
            "health": lambda condition: self._came_to(supervisor.health == "healthy"),
            "log": lambda condition: self._came_to(condition["counter"].is_enough),
            "exec": self._run,
            "http": self._ask,
        }
        for condition in self._conditions:
            if condition["kind"] not in self._looks:
                raise ValueError(f"no such condition: {condition['kind']!r}")
            if condition["kind"] == "log":
                condition["counter"] = _LineCounter(condition["pattern"], int(condition.get("times") or 1))
                self._lines.append(condition["counter"])
        for stream, piece in supervisor.written() if self._lines else ():
            self.on_output(stream, piece)

    def on_output(self, stream: int, piece: bytes) -> None:
        """The container wrote *piece*."""
        for counter in self._lines:
            counter.feed(stream, piece)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._cancelled = True

    def look(self) -> None:
        """Look at the first condition that is not true yet."""
        if self._cancelled:
            return
        if not self._conditions:
            self._cancelled = True
            self._on_ready()
            return
        condition = self._conditions[0]
        self._looks[condition["kind"]](condition)

    def _came_to(self, true: bool) -> None:
        if true:
            self._conditions.pop(0)
            self.look()
        else:
            self._loop.after(_PAUSE_S, self.look)

    def _listens(self, port: int) -> bool:
        for name in ("tcp", "tcp6"):
            try:
                with open(f"/proc/{self._supervisor.pid}/net/{name}", encoding="ascii") as lines:
                    for line in lines:
                        fields = line.split()
                        if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                            return True
            except OSError:  # between two runs, or no IPv6
                continue
        return False

    def _exists(self, path: str) -> bool:
        """Below the container's root, whatever links are on the way."""
        try:
            root = os.open(f"/proc/{self._supervisor.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.close(openat2(root, path, os.O_PATH, resolve=RESOLVE_IN_ROOT))
        except OSError:
            return False
        finally:
            os.close(root)
        return True

    def _run(self, condition: "dict[str, Any]") -> None:
        ended = False

        def end(exit_code: int, output: bytes) -> None:
            nonlocal ended
            ended = True
            self._came_to(exit_code == 0)

        try:
            execution: Execution = self._supervisor.run_check(list(condition["command"]), Probe(end))
        except (RuntimeFailure, OSError):  # it is paused, or between two runs; or there is no such program yet
            self._came_to(False)
            return

        def expire() -> None:
            if not ended:
                execution.kill(_SIGKILL)

        self._loop.after(_LONGEST_ANSWER_S, expire)

    def _ask(self, condition: "dict[str, Any]") -> None:
        if not self._listens(int(condition["port"])):
            self._came_to(False)
            return
        try:
            end = self._supervisor.new_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK)
        except (RuntimeFailure, OSError):
            self._came_to(False)
            return
        _Request(self._loop, end, condition, self._came_to)


class _LineCounter:
    """How many lines of either stream the pattern was found in."""

    def __init__(self, pattern: str, times: int) -> None:
        import re

        self._pattern, self._left = re.compile(pattern.encode()), times
        self._rest: dict[int, bytes] = {}

    @property
    def is_enough(self) -> bool:
        """A line that is not ended yet counts, too: a prompt never ends."""
        return self._left - sum(1 for rest in self._rest.values() if self._pattern.search(rest)) <= 0

    def feed(self, stream: int, piece: bytes) -> None:
        *lines, rest = (self._rest.get(stream, b"") + piece).split(b"\n")
        self._left -= sum(1 for line in lines if self._pattern.search(line))
        self._rest[stream] = rest[-_LONGEST_LINE:]


class _Request:
    """One GET, without making anybody wait."""

    def __init__(self, loop: Loop, end: socket, condition: "dict[str, Any]", came_to: "Callable[[bool], None]") -> None:
        self._loop, self._end, self._came_to = loop, end, came_to
        self._statuses = [int(status) for status in condition.get("statuses") or ()]
        path = str(condition.get("path") or "/")
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        self._answer = b""
        self._over = False
        try:
            end.connect(("127.0.0.1", int(condition["port"])))
        except BlockingIOError:
            pass
        except OSError:
            self._finish(False)
            return
        loop.watch(end.fileno(), WRITABLE, self._send)
        loop.after(_LONGEST_ANSWER_S, lambda: self._finish(False))

    def _send(self, events: int) -> None:
        try:
            self._end.send(self._request)
        except OSError:
            self._finish(False)
            return
        self._loop.watch(self._end.fileno(), READABLE, self._receive)

    def _receive(self, events: int) -> None:
        try:
            piece = self._end.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self._answer += piece
        line, newline, _ = self._answer.partition(b"\r\n")
        if newline or not piece:
            words = line.split()
            status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
            self._finish(status in self._statuses if self._statuses else 200 <= status < 400)

    def _finish(self, true: bool) -> None:
        if self._over:
            return
        self._over = True
        self._loop.forget(self._end.fileno())
        self._end.close()
        self._came_to(true)
