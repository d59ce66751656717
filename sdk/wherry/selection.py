"""Which containers a list shows: docker's filters, over one look at all of them."""

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wherry import network
from wherry.filters import Filters
from wherry.portbinding import container_ports
from wherry.state import State
from wherry_images.errors import ImageNotFound
from wherry_oci.errors import InvalidArgument

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine

FILTERS = (
    *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "label!", "name", "network"),
    *("publish", "since", "status", "volume"),
)
_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTHS = ("starting", "healthy", "unhealthy", "none")

Found = tuple["Record", "State"]


def select(
    engine: "LocalEngine", *, all: bool = False, limit: int | None = None, filters: Mapping[str, Any] | None = None
) -> list[Found]:
    """
    Those that run, or *all*, or the *limit* that were made last whether they run or not; the newest first.

    A filter for a status looks at all, as docker's does. Raises InvalidArgument, and ContainerNotFound for `before` and
    `since` a container that is not there.
    """
    chosen = Filters.parse(filters, FILTERS)
    _check(chosen)
    wanted_last = limit is not None and limit > 0
    fits = _condition(engine, chosen)
    found = []
    for record in engine.records():
        state = _look(engine, record)
        if (all or wanted_last or "status" in chosen or state.alive) and fits(record, state):
            found.append((record, state))
    return found[:limit] if wanted_last else found


def _look(engine: "LocalEngine", record: "Record") -> "State":
    """One that nobody has started when the list was begun has left no files to be looked for."""
    if not record.started and not os.path.exists(engine.store.run_directory(record.id)):
        return State(status="created")
    return engine.state(record)


def _check(filters: Filters) -> None:
    for name, known in (("status", _STATUSES), ("health", _HEALTHS)):
        for value in filters.of(name):
            if value not in known:
                raise InvalidArgument(f"filters: {name}={value!r} is none of {', '.join(known)}")
    for value in filters.of("exited"):
        if not value.lstrip("-").isdigit():
            raise InvalidArgument(f"filters: exited={value!r} is no exit code")
    for name in ("publish", "expose"):
        for value in filters.of(name):
            _ports(name, value)


def _condition(engine: "LocalEngine", filters: Filters) -> "Callable[[Record, State], bool]":
    """Each name that is given must be satisfied; what needs a look-up is looked up once."""
    if not filters:
        return lambda record, state: True
    bounds = [engine.record(name).created for name in filters.of("before")]
    floors = [engine.record(name).created for name in filters.of("since")]
    ancestors = _with_ancestors(engine, filters)
    members = _members(engine, filters)

    def fits(record: "Record", state: "State") -> bool:
        return (
            filters.begins("id", record.id)
            and _names_fit(filters, record.name)
            and filters.labels_fit(record.labels)
            and filters.equals("status", state.status)
            and _exit_fits(filters, state)
            and filters.equals("health", str(state.health["status"]) if state.health is not None else "none")
            and filters.is_so("is-task", False)
            and (not bounds or record.created < max(bounds))
            and (not floors or record.created > min(floors))
            and ("ancestor" not in filters or record.image_id in ancestors or record.image in filters.of("ancestor"))
            and (
                "network" not in filters or record.id in members or record.settings["network"] in filters.of("network")
            )
            and _volumes_fit(filters, record)
            and _ports_fit(filters, "publish", _published(state))
            and _ports_fit(filters, "expose", _exposed(record, state))
        )

    return fits


def _names_fit(filters: Filters, name: str) -> bool:
    """Docker's are regular expressions, over the name with and without the slash that it gives it."""
    if "name" not in filters:
        return True
    try:
        return any(re.search(value, name) or re.search(value, f"/{name}") for value in filters.of("name"))
    except re.error as error:
        raise InvalidArgument(f"filters: name: {error}") from None


def _exit_fits(filters: Filters, state: "State") -> bool:
    if "exited" not in filters:
        return True
    return state.exit is not None and not state.alive and str(state.exit.exit_code) in filters.of("exited")


def _with_ancestors(engine: "LocalEngine", filters: Filters) -> set[str]:
    """The ids of all images that are one of the ancestors, or are built upon one."""
    if "ancestor" not in filters:
        return set()
    found: set[str] = set()
    images = engine.images.list()
    for name in filters.of("ancestor"):
        try:
            ancestor = engine.images.get(name)
        except ImageNotFound:
            continue
        layers = list(ancestor.diff_ids)
        found.add(ancestor.id)
        found |= {image.id for image in images if layers and list(image.diff_ids[: len(layers)]) == layers}
    return found


def _members(engine: "LocalEngine", filters: Filters) -> set[str]:
    """The ids of the containers in one of the networks."""
    wanted = filters.of("network")
    if not wanted:
        return set()
    with engine.database.read() as connection:
        chosen = [one for one in network.networks(connection) if one.name in wanted or _is_id(one.id, wanted)]
        return {endpoint.container for one in chosen for endpoint in network.members(connection, one)}


def _is_id(full: str, wanted: tuple[str, ...]) -> bool:
    return any(value and full.startswith(value) for value in wanted)


def _volumes_fit(filters: Filters, record: "Record") -> bool:
    if "volume" not in filters:
        return True
    wanted = filters.of("volume")
    points = record.settings["mount_points"]
    return any(value in (point["name"], point["source"], point["target"]) for point in points for value in wanted)


def _published(state: "State") -> set[tuple[int, str]]:
    return {(port["container_port"], port["protocol"]) for port in state.ports} | {
        (port["host_port"], port["protocol"]) for port in state.ports
    }


def _exposed(record: "Record", state: "State") -> set[tuple[int, str]]:
    exposed = {one for text in record.settings["exposed_ports"] for one in container_ports(text)}
    return exposed | {(port["container_port"], port["protocol"]) for port in state.ports}


def _ports(name: str, value: str) -> list[tuple[int, str]]:
    try:
        return container_ports(value)
    except InvalidArgument:
        raise InvalidArgument(f"filters: {name}={value!r} is not port[/protocol] or a range of ports") from None


def _ports_fit(filters: Filters, name: str, having: set[tuple[int, str]]) -> bool:
    return name not in filters or any(one in having for value in filters.of(name) for one in _ports(name, value))
