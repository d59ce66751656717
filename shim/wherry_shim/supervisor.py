"""
The life of one container, from its network to its exit record.

Each step is recorded before the next one depends on it, and undone when a later one fails. What the shim holds only as
open descriptors (the network namespace, reserved ports, the lock) the kernel takes back by itself should it be killed.
"""

import os
from _signal import SIGCHLD, SIGHUP, SIGINT, SIGTERM, set_wakeup_fd, signal  # type: ignore[import-not-found] # no enum
from _socket import SOCK_CLOEXEC, socket
from time import monotonic, time_ns

from wherry_oci.linux import namespaces as ns
from wherry_oci.runtime import quickjson
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text
from wherry_shim import records, shimgroup
from wherry_shim.connection import STDERR, Connection
from wherry_shim.eventlog import EventLog
from wherry_shim.exectable import ExecTable
from wherry_shim.execution import Execution
from wherry_shim.logs import LogWriter, NoLog, keep_tail
from wherry_shim.loop import READABLE, Loop
from wherry_shim.maker import Maker
from wherry_shim.restart import RestartPolicy
from wherry_shim.service import Service
from wherry_shim.streams import Streams
from wherry_shim.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry_shim.attachment import Attachment
    from wherry_shim.execution import Prepared
    from wherry_shim.health import HealthMonitor, Probe
    from wherry_shim.jsonfile import JsonFileWriter
    from wherry_shim.naming import Naming
    from wherry_shim.proxy import Proxy

_SIGKILL = 9
_READY_ROUNDS, _READY_PAUSE_MS = 100, 3
_KEPT_LOG = 1 << 16  # bytes of what an auto-removed container wrote last
_REMOVE_TRIES = 100
_REMOVE_PAUSE_S = 0.02


