"""Changing a container's limits and restart policy: at once where it runs, and in its records for later starts."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import attrs

from wherry import specification
from wherry.local import replace_document
from wherry.options import Options
from wherry_oci.errors import Conflict, InvalidArgument
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim import client as shims

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine

_FIELDS = (
    *("memory", "memory_reservation", "memory_swap", "pids_limit"),
    *("nano_cpus", "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
)
_UNCHANGED = (None, "", 0)  # docker's 0 leaves a limit as it is; -1 takes it away


class UpdateOptions(TypedDict, total=False):
    """The keyword arguments of `Container.update`; `run`'s, with their meanings."""

    blkio_weight: int
    cpu_period: int
    cpu_quota: int
    cpu_shares: int
    cpus: float
    cpuset_cpus: str
    cpuset_mems: str
    kernel_memory: int | str
    mem_limit: int | str
    mem_reservation: int | str
    memswap_limit: int | str
    nano_cpus: int
    pids_limit: int
    restart_policy: Mapping[str, Any] | str


def update(engine: "LocalEngine", record: "Record", given: Mapping[str, Any]) -> None:
    """As `Container.update`. What is recorded is what is so: a limit that the kernel refuses is taken back."""
    settings, options = _changed(record, given)
    resources = {key: value for key, value in specification.limits(options).items() if _touches(key, given)}
    restart = settings["restart"] if "restart_policy" in given else None
    _record(engine, record, settings, resources, restart)
    try:
        shims.call(str(engine.store.run_directory(record.id)), "update", resources=resources, restart=restart)
    except shims.ShimGone:  # it does not run: the next start has them
        pass
    except BaseException as error:
        old = specification.limits(_options(record.settings))
        _record(
            engine, record, record.settings, {key: old.get(key, {}) for key in resources}, record.settings["restart"]
        )
        if isinstance(error, RuntimeFailure):
            raise Conflict(f"cannot update container {record.name}: {error}") from None
        raise
    engine.note(record, "update")


def _changed(record: "Record", given: Mapping[str, Any]) -> tuple[dict[str, Any], Options]:
    """The settings as they will be. Raises InvalidArgument, TypeError."""
    for name in given:
        if name not in UpdateOptions.__annotations__:
            raise TypeError(f"update() got an unexpected keyword argument {name!r}")
    asked = dict(given)
    if "memswap_limit" in asked and "mem_limit" not in asked and record.settings["memory"]:
        asked["mem_limit"] = record.settings["memory"]
    parsed = Options.parse(None, asked)
    changes = {name: value for name in _FIELDS if (value := getattr(parsed, name)) not in _UNCHANGED}
    settings = {**record.settings, **changes}
    if "restart_policy" in given:
        if record.auto_remove and parsed.restart.name != "no":
            raise InvalidArgument(f"restart_policy: container {record.name} is removed when it ends (auto_remove)")
        settings["restart"] = attrs.asdict(parsed.restart)
    _check(record, settings)
    return settings, _options(settings)


def _check(record: "Record", settings: Mapping[str, Any]) -> None:
    if settings["nano_cpus"] and (settings["cpu_quota"] or settings["cpu_period"]):
        raise InvalidArgument(
            f"container {record.name} would have nano_cpus (or cpus) and cpu_quota/cpu_period, which say the same thing"
        )
    memory, swap = settings["memory"] or 0, settings["memory_swap"] or 0
    if 0 < swap < memory:
        raise InvalidArgument(
            f"mem_limit={memory} is more than memswap_limit={swap}, which counts memory and swap together: raise both"
        )


def _options(settings: Mapping[str, Any]) -> Options:
    return Options(**{name: settings[name] for name in _FIELDS})


def _touches(part: str, given: Mapping[str, Any]) -> bool:
    """Whether *given* is about that part of config.json's resources."""
    prefixes = {"memory": ("mem",), "cpu": ("cpu", "nano_cpus"), "pids": ("pids",)}
    return any(name.startswith(prefixes[part]) for name in given)


def _record(
    engine: "LocalEngine",
    record: "Record",
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
    restart: Mapping[str, Any] | None,
) -> None:
    with engine.database.transaction(durable=False) as connection:
        engine.store.update(connection, record.id, settings)
    path = engine.store.directory(record.id) / "config.json"
    config = json.loads(path.read_bytes())
    config["linux"]["resources"].update(resources)
    replace_document(path, config)
    if restart is not None:
        engine.amend_order(record.id, restart=restart)
