"""
Taking away what killed processes left, by reading the same records as everybody else.

What is left over is known by a free lock: nobody is at work on the container, so nobody will finish what was begun.
"""

import os
import re
from pathlib import Path
from select import select
from signal import SIGKILL, pidfd_send_signal
from time import sleep

from wherry import network, state, volumes
from wherry.containerstore import REMOVED_PREFIX, ContainerStore, Record
from wherry.errors import ContainerNotFound
from wherry_images import ImageStore
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_shim import nametable, records
from wherry_shim.eventlog import EventLog
from wherry_shim.portmaps import unpublish
from wherry_shim.tree import remove_tree

_EXIT_KEPT_S = 300  # for those who still ask how an auto-removed container ended
_ID = re.compile(r"[0-9a-f]{64}")
_CGROUP_TRIES = 100
_CGROUP_PAUSE_S = 0.01


def collect(store: ContainerStore, images: ImageStore) -> None:
    """Remove what is dead. A few look-ups when there is nothing; safe from everywhere at once."""
    found_dead = False
    try:
        present = set(os.listdir(store.directories))
    except FileNotFoundError:
        present = set()
    with store.database.read() as connection:
        rows = store.all(connection)
    for name in [name for name in present if name.startswith(REMOVED_PREFIX)]:
        remove_tree(str(store.directories / name))
    known = {row.id for row in rows}
    for container_id in present - known:
        if not container_id.startswith(REMOVED_PREFIX):
            found_dead |= _collect_directory(store, images, container_id)
    for row in rows:
        if row.id not in present:
            _forget_if_gone(store, images, row.id)
        elif not row.whole or row.auto_remove:
            found_dead |= _collect_row(store, images, row)
    _collect_run_directories(store, known)
    if found_dead:
        _collect_networks(store)
        _volumes(store).collect()


def is_needed(store: ContainerStore) -> bool:
    """Whether there may be something for `collect` to remove; a look for who could not remove it."""
    try:
        present = set(os.listdir(store.directories))
    except FileNotFoundError:
        present = set()
    with store.database.read() as connection:
        rows = store.all(connection)
    return present != {row.id for row in rows} or any(
        _is_free(store, row.id) for row in rows if not row.whole or row.auto_remove
    )


def _is_free(store: ContainerStore, container_id: str) -> bool:
    try:
        lock = store.try_lock(container_id)
    except ContainerNotFound:
        return True
    if lock is None:
        return False
    os.close(lock)
    return True


def _volumes(store: ContainerStore) -> volumes.VolumeStore:
    return volumes.VolumeStore(store.database, store.directories.parent)


def _collect_networks(store: ContainerStore) -> None:
    """Devices and addresses whose maker was killed before, or after, its container was known."""
    with store.database.transaction(durable=False) as connection:
        network.collect(connection, {row.id for row in store.all(connection)})


def _collect_directory(store: ContainerStore, images: ImageStore, container_id: str) -> bool:
    """A directory without a row: its maker is between the two, or was killed there. Whether it was removed."""
    try:
        lock = store.try_lock(container_id)
    except ContainerNotFound:  # no lock file: killed before it was made, or about to make it
        try:
            os.rmdir(store.directory(container_id))
        except OSError:
            return False
        return True
    if lock is None:
        return False
    try:
        with store.database.read() as connection:
            row = connection.execute("SELECT 1 FROM container WHERE id = ?", (container_id,)).fetchone()
        if row is None:
            discard(store, images, container_id, anonymous_volumes=True)
        return row is None
    finally:
        os.close(lock)


def _forget_if_gone(store: ContainerStore, images: ImageStore, container_id: str) -> None:
    """A row without a directory: the container removed itself at its end."""
    if not os.path.lexists(store.directory(container_id)):
        _forget(store, images, container_id, anonymous_volumes=True)


def _collect_row(store: ContainerStore, images: ImageStore, row: Record) -> bool:
    """A container in the making, or one that removes itself: whether it was dead, and is removed."""
    try:
        lock = store.try_lock(row.id)
    except ContainerNotFound:
        _forget_if_gone(store, images, row.id)
        return False
    if lock is None:  # its maker or its shim is there
        return False
    try:
        current = state.read(store.directory(row.id), store.run_directory(row.id), row.started)
        ran = current.exit is not None or os.path.exists(store.run_directory(row.id) / records.STATE)
        if current.alive:  # its shim was killed, it goes on
            _mark_whole(store, row)
            return False
        if (row.auto_remove and ran) or not (row.whole or ran):
            discard(store, images, row.id, anonymous_volumes=True)
            return True
        _mark_whole(store, row)
        return False
    finally:
        os.close(lock)


def _mark_whole(store: ContainerStore, row: Record) -> None:
    if not row.whole:
        with store.database.transaction(durable=False) as connection:
            store.mark_whole(connection, row.id)


