"""What a pull or a push is doing, shown: bars on a terminal, a line for each finished layer elsewhere."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

import click

from wherry_images import PullEvent, PushEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHORT = 12
_LAST_PHASES = ("done", "exists", "mounted")


class TransferDisplay:
    """A context manager; `on_event` is what `progress` of a pull or a push takes."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "TransferDisplay":
        if not self._quiet and sys.stdout.isatty():
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            self._bars = Progress(TextColumn("{task.fields[layer]}: {task.description}"), BarColumn(), DownloadColumn())
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def on_event(self, event: PullEvent | PushEvent) -> None:
        """Show it."""
        layer = event.layer.rpartition(":")[2][:_SHORT]
        if self._quiet:
            return
        if self._bars is None:
            if event.phase in _LAST_PHASES:
                click.echo(f"{layer}: {event.phase}")
            return
        task = self._tasks.get(event.layer)
        if task is None:
            task = self._tasks[event.layer] = self._bars.add_task(event.phase, layer=layer, total=event.total or None)
        self._bars.update(task, description=event.phase, completed=event.current, total=event.total or None)
