"""
A container's places in networks: what its shim is told of them, its name files, and live connecting.

What shall be is in the database, what is the shim has made; connecting and disconnecting write the one and do the other
in an order that a repetition after a kill completes.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry import namefiles, nettable, network
from wherry.errors import NotRunning
from wherry.network import Endpoint, EndpointRequest, Network
from wherry.networkoptions import CONTAINER, has_endpoints
from wherry.portbinding import PortBinding
from wherry_oci.errors import Conflict, NotFound
from wherry_shim import client as shims
from wherry_shim import records

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine

Places = Sequence[tuple[Network, Endpoint]]


def places_of(engine: "LocalEngine", record: "Record") -> Places:
    """The container's places in networks, first joined first."""
    with engine.database.read() as connection:
        return network.endpoints(connection, record.id)


def all_places(engine: "LocalEngine") -> dict[str, list[tuple[Network, Endpoint]]]:
    """As `places_of`, of every container at once; one that has none is not in it."""
    with engine.database.read() as connection:
        return network.all_endpoints(connection)


def plan_of(engine: "LocalEngine", record: "Record", places: Places) -> dict[str, Any] | None:
    """What the shim shall make; None for the host's own network. Raises NotRunning for another's that is not there."""
    mode = record.settings["network"]
    if mode == "host":
        return None
    if mode.startswith(CONTAINER):
        return _joined(engine, record, mode.removeprefix(CONTAINER))
    ports = [PortBinding(**port) for port in record.settings["ports"]]
    kind = "none" if mode == "none" else "bridge"
    proxy = bool(ports) and not nettable.available()
    plan = network.plan(record.id, places, ports, mode=kind, proxy=proxy)
    if any(not place.is_default for place, _ in places):
        plan["resolver"] = resolver_of(engine, record)
    for interface, place in zip(plan.get("interfaces", ()), places, strict=True):
        interface.update(names_of(record, *place))
    return plan


def _joined(engine: "LocalEngine", record: "Record", other_id: str) -> dict[str, Any]:
    other = engine.record(other_id)
    pid = engine.state(other).pid
    start = records.start_time(pid) if pid else None
    if start is None:
        raise NotRunning(other.name, engine.state(other).status, f"join {record.name} to the network of")
    return network.plan(record.id, mode="join", path=f"/proc/{pid}/ns/net", process=(pid, start))


def names_of(record: "Record", place: Network, endpoint: Endpoint) -> dict[str, Any]:
    """What the container is called in a network, and calls others there; nobody has a name in the default one."""
    if place.is_default:
        return {}
    names = list(dict.fromkeys([record.name, *endpoint.aliases, record.id[:12]]))
    hostname = record.settings["hostname"]
    if hostname not in names:
        names.append(hostname)
    return {"names": names, "network_name": place.name, "links": [list(link) for link in endpoint.links]}


def resolver_of(engine: "LocalEngine", record: "Record") -> dict[str, Any]:
    """Whom its resolver asks for what no container is called."""
    return {"servers": engine.host_servers(record.settings["dns"])}


# files


def directory_of_names(engine: "LocalEngine", record: "Record") -> Path:
    """Where its hosts, hostname and resolv.conf are: with another's network they are the other's."""
    mode = record.settings["network"]
    owner = mode.removeprefix(CONTAINER) if mode.startswith(CONTAINER) else record.id
    return engine.store.directory(owner)


def write_names(engine: "LocalEngine", record: "Record", places: Places, *, live: bool = False) -> None:
    """
    The files that are mounted over the image's own; written where they are, as a container may have them mounted.

    Whom it is linked to must be there, unless it is *live* already.
    """
    settings = record.settings
    if settings["network"].startswith(CONTAINER):
        return
    host_network = settings["network"] == "host"
    gateway = next((place.gateway for place, _ in places if not place.internal), None)
    extra = namefiles.parse_extra_hosts(
        list(settings["extra_hosts"]), gateway or ("127.0.0.1" if host_network else None)
    )
    extra += _linked(engine, places, live)
    if host_network:
        hosts = Path("/etc/hosts").read_text(encoding="utf-8", errors="surrogateescape")
        hosts += "".join(f"{address}\t{name}\n" for name, address in extra)
    else:
        addresses = [one for _, endpoint in places for one in (endpoint.ipv4, endpoint.ipv6) if one]
        hosts = namefiles.hosts_file(
            settings["hostname"], domainname=settings["domainname"], addresses=addresses, extra_hosts=extra
        )
    resolver = namefiles.resolv_conf(
        namefiles.host_resolv_conf(),
        dns=settings["dns"],
        search=settings["dns_search"] or None,
        options=settings["dns_opt"] or None,
        loopback=host_network,
        named=any(not place.is_default for place, _ in places),
    )
    directory = engine.store.directory(record.id)
    for name, text in (
        ("hosts", hosts),
        ("hostname", namefiles.hostname_file(settings["hostname"])),
        ("resolv.conf", resolver),
    ):
        path = directory / name
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        os.chmod(path, 0o644)  # any user of the container reads them


