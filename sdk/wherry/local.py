"""The engine without a daemon: what the caller's own process does to containers, with all state on disk."""

import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGKILL, Signals
from time import monotonic, sleep, time_ns
from typing import TYPE_CHECKING, Any, Literal

import attrs

from wherry import logdrivers, membership, mountplan, namefiles, network, recovery, specification, volumes
from wherry import state as states
from wherry.containerstore import COMPONENT, MIGRATIONS, ContainerStore, Record
from wherry.errors import (
    START_FAILURES,
    ContainerNotFound,
    NotHealthy,
    NotRunning,
    PortInUse,
    StartFailed,
)
from wherry.logreader import LogReader, Reader, last, open_log
from wherry.mounts import IMAGE, VOLUME, MountPoint
from wherry.networkoptions import CONTAINER
from wherry.options import OWN_RUNTIME, Options, health_check, published
from wherry.reservation import Reservation, modules_for
from wherry.storage import Storage
from wherry_images import Image
from wherry_images.errors import ImageNotFound
from wherry_oci.errors import Conflict, InvalidArgument, Unavailable, Unsupported
from wherry_oci.linux.ids import is_host_root
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_shim import client as shims
from wherry_shim import records
from wherry_shim.exectable import EXECS
from wherry_shim.launch import Shim, ShimFailed
from wherry_shim.logs import LogWriter
from wherry_shim.tree import remove_tree

if TYPE_CHECKING:
    from wherry.pool import Held
    from wherry.rootfsview import RootfsView
    from wherry_images.diff import Change

_REMOVE_TIMEOUT_S = 10.0
_LOCK_S = 0.1  # after that it is looked again who has it
_SHOWN_LINES = 20
_IMAGE_TRIES = 5
_POLL_S = 0.002


def signal_number(signal: int | str) -> int:
    """15, "TERM" or "SIGTERM". Raises InvalidArgument."""
    if isinstance(signal, int) or signal.isdigit():
        return int(signal)  # of an enumeration, too
    name = signal.upper() if signal.upper().startswith("SIG") else f"SIG{signal.upper()}"
    try:
        if name.startswith("SIGRTMIN+"):
            return int(Signals.SIGRTMIN) + int(name[len("SIGRTMIN+") :])
        if name.startswith("SIGRTMAX-"):
            return int(Signals.SIGRTMAX) - int(name[len("SIGRTMAX-") :])
        return int(Signals[name])
    except (KeyError, ValueError):
        raise InvalidArgument(f"signal {signal!r}: no such signal; signal(7) lists them") from None


