"""Containers as lists show them, in Docker's words."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wherry.engineapi.containerlist import ContainerSummary, HostConfigSummary, NetworkSettingsSummary, PortSummary
from wherry.inspection import mounts_document, places_document
from wherry.membership import all_places
from wherry.portbinding import port_map
from wherry.selection import select
from wherry.spans import duration

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine
    from wherry.membership import Places
    from wherry.state import State

_NANO = 1_000_000_000
_HEALTH = {"starting": "health: starting"}


def summaries(
    engine: "LocalEngine",
    *,
    all: bool = False,
    limit: int | None = None,
    filters: Mapping[str, Any] | None = None,
    sizes: bool = False,
) -> list[ContainerSummary]:
    """As `selection.select`, with *sizes* how large each is."""
    found = select(engine, all=all, limit=limit, filters=filters)
    places = all_places(engine)
    return [_summary(engine, record, state, places.get(record.id, ()), sizes) for record, state in found]


def _summary(
    engine: "LocalEngine", record: "Record", state: "State", places: "Places", sizes: bool
) -> ContainerSummary:
    settings = record.settings
    written = engine.size(record.id) if sizes else 0
    running = state.status in ("running", "paused")
    return ContainerSummary(
        id=record.id,
        names=[f"/{record.name}"],
        image=record.image,
        image_id=record.image_id,
        command=" ".join([*settings["entrypoint"], *settings["command"]]),
        created=record.created // _NANO,
        ports=_ports(state.ports, settings["exposed_ports"]) if running else [],
        labels=dict(record.labels),
        state=state.status,
        status=status_text(state),
        host_config=HostConfigSummary(network_mode=settings["network"]),
        network_settings=NetworkSettingsSummary(networks=places_document(engine, record, places, running=running)),
        mounts=mounts_document(settings),
        size_rw=written,
        size_root_fs=written + engine.images.get(record.image_id).size if sizes else 0,
    )


def _ports(published: Sequence[Mapping[str, Any]], exposed: Sequence[str]) -> list[PortSummary]:
    found = []
    for port, bindings in port_map(published, exposed).items():
        number, _, protocol = port.partition("/")
        found += [
            PortSummary(
                ip=one["HostIp"], private_port=int(number), public_port=int(one["HostPort"] or 0), type=protocol
            )
            for one in bindings or ({"HostIp": "", "HostPort": ""},)
        ]
    return found


def status_text(state: "State") -> str:
    """`Up 3 minutes (healthy)`, `Exited (0) 2 seconds ago`, in the words of `docker ps`."""
    now = time.time_ns()
    if state.status == "created":
        return "Created"
    if state.alive:
        age = duration((now - state.started) / _NANO)
        if state.status == "restarting":
            code = state.exit.exit_code if state.exit is not None else 0
            return f"Restarting ({code}) {age} ago"
        health = f" ({_HEALTH.get(state.health['status'], state.health['status'])})" if state.health else ""
        return f"Up {age}{' (Paused)' if state.status == 'paused' else health}"
    code = state.exit.exit_code if state.exit is not None else 0
    ended = state.exit.finished if state.exit is not None and state.exit.finished else state.started
    return f"Exited ({code}) {duration((now - ended) / _NANO)} ago"