def _linked(engine: "LocalEngine", places: Places, live: bool) -> list[tuple[str, str]]:
    """Lines for `links` in the default network, where nobody else tells names: as the addresses are now."""
    found = []
    for place, endpoint in places:
        for name, alias in endpoint.links if place.is_default else ():
            try:
                other = engine.record(name)
            except NotFound:
                if live:
                    continue
                raise
            with engine.database.read() as connection:
                its = {its_place.id: its_end for its_place, its_end in network.endpoints(connection, other.id)}
            if place.id not in its:
                if live:
                    continue
                raise Conflict(f"links: container {other.name} is not in network {place.name!r}")
            found += [(known, its[place.id].ipv4) for known in dict.fromkeys((alias, other.name, other.id[:12]))]
    return found


def refresh(engine: "LocalEngine", record: "Record") -> None:
    """Before a further start: what has changed in its networks since its last one."""
    places = places_of(engine, record)
    write_names(engine, record, places)
    path = engine.store.directory(record.id) / "shim.json"
    order = json.loads(path.read_bytes())
    plan = plan_of(engine, record, places)
    if order["network"] != plan:
        engine.amend_order(record.id, network=plan)


# live


def connect(engine: "LocalEngine", name: str, request: EndpointRequest) -> None:
    """
    Give a container, running or not, a place in one more network.

    Raises NetworkNotFound, Conflict when it is there already or has no network of its own, and what `network.allocate`
    does; nothing is changed then.
    """
    record = engine.record(name)
    _check_mode(record, "connected to a network")
    alive = engine.state(record).alive
    with engine.database.transaction() as connection:
        place = network.find_network(connection, request.network)
        known = any(its.id == place.id for its, _ in network.endpoints(connection, record.id))
        if known and not alive:
            raise Conflict(f"container {record.name} is in network {place.name!r} already")
        place, endpoint = network.join(connection, record.id, request)
    if not alive:
        _note(engine, "connect", record, place)
        return
    try:
        network.ensure_bridge(place, engine.run_directory)
        interface = {**network.interface(place, endpoint), **names_of(record, place, endpoint)}
        resolver = None if place.is_default else resolver_of(engine, record)
        answer = _call(engine, record, "connect", interface=interface, table=place.table, resolver=resolver)
    except BaseException:
        if not known:
            with engine.database.transaction() as connection:
                network.release(connection, record.id, place)
        raise
    if known and not answer.get("changed"):
        raise Conflict(f"container {record.name} is in network {place.name!r} already")
    _write_hosts(engine, record)
    _note(engine, "connect", record, place)


def disconnect(engine: "LocalEngine", name: str, network_name: str, *, force: bool = False) -> None:
    """
    Take a container, running or not, out of a network; with *force* even if its shim does not answer.

    Raises NetworkNotFound, NotFound when it is not in it.
    """
    record = engine.record(name)
    with engine.database.transaction() as connection:
        place = network.find_network(connection, network_name)
        if all(its.id != place.id for its, _ in network.endpoints(connection, record.id)):
            raise NotFound(f"container {record.name} is not in network {place.name!r}")
    if engine.state(record).alive:
        try:
            _call(engine, record, "disconnect", network=place.id)
        except Exception:
            if not force:
                raise
    with engine.database.transaction() as connection:
        network.release(connection, record.id, place)
    _write_hosts(engine, record)
    _note(engine, "disconnect", record, place)


def _note(engine: "LocalEngine", action: str, record: "Record", place: Network) -> None:
    engine.events.append("network", action, place.id, container=record.id, name=place.name, type=place.driver)


def renamed(engine: "LocalEngine", record: "Record") -> None:
    """Tell others the new name of a container that runs."""
    if not engine.state(record).alive:
        return
    names = {place.id: names_of(record, place, endpoint) for place, endpoint in places_of(engine, record)}
    if any(names.values()):
        engine.tell_shim(record.id, "names", networks=names)  # if it ended meanwhile the next start tells


def _write_hosts(engine: "LocalEngine", record: "Record") -> None:
    write_names(engine, record, places_of(engine, record), live=True)


def _check_mode(record: "Record", doing: str) -> None:
    mode = record.settings["network"]
    if not has_endpoints(mode):
        raise Conflict(f"container {record.name} has network {mode!r}: it cannot be {doing}")


def _call(engine: "LocalEngine", record: "Record", op: str, **request: Any) -> dict[str, Any]:
    try:
        return shims.call(str(engine.store.run_directory(record.id)), op, **request)
    except shims.ShimGone:
        raise NotRunning(record.name, engine.state(record).status, op) from None
