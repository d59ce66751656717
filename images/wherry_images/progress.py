"""What a pull or a push tells while it runs."""

import time
from collections.abc import Callable, Generator
from typing import Literal, TypeVar

import attrs

T = TypeVar("T")
E = TypeVar("E")
Phase = Literal[
    "resolving",  # asking the registry what the name stands for
    "waiting",  # another process is fetching the same
    "downloading",
    "unpacking",
    "uploading",
    "mounted",  # the registry had it in another repository
    "exists",  # it was there already
    "done",
]


@attrs.frozen
class PullEvent:
    """One step: *layer* is the digest of the layer as stored, "" for the image as a whole."""

    layer: str
    phase: Phase
    current: int = 0  # bytes
    total: int | None = None  # bytes, None where nobody knows


@attrs.frozen
class PushEvent:
    """As PullEvent, of a push."""

    layer: str
    phase: Phase
    current: int = 0
    total: int | None = None


_INTERVAL_S = 0.1


class Throttle:
    """Tells a growing count of bytes, but not more often than anybody can look; the last one always."""

    def __init__(self, tell: Callable[[int], None], total: int | None) -> None:
        self._tell, self._total = tell, total
        self._last = 0.0

    def __call__(self, current: int) -> None:
        now = time.monotonic()
        if now - self._last >= _INTERVAL_S or current == self._total:
            self._last = now
            self._tell(current)


def drive(events: Generator[E, None, T], progress: Callable[[E], None] | None) -> T:
    """Run *events* to their end, showing each to *progress*; what they return."""
    try:
        while True:
            event = next(events)
            if progress is not None:
                progress(event)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        events.close()
