"""Waiting for a container: until it has ended, ends the next time, or is removed."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING

from wherry import state as states
from wherry.errors import ContainerNotFound
from wherry.state import ExitRecord
from wherry_oci.errors import InvalidArgument
from wherry_shim import client as shims

if TYPE_CHECKING:
    from wherry.local import LocalEngine

_POLL_S = 0.005
_ASK_S = 1.0
_NEVER_STARTED = ExitRecord(exit_code=0, known=False)


def wait(engine: "LocalEngine", container_id: str, condition: str, timeout_s: float | None) -> ExitRecord:
    """As `Container.wait`."""
    deadline = None if timeout_s is None else monotonic() + timeout_s
    ended = wait_while(
        engine, container_id, condition, lambda: None if deadline is None else max(0.0, deadline - monotonic())
    )
    if ended is None:
        still = "is still there" if condition == "removed" else "still runs"
        raise TimeoutError(f"container {container_id[:12]} {still} after {timeout_s} s")
    return ended


def wait_while(
    engine: "LocalEngine", container_id: str, condition: str, left: Callable[[], float | None]
) -> ExitRecord | None:
    """How it ended; None when *left*, asked every now and then, has no more seconds to wait (None: no limit)."""
    if condition == "not-running":
        return _not_running(engine, container_id, left)
    if condition == "next-exit":
        return _next_exit(engine, container_id, left)
    if condition == "removed":
        return _removed(engine, container_id, left)
    raise InvalidArgument(f"condition={condition!r}: one of not-running, next-exit, removed, healthy")


def _span(seconds: float | None) -> float:
    return _ASK_S if seconds is None else min(seconds, _ASK_S)


def _not_running(engine: "LocalEngine", container_id: str, left: Callable[[], float | None]) -> ExitRecord | None:
    while True:
        seconds = left()
        ended = engine.wait(container_id, _span(seconds))
        if ended is not None or seconds == 0:
            return ended


def _next_exit(engine: "LocalEngine", container_id: str, left: Callable[[], float | None]) -> ExitRecord | None:
    """Its shim tells; while it does not run its files are looked at: it may begin, and even end, at any moment."""
    run = engine.store.run_directory(container_id)
    before = engine.state(engine.record(container_id)).exit
    while True:
        seconds = left()
        try:
            return ExitRecord.from_json(shims.call(str(run), "wait", _span(seconds), until="next-exit"))
        except TimeoutError:
            if seconds == 0:
                return None
            continue
        except shims.ShimGone:
            pass
        now = _settled_exit(engine, container_id)
        if now is not None and now != before:
            return now
        if seconds == 0:
            return None
        sleep(_POLL_S)


def _settled_exit(engine: "LocalEngine", container_id: str) -> ExitRecord | None:
    """How it ended; None while it does not look ended, or is just being started and its files tell nothing."""
    record = engine.record(container_id)
    ended = engine.state(record).exit
    if ended is None or ended.known:
        return ended
    return None if engine.store.is_locked(record.id) else engine.state(record).exit


def _removed(engine: "LocalEngine", container_id: str, left: Callable[[], float | None]) -> ExitRecord | None:
    last: ExitRecord | None = None
    while True:
        seconds = left()
        try:
            state = engine.state(engine.record(container_id))
            if state.alive:
                last = engine.wait(container_id, _span(seconds), gone=True) or last
            else:
                last = state.exit or _NEVER_STARTED
        except ContainerNotFound:  # what removed itself is remembered for a while
            kept = states.read(engine.store.directory(container_id), engine.store.run_directory(container_id), None)
            if kept.exit is None and last is None:
                raise
            return kept.exit or last
        if seconds == 0:
            return None
        sleep(_POLL_S)