def _collect_run_directories(store: ContainerStore, known: set[str]) -> None:
    """Live files of containers that are no more; how one that removed itself ended is kept for a while."""
    records.forget_ended(str(store.run), _EXIT_KEPT_S)
    try:
        names = os.listdir(store.run)
    except FileNotFoundError:
        return
    for name in names:
        if _ID.fullmatch(name) and name not in known and not os.path.lexists(store.directory(name)):
            _collect_run_directory(store.run / name)


def _collect_run_directory(directory: Path) -> None:
    """Its shim has moved the container's directory away, and is about to be done, or was killed on the way."""
    if not state.shim_is_alive(directory):
        remove_tree(str(directory))


def discard(store: ContainerStore, images: ImageStore, container_id: str, *, anonymous_volumes: bool) -> None:
    """
    Remove all of a container, with *anonymous_volumes* also its volumes without a name that no other container has.

    The caller has its lock. Safe to repeat.
    """
    orphaned = end_orphans(store, container_id)
    with store.database.read() as connection:
        known = store.get(connection, container_id)
    _forget(store, images, container_id, anonymous_volumes=anonymous_volumes)
    if orphaned:
        _collect_networks(store)
    doomed = store.directories / f"{REMOVED_PREFIX}{container_id}"
    try:
        os.rename(store.directory(container_id), doomed)
    except FileNotFoundError:
        pass
    remove_tree(str(doomed))
    remove_tree(str(store.run_directory(container_id)))
    if known is not None:
        EventLog(str(store.directories.parent / "events")).append(
            "container", "destroy", container_id, **known.event_attributes
        )


def clear_failed_start(store: ContainerStore, container_id: str) -> None:
    """Take away what a start left that failed, or whose shim was killed; the caller has the container's lock."""
    if end_orphans(store, container_id):
        # It may have published ports and not come to say so: those that lead nowhere are found by their addresses.
        with store.database.transaction(durable=False) as connection:
            network.collect(connection, {row.id for row in store.all(connection)}, down=container_id)
    remove_tree(str(store.run_directory(container_id)))


def _forget(store: ContainerStore, images: ImageStore, container_id: str, *, anonymous_volumes: bool) -> None:
    with store.database.transaction(durable=False) as connection:
        network.release(connection, container_id)
        images.release(connection, container_id)
        free = volumes.release(connection, container_id, anonymous=anonymous_volumes)
        store.delete(connection, container_id)
    _volumes(store).settle(free)


def end_orphans(store: ContainerStore, container_id: str) -> bool:
    """Kill what a killed shim left running, and remove its cgroup and published ports. Whether there was one."""
    live = records.read(str(store.run_directory(container_id)), records.STATE)
    if live is not None:
        nametable.forget_container(str(store.run), container_id)
    if live is not None and live.get("ports") and live.get("table"):
        unpublish(live["table"], live["ports"])
    cgroup = _cgroup_of(store, container_id)
    if live is not None and not cgroup.directories:
        _end_process(live.get("pid") or 0, live.get("pid_start"))
    if not any(os.path.isdir(directory) for directory in cgroup.directories):
        return live is not None
    for _ in range(_CGROUP_TRIES):
        cgroup.kill(SIGKILL)
        try:
            cgroup.remove()
            break
        except OSError:  # EBUSY: those that were killed are not gone yet
            sleep(_CGROUP_PAUSE_S)
    return live is not None


def _end_process(pid: int, start: int | None) -> None:
    """Kill a container's first process, and all with it that are in its pid namespace, and see it gone."""
    try:
        process = os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        return
    if process < 0:
        return
    try:
        if records.start_time(pid) == start:
            pidfd_send_signal(process, SIGKILL)
            select([process], [], [], _CGROUP_TRIES * _CGROUP_PAUSE_S)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def _cgroup_of(store: ContainerStore, container_id: str) -> Cgroup:
    with store.database.read() as connection:
        found = connection.execute("SELECT settings FROM container WHERE id = ?", (container_id,)).fetchone()
    parent = "/wherry"
    if found is not None:
        import json

        parent = json.loads(found[0])["cgroup_parent"]
    return Cgroup(f"{parent}/{container_id}", Hierarchies.own())


def signal_orphan(store: ContainerStore, record: Record, current: state.State, number: int) -> None:
    """Send *number* to the first process of a container whose shim is gone; SIGKILL takes all of it."""
    try:
        process = os.pidfd_open(current.pid)
    except ProcessLookupError:
        return
    try:
        if state.read(store.directory(record.id), store.run_directory(record.id), record.started).pid != current.pid:
            return  # the number was another process' by the time it was opened
        pidfd_send_signal(process, number)
    except ProcessLookupError:
        return
    finally:
        os.close(process)
    if number == SIGKILL:
        _cgroup_of(store, record.id).kill(SIGKILL)
