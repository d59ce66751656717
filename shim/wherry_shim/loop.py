"""The shim's one thread: descriptors that wait, and what to do when they need not wait any more."""

import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLRDHUP
WRITABLE = select.POLLOUT


class Loop:
    """poll(2) over handlers; not reentrant."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._idle: list[Callable[[], bool]] = []
        self.running = True

    def watch(self, fd: int, events: int, handler: "Callable[[int], None]") -> None:
        """Call *handler*(events) whenever one of *events* holds on *fd*; again to change either."""
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Before *fd* is closed. Safe to repeat."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, action: "Callable[[], None]") -> None:
        """Call *action* once, *seconds* from now by the clock that nobody sets."""
        self._timers.append((monotonic() + seconds, action))

    def when_idle(self, step: "Callable[[], bool]") -> None:
        """Call *step* whenever nothing else is to be done, until it returns False; one after the other."""
        self._idle.append(step)

    def run(self) -> None:
        """Until `running` is False."""
        while self.running:
            self.step()

    def step(self) -> None:
        """Wait once, and do what is due."""
        ready = self._poll.poll(self._next_timeout())
        if not ready and self._idle and not self._idle[0]():
            self._idle.pop(0)
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:  # an earlier handler of this round may have closed it
                handler(events)
        now = monotonic()
        due = [timer for timer in self._timers if timer[0] <= now]
        if due:
            self._timers = [timer for timer in self._timers if timer[0] > now]
            for _, action in due:
                action()

    def _next_timeout(self) -> float | None:
        if self._idle:
            return 0
        if not self._timers:
            return None
        return max(0.0, (min(when for when, _ in self._timers) - monotonic()) * 1000 + 1)
