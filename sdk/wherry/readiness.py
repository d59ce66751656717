"""
What `wait_for=` waits for. Each is a small value; the container's own shim looks, and tells at once.

    with client.run("postgres", wait_for=[LogLine("ready to accept", times=2), Port(5432)]) as database:
"""

import re
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import attrs

from wherry.errors import NotReady
from wherry.options import words
from wherry_oci.errors import InvalidArgument
from wherry_shim import client as shims

if TYPE_CHECKING:
    from wherry.container import Container

_POLL_S = 0.02
_SHOWN = 2048  # characters of the log


@attrs.frozen
class Port:
    """Something listens on it, inside the container; it need not be published."""

    port: int

    def condition(self) -> dict[str, Any]:
        return {"kind": "port", "port": self.port}


@attrs.frozen
class LogLine:
    """A line in which the regular expression is found has been written, by this run, so many times."""

    pattern: str
    times: int = 1

    def condition(self) -> dict[str, Any]:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise InvalidArgument(f"wait_for: LogLine({self.pattern!r}): {error}") from None
        return {"kind": "log", "pattern": self.pattern, "times": self.times}


@attrs.frozen
class Http:
    """A GET is answered with one of the statuses, or with one from 200 to 399."""

    port: int = 80
    path: str = "/"
    statuses: tuple[int, ...] = ()

    def condition(self) -> dict[str, Any]:
        if not self.path.startswith("/") or any(character.isspace() for character in self.path):
            raise InvalidArgument(f"wait_for: Http path {self.path!r} must begin with / and have no spaces")
        return {"kind": "http", "port": self.port, "path": self.path, "statuses": list(self.statuses)}


@attrs.frozen
class File:
    """The path exists in the container."""

    path: str

    def condition(self) -> dict[str, Any]:
        return {"kind": "file", "path": self.path}


@attrs.frozen
class Exec:
    """The command, run in the container, ends with exit code 0."""

    command: str | Sequence[str]

    def condition(self) -> dict[str, Any]:
        return {"kind": "exec", "command": list(words(self.command, "wait_for") or ())}


@attrs.frozen
class Health:
    """Its health check has succeeded."""

    def condition(self) -> dict[str, Any]:
        return {"kind": "health"}


Strategy = Port | LogLine | Http | File | Exec | Health


def strategies(wait_for: Any) -> "list[Strategy | Callable[[Container], object]]":
    """One or several, in their order. Raises InvalidArgument."""
    given = list(wait_for) if isinstance(wait_for, list | tuple) else [wait_for]
    for one in given:
        if isinstance(one, Strategy):
            one.condition()
        elif not callable(one):
            raise InvalidArgument(f"wait_for={one!r}: one of Port, LogLine, Http, File, Exec, Health, or a callable")
    return given


def wait_for(
    container: "Container", wanted: "Sequence[Strategy | Callable[[Container], object]]", timeout: float
) -> None:
    """As `Container.wait_for`."""
    deadline = monotonic() + timeout
    for one in wanted:
        if isinstance(one, Strategy):
            _ask_shim(container, one, deadline, timeout)
        else:
            _ask_caller(container, one, deadline, timeout)


def _ask_shim(container: "Container", strategy: Strategy, deadline: float, timeout: float) -> None:
    engine, record = container._engine, container._record
    if isinstance(strategy, Health) and engine.state(record).alive and engine.state(record).health is None:
        raise InvalidArgument(f"container {record.name} has no health check: give it healthcheck=")
    run = str(engine.store.run_directory(record.id))
    try:
        answer = shims.call(run, "ready", max(0.0, deadline - monotonic()), conditions=[strategy.condition()])
    except TimeoutError:
        raise _late(container, strategy, timeout) from None
    except shims.ShimGone:
        answer = {"ended": True}
    if answer.get("ended"):
        raise NotReady(record.name, engine.state(record).status, strategy, engine.log_end(record))


def _ask_caller(
    container: "Container", is_ready: "Callable[[Container], object]", deadline: float, timeout: float
) -> None:
    while not is_ready(container):
        status = container.status
        if status not in ("running", "paused", "restarting"):
            raise NotReady(container.name, status, is_ready, container._engine.log_end(container._record))
        if monotonic() >= deadline:
            raise _late(container, is_ready, timeout)
        sleep(_POLL_S)


def _late(container: "Container", strategy: object, timeout: float) -> TimeoutError:
    said = container._engine.log_end(container._record).strip()[-_SHOWN:] or "nothing"
    return TimeoutError(f"container {container.short_id} is not ready after {timeout:g} s: {strategy}; it said: {said}")


__all__ = ["Exec", "File", "Health", "Http", "LogLine", "Port", "strategies", "wait_for"]
