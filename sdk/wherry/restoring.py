"""Bringing back after a reboot what should run: nobody is there to do it by itself."""

from typing import TYPE_CHECKING

import attrs

from wherry.errors import WherryError

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine
    from wherry.state import State


@attrs.frozen
class Restored:
    """The names of the containers that were started, and of those that could not be, with the reason."""

    started: tuple[str, ...]
    failed: tuple[tuple[str, WherryError], ...]


def restore(engine: "LocalEngine") -> Restored:
    """Start what its restart policy wants started, the oldest first; what runs is left as it is. Safe to repeat."""
    started, failed = [], []
    for record in reversed(engine.records()):
        if not is_wanted(record, engine.state(record)):
            continue
        try:
            engine.start(record.id)
        except WherryError as error:
            failed.append((record.name, error))
        else:
            started.append(record.name)
    return Restored(tuple(started), tuple(failed))


def is_wanted(record: "Record", state: "State") -> bool:
    """Docker's rules when its daemon starts: always, and unless-stopped if nobody stopped it; not what never ran."""
    if not record.started or state.alive or record.settings["lifetime"] == "owner":
        return False
    policy = record.settings["restart"]["name"]
    stopped = state.exit is not None and state.exit.stopped
    return policy == "always" or (policy == "unless-stopped" and not stopped)
