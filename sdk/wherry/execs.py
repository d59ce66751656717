"""
Execs step by step, as the Engine API has them: made under an id, then started, looked at, resized; by any process.

What was asked for is kept in `run/ID/execs/EXECID`, what became of it the container's shim knows.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from wherry.errors import ExecNotFound, NotRunning
from wherry.execution import Process, process_document
from wherry_oci.errors import Conflict, Unsupported
from wherry_shim import client as shims
from wherry_shim.exectable import EXECS

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.engineapi.execs import ExecInspect
    from wherry.execrequest import ExecRequest
    from wherry.local import LocalEngine


@attrs.frozen(eq=False)
class Exec:
    """A further process of a container, which may not be started yet. A handle: an id, and an engine."""

    id: str
    _engine: "LocalEngine" = attrs.field(repr=False)

    @property
    def _path(self) -> Path:
        return find(self._engine, self.id)

    @property
    def attrs(self) -> dict[str, Any]:
        """What `GET /exec/ID/json` tells. Raises ExecNotFound."""
        from wherry.engineapi.document import told

        found: dict[str, Any] = told(self.document)
        return found

    @property
    def document(self) -> "ExecInspect":
        """What `attrs` tells, as a value. Raises ExecNotFound."""
        from wherry.engineapi.execs import ExecInspect, ProcessConfig

        path = self._path
        kept = json.loads(path.read_bytes())
        try:
            record = shims.call(str(path.parent.parent), "exec-inspect", exec_id=self.id)
        except shims.ShimGone:
            raise ExecNotFound(self.id) from None
        program, *arguments = kept["request"]["process"]["args"]
        return ExecInspect(
            id=self.id,
            container_id=kept["container"],
            running=record["running"],
            exit_code=record["exit_code"],
            pid=record["pid"],
            process_config=ProcessConfig(
                tty=kept["terminal"],
                entrypoint=program,
                arguments=arguments,
                privileged=kept["privileged"],
                user=kept["user"],
            ),
            open_stdin=kept["stdin"],
            open_stdout=kept["stdout"],
            open_stderr=kept["stderr"],
            detach_keys=kept["detach_keys"],
        )

    @property
    def running(self) -> bool:
        return self.document.running

    @property
    def exit_code(self) -> int | None:
        """None before it has ended."""
        return self.document.exit_code

    def start(self) -> Process:
        """
        Start it, once; its streams are the result's. Closing that lets it go on.

        Raises Conflict when it was started before or the container does not run, and what `Container.popen` raises.
        """
        path = self._path
        kept = json.loads(path.read_bytes())
        record = self._engine.record(kept["container"])
        request = {**kept["request"], "exec_id": self.id}
        return Process.start(self._engine, record, request, terminal=kept["terminal"], stdin=kept["stdin"])

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size. Raises Conflict when it does not run."""
        try:
            shims.call(str(self._path.parent.parent), "exec-resize", exec_id=self.id, rows=rows, columns=columns)
        except shims.ShimGone:
            raise ExecNotFound(self.id) from None


def find(engine: "LocalEngine", exec_id: str) -> Path:
    """Where it is kept. Raises ExecNotFound."""
    if exec_id and set(exec_id) <= set("0123456789abcdef"):
        for path in engine.run_directory.glob(f"*/{EXECS}/{exec_id}"):
            return path
    raise ExecNotFound(exec_id)


def create(engine: "LocalEngine", name: str, asked: "ExecRequest") -> str:
    """Its id. Raises NotRunning, Conflict."""
    record = engine.record(name)
    _check_running(engine, record)
    request = process_document(record, asked)
    exec_id = os.urandom(32).hex()
    kept = {
        "container": record.id,
        "request": request,
        "terminal": asked.tty,
        "stdin": asked.stdin,
        "stdout": asked.stdout,
        "stderr": asked.stderr,
        "privileged": asked.privileged,
        "user": asked.user or "",
        "detach_keys": asked.detach_keys,
    }
    directory = engine.store.run_directory(record.id) / EXECS
    directory.mkdir(0o700, exist_ok=True)
    new = directory / f".{exec_id}"
    new.write_text(json.dumps(kept), encoding="utf-8", errors="surrogateescape")
    os.rename(new, directory / exec_id)
    engine.note(record, f"exec_create: {' '.join(request['process']['args'])}", execID=exec_id)
    return exec_id


def _check_running(engine: "LocalEngine", record: "Record") -> None:
    status = engine.state(record).status
    if status == "paused":
        raise Conflict(f"container {record.name} is paused: unpause it before you run a command in it")
    if status != "running":
        raise NotRunning(record.name, status, "run a command in")


def running(engine: "LocalEngine", record: "Record") -> list[str]:
    """The ids of a container's execs that run and have an id somebody asked for."""
    try:
        found: list[str] = shims.call(str(engine.store.run_directory(record.id)), "exec-inspect")["running"]
    except (shims.ShimGone, Unsupported):  # it has ended, or its shim is older than execs with an id
        return []
    return found
