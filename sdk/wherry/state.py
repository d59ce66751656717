"""What state a container is in, read from its shim's small files at the moment it is asked for."""

import os
from pathlib import Path
from typing import Any

import attrs

from wherry_shim import records

UNKNOWN_EXIT_CODE = 255


@attrs.frozen(kw_only=True)
class ExitRecord:
    """
    How a container ended. Times are nanoseconds since 1970.

    `exit_code` is the program's own, or 128 and the number of the `signal` that ended it; `known` is False when the
    shim was killed before it could tell (then it is 255). `log_lost` are bytes of output that no disk took. `stopped`:
    somebody asked it to end, so that a restart policy does not bring it back.
    """

    exit_code: int
    signal: int | None = None
    oom_killed: bool = False
    started: int = 0
    finished: int = 0
    restarts: int = 0
    log_lost: int = 0
    stopped: bool = False
    known: bool = True

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "ExitRecord":
        names = [field.name for field in attrs.fields(cls)]
        return cls(**{name: record[name] for name in names if name in record})


@attrs.frozen(kw_only=True)
class State:
    """
    `status` is Docker's: created, running, paused, restarting, exited. `pid` is 0 unless it runs.

    `health` is its shim's record (wherry_shim.health), None without a check.
    """

    status: str
    pid: int = 0
    shim: int = 0
    started: int = 0
    ports: tuple[dict[str, Any], ...] = ()
    restarts: int = 0
    health: dict[str, Any] | None = None
    exit: ExitRecord | None = None

    @property
    def alive(self) -> bool:
        """Whether its shim takes care of it: it runs, is paused, or is about to be started again."""
        return self.status in ("running", "paused", "restarting")


def read(directory: Path, run_directory: Path, started: int | None) -> State:
    """The state of the container whose files these are; *started* is when it was last started, or 0; None: unknown."""
    ended = records.read(str(run_directory), records.EXIT)
    if ended is None:
        live = records.read(str(run_directory), records.STATE)
        if live is not None and (state := _live(live)) is not None:
            return state
        # It may have ended between the two looks.
        ended = (
            records.read(str(run_directory), records.EXIT)
            or records.read(str(directory), records.EXIT)
            or records.read_ended(str(run_directory))
        )
    if ended is not None:
        record = ExitRecord.from_json(ended)
        return State(status="exited", started=record.started, restarts=record.restarts, exit=record)
    if started:
        return State(
            status="exited", started=started, exit=ExitRecord(exit_code=UNKNOWN_EXIT_CODE, started=started, known=False)
        )
    return State(status="created")


def _live(record: dict[str, Any]) -> State | None:
    """None when neither the shim nor the container's first process exists any more."""
    pid, shim = record.get("pid") or 0, record["shim"]
    shim_lives = records.start_time(shim) == record["shim_start"]
    container_lives = pid != 0 and records.start_time(pid) == record["pid_start"]
    if not shim_lives and not container_lives:
        return None
    status = record["status"]
    return State(
        status="created" if status == "starting" else status,
        pid=pid,
        shim=shim if shim_lives else 0,
        started=record["started"],
        ports=tuple(record.get("ports") or ()),
        restarts=record.get("restarts") or 0,
        health=record.get("health"),
    )


def shim_is_alive(run_directory: Path) -> bool:
    """Whether the shim that wrote the state there still exists."""
    live = records.read(os.fspath(run_directory), records.STATE)
    return live is not None and records.start_time(live["shim"]) == live["shim_start"]
