"""A container as its user holds it: an id and an engine. What it tells is read at the moment it is asked."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import attrs

from wherry import logreader
from wherry.errors import CommandFailed, ContainerNotFound
from wherry.execution import ExecResult, Process, process_document
from wherry.portbinding import container_ports, port_map, published_url
from wherry.state import ExitRecord
from wherry_oci.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    import socket

    from wherry.attachment import Attachment
    from wherry.containerpath import ContainerPath
    from wherry.containerstore import Record
    from wherry.execrequest import ExecRequest
    from wherry.execs import Exec
    from wherry.limits import UpdateOptions
    from wherry.local import LocalEngine
    from wherry.readiness import Strategy
    from wherry.stats import Stats
    from wherry_images import Image
    from wherry_images.diff import Change

_NANO = 1_000_000_000
_STREAMS = {1: "stdout", 2: "stderr"}


class LogLine(str):
    """A line without its newline: the text, and `stream` ("stdout", "stderr") and `time` (nanoseconds since 1970)."""

    __slots__ = ("stream", "time")
    stream: str
    time: int

    def __new__(cls, line: logreader.Line) -> "LogLine":
        text = line.content.removesuffix(b"\n").decode("utf-8", "replace")
        made = super().__new__(cls, text)
        made.stream, made.time = _STREAMS[line.stream], line.time
        return made


@attrs.frozen(eq=False)
class Container:
    """
    One container. A context manager that removes it on leaving, running or not, with its volumes that have no name.

    Handles are small, may be pickled, and are safe to use from threads and after fork.
    """

    id: str
    _engine: "LocalEngine" = attrs.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.remove(force=True, v=True)
        except NotFound:  # it removed itself
            pass

    # what it is

    @property
    def _record(self) -> "Record":
        return self._engine.own_record(self.id)

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def image(self) -> str:
        """The image's name as it was asked for."""
        return self._record.image

    @property
    def labels(self) -> Mapping[str, str]:
        return self._record.labels

    @property
    def status(self) -> str:
        """Docker's word for it: created, running, paused, restarting or exited."""
        return self._engine.state(self._record).status

    @property
    def health(self) -> str | None:
        """starting, healthy or unhealthy; None when nothing checks it, or it does not run."""
        record = self._engine.state(self._record).health
        return None if record is None else str(record["status"])

    @property
    def pid(self) -> int:
        """The host's number of its first process; 0 when it does not run."""
        return self._engine.state(self._record).pid

    @property
    def exit(self) -> ExitRecord | None:
        """How it ended; None before that."""
        return self._engine.state(self._record).exit

    @property
    def ports(self) -> dict[str, Any]:
        """Docker's form: `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}`."""
        record = self._record
        return port_map(self._engine.state(record).ports, record.settings["exposed_ports"])

    def port(self, container_port: int | str) -> int:
        """The host's port for 80 or "53/udp". Raises NotFound when it is not published, or nothing runs."""
        record = self._record
        [(number, protocol)] = container_ports(container_port)
        for bound in self._engine.state(record).ports:
            if bound["container_port"] == number and bound["protocol"] == protocol:
                found: int = bound["host_port"]
                return found
        raise NotFound(
            f"container {record.name} publishes no port {number}/{protocol}: give it in ports=, and start it"
        )

    def url(self, container_port: int | str, scheme: str = "http") -> str:
        """
        Where this host finds a port: as it is published, else in its own network, where the host reaches that.

        Raises NotFound when there is no way to it.
        """
        record = self._record
        [(number, protocol)] = container_ports(container_port)
        for bound in self._engine.state(record).ports:
            if bound["container_port"] == number and bound["protocol"] == protocol:
                return published_url(scheme, bound["host_ip"], bound["host_port"])
        address = self.ip if self._engine.reaches_bridges else ""
        if not address:
            raise NotFound(
                f"container {record.name} has no port {number}/{protocol} that this host reaches: give it in ports=, "
                "or use connect()"
            )
        return published_url(scheme, address, number)

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker inspect` tells, in its words."""
        from wherry.engineapi.document import told
        from wherry.inspection import container_document

        record = self._record
        found: dict[str, Any] = told(container_document(self._engine, record, self._engine.state(record)))
        return found

    @property
    def ip(self) -> str:
        """Its address on its network; "" when it does not run or has none."""
        from wherry.membership import places_of
        from wherry.networkoptions import has_endpoints

        record = self._record
        if self._engine.state(record).status not in ("running", "paused") or not has_endpoints(
            record.settings["network"]
        ):
            return ""
        return next((endpoint.ipv4 for _, endpoint in places_of(self._engine, record)), "")

    def connect(self, port: int, timeout: float | None = None) -> "socket.socket":
        """
        A TCP connection to *port* of its own loopback, by a socket of its network: no port need be published.

        It works with network "none", too. Raises NotRunning, and OSError (ConnectionRefusedError, TimeoutError) as
        connect(2) does.
        """
        import socket

        made = socket.socket(fileno=self._engine.socket(self.id, socket.AF_INET, socket.SOCK_STREAM))
        try:
            made.settimeout(timeout)
            made.connect(("127.0.0.1", port))
        except BaseException:
            made.close()
            raise
        return made

    def top(self) -> dict[str, Any]:
        """Its processes as `docker top` shows them: `Titles`, and `Processes` with a text for each title."""
        from wherry.processes import table

        return table(self._engine.processes(self.id))

    @overload
    def stats(self, *, stream: Literal[False], interval: float = 1.0) -> "Stats": ...

    @overload
    def stats(self, *, stream: Literal[True] = True, interval: float = 1.0) -> "Iterator[Stats]": ...

    def stats(self, *, stream: bool = True, interval: float = 1.0) -> "Stats | Iterator[Stats]":
        """
        What it uses, every *interval* seconds until it ends; without *stream* once, at once.

        A sample is a mapping in docker's words, with `cpu_percent`, `memory_usage` and more as `docker stats` computes
        them; `cpu_percent` needs a sample before. Raises NotRunning.
        """
        from wherry import stats

        if stream:
            return stats.stream(self._engine, self.id, interval)
        return stats.Sampler(self._engine).sample(self._record)

    # its life

    def start(self) -> None:
        """Raises StartFailed. One that runs is left as it is."""
        self._engine.start(self.id)

    def stop(self, timeout: float | None = None, signal: int | str | None = None) -> None:
        """Ask it to end, and kill it after *timeout* seconds (10 unless it says otherwise). Ended already is fine."""
        self._engine.stop(self.id, timeout, signal)

    def restart(self, timeout: float | None = None) -> None:
        """Stop, then start."""
        self.stop(timeout)
        self.start()

    def kill(self, signal: int | str = "SIGKILL") -> None:
        """Send *signal* to its first process. Raises Conflict when it does not run."""
        self._engine.kill(self.id, signal)

    def pause(self) -> None:
        """Freeze all its processes."""
        self._engine.pause(self.id, True)

    def unpause(self) -> None:
        """Let them go on."""
        self._engine.pause(self.id, False)

    @overload
    def wait(
        self, timeout: float | None = None, condition: Literal["not-running", "next-exit", "removed"] = "not-running"
    ) -> ExitRecord: ...

    @overload
    def wait(self, timeout: float | None = None, *, condition: Literal["healthy"]) -> None: ...

    def wait(
        self,
        timeout: float | None = None,
        condition: Literal["not-running", "next-exit", "removed", "healthy"] = "not-running",
    ) -> ExitRecord | None:
        """
        How it ended, once it has. Raises TimeoutError after *timeout* seconds, Conflict if it was never started.

        With *condition* "next-exit" what has been does not count: one that does not run may still be started, and one
        that is started again has ended all the same. "removed" waits until nothing is left of it, "healthy" is
        `wait_healthy`.
        """
        from wherry import waiting

        if condition == "healthy":
            self.wait_healthy(timeout)
            return None
        return waiting.wait(self._engine, self.id, condition, timeout)

    def wait_for(self, *wanted: "Strategy | Callable[[Container], object]", timeout: float = 60.0) -> None:
        """
        Return once it is ready: `Port(80)`, `LogLine("ready")`, `Http`, `File`, `Exec`, `Health`, or a callable.

        Several are waited for one after the other. Raises NotReady, with the end of its log, as soon as it has ended;
        TimeoutError after *timeout* seconds.
        """
        from wherry import readiness

        readiness.wait_for(self, readiness.strategies(wanted), timeout)

    def wait_healthy(self, timeout: float | None = None) -> None:
        """
        Return once its health check has succeeded, told by its shim at that moment.

        Raises NotHealthy, with the check's output or the log's end, as soon as it is unhealthy or has ended;
        TimeoutError after *timeout* seconds; InvalidArgument when nothing checks it.
        """
        self._engine.wait_healthy(self.id, timeout)

    def update(self, **changes: "Unpack[UpdateOptions]") -> None:
        """
        Change limits and the restart policy, by `run`'s names, of one that runs at this very moment, and for later.

        Raises InvalidArgument, Conflict for a limit below what is in use; nothing is changed then.
        """
        self._engine.update(self.id, changes)

    def remove(self, force: bool = False, v: bool = False) -> None:
        """
        Remove it; with *force* even if it runs, with *v* also its volumes that have no name.

        Raises Conflict, ContainerNotFound.
        """
        self._engine.remove(self.id, force=force, anonymous_volumes=v)

    # its output

    @overload
    def logs(
        self,
        *,
        follow: Literal[False] = False,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | Literal["all"] = "all",
        since: float | datetime = 0,
        until: float | datetime | None = None,
        timestamps: bool = False,
    ) -> str: ...

    @overload
    def logs(
        self,
        *,
        follow: Literal[True],
        stdout: bool = True,
        stderr: bool = True,
        tail: int | Literal["all"] = "all",
        since: float | datetime = 0,
        until: float | datetime | None = None,
        timestamps: bool = False,
    ) -> Generator[LogLine, None, None]: ...

    def logs(
        self,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | Literal["all"] = "all",
        since: float | datetime = 0,
        until: float | datetime | None = None,
        timestamps: bool = False,
    ) -> str | Generator[LogLine, None, None]:
        """
        What it has written, both streams in order; with *follow* whole lines as they come, until it ends.

        *since* and *until* are datetimes or seconds since 1970, *tail* a number of lines. What is not UTF-8 is shown as
        U+FFFD; `output` gives the bytes. Of one that has removed itself the last 64 KiB are there for some minutes.
        """
        lines = self._log_lines(follow, stdout, stderr, tail, since, until)
        if follow:
            return (_log_line(line, timestamps) for line in lines)
        return b"".join(_stamped(line) if timestamps else line.content for line in lines).decode("utf-8", "replace")

    def _log_lines(
        self,
        follow: bool,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | str = "all",
        since: float | datetime = 0,
        until: float | datetime | None = None,
    ) -> Iterator[logreader.Line]:
        """As `logs`, in bytes with their newlines."""
        streams = _streams(stdout, stderr)
        first, last = _nanoseconds(since), None if until is None else _nanoseconds(until)
        return (self._follow if follow else self._lines)(streams, tail, first, last)

    def output(self, stdout: bool = True, stderr: bool = True) -> bytes:
        """The bytes that it has written, of both streams in order or of one."""
        streams = _streams(stdout, stderr)
        with self._log() as reader:
            return b"".join(piece.content for piece in reader.pieces() if piece.stream in streams)

    def _log(self) -> logreader.Reader:
        try:
            return self._engine.log_reader(self._record)
        except ContainerNotFound:  # it may have removed itself
            return self._engine.ended_log(self.id)

    def _lines(
        self, streams: frozenset[int], tail: int | str, since: int, until: int | None
    ) -> Iterator[logreader.Line]:
        with self._log() as reader:
            if isinstance(tail, int) and not since and until is None:
                yield from logreader.last(reader, tail, streams)
                return
            found = logreader.lines(reader.pieces(), streams=streams, since=since, until=until)
            yield from found if not isinstance(tail, int) else _last(found, tail)

    def _follow(
        self, streams: frozenset[int], tail: int | str, since: int, until: int | None
    ) -> Iterator[logreader.Line]:
        with self._log() as reader:
            if isinstance(tail, int):
                for line in logreader.last(reader, tail, streams):
                    if line.time >= since:
                        yield line
            pieces = logreader.follow(reader, self._engine.store.run_directory(self.id))
            yield from logreader.lines(pieces, streams=streams, since=since, until=until)

    # its files

    def path(self, path: str) -> "ContainerPath":
        """A path in it, with what pathlib has: `container.path("/etc/os-release").read_text()`. Running or not."""
        from wherry.containerpath import ContainerPath

        return ContainerPath(self, path)

    def get_archive(self, path: str) -> Iterator[bytes]:
        """*path* with all below it as a tar, in pieces; running or not. Raises NotFound."""
        with self._engine.rootfs(self.id) as root:
            yield from root.archive(path)

    def put_archive(self, path: str, data: bytes | Iterable[bytes]) -> None:
        """Unpack a tar into the directory *path*, which must exist; running or not. Raises NotFound, Conflict."""
        with self._engine.rootfs(self.id) as root:
            root.extract(path, [data] if isinstance(data, bytes) else data)

    @property
    def size(self) -> int:
        """Bytes of the files that it wrote."""
        return self._engine.size(self.id)

    def diff(self) -> "list[Change]":
        """The files that it added, modified and deleted: `kind` and `path` each."""
        return self._engine.changes(self.id)

    def export(self) -> Iterator[bytes]:
        """Its whole root file system as a tar, in pieces; running or not."""
        return self._engine.export(self.id)

    def commit(
        self,
        reference: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        author: str = "",
        message: str = "",
        pause: bool = True,
    ) -> "Image":
        """
        A new image of it, named *reference*; *config*, in docker's words (`{"Cmd": ["x"]}`), is laid over its own.

        It is paused meanwhile unless *pause* is False.
        """
        return self._engine.commit(self.id, reference, config=config or {}, author=author, message=message, pause=pause)

    @property
    def _stdio(self) -> tuple[bool, bool]:
        """Whether it has a terminal, and whether its stdin is open."""
        settings = self._record.settings
        return settings["tty"], settings["stdin_open"]

    @contextmanager
    def _ending(self) -> Iterator[Callable[[], int | None]]:
        """Within it, what is given waits until all of it is down, removal included; the exit code, if it is known."""

        def code() -> int | None:
            ended = self._engine.wait(self.id, gone=True)
            return None if ended is None else ended.exit_code

        yield code

    def rename(self, name: str) -> None:
        """Raises NameInUse, InvalidArgument."""
        self._engine.rename(self.id, name)

    # processes in it

    def attach(self, *, logs: bool = False) -> "Attachment":
        """
        Its own streams, to read and to write, as `popen` gives those of a further process; leaving lets it go on.

        One that is not started yet can be attached to before, so that not a byte is missed. With *logs* what it has
        written since its start comes first. A client that does not read is let go of when it lags too far behind.
        """
        from wherry.attachment import Attachment

        return Attachment.to(self._engine, self.id, logs=logs)

    def exec_create(
        self,
        command: str | Sequence[str],
        *,
        user: str | int | None = None,
        environment: Mapping[str, str] | Sequence[str] | None = None,
        working_dir: str | None = None,
        tty: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        privileged: bool = False,
        detach_keys: str = "",
    ) -> "Exec":
        """A further process with an id, to be started by whoever knows that. Raises NotRunning, Conflict if paused."""
        from wherry.execrequest import ExecRequest

        return self._exec_create(
            ExecRequest.of(
                command,
                user=user,
                environment=environment,
                working_dir=working_dir,
                tty=tty,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                privileged=privileged,
                detach_keys=detach_keys,
            )
        )

    def _exec_create(self, asked: "ExecRequest") -> "Exec":
        from wherry import execs

        return execs.Exec(execs.create(self._engine, self.id, asked), self._engine)

    def popen(
        self,
        command: str | Sequence[str],
        *,
        user: str | int | None = None,
        environment: Mapping[str, str] | Sequence[str] | None = None,
        working_dir: str | None = None,
        tty: bool = False,
        stdin: bool = False,
        privileged: bool = False,
    ) -> Process:
        """
        Start a further process in it; a text is split as a shell does it, but no shell runs.

        Raises Conflict when the container does not run, ExecutableNotFound, UserNotFound.
        """
        from wherry.execrequest import ExecRequest

        return self._popen(
            ExecRequest.of(
                command,
                user=user,
                environment=environment,
                working_dir=working_dir,
                tty=tty,
                stdin=stdin,
                privileged=privileged,
            )
        )

    def _popen(self, asked: "ExecRequest") -> Process:
        record = self._record
        return Process.start(
            self._engine, record, process_document(record, asked), terminal=asked.tty, stdin=asked.stdin
        )

    def exec(
        self,
        command: str | Sequence[str],
        *,
        user: str | int | None = None,
        environment: Mapping[str, str] | Sequence[str] | None = None,
        working_dir: str | None = None,
        input: bytes | None = None,
        timeout: float | None = None,
        check: bool = False,
        privileged: bool = False,
    ) -> ExecResult:
        """
        Run a further process in it to its end: exit code and both streams, apart.

        After *timeout* seconds it is killed, and TimeoutError raised. With *check* an exit code other than 0 raises
        CommandFailed, which carries the output.
        """
        with self.popen(
            command,
            user=user,
            environment=environment,
            working_dir=working_dir,
            stdin=input is not None,
            privileged=privileged,
        ) as process:
            stdout, stderr = process.communicate(input, timeout)
            result = ExecResult(exit_code=process.wait(), stdout=stdout, stderr=stderr)
        self._check_started(result)
        if check and result.exit_code != 0:
            what = f"exec in container {self.short_id}"
            raise CommandFailed(what, process.command, result.exit_code, stdout, stderr)
        return result

    def _check_started(self, result: ExecResult) -> None:
        """For an engine that tells by the output alone that a process could not be started."""


def _streams(stdout: bool, stderr: bool) -> frozenset[int]:
    chosen = frozenset(number for number, wanted in ((1, stdout), (2, stderr)) if wanted)
    if not chosen:
        raise InvalidArgument("stdout and stderr are both off: there is nothing to read")
    return chosen


def _nanoseconds(when: float | datetime) -> int:
    return int((when.timestamp() if isinstance(when, datetime) else when) * _NANO)


def _last(found: Iterator[logreader.Line], count: int) -> Iterator[logreader.Line]:
    from collections import deque

    yield from deque(found, maxlen=count)


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, as Docker writes times."""
    from time import gmtime, strftime

    seconds, rest = divmod(nanoseconds, _NANO)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:09d}Z"


def _stamped(line: logreader.Line) -> bytes:
    return timestamp(line.time).encode() + b" " + line.content


def _log_line(line: logreader.Line, timestamps: bool) -> LogLine:
    return LogLine(attrs.evolve(line, content=_stamped(line)) if timestamps else line)