class LocalEngine(Storage):
    """Containers, images and networks below *root* and *run*; what is said of Storage is true of it."""

    def __init__(self, root: Path, run: Path, mirrors: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(root, run, mirrors)
        self.network: int | None = None  # a descriptor of the one that bridges are in, when it is not this process's
        self.owner = 0  # the process whose container it is, when it is not this one
        self.store = ContainerStore(self.database, root, run)
        self.volumes = volumes.VolumeStore(self.database, root)

    reaches_bridges = True  # whether this host's network has the bridges

    # reaching it

    def open(self) -> None:
        """Make the directories and tables at first need. Raises PermissionDenied, Unavailable."""
        super().open()
        self.database.migrate(COMPONENT, MIGRATIONS)
        self.database.migrate(network.COMPONENT, network.MIGRATIONS)
        self.database.migrate(volumes.COMPONENT, volumes.MIGRATIONS)

    def do(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call *function*, with the engine first, where containers' files and networks can be reached: here."""
        return function(self, *arguments, **keywords)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A writing transaction; a power cut may take its last effects, never half of one."""
        with self.database.transaction(durable=False) as connection:
            yield connection

    def prepare(self) -> None:
        """Open, and take away what killed processes left."""
        self.open()
        recovery.collect(self.store, self.images)

    def record(self, name: str) -> Record:
        """Raises ContainerNotFound."""
        self.prepare()
        with self.database.read() as connection:
            return self.store.find(connection, name)

    def own_record(self, container_id: str) -> Record:
        """
        By the whole id, with no look at the others unless something about this one is out of order.

        Raises ContainerNotFound.
        """
        self.open()
        with self.database.read() as connection:
            record = self.store.get(connection, container_id)
        lasts = record is not None and record.whole and not record.auto_remove
        if record is None or not lasts or not os.path.exists(self.store.directory(container_id)):
            return self.record(container_id)
        return record

    def records(self) -> list[Record]:
        """Every container's row, the newest first."""
        self.prepare()
        with self.database.read() as connection:
            return self.store.all(connection)

    def state(self, record: Record) -> states.State:
        """As it is now."""
        return states.read(self.store.directory(record.id), self.store.run_directory(record.id), record.started)

    # making

    def image(self, reference: str, options: Options) -> Image:
        """The image, pulled if the policy says so. Raises what wherry_images raises."""
        if options.pull == "missing":
            try:
                return self.images.get(reference, platform=options.platform)
            except ImageNotFound:
                return self._pulled(reference, self.images.pull(reference, platform=options.platform))
        if options.pull == "never":
            return self.images.get(reference, platform=options.platform)
        policy: Literal["always", "newer"] = "newer" if options.pull == "newer" else "always"
        return self._pulled(reference, self.images.pull(reference, platform=options.platform, policy=policy))

    def _pulled(self, reference: str, image: Image) -> Image:
        self.events.append("image", "pull", reference, name=reference)
        return image

    def create(self, image: str, options: Options) -> Record:
        """A container that is not started. Raises NameInUse and more; nothing of it is left then."""
        self.prepare()
        found = self.image(image, options)
        with self._reserve(options, with_shim=False) as place:
            record = self._make(place, image, found, options)
            with self._transaction() as connection:
                self.store.mark_whole(connection, record.id)
            place.take()
        return record

    def run(
        self,
        image: str,
        options: Options,
        *,
        place: Reservation | None = None,
        before_start: Callable[[Record], None] = lambda record: None,
    ) -> Record:
        """
        A started container. Raises StartFailed and more; nothing of it is left then.

        *place*, if it is given, is used up or given up by this.
        """
        with ExitStack() as reserved:
            if place is not None:
                reserved.enter_context(place)
            self.prepare()
            found = self.image(image, options)
            if place is None or place.cgroup != f"{options.cgroup_parent}/{place.id}":
                place = reserved.enter_context(self._reserve(options))
                if place.shim is not None:
                    place.shim.move()
            record = self._make(place, image, found, options)
            try:
                before_start(record)
                self._start(record, place.lock, place.shim)
            except BaseException:
                self.discard(record.id)
                raise
            place.take()
        return record

    def hold(self, image: str, options: Options) -> "Held":
        """
        A container that is made but for its program, bound to this process. Raises StartFailed and more; nothing of it
        is left then.
        """
        from wherry.pool import Held

        if options.runtime != OWN_RUNTIME:
            raise Unsupported(
                f"a pool takes the runtime {OWN_RUNTIME!r}: {options.runtime!r} is told the program at creation"
            )
        self.prepare()
        found = self.image(image, options)
        with ExitStack() as reserved:
            place = reserved.enter_context(self._reserve(options))
            assert place.shim is not None
            place.shim.move()
            record = self._make(place, image, found, options)
            try:
                self._bring(record, place.shim, place.shim.hold, place.lock)
            except BaseException:
                self.discard(record.id)
                raise
            reserved.pop_all()
        return Held(self, place, place.shim, record, found.config)

    def _reserve(self, options: Options, *, with_shim: bool = True) -> Reservation:
        try:
            ahead = modules_for(options.network, ports=bool(options.ports or options.publish_all_ports))
            return Reservation(str(self.root), options.cgroup_parent, with_shim=with_shim, ahead=ahead)
        except OSError as error:
            raise Unavailable(f"{error.filename or self.root}: {(error.strerror or str(error)).lower()}") from error

    def _make(self, place: Reservation, image_name: str, image: Image, options: Options) -> Record:
        """The container's row and files."""
        options = self._with_other(options)
        hostname = self._hostname(options, place.id)
        directory = self.store.directory(place.id)
        mountplan.make_sources(options.mounts)
        try:
            record, image, program = self._record(place.id, image_name, image, options, hostname)
            self.note(record, "create")
            points = mount_points(record)
            spec = specification.document(
                options,
                program,
                container_id=place.id,
                hostname=hostname,
                directory=str(membership.directory_of_names(self, record)),
                points=points,
            )
            if options.user_ids:
                from wherry import userids

                userids.apply(spec, record.settings["user_ids"], points)
            if not is_host_root():
                from wherry.rootless import adaptation

                adaptation.adapt(spec, options)
            if options.runtime != OWN_RUNTIME:
                self._adapt_to_runtime(spec, options)
            self._fill_volumes(place.id, image, options, points)
            for name in ("rootfs", "log"):
                os.mkdir(directory / name, 0o700)
            LogWriter(str(directory / "log")).close()  # empty, so that it can be followed from before the start
            if options.log.driver == "json-file":
                (directory / f"{place.id}-json.log").touch(0o640)
            (directory / "config.json").write_text(json.dumps(spec), encoding="utf-8", errors="surrogateescape")
            self._write_order(record, options, program, image)
        except BaseException:
            self.discard(place.id)
            raise
        return record

    @staticmethod
    def _adapt_to_runtime(spec: dict[str, Any], options: Options) -> None:
        from wherry import otherruntimes

        if not is_host_root():
            raise Unsupported(
                f"runtime={options.runtime!r} takes root: an ordinary user's containers have {OWN_RUNTIME!r}"
            )
        otherruntimes.adapt(spec, options)

    def _with_other(self, options: Options) -> Options:
        """The container whose network is to be shared, by its id. Raises ContainerNotFound, Conflict."""
        if not options.network.startswith(CONTAINER):
            return options
        other = self.record(options.network.removeprefix(CONTAINER))
        if other.settings["network"].startswith(CONTAINER):
            raise Conflict(f"container {other.name} has no network of its own: share that of whom it shares it with")
        return attrs.evolve(options, network=f"{CONTAINER}{other.id}")

    def _record(
        self, container_id: str, image_name: str, image: Image, options: Options, hostname: str
    ) -> tuple[Record, Image, specification.Program]:
        """The container's row, which holds its images; one that is removed just before that is found or pulled anew."""
        tries = _IMAGE_TRIES
        while True:
            program = specification.program_of(options, image.config, image_name)
            mounted = self._mounted_images(options)
            try:
                record = self._insert(container_id, image_name, image, options, program, hostname, mounted)
            except ImageNotFound:
                tries -= 1
                if not tries:
                    raise
                image = self.image(image_name, options)
            else:
                return record, image, program

    def _mounted_images(self, options: Options) -> dict[str, Image]:
        """The images that are to be mounted in the container, by target; pulled as its own would be."""
        return {
            request.target: self.image(request.source, options) for request in options.mounts if request.kind == IMAGE
        }

    def _fill_volumes(self, container_id: str, image: Image, options: Options, points: Sequence[MountPoint]) -> None:
        """The first use of a volume brings what the image has in its place."""
        if not any(point.kind == VOLUME for point in points):
            return
        directory = self.store.directory(container_id)
        uncopied = [request.target for request in options.mounts if request.no_copy]
        with mountplan.RootOpener(self.images.mounts(image, directory, read_only=True)) as root:
            mountplan.fill(self.volumes, points, uncopied, root)

    def _hostname(self, options: Options, container_id: str) -> str:
        if options.network == "host" or "uts" in options.isolation.shared:
            return options.hostname or os.uname().nodename
        if options.network.startswith(CONTAINER):
            other: str = self.record(options.network.removeprefix(CONTAINER)).settings["hostname"]
            return other
        return options.hostname or container_id[:12]

    def _insert(
        self,
        container_id: str,
        image_name: str,
        image: Image,
        options: Options,
        program: specification.Program,
        hostname: str,
        mounted: Mapping[str, Image],
    ) -> Record:
        exposed = (*(image.config.exposed_ports or ()), *options.expose)
        ports = published(options, exposed)
        settings = {
            **attrs.asdict(options, filter=lambda field, _: field.name not in ("wait_for", "wait_timeout")),
            **attrs.asdict(program),
            "hostname": hostname,
            "ports": [attrs.asdict(port) for port in ports],
            "exposed_ports": list(dict.fromkeys(exposed)),
        }
        directory = self.store.directory(container_id)
        with self._transaction() as connection:
            inherited = [
                point
                for name, mode in options.volumes_from
                for point in mountplan.inherited(self.store.find(connection, name).settings["mount_points"], mode)
            ]
            points = mountplan.mount_points(
                connection,
                self.volumes,
                container_id,
                options,
                declared=image.config.volumes or (),
                inherited=inherited,
                images={
                    target: self.images.mounts(found, directory / f"image-{found.id[-12:]}", read_only=True)
                    for target, found in mounted.items()
                },
            )
            if options.user_ids:
                from wherry import userids

                others = [row.settings.get("user_ids") for row in self.store.all(connection)]
                settings["user_ids"] = userids.free(options.user_ids, [ids for ids in others if ids])
            settings["mount_points"] = [attrs.asdict(point) for point in points]
            record = Record(
                id=container_id,
                name=options.name or self.store.free_name(connection),
                image=image_name,
                image_id=image.id,
                created=time_ns(),
                started=0,
                whole=False,
                auto_remove=options.auto_remove,
                labels={**(image.config.labels or {}), **options.labels},
                settings=settings,
            )
            self.store.insert(connection, record)
            for held in (image, *mounted.values()):
                self.images.hold(connection, container_id, held)
            for request in options.endpoints:
                network.join(connection, container_id, request)
        return record

    def _write_order(self, record: Record, options: Options, program: specification.Program, image: Image) -> None:
        """The shim's instructions, and the files that are mounted over the image's own."""
        directory = self.store.directory(record.id)
        places = membership.places_of(self, record)
        order = {
            "id": record.id,
            "directory": str(directory),
            "run": str(self.store.run_directory(record.id)),
            "rootfs": [attrs.asdict(mount) for mount in self.images.mounts(image, directory)],
            "user": program.user,
            "groups": list(options.group_add),
            "terminal": options.tty,
            "stdin": options.stdin_open,
            "init": options.init,
            "network": self._first_plan(record, places),
            "cgroup": f"{options.cgroup_parent}/{record.id}",
            "runtime": self._runtime(options),
            "seccomp": self._seccomp(options),
            "log": logdrivers.order(options.log, record),
            "remove": options.auto_remove,
            "restart": {"name": options.restart.name, "maximum": options.restart.maximum},
            "health": health_check(options, image.config.healthcheck),
            "owner": self._owner() if options.lifetime == "owner" else None,
            "events": {"directory": self.events.directory, "attributes": record.event_attributes},
        }
        (directory / "shim.json").write_text(json.dumps(order), encoding="utf-8", errors="surrogateescape")
        membership.write_names(self, record, places)

    def _first_plan(self, record: Record, places: membership.Places) -> dict[str, Any] | None:
        """Another's network need not be there when a container is made, only when it is started."""
        try:
            return membership.plan_of(self, record, places)
        except NotRunning:
            return network.plan(record.id, mode="join", path="")

    @staticmethod
    def _runtime(options: Options) -> str | None:
        """The path of its command; None for the one in the shim's own process. Raises InvalidArgument."""
        if options.runtime == OWN_RUNTIME:
            return None
        from wherry import otherruntimes

        return otherruntimes.path_of(options.runtime)

    def _seccomp(self, options: Options) -> str | None:
        if options.privileged or options.seccomp_unconfined or options.runtime != OWN_RUNTIME:
            return None
        from wherry import seccompcache

        return seccompcache.default_filter(self.root, specification.capabilities_of(options))

    # starting and ending

    def start(self, name: str) -> None:
        """Start a created or exited container; one that runs is left as it is. Raises StartFailed."""
        record = self.record(name)
        if self.state(record).alive:
            return
        with self.store.locked(record.id, _REMOVE_TIMEOUT_S, "start") as lock:
            recovery.end_orphans(self.store, record.id)
            for leftover in (self.store.directory(record.id), self.store.run_directory(record.id)):
                (leftover / records.EXIT).unlink(missing_ok=True)
            remove_tree(str(self.store.run_directory(record.id) / EXECS))
            membership.refresh(self, record)
            self._start(record, lock)

    def _start(self, record: Record, lock: int, shim: Shim | None = None) -> None:
        if shim is None:
            shim = self._new_shim(record)
        self._bring(record, shim, shim.order, lock)
        with self._transaction() as connection:
            self.store.mark_started(connection, record.id)

    def _bring(self, record: Record, shim: Shim, order: Callable[[str, int, int | None], None], lock: int) -> None:
        """Have all that its shim needs in its place, and *order* it. Raises StartFailed; its shim is gone then."""
        run = self.store.run_directory(record.id)
        try:
            os.makedirs(run, 0o700, exist_ok=True)
            if record.settings["network"].startswith(CONTAINER):
                membership.plan_of(self, record, ())  # for its error
            for place, _ in membership.places_of(self, record):
                network.ensure_bridge(place, self.run_directory)
            for point in mount_points(record):
                if point.kind == VOLUME:
                    self.volumes.mount(self.volumes.get(point.name))
            order(str(run), lock, self.network)
        except ShimFailed as failure:
            recovery.clear_failed_start(self.store, record.id)
            raise start_error(record.name, failure.report) from None
        except BaseException:
            shim.dismiss()
            raise

    def _new_shim(self, record: Record) -> Shim:
        settings = record.settings
        ahead = modules_for(settings["network"], ports=bool(settings["ports"]))
        shim = Shim(str(self.store.directory(record.id)), f"{settings['cgroup_parent']}/{record.id}", ahead)
        shim.move()
        return shim

    def _owner(self) -> dict[str, int | None]:
        """Whose process it is, so that the shim can tell when that ends."""
        pid = self.owner or os.getpid()
        return {"pid": pid, "start": records.start_time(pid)}

    def host_servers(self, dns: Sequence[str]) -> list[str]:
        """Whom a container's resolver asks: *dns* if given, else the host's."""
        return namefiles.servers(namefiles.host_resolv_conf(), dns)

    def kill(self, name: str, signal: int | str, *, stop: bool = False) -> None:
        """Send *signal*; with *stop* it is not started again whatever its restart policy. Raises NotRunning."""
        number = signal_number(signal)
        record = self.record(name)
        current = self.state(record)
        if not current.alive:
            raise NotRunning(record.name, current.status, "kill")
        try:
            # What is meant to end it keeps it from being started again.
            stop = stop or number in (SIGKILL, signal_number(record.settings["stop_signal"]))
            shims.call(str(self.store.run_directory(record.id)), "kill", signal=number, stop=stop)
        except shims.ShimGone:
            if states.shim_is_alive(self.store.run_directory(record.id)):
                raise NotRunning(record.name, "exited", "kill") from None
            recovery.signal_orphan(self.store, record, current, number)

    def stop(self, name: str, timeout_s: float | None = None, signal: int | str | None = None) -> None:
        """Ask it to end by *signal* (its stop signal), and kill it after *timeout_s* (its stop timeout)."""
        record = self.record(name)
        if not self.state(record).alive:
            return
        chosen = signal if signal is not None else record.settings["stop_signal"]
        patience = record.settings["stop_timeout"] if timeout_s is None else timeout_s
        self._unfreeze(record)
        try:
            self.kill(record.id, chosen, stop=True)
            if self.wait(record.id, patience if patience >= 0 else None) is None:
                self.kill(record.id, SIGKILL)
                self.wait(record.id)
        except (NotRunning, ContainerNotFound):  # it ended, or was removed, by itself meanwhile
            return
        self.note(record, "stop")

    def _unfreeze(self, record: Record) -> None:
        """A frozen process takes no signal until it thaws."""
        if self.state(record).status == "paused":
            shims.call(str(self.store.run_directory(record.id)), "unpause")

    def wait(
        self, container_id: str, timeout_s: float | None = None, *, gone: bool = False
    ) -> states.ExitRecord | None:
        """
        How it ended, once it has; None when that takes longer than *timeout_s*.

        With *gone* its network and cgroup are down too, and an auto-removed container is removed. One that was
        never started has not ended: Conflict.
        """
        run = self.store.run_directory(container_id)
        try:
            until = {"until": "gone"} if gone else {}
            return states.ExitRecord.from_json(shims.call(str(run), "wait", timeout_s, **until))
        except TimeoutError:
            return None
        except shims.ShimGone:
            return self._wait_without_shim(container_id, timeout_s, gone)

    def _wait_without_shim(self, container_id: str, timeout_s: float | None, gone: bool) -> states.ExitRecord | None:
        """It has ended or is about to, was never started, or its shim was killed."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        directory, run = self.store.directory(container_id), self.store.run_directory(container_id)
        while True:
            busy = self.store.is_locked(container_id)
            current = states.read(directory, run, None)
            if current.exit is not None and not (gone and busy):
                return current.exit
            if not busy and current.status == "created":
                return self._never_told(container_id)
            if deadline is not None and monotonic() >= deadline:
                return None
            sleep(_POLL_S)

    def _never_told(self, container_id: str) -> states.ExitRecord:
        record = self.record(container_id)
        current = self.state(record)
        if current.exit is None:
            raise Conflict(f"container {record.name} was not started: start it before you wait for it")
        return current.exit

    def wait_healthy(self, name: str, timeout_s: float | None = None) -> None:
        """As `Container.wait_healthy`."""
        record = self.record(name)
        current = self.state(record)
        if current.alive and current.health is None:
            raise InvalidArgument(f"container {record.name} has no health check: give it healthcheck=")
        try:
            answer = shims.call(str(self.store.run_directory(record.id)), "wait", timeout_s, until="healthy")
        except TimeoutError:
            raise TimeoutError(f"container {record.name} is not healthy after {timeout_s} s") from None
        except shims.ShimGone:
            answer = {}
        status = str(answer.get("health") or "exited")
        if status == "healthy":
            return
        health = self.state(record).health
        said = health["log"][-1]["output"] if health and health["log"] else self.log_end(record)
        raise NotHealthy(record.name, status, said)

    def log_end(self, record: Record) -> str:
        try:
            with self.log_reader(record) as reader:
                lines = list(last(reader, _SHOWN_LINES, frozenset((1, 2))))
        except (ContainerNotFound, Unsupported):  # it was removed, or keeps none
            return ""
        return b"".join(line.content for line in lines).decode("utf-8", "replace")

    def remove(self, name: str, *, force: bool = False, anonymous_volumes: bool = False) -> None:
        """
        Remove it; one that runs only with *force*, which kills it. With *anonymous_volumes* those go along that have no
        name and no other container. Raises Conflict, ContainerNotFound.
        """
        record = self.record(name)
        deadline = monotonic() + _REMOVE_TIMEOUT_S
        while True:
            self._end_for_removal(record, force)
            try:
                with self.store.locked(record.id, _LOCK_S, "remove"):
                    recovery.discard(
                        self.store, self.images, record.id, anonymous_volumes=anonymous_volumes or record.auto_remove
                    )
                return
            except ContainerNotFound:  # it removed itself
                recovery.collect(self.store, self.images)
                return
            except Conflict:  # somebody starts it, say: look again whether it runs
                if monotonic() >= deadline:
                    raise

    def _end_for_removal(self, record: Record, force: bool) -> None:
        if not self.state(record).alive:
            return
        if not force:
            raise Conflict(f"container {record.name} is running: stop it first, or remove it with force=True")
        self._unfreeze(record)
        try:
            self.kill(record.id, SIGKILL)
            self.wait(record.id)
        except (NotRunning, ContainerNotFound):
            return

    def discard(self, container_id: str) -> None:
        """Take everything away of a container that never was; its lock is held by the caller."""
        recovery.discard(self.store, self.images, container_id, anonymous_volumes=True)

    def pause(self, name: str, paused: bool) -> None:
        """Freeze or thaw all its processes. Raises NotRunning, or Conflict when that is so already."""
        record = self.record(name)
        try:
            shims.call(str(self.store.run_directory(record.id)), "pause" if paused else "unpause")
        except shims.ShimGone:
            raise NotRunning(record.name, self.state(record).status, "pause" if paused else "unpause") from None

    def written(self, name: str) -> tuple[Record, Image | None]:
        """A container and its image, for what looks at what it wrote."""
        record = self.record(name)
        return record, self.images.get(record.image_id)

    def changes(self, name: str) -> "list[Change]":
        """The files that a container added, modified and deleted (docker diff); not what every start brings along."""
        record, image = self.written(name)
        return _own_changes(self.images.changes(image, self.store.directory(record.id)))

    @contextmanager
    def rootfs(self, name: str) -> "Iterator[RootfsView]":
        """
        The file system of a container, running or not, to read and to write.

        Raises Conflict when it is being started or removed.
        """
        from wherry.rootfsview import ReadView, RootfsView, mount_inside, stopped_root

        record = self.record(name)
        with ExitStack() as opened:
            root = live = self._live_root(record)
            if root is None:
                opened.enter_context(self.store.locked(record.id, _REMOVE_TIMEOUT_S, "open the files of"))
                order = json.loads((self.store.directory(record.id) / "shim.json").read_bytes())
                root = stopped_root(order["rootfs"])
                opened.callback(os.close, root)
                mount_inside(root, [MountPoint.from_json(point) for point in record.settings["mount_points"]])
            else:
                opened.callback(os.close, root)
            yield RootfsView(root) if live is None or not record.settings.get("user_ids") else ReadView(root)

    def _live_root(self, record: Record) -> int | None:
        """A descriptor of its first process' root; None when it does not run."""
        current = self.state(record)
        if not current.pid:
            return None
        try:
            root = os.open(f"/proc/{current.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if self.state(record).pid == current.pid:  # the number was still the container's when it was opened
            return root
        os.close(root)
        return None

    def size(self, name: str) -> int:
        """Bytes of the files that a container wrote; what vanishes meanwhile does not count."""
        record, image = self.written(name)
        directory = self.store.directory(record.id)
        if (upper := directory / "upper").is_dir():
            files = (os.path.join(parent, file) for parent, _, names in os.walk(upper) for file in names)
        else:  # the image was copied, and what was written is told by comparing
            changed = self.images.changes(image, directory)
            files = (f"{directory}/tree{change.path}" for change in changed if change.kind != "deleted")
        total = 0
        for file in files:
            try:
                status = os.lstat(file)
            except FileNotFoundError:
                continue
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_blocks * 512
        return total

    def export(self, name: str) -> Iterator[bytes]:
        """A container's whole root file system as a tar, in pieces."""
        record, image = self.written(name)
        self.note(record, "export")
        return self.images.export(image, self.store.directory(record.id))

    def commit(
        self, name: str, reference: str | None, *, config: Mapping[str, Any], author: str, message: str, pause: bool
    ) -> Image:
        """A new image of a container and what it wrote; *config* in docker's words is laid over the container's own."""
        from wherry.inspection import committed_config

        record, image = self.written(name)
        frozen = pause and self._frozen(record)
        try:
            made = self.images.commit(
                image,
                self.store.directory(record.id),
                reference,
                config={**committed_config(record, image), **config},
                author=author,
                message=message,
                created_by=" ".join([*record.settings["entrypoint"], *record.settings["command"]]),
            )
        finally:
            if frozen:
                self.pause(record.id, False)
        self.note(record, "commit", comment=message, imageID=made.id, imageRef=reference or "")
        return made

    def _frozen(self, record: Record) -> bool:
        """Freeze it if it runs; whether that was so."""
        if self.state(record).status != "running":
            return False
        try:
            self.pause(record.id, True)
        except NotRunning:  # it has ended just now
            return False
        return True

    def rename(self, name: str, new_name: str) -> None:
        """Give a container another name. Raises NameInUse, InvalidArgument."""
        checked = Options.parse(None, {"name": new_name}).name
        record = self.record(name)
        with self._transaction() as connection:
            self.store.rename(connection, record.id, str(checked))
        renamed = attrs.evolve(record, name=str(checked))
        membership.renamed(self, renamed)
        self.note(renamed, "rename", oldName=f"/{record.name}")
        self.amend_order(record.id, events={"directory": self.events.directory, "attributes": renamed.event_attributes})
        self.tell_shim(record.id, "rename", name=checked)

    def amend_order(self, container_id: str, **changes: Any) -> None:
        """Change the instructions that its next shim gets."""
        path = self.store.directory(container_id) / "shim.json"
        replace_document(path, {**json.loads(path.read_bytes()), **changes})

    def tell_shim(self, container_id: str, op: str, **request: Any) -> None:
        """What its shim should know if there is one, and if it is new enough to understand it."""
        try:
            shims.call(str(self.store.run_directory(container_id)), op, **request)
        except (shims.ShimGone, Unsupported):
            return

    def note(self, record: Record, action: str, **facts: object) -> None:
        """Add to the events what was done to a container."""
        self.events.append("container", action, record.id, **{**record.event_attributes, **facts})

    def update(self, name: str, given: Mapping[str, Any]) -> None:
        """As `Container.update`."""
        from wherry import limits

        self.prepare()
        limits.update(self, self.record(name), given)

    def prune(self) -> list[str]:
        """Remove every container that does not run; their ids."""
        removed = []
        for record in self.records():
            if record.whole and not self.state(record).alive:
                try:
                    self.remove(record.id)
                except (Conflict, ContainerNotFound):  # started, or removed, by somebody else meanwhile
                    continue
                removed.append(record.id)
        return removed

    def check(self) -> list[str]:
        """Containers whose records and directories do not agree, a line each; what is dead is collected first."""
        self.prepare()
        with self.database.read() as connection:
            known = {record.id for record in self.store.all(connection)}
        present = set(os.listdir(self.store.directories)) if self.store.directories.exists() else set()
        return [
            *(
                f"container {container_id} has no directory"
                for container_id in known - present
                if self._lasts(container_id)
            ),
            *(f"directory {name} belongs to no container" for name in present - known if self._lasts(name)),
        ]

    def _lasts(self, container_id: str) -> bool:
        """Whether a disagreement is still there, and nobody is at work on it."""
        with self.database.read() as connection:
            row = connection.execute("SELECT 1 FROM container WHERE id = ?", (container_id,)).fetchone()
        directory = os.path.lexists(self.store.directory(container_id))
        return (row is None) == directory and not self.store.is_locked(container_id)

    def socket(self, name: str, family: int, kind: int) -> int:
        """The descriptor of a new socket in a container's network. Raises NotRunning."""
        record = self.record(name)
        try:
            return shims.call_for_descriptor(
                str(self.store.run_directory(record.id)), "socket", family=int(family), type=int(kind)
            )
        except shims.ShimGone:
            raise NotRunning(record.name, self.state(record).status, "connect to") from None

    def processes(self, name: str) -> list[int]:
        """The host's numbers of a container's processes. Raises NotRunning."""
        record = self.record(name)
        if not self.state(record).pid:
            raise NotRunning(record.name, self.state(record).status, "list the processes of")
        group = Cgroup(f"{record.settings['cgroup_parent']}/{record.id}", Hierarchies.own())
        if group.directories:
            return group.pids()
        from wherry.processes import of_namespace

        return of_namespace(self.state(record).pid)

    def converse(self, record: Record, op: str, **request: Any) -> tuple[shims.Conversation, dict[str, Any]]:
        """A conversation with its shim, and the first answer. Raises NotRunning."""
        try:
            conversation = shims.Conversation(str(self.store.run_directory(record.id)), op, **request)
        except shims.ShimGone:
            raise NotRunning(record.name, self.state(record).status, op) from None
        try:
            return conversation, conversation.answer()
        except shims.ShimGone:
            conversation.close()
            raise NotRunning(record.name, self.state(record).status, op) from None
        except BaseException:
            conversation.close()
            raise

    def log_reader(self, record: Record) -> Reader:
        """A container's log; the caller closes it. Raises Unsupported when its driver keeps none, ContainerNotFound."""
        try:
            return open_log(self.store.directory(record.id), record)
        except FileNotFoundError:  # it has just removed itself
            return self.ended_log(record.id)

    def ended_log(self, container_id: str) -> Reader:
        """The last words of a container that removed itself, kept for who waited for it. Raises ContainerNotFound."""
        try:
            return LogReader(Path(records.ended_log(str(self.store.run_directory(container_id)))))
        except FileNotFoundError:
            raise ContainerNotFound(container_id) from None


def replace_document(path: Path, document: Mapping[str, Any]) -> None:
    """Put another JSON document in the place of one, whole at every moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document), encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, path)


# Where every container has something mounted: the places are made in its layer, as in Docker's "init layer".
_MOUNT_POINTS = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


def _own_changes(found: "Sequence[Change]") -> "list[Change]":
    left = [change for change in found if change.kind != "added" or change.path not in _MOUNT_POINTS]
    paths = {change.path for change in left}
    touched = {os.path.dirname(path) for path in _MOUNT_POINTS} - {os.path.dirname(path) for path in paths}
    return [change for change in left if change.kind != "modified" or change.path not in touched]


def mount_points(record: Record) -> list[MountPoint]:
    """A container's binds, volumes and further mounts."""
    return [MountPoint.from_json(point) for point in record.settings["mount_points"]]


def start_error(container: str, report: Mapping[str, Any]) -> StartFailed:
    """The error that a shim's report of failure is."""
    kind, message = report.get("kind"), str(report.get("text") or report.get("message"))
    if kind == "port_in_use":
        return PortInUse(
            container, message, report["address"], report["port"], report["protocol"], report.get("holder")
        )
    made = START_FAILURES.get(str(kind), StartFailed)
    return made(
        container, message, str(report.get("step", "")), str(report.get("path", "")), int(report.get("errno") or 0)
    )
