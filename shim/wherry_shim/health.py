"""A container's health check: Docker's intervals, retries and words, run by the shim with nobody else about."""

from time import monotonic, time_ns

from wherry_shim.connection import STDERR, STDOUT
from wherry_shim.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_shim.execution import Execution

_NANO = 1_000_000_000
_DEFAULT_S = 30.0  # of interval and timeout
_START_INTERVAL_S = 5.0
_RETRIES = 3
_KEPT_RESULTS = 5
_KEPT_OUTPUT = 4096  # bytes of one check's
_SIGKILL = 9

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


class Probe:
    """What a check's process has instead of a client: somebody who keeps a little of its output."""

    backlog = 0
    on_drain: "Callable[[], None] | None" = None

    def __init__(self, on_exit: "Callable[[int, bytes], None]") -> None:
        self._on_exit = on_exit
        self._output = bytearray()
        self.on_close: list[Callable[[], None]] = []

    def answer(self, **message: "Any") -> None:
        """The process runs."""

    def send_frame(self, stream: int, payload: bytes) -> None:
        if stream in (STDOUT, STDERR):
            self._output += payload[: _KEPT_OUTPUT - len(self._output)]

    def ended(self, exit_code: int) -> None:
        """The process has ended, and all its output was sent."""
        self._on_exit(exit_code, bytes(self._output))


class HealthMonitor:
    """
    Runs checks by *run*(command, probe) and calls *on_change* after each result.

    *config* has `test` (`CMD` and words, or `CMD-SHELL` and a line), `interval`, `timeout`, `start_period`,
    `start_interval` (nanoseconds, 0 for the default) and `retries`.
    """

    def __init__(
        self,
        loop: Loop,
        config: "dict[str, Any]",
        run: "Callable[[list[str], Probe], Execution]",
        on_change: "Callable[[], None]",
    ) -> None:
        self._loop, self._run, self._on_change = loop, run, on_change
        kind, *words = config["test"]
        self._command = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
        self._interval_s = (config.get("interval") or _DEFAULT_S * _NANO) / _NANO
        self._timeout_s = (config.get("timeout") or _DEFAULT_S * _NANO) / _NANO
        self._start_period_s = (config.get("start_period") or 0) / _NANO
        self._start_interval_s = (config.get("start_interval") or _START_INTERVAL_S * _NANO) / _NANO
        self._retries = config.get("retries") or _RETRIES
        self._stopped = False
        self._suspended = False
        self._began_s = monotonic()  # by the clock that nobody sets
        self.status = STARTING
        self._streak = 0
        self._results: list[dict[str, Any]] = []
        self._schedule()

    def record(self) -> "dict[str, Any]":
        """`status`, `failing_streak`, and the last results: `start`, `end` (ns since 1970), `exit_code`, `output`."""
        return {"status": self.status, "failing_streak": self._streak, "log": self._results}

    def stop(self) -> None:
        """No further checks: the run has ended."""
        self._stopped = True

    def suspend(self, suspended: bool) -> None:
        """While the container is paused nothing is checked, and nothing that froze in the middle is late."""
        self._suspended = suspended

    def _in_start_period(self) -> bool:
        return self.status == STARTING and monotonic() - self._began_s < self._start_period_s

    def _schedule(self) -> None:
        wait = min(self._interval_s, self._start_interval_s) if self._in_start_period() else self._interval_s
        self._loop.after(wait, self._check)

    def _check(self) -> None:
        if self._stopped:
            return
        if self._suspended:
            self._schedule()
            return
        started = time_ns()
        finished = False

        def end(exit_code: int, output: bytes) -> None:
            nonlocal finished
            if not finished:
                finished = True
                self._result(started, exit_code, output)

        try:
            execution = self._run(self._command, Probe(end))
        except Exception as error:  # the check's program is not there, say: that is its result
            end(-1, str(error).encode("utf-8", "replace"))
            return

        def expire() -> None:
            if self._suspended:
                self._loop.after(self._timeout_s, expire)
            elif not finished and not self._stopped:
                end(-1, f"Health check exceeded timeout ({self._timeout_s:g}s)".encode())
                execution.kill(_SIGKILL)

        self._loop.after(self._timeout_s, expire)

    def _result(self, started: int, exit_code: int, output: bytes) -> None:
        if self._stopped:
            return
        text = output.decode("utf-8", "replace")
        self._results = [
            *self._results[1 - _KEPT_RESULTS :],
            {"start": started, "end": time_ns(), "exit_code": exit_code, "output": text},
        ]
        if exit_code == 0:
            self.status, self._streak = HEALTHY, 0
        elif not self._in_start_period():
            self._streak += 1
            if self._streak >= self._retries:
                self.status = UNHEALTHY
        self._on_change()
        self._schedule()
