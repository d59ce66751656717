"""Waiting for a container: until it has ended, ends the next time, or is removed."""

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
_NEVER_STARTED = ExitRecord(exit_code=0, known=False)


def wait(engine: "LocalEngine", container_id: str, condition: str, timeout_s: float | None) -> ExitRecord:
    """As `Container.wait`."""
    if condition == "not-running":
        ended = engine.wait(container_id, timeout_s)
    elif condition == "next-exit":
        ended = _next_exit(engine, container_id, timeout_s)
    elif condition == "removed":
        ended = _removed(engine, container_id, timeout_s)
    else:
        raise InvalidArgument(f"condition={condition!r}: one of not-running, next-exit, removed, healthy")
    if ended is None:
        still = "is still there" if condition == "removed" else "still runs"
        raise TimeoutError(f"container {container_id[:12]} {still} after {timeout_s} s")
    return ended


def _next_exit(engine: "LocalEngine", container_id: str, timeout_s: float | None) -> ExitRecord | None:
    """Its shim tells; while it does not run its files are looked at: it may begin, and even end, at any moment."""
    deadline = None if timeout_s is None else monotonic() + timeout_s
    run = engine.store.run_directory(container_id)
    before = engine.state(engine.record(container_id)).exit
    while True:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            return ExitRecord.from_json(shims.call(str(run), "wait", left, until="next-exit"))
        except TimeoutError:
            return None
        except shims.ShimGone:
            pass
        now = _settled_exit(engine, container_id)
        if now is not None and now != before:
            return now
        if left == 0:
            return None
        sleep(_POLL_S)


def _settled_exit(engine: "LocalEngine", container_id: str) -> ExitRecord | None:
    """How it ended; None while it does not look ended, or is just being started and its files tell nothing."""
    record = engine.record(container_id)
    ended = engine.state(record).exit
    if ended is None or ended.known:
        return ended
    return None if engine.store.is_locked(record.id) else engine.state(record).exit


def _removed(engine: "LocalEngine", container_id: str, timeout_s: float | None) -> ExitRecord | None:
    deadline = None if timeout_s is None else monotonic() + timeout_s
    last: ExitRecord | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            state = engine.state(engine.record(container_id))
            if state.alive:
                ended = engine.wait(container_id, left, gone=True)
                if ended is None:
                    return None
                last = ended
            else:
                last = state.exit or _NEVER_STARTED
        except ContainerNotFound:  # what removed itself is remembered for a while
            kept = states.read(engine.store.directory(container_id), engine.store.run_directory(container_id), 0)
            if kept.exit is None and last is None:
                raise
            return kept.exit or last
        if left == 0:
            return None
        sleep(_POLL_S)