class Supervisor:
    """
    *order* is `shim.json`: `id`, `directory` and `run` (the container's, on disk and live), `rootfs` (mounts), `user`,
    `groups`, `terminal`, `stdin`, `init`, `network` (a plan) or null, `cgroup`, `seccomp` (a file with the filter) or
    null, `log` (`driver` and its `limits`), `remove` (at the end), `restart` (`name`, `maximum`), `health` (health.py)
    or null, `owner` (`pid`, `start`) or null, `events` (the log's `directory`, and the container's `attributes` in it).
    """

    def __init__(self, order: "dict[str, Any]", network: "int | None" = None, maker: Maker | None = None) -> None:
        """
        *network* is the namespace of the bridges, when it is not this process's: an ordinary user's. *maker* waits for
        the first run; each further one has one of its own.
        """
        self._order = order
        self._maker = maker
        self._network = network
        self._user_namespace: int | None = None  # the container's own, held open
        self._directory: str = order["directory"]
        self._run: str = order["run"]
        self._loop = Loop()
        self._service: Service | None = None
        self._attachment: Attachment | None = None
        self._naming: Naming | None = None
        self._proxy: Proxy | None = None
        self._log: LogWriter | JsonFileWriter | NoLog = NoLog()
        self._executions: dict[int, Execution] = {}
        self.execs = ExecTable(self._run)
        self._paused = False
        self._pid = 0
        self._started = 0
        self._began = 0.0
        self._state: dict[str, Any] = {}
        self._record: dict[str, Any] = {}
        self._policy = RestartPolicy(**(order.get("restart") or {}))
        self._stopped = False  # somebody asked it to end
        self._resting = False  # between two runs
        self._oom_kills = 0
        self._waiting: Prepared | None = None  # made, and not started yet
        self._unwanted = False
        self._health: HealthMonitor | None = None
        self._health_told = ""
        self._events = EventLog(order["events"]["directory"])
        self._attributes: dict[str, str] = order["events"]["attributes"]
        self.cgroup = Cgroup(order["cgroup"], Hierarchies.own())
        self.streams: Streams
        self._config = _read_json(f"{self._directory}/config.json")
        self._seccomp = _read_bytes(order["seccomp"]) if order.get("seccomp") else None

    def note(self, action: str, **facts: object) -> None:
        """Add to the root's events what happened to the container."""
        self._events.append("container", action, self._order["id"], **{**self._attributes, **facts})

    def rename(self, name: str) -> None:
        """It is called *name* from here on."""
        self._attributes["name"] = name

    # begin

    def start(self) -> "dict[str, Any]":
        """
        Bring the container to life. Returns its state, which is recorded by then.

        Raises RuntimeFailure, PortInUse or AttachFailed; nothing of it is left then.
        """
        try:
            self._arrive()
            self._begin_run()
        except BaseException:
            self._undo()
            raise
        self._watch_children()
        return self._state

    def _arrive(self) -> None:
        """What comes before its first run, and lasts for all of them."""
        self._record_state("starting")
        self._watch_owner()
        self._make_user_namespace()
        self._attach_network()
        self._log = self._open_log(self._order["log"])

    def prepare(self) -> None:
        """Make all of it but its program, which `start_prepared` is told. Raises as `start` does."""
        try:
            self._arrive()
            self._waiting = self._prepare_run(told_later=True)
        except BaseException:
            self._undo()
            raise

    def await_program(self, line: Channel) -> "dict[str, Any] | None":
        """The `process` that *line* says is to be run; None when nobody wants it any more."""
        self._loop.watch(line.fileno(), READABLE, lambda events: None)
        while not self._unwanted and not line.has_message():
            self._loop.step()
        self._loop.forget(line.fileno())
        message = None if self._unwanted else line.receive()
        process: dict[str, Any] | None = message[0].get("process") if message is not None else None
        return process

    def start_prepared(self, process: "dict[str, Any]") -> "dict[str, Any]":
        """As `start`, once it was prepared; of *process* it takes `args`, `env` and `cwd`."""
        assert self._waiting is not None
        self._config["process"].update(process)
        prepared, self._waiting = self._waiting, None
        try:
            self._go(prepared, process)
        except BaseException:
            self._undo()
            raise
        self._watch_children()
        return self._state

    def withdraw(self) -> None:
        """Nobody wants what was prepared: remove all of it, its directories too."""
        self._undo()
        self._remove_directory()
        remove_tree(self._run)

    def _open_log(self, config: "dict[str, Any]") -> "LogWriter | JsonFileWriter | NoLog":
        driver, limits = config["driver"], config["limits"]
        if driver == "none":
            return NoLog()
        if driver in ("syslog", "journald"):
            return _forwarder(config)
        if driver == "json-file":
            from wherry_shim.jsonfile import JsonFileWriter

            path = f"{self._directory}/{self._order['id']}-json.log"
            return JsonFileWriter(path, max_size=limits["max_size"], max_files=limits["max_files"])
        return LogWriter(f"{self._directory}/log", when_idle=self._loop.when_idle, **limits)

    def _begin_run(self) -> None:
        """One life of the container's program; a restart policy may bring several."""
        self._go(self._prepare_run())

    def _prepare_run(self, *, told_later: bool = False) -> "Prepared":
        try:
            shimgroup.leave(self.cgroup.hierarchies)
        except OSError as error:
            raise RuntimeFailure.from_os_error("leave cgroup", error) from None
        self._log.begin_run()
        return self._create(told_later=told_later)

    def _go(self, process: "Prepared", told: "dict[str, Any] | None" = None) -> None:
        if self._service is None:
            self._service = Service(self._loop, self._run, self)
        self._pid = process.pid
        self._tell_names()
        self._service.keep_appointments(self._run)
        self._started = time_ns()
        self._began = monotonic()
        process.start(told=told)
        self.streams.started()
        self._health = self._monitor_health()
        self._record_state("running")
        self.note("start")

    def _create(self, *, told_later: bool) -> "Prepared":
        self.streams = Streams(
            self._loop,
            terminal=bool(self._order.get("terminal")),
            stdin=bool(self._order.get("stdin")),
            on_output=self._on_output,
        )
        process = self._make_first(told_later=told_later)
        if process.terminal is not None:
            self.streams.use_terminal(process.terminal)
        return process

    # what the runtime does: this one in this very process, others by their commands (foreign.py)

    def _make_first(self, *, told_later: bool) -> "Prepared":
        """The container's first process, with its streams' ends. Raises RuntimeFailure."""
        maker, self._maker = self._maker or Maker(self._order["cgroup"]), None
        job = {
            "config": self._config,
            "entry": {
                "user": self._order.get("user"),
                "added_groups": self._order.get("groups") or [],
                "reap": bool(self._order.get("init")),
                "told_later": told_later,
            },
            "seccomp": self._order.get("seccomp"),
            "rootfs": {"path": f"{self._directory}/rootfs", "mounts": self._order["rootfs"]},
            "run": self._run,
        }
        try:
            return maker.make(job, self.streams.child_ends)
        except BaseException:
            maker.close(wait=True)
            raise

    def _make_further(self, request: "dict[str, Any]", stdio: "tuple[int, int, int] | None") -> "Prepared":
        """A further process, as *request* (execution.py) asks for it. Raises RuntimeFailure."""
        from wherry_oci.linux.process import SECCOMP_FILTER_FLAG_SPEC_ALLOW
        from wherry_oci.runtime import container
        from wherry_oci.runtime.init import Entry

        entry = Entry(
            request["process"],
            user=request.get("user"),
            added_groups=request.get("groups") or [],
            seccomp=self._seccomp,
            seccomp_flags=SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            stdio=stdio,
            reap=False,
        )
        return container.execute(self._pid, self._config, entry, cgroup=self.cgroup)

    def _signal(self, number: int) -> None:
        """To the first process. Raises ProcessLookupError when it has ended, OSError, RuntimeFailure."""
        os.kill(self._pid, number)

    def _freeze(self, frozen: bool) -> None:
        """Until it is so. Raises RuntimeFailure when some process does not follow; then none is stopped."""
        try:
            self.cgroup.freeze_and_wait(frozen)
        except RuntimeFailure:
            if frozen:
                self.cgroup.freeze(False)
            raise

    def _limit(self, resources: "dict[str, Any]") -> None:
        self.cgroup.update(resources)

    def _end_run(self) -> None:
        """What is to be done when a run has ended, before another one begins."""

    def _watch_owner(self) -> None:
        """
        With an owner (`pid` and `start`) the container lives no longer than that process, whichever way that one ends.

        Raises RuntimeFailure when it is gone already.
        """
        owner = self._order.get("owner")
        if owner is None:
            return
        try:
            watched = os.pidfd_open(owner["pid"])
        except ProcessLookupError:
            watched = -1
        if watched < 0 or records.start_time(owner["pid"]) != owner["start"]:
            raise RuntimeFailure("gone", "watch the owner", f"process {owner['pid']}, its owner, has ended")
        self._loop.watch(watched, READABLE, lambda events: self._on_owner_gone(watched))

    def _on_owner_gone(self, watched: int) -> None:
        self._loop.forget(watched)
        os.close(watched)
        self._order["remove"] = True
        self._stopped = True
        if self._waiting is not None:
            self._unwanted = True
            return
        if self._paused:
            self.pause(False)
        if self._resting:
            self._conclude()
        else:
            self.kill(_SIGKILL)

    def _monitor_health(self) -> "HealthMonitor | None":
        config = self._order.get("health")
        if config is None:
            return None
        from wherry_shim.health import HealthMonitor

        return HealthMonitor(self._loop, config, self.run_check, self._on_health)

    def run_check(self, command: list[str], probe: "Probe") -> Execution:
        process = {**self._config["process"], "args": command, "terminal": False}
        request = {"process": process, "user": self._order.get("user"), "groups": self._order.get("groups")}
        return self.execute(request, probe)

    @property
    def pid(self) -> int:
        """The first process'; 0 between two runs."""
        return self._pid

    @property
    def health(self) -> str | None:
        """The health's status; None without a check."""
        return self._health.status if self._health is not None else None

    def _on_health(self) -> None:
        self._record_state(self._state["status"])
        if self._service is not None and self._health is not None:
            self._service.on_health(self._health.status)
            if self._health.status != self._health_told:
                self._health_told = self._health.status
                self.note(f"health_status: {self._health_told}")

    def _make_user_namespace(self) -> None:
        """Where config.json has one; its network belongs to it, so it comes first."""
        linux = self._config["linux"]
        for entry in linux["namespaces"]:
            if entry["type"] == "user":
                from wherry_oci.runtime.usernamespace import open_mapping

                self._user_namespace = open_mapping(linux["uidMappings"], linux["gidMappings"])
                entry["path"] = f"/proc/{os.getpid()}/fd/{self._user_namespace}"

    def _attach_network(self) -> None:
        plan = self._order.get("network")
        if plan is None:
            return
        from wherry_shim import network

        self._attachment = network.attach(plan, self._network, self._user_namespace)
        self._start_naming(plan.get("resolver"))
        self._start_proxy()
        namespace = self._attachment.namespace
        if namespace is not None:
            for entry in self._config["linux"]["namespaces"]:
                if entry["type"] == "network":
                    entry["path"] = f"/proc/{os.getpid()}/fd/{namespace}"

    def _start_naming(self, resolver: "dict[str, Any] | None") -> None:
        """Where the container has a network with names it needs somebody to ask; from then on till its end."""
        if resolver is None or self._naming is not None or self._attachment is None:
            return
        from wherry_shim.naming import Naming

        assert self._attachment.namespace is not None
        try:
            self._naming = Naming(self._loop, self._run, self._attachment.namespace, resolver["servers"])
        except OSError as error:
            raise RuntimeFailure.from_os_error("resolve names", error) from None

    def _start_proxy(self) -> None:
        """What the kernel does not send to the container this process does."""
        published = self._attachment.proxied() if self._attachment is not None else []
        if not published and self._proxy is None:
            return
        from wherry_shim.proxy import Proxy

        self._proxy = self._proxy or Proxy(self._loop)
        self._proxy.use(published)

    def _tell_names(self) -> None:
        if self._naming is None or self._attachment is None:
            return
        from wherry_shim.naming import identity

        try:
            self._naming.tell(self._attachment.interfaces, identity(self._pid))
        except OSError as error:
            raise RuntimeFailure.from_os_error("tell names", error) from None

    def _undo(self) -> None:
        if self._waiting is not None:
            self._waiting.abandon()
            self._waiting = None
        if hasattr(self, "streams"):
            self.streams.close()
        if self._service is not None:
            self._service.close()
        self._take_down()
        self._log.close()
        self._remove_live_files()

    # live

    def run(self) -> None:
        """Serve until the container's end, and see to that."""
        self._loop.run()

    def _watch_children(self) -> None:
        for number in (SIGHUP, SIGINT, SIGTERM):  # a shim ends with its container, not with a terminal or a session
            signal(number, lambda *_: None)
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        set_wakeup_fd(writer)
        signal(SIGCHLD, lambda *_: None)
        self._loop.watch(reader, READABLE, lambda events: self._on_signal(reader))
        self._reap()  # who ended before this was set up

    def _on_signal(self, reader: int) -> None:
        try:
            os.read(reader, 4096)
        except BlockingIOError:
            pass
        self._reap()

    def _reap(self) -> None:
        """Every child that has ended: the container's first process, an exec's, or an orphan of theirs."""
        while self._loop.running:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._end(status)
            elif pid in self._executions:
                self._exec_ended(self._executions.pop(pid), _exit_code(status))

    def _on_output(self, stream: int, piece: bytes) -> None:
        self._log.append(stream, piece, time_ns())
        if self._service is not None:
            self._service.on_output(stream, piece)

    def written(self) -> "Iterator[tuple[int, bytes]]":
        """What the container has written since it was started, as (stream, piece); of much, the end."""
        return ((stream, piece) for _, stream, piece in self._log.replay())

    def kill(self, number: int, *, stop: bool = False) -> None:
        """
        Send signal *number* to the container's first process; with *stop* it is not to be started again.

        Raises RuntimeFailure when it has ended.
        """
        self._stopped |= stop
        if self._resting and stop:  # between two runs: there is nothing to signal, and nothing will follow
            self._conclude()
            return
        try:
            if self._resting:
                raise ProcessLookupError
            self.note("kill", signal=number)
            self._signal(number)
        except ProcessLookupError:
            raise RuntimeFailure("gone", f"send signal {number}", "the container has ended") from None
        except OSError as error:
            raise RuntimeFailure.from_os_error(f"send signal {number}", error) from None

    def pause(self, paused: bool) -> None:
        """Stop every process, or let them go on. Raises RuntimeFailure when that is so already."""
        if self._resting:
            raise RuntimeFailure("conflict", "pause", "the container is restarting: it does not run at this moment")
        if paused == self._paused:
            raise RuntimeFailure(
                "conflict", "pause", "the container is paused" if paused else "the container is not paused"
            )
        self._freeze(paused)
        self._paused = paused
        if self._health is not None:
            self._health.suspend(paused)
        self._record_state("paused" if paused else "running")
        self.note("pause" if paused else "unpause")

    def update(self, resources: "dict[str, Any]", restart: "dict[str, Any] | None") -> None:
        """Other limits from here on, also for later runs, and another restart policy. Raises RuntimeFailure."""
        self._limit(resources)
        self._config.setdefault("linux", {}).setdefault("resources", {}).update(resources)
        if restart is not None:
            self._policy.change(**restart)

    def new_socket(self, family: int, kind: int) -> socket:
        """A socket in the container's network, which needs no published port. Raises RuntimeFailure, OSError."""
        if self._attachment is None or self._attachment.namespace is None:
            return socket(family, kind | SOCK_CLOEXEC)
        own = ns.open_namespace("self", "network")
        try:
            ns.setns(self._attachment.namespace, ns.CLONE_NEWNET)
            try:
                return socket(family, kind | SOCK_CLOEXEC)
            finally:
                ns.setns(own, ns.CLONE_NEWNET)
        finally:
            os.close(own)

    def connect_network(
        self, interface: "dict[str, Any]", table: str, resolver: "dict[str, Any] | None" = None
    ) -> bool:
        """Give it one more interface; whether it had none to that network. Raises RuntimeFailure, AttachFailed."""
        from wherry_shim import network

        attachment = self._own_network("connect")
        if any(one["network"] == interface["network"] for one in attachment.interfaces):
            return False
        network.connect(attachment, interface, table)
        self._start_naming(resolver)
        self._start_proxy()
        self._tell_names()
        self._record_state(self._state["status"])
        return True

    def disconnect_network(self, identity: str) -> bool:
        """Take its interface to that network away; whether it had one. Raises RuntimeFailure, AttachFailed."""
        from wherry_shim import network

        attachment = self._own_network("disconnect")
        if all(one["network"] != identity for one in attachment.interfaces):
            return False
        network.disconnect(attachment, identity)
        self._start_proxy()
        self._tell_names()
        self._record_state(self._state["status"])
        return True

    def change_names(self, networks: "dict[str, dict[str, Any]]") -> None:
        """It is called otherwise in these networks (ids) from now on. Raises RuntimeFailure."""
        for interface in self._own_network("rename").interfaces:
            interface.update(networks.get(interface["network"]) or {})
        self._tell_names()

    def _own_network(self, step: str) -> "Attachment":
        if self._attachment is None or self._attachment.namespace is None:
            raise RuntimeFailure("conflict", step, "the container has no network of its own")
        return self._attachment

    def execute(self, request: "dict[str, Any]", connection: "Connection | Probe") -> Execution:
        """Run a further process for *connection*. Raises RuntimeFailure."""
        if self._paused:
            raise RuntimeFailure("conflict", "exec", "the container is paused: unpause it first")
        if self._resting:
            raise RuntimeFailure("conflict", "exec", "the container is restarting: it does not run at this moment")
        if self.cgroup.is_frozen():  # what joins it would freeze, too, and the shim waits until it is inside
            raise RuntimeFailure("conflict", "exec", "somebody else has frozen the container's cgroup: thaw it first")
        command = " ".join(request["process"]["args"])
        known = "exec_id" in request  # it was made by itself, and that noted, before
        if known:
            self.execs.check_new(request["exec_id"])
        else:
            request = {**request, "exec_id": os.urandom(32).hex()}
            self.note(f"exec_create: {command}", execID=request["exec_id"])
        execution = Execution(
            self._loop,
            request,
            connection,
            self._make_further,
        )
        if known:
            self.execs.began(execution)
        self.note(f"exec_start: {command}", execID=execution.id)
        self._executions[execution.pid] = execution
        return execution

    # end

    def _end(self, status: int) -> None:
        """The first process has ended, and with its pid namespace all others: another run follows, or the end."""
        oom_killed = self.cgroup.oom_kills() > self._oom_kills
        self._oom_kills = self.cgroup.oom_kills()
        self._kill_all()  # whoever shares the host's pid namespace is not killed by the kernel
        if self._health is not None:
            self._health.stop()
        self.streams.drain()
        for execution in list(self._executions.values()):
            self._finish_execution(execution)
        self._end_run()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self._record = {
            "exit_code": _exit_code(status),
            "signal": number,
            "oom_killed": oom_killed and number == _SIGKILL,
            "started": self._started,
            "finished": time_ns(),
            "log_lost": self._log.lost,
            "restarts": self._policy.count,
            "stopped": self._stopped,
        }
        if self._record["oom_killed"]:
            self.note("oom")
        lasted_s = (self._record["finished"] - self._started) // 1_000_000_000
        self.note("die", exitCode=self._record["exit_code"], execDuration=lasted_s)
        ran_s = monotonic() - self._began
        wait_s = self._policy.next_wait(self._record["exit_code"], ran_s, stopped=self._stopped)
        if wait_s is None:
            self._conclude()
        else:
            self._rest(wait_s)

    def _kill_all(self) -> None:
        if self.cgroup.directories:
            self.cgroup.kill(_SIGKILL)
        elif self._shares_pids():
            from wherry_shim.orphans import kill_all

            kill_all()

    def _shares_pids(self) -> bool:
        return all(entry["type"] != "pid" for entry in self._config["linux"]["namespaces"])

    def _rest(self, wait_s: float) -> None:
        """Wait for the next run."""
        assert self._service is not None
        self._resting = True
        self._pid = 0
        self._record_state("restarting")
        self._service.on_run_end(self._record)
        self._loop.after(wait_s, self._run_again)

    def _run_again(self) -> None:
        if not self._resting:  # it was stopped meanwhile
            return
        self._resting = False
        try:
            self._begin_run()
        except (RuntimeFailure, OSError) as error:
            self._log.append(STDERR, f"wherry: it could not be started again: {error}\n".encode(), time_ns())
            self._conclude()

    def _conclude(self) -> None:
        """There is no further run: tell everybody, take all down, and go."""
        assert self._service is not None
        self._resting = False
        self._log.close()
        records.write(self._run, records.EXIT, self._record)
        self._service.close()
        self._service.on_run_end(self._record)
        self._service.on_exit(self._record)
        self._take_down()
        self._keep_or_remove(self._record)
        self._service.on_gone(self._record)
        self._flush_clients()
        self._loop.running = False

    def _finish_execution(self, execution: Execution) -> None:
        self._executions.pop(execution.pid, None)
        try:
            _, status = os.waitpid(execution.pid, 0)
        except ChildProcessError:
            status = _SIGKILL
        self._exec_ended(execution, _exit_code(status))

    def _exec_ended(self, execution: Execution, exit_code: int) -> None:
        self.execs.ended(execution, exit_code)
        self.note(
            "exec_die", execID=execution.id, exitCode=exit_code
        )  # before its client knows, and does the next thing
        execution.exited(exit_code)

    def _keep_or_remove(self, record: "dict[str, Any]") -> None:
        try:
            if self._order.get("remove"):
                self._keep_for_waiters()
                self._remove_directory()
                self.note("destroy")
            else:
                records.write(self._directory, records.EXIT, record)
        finally:
            self._remove_live_files()
        if self._order.get("remove"):
            remove_tree(self._run)

    def _keep_for_waiters(self) -> None:
        """Who waited for one that removes itself may ask how it ended, and for its last words, once that is done."""
        records.keep_ended(self._run)
        if not isinstance(self._log, NoLog):
            try:
                keep_tail(records.ended_log(self._run), self._log.replay(), _KEPT_LOG)
            except OSError:  # the disk is full
                return

    def _remove_directory(self) -> None:
        """Out of sight in one step; what a kill leaves of the rest the next client collects."""
        parent, _, name = self._directory.rpartition("/")
        doomed = f"{parent}/.removed-{name}"
        os.rename(self._directory, doomed)
        remove_tree(doomed)

    def _remove_live_files(self) -> None:
        for name in (records.SOCKET, records.STATE):
            try:
                os.unlink(f"{self._run}/{name}")
            except FileNotFoundError:
                continue

    def _flush_clients(self) -> None:
        """Give those who wait for the end a moment to take it."""
        if self._service is not None:
            self._service.flush()

    def _take_down(self) -> None:
        """Network and cgroup. What cannot be removed now, the next client collects."""
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self._naming is not None:
            self._naming.close()
            self._naming = None
        if self._attachment is not None:
            from wherry_shim import network
            from wherry_shim.attachment import AttachFailed

            try:
                network.detach(self._attachment)
            except AttachFailed:
                pass
            self._attachment = None
        self._remove_cgroup()

    def _remove_cgroup(self) -> None:
        from time import sleep

        try:
            for _ in range(_REMOVE_TRIES):
                try:
                    self.cgroup.remove()
                    return
                except OSError:  # EBUSY: the kernel has not let go of the last process yet
                    sleep(_REMOVE_PAUSE_S)
        except OSError:
            return

    def _record_state(self, status: str) -> None:
        self._state = {
            "version": 1,
            "status": status,
            "shim": os.getpid(),
            "shim_start": records.start_time(os.getpid()),
            "pid": self._pid,
            "pid_start": records.start_time(self._pid) if self._pid else None,
            "started": self._started,
            "restarts": self._policy.count,
            "health": self._health.record() if self._health is not None else None,
            "ports": self._attachment.ports if self._attachment is not None else [],
            "table": self._attachment.table if self._attachment is not None else "",
        }
        records.write(self._run, records.STATE, self._state)


def _forwarder(config: "dict[str, Any]") -> NoLog:
    """Raises RuntimeFailure when nobody is there to take the log."""
    from wherry_shim import forwarding

    address = config.get("address") or forwarding.JOURNAL
    if config["driver"] == "journald":
        message = forwarding.journal_message(config["fields"])
    else:
        message = forwarding.syslog_message(config["facility"], config["form"], config["tag"])
    try:
        return forwarding.Forwarder(address, message)
    except OSError as error:
        said = f"the log driver {config['driver']} finds nobody at {address}: {os_error_text(error)}"
        raise RuntimeFailure("system", "open the log", said, errno=error.errno or 0) from None


def _exit_code(status: int) -> int:
    """As shells and Docker count: 128 and the signal's number for a process that a signal ended."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _read_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _read_json(path: str) -> "dict[str, Any]":
    document: dict[str, Any] = quickjson.loads(_read_bytes(path))
    return document
