"""The execs of a container that somebody may ask for by their ids, those that have ended among them."""

import os

from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_shim.execution import Execution

EXECS = "execs"  # below a run directory: what the engine keeps of each, by id
_KEPT = 256  # that have ended


class ExecTable:
    """By id, the oldest first. Of those that have ended the last ones are kept, and what the engine knows of them."""

    def __init__(self, run_directory: str) -> None:
        self._directory = f"{run_directory}/{EXECS}"
        self._records: dict[str, dict[str, Any]] = {}
        self._running: dict[str, Execution] = {}
        self._ended: list[str] = []

    def check_new(self, exec_id: str) -> None:
        """Raises RuntimeFailure when it was started before."""
        if exec_id in self._records:
            raise RuntimeFailure("conflict", "exec", f"exec {exec_id[:12]} was started before: make another one")

    def began(self, execution: "Execution") -> None:
        self._running[execution.id] = execution
        self._records[execution.id] = {"pid": execution.pid, "running": True, "exit_code": None}

    def ended(self, execution: "Execution", exit_code: int) -> None:
        if self._running.pop(execution.id, None) is None:
            return
        self._records[execution.id].update(running=False, exit_code=exit_code)
        self._ended.append(execution.id)
        if len(self._ended) > _KEPT:
            self._forget(self._ended.pop(0))

    def _forget(self, exec_id: str) -> None:
        del self._records[exec_id]
        try:
            os.unlink(f"{self._directory}/{exec_id}")
        except FileNotFoundError:
            return

    def record(self, exec_id: str) -> "dict[str, Any]":
        """`pid`, `running`, `exit_code`; of one that was not started: none, not running, null."""
        return self._records.get(exec_id) or {"pid": 0, "running": False, "exit_code": None}

    def running(self) -> list[str]:
        """The ids of those that run."""
        return list(self._running)

    def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell its terminal the size. Raises RuntimeFailure when it does not run."""
        if exec_id not in self._running:
            raise RuntimeFailure("conflict", "resize", f"exec {exec_id[:12]} does not run")
        self._running[exec_id].streams.resize(rows, columns)
