"""Containers of a distant engine: the methods of `Container`, as calls of the Engine API."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, Unpack

from wherry.container import Container
from wherry.engineapi.containerlist import ContainerSummary
from wherry.engineapi.containers import (
    ContainerCreated,
    ContainerInspect,
    ContainersPruned,
    ContainerTop,
    ContainerWait,
    FilesystemChange,
    Health,
    HostConfig,
    RestartPolicy,
)
from wherry.engineapi.document import Words, told
from wherry.engineapi.execs import ExecCreate, ExecCreated, ExecInspect, ExecStart
from wherry.engineapi.images import Committed
from wherry.errors import ContainerNotFound, NotHealthy, NotReady
from wherry.execution import ExecResult
from wherry.logreader import Line
from wherry.options import Options, size_in_bytes
from wherry.portbinding import container_ports, published_url
from wherry.remote import creation
from wherry.remote.api import Api, Request, filters, refused, understood
from wherry.remote.process import Frames, RemoteProcess, is_raw
from wherry.state import ExitRecord
from wherry_images.diff import Change
from wherry_images.reference import parse_reference
from wherry_oci.errors import Conflict, InvalidArgument, NotFound, Unsupported

if TYPE_CHECKING:
    import builtins
    import socket

    from wherry.containerpath import ContainerPath
    from wherry.execrequest import ExecRequest
    from wherry.limits import UpdateOptions
    from wherry.options import RunOptions
    from wherry.readiness import Strategy
    from wherry.remote.client import RemoteClient
    from wherry.stats import Stats
    from wherry_images import Image

_NANO = 1_000_000_000
_POLL_S = 0.05
_TAIL_LINES = 20
_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
_KINDS: tuple[Literal["modified", "added", "deleted"], ...] = ("modified", "added", "deleted")  # by the API's number


class RemoteContainer(Container):
    """A container of an engine elsewhere. What needs this machine's kernel raises Unsupported."""

    def __init__(self, id: str, api: Api) -> None:
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "_api", api)

    _api: Api

    def __repr__(self) -> str:
        return f"RemoteContainer(id={self.id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteContainer, (self.id, self._api)

    @property
    def _about(self) -> dict[str, str]:
        return {"container": self.id}

    def _get(self, what: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._api.get(f"/containers/{self.id}/{what}", query, about=self._about)

    def _post(self, what: str, query: Mapping[str, Any] | None = None, body: object = None) -> Any:
        return self._api.post(f"/containers/{self.id}/{what}", query, body, about=self._about)

    # what it is

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker inspect` tells, in its words."""
        found: dict[str, Any] = self._get("json")
        return found

    @property
    def document(self) -> ContainerInspect:
        """What `attrs` tells, as a value."""
        return understood(self._get("json"), ContainerInspect)

    @property
    def name(self) -> str:
        return self.document.name.removeprefix("/")

    @property
    def image(self) -> str:
        return self.document.config.image

    @property
    def labels(self) -> Mapping[str, str]:
        return self.document.config.labels or {}

    @property
    def status(self) -> str:
        return self.document.state.status

    @property
    def health(self) -> str | None:
        state = self.document.state
        return state.health.status if state.running and state.health is not None else None

    @property
    def pid(self) -> int:
        """The number of its first process on the engine's host; 0 when it does not run."""
        return self.document.state.pid

    @property
    def exit(self) -> ExitRecord | None:
        return _exit_record(self.document)

    @property
    def ports(self) -> dict[str, Any]:
        found: dict[str, Any] = told(self.document.network_settings)["Ports"]
        return found

    def port(self, container_port: int | str) -> int:
        [(number, protocol)] = container_ports(container_port)
        if bindings := self.document.network_settings.ports.get(f"{number}/{protocol}"):
            return int(bindings[0].host_port)
        raise NotFound(f"container {self.name} publishes no port {number}/{protocol}: give it in ports=, and start it")

    def url(self, container_port: int | str, scheme: str = "http") -> str:
        """As `Container.url`, on the engine's host; what is not published is not found."""
        [(number, protocol)] = container_ports(container_port)
        for bound in self.document.network_settings.ports.get(f"{number}/{protocol}") or ():
            address = self._api.address
            host = address.host or address.destination.rpartition("@")[2] or "127.0.0.1"
            return published_url(scheme, bound.host_ip, int(bound.host_port), host)
        raise NotFound(f"container {self.name} publishes no port {number}/{protocol}: give it in ports=, and start it")

    @property
    def ip(self) -> str:
        settings = self.document.network_settings
        return settings.ip_address or next((one.ip_address for one in settings.networks.values() if one), "")

    def connect(self, port: int, timeout: float | None = None) -> "socket.socket":
        """Raises Unsupported."""
        raise Unsupported(
            f"connect({port}) opens a socket in the container, which only the engine here can: publish it"
        )

    def top(self) -> dict[str, Any]:
        found: dict[str, Any] = told(understood(self._get("top"), ContainerTop))
        return found

    def stats(self, *, stream: bool = True, interval: float = 1.0) -> "Any":
        """As `Container.stats`; the engine sends a sample each second."""
        if interval != 1.0:
            raise Unsupported(f"interval={interval}: the Engine API gives a sample each second")
        if stream:
            return self._samples()
        once = {"one-shot": True} if self._api.version >= (1, 41) else {}
        return _sample(self._get("stats", {"stream": False, **once}))

    def _samples(self) -> "Iterator[Stats]":
        request = Request("GET", f"/containers/{self.id}/stats", {"stream": True}, about=self._about)
        for document in self._api.lines(request):
            if not (document.get("pids_stats") or {}).get("current"):  # it has ended
                return
            yield _sample(document)

    # its life

    def start(self) -> None:
        self._post("start")

    def stop(self, timeout: float | None = None, signal: int | str | None = None) -> None:
        self._post("stop", {"t": None if timeout is None else int(-(-timeout // 1)), "signal": signal})

    def restart(self, timeout: float | None = None) -> None:
        self._post("restart", {"t": None if timeout is None else int(-(-timeout // 1))})

    def kill(self, signal: int | str = "SIGKILL") -> None:
        self._post("kill", {"signal": signal})

    def pause(self) -> None:
        self._post("pause")

    def unpause(self) -> None:
        self._post("unpause")

    def wait(  # type: ignore[override] # the overloads of the base class
        self,
        timeout: float | None = None,
        condition: Literal["not-running", "next-exit", "removed", "healthy"] = "not-running",
    ) -> ExitRecord | None:
        if condition == "healthy":
            self.wait_healthy(timeout)
            return None
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidArgument(f"condition={condition!r}: one of not-running, next-exit, removed, healthy")
        if condition == "not-running" and self.status == "created":
            raise Conflict(f"container {self.short_id} was never started: there is nothing to wait for")
        try:
            path, query = f"/containers/{self.id}/wait", {"condition": condition}
            answer = self._api.json(Request("POST", path, query, timeout=timeout, about=self._about))
        except TimeoutError:
            still = "is still there" if condition == "removed" else "still runs"
            raise TimeoutError(f"container {self.short_id} {still} after {timeout} s") from None
        code = understood(answer, ContainerWait).status_code
        try:
            if (record := self.exit) is not None and record.exit_code == code:
                return record
        except ContainerNotFound:
            pass
        return ExitRecord(exit_code=code)

    def wait_for(self, *wanted: "Strategy | Callable[[Container], object]", timeout: float = 60.0) -> None:
        from wherry.readiness import strategies
        from wherry.remote.readiness import is_ready

        deadline = monotonic() + timeout
        for one in strategies(wanted):
            while not is_ready(self, one):
                status = self.status
                if status not in ("running", "paused", "restarting"):
                    raise NotReady(self.name, status, one, self._tail())
                if monotonic() >= deadline:
                    raise TimeoutError(
                        f"container {self.short_id} is not ready after {timeout:g} s: {one}; it said: "
                        f"{self._tail().strip() or 'nothing'}"
                    )
                sleep(_POLL_S)

    def wait_healthy(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            state = self.document.state
            health = state.health or Health()
            if not state.running:
                raise NotHealthy(self.name, state.status, self._tail())
            if health.status in ("", "none"):
                raise InvalidArgument(f"container {self.name} has no health check: give it healthcheck=")
            if health.status == "healthy":
                return
            if health.status == "unhealthy":
                raise NotHealthy(self.name, "unhealthy", health.log[-1].output if health.log else "")
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"container {self.short_id} is not healthy after {timeout} s")
            sleep(_POLL_S)

    def _tail(self) -> str:
        return str(self.logs(tail=_TAIL_LINES))

    def update(self, **changes: "Unpack[UpdateOptions]") -> None:
        self._post("update", body=_update(changes))

    def remove(self, force: bool = False, v: bool = False) -> None:
        self._api.delete(f"/containers/{self.id}", {"force": force, "v": v}, about=self._about)

    # its output

    logs = Container.logs  # of `_log_lines`

    def output(self, stdout: bool = True, stderr: bool = True) -> bytes:
        return b"".join(line.content for line in self._log_lines(False, stdout, stderr, "all", 0, None))

    def _log_lines(
        self,
        follow: bool,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | str = "all",
        since: float | datetime = 0,
        until: float | datetime | None = None,
    ) -> Iterator[Line]:
        if not (stdout or stderr):
            raise InvalidArgument("stdout and stderr are both off: there is nothing to read")
        query = {
            "follow": follow,
            "stdout": stdout,
            "stderr": stderr,
            "tail": tail,
            "since": _unix(since),
            "until": None if until is None else _unix(until),
            "timestamps": True,
        }
        terminal = self.document.config.tty
        request = Request("GET", f"/containers/{self.id}/logs", query, about=self._about)
        with self._api.exchange(request) as (head, connection):
            raw = is_raw(head, terminal=terminal)
            frames, lines = Frames(raw=raw), _Lines(raw=raw)
            for piece in connection.pieces():
                frames.feed(piece)
                while (found := frames.next()) is not None:
                    yield from lines.feed(*found)
            yield from lines.end()

    # its files

    def path(self, path: str) -> "ContainerPath":
        from wherry.remote.path import RemotePath

        return RemotePath(self, path)

    def get_archive(self, path: str) -> Iterator[bytes]:
        return self._api.stream(self._archive("GET", path))

    def put_archive(self, path: str, data: bytes | Iterable[bytes]) -> None:
        self._api.json(self._archive("PUT", path, data))

    def _archive(self, method: str, path: str, data: bytes | Iterable[bytes] | None = None) -> Request:
        about = {"container_file": path}
        return Request(method, f"/containers/{self.id}/archive", {"path": path}, data, about=about)

    @property
    def size(self) -> int:
        return understood(self._get("json", {"size": True}), ContainerInspect).size_rw or 0

    def diff(self) -> list[Change]:
        found = [understood(one, FilesystemChange) for one in self._get("changes") or ()]
        return [Change(kind=_KINDS[one.kind], path=one.path) for one in found]

    def export(self) -> Iterator[bytes]:
        return self._api.stream(Request("GET", f"/containers/{self.id}/export", about=self._about))

    def commit(
        self,
        reference: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        author: str = "",
        message: str = "",
        pause: bool = True,
    ) -> "Image":
        from wherry.remote.images import RemoteImageCollection

        named = {}
        if reference is not None:
            parsed = parse_reference(reference)
            named = {"repo": parse_reference(parsed.name).familiar.removesuffix(":latest"), "tag": parsed.tag}
        query = {"container": self.id, **named, "author": author, "comment": message, "pause": pause}
        made = self._api.ask(Committed, "/commit", query, dict(config or {}), about=self._about)
        return RemoteImageCollection(self._api).get(made.id)

    def rename(self, name: str) -> None:
        self._post("rename", {"name": name})

    # processes in it

    def attach(self, *, logs: bool = False) -> RemoteProcess:
        found = self.document
        query = {"stream": True, "stdin": found.config.open_stdin, "stdout": True, "stderr": True, "logs": logs}
        request = Request("POST", f"/containers/{self.id}/attach", query, about=self._about)
        connection, early, head = self._api.hijack(request)
        return RemoteProcess(
            connection,
            early,
            raw=is_raw(head, terminal=found.config.tty),
            command=(found.path, *found.args),
            ended=self._ended,
            resize=lambda rows, columns: self._post("resize", {"h": rows, "w": columns}),
        )

    @property
    def _stdio(self) -> tuple[bool, bool]:
        config = self.document.config
        return config.tty, config.open_stdin

    @contextmanager
    def _ending(self) -> Iterator[Callable[[], int | None]]:
        """Waiting begins at once, for an engine forgets one that it removes itself."""
        removed = self.document.host_config.auto_remove
        query = {"condition": "removed" if removed else "next-exit"}
        request = Request("POST", f"/containers/{self.id}/wait", query, about=self._about)
        with self._api.exchange(request) as (_, answer):

            def code() -> int | None:
                return understood(json.loads(answer.body()), ContainerWait).status_code

            yield code

    def _ended(self) -> int | None:
        """Its exit code; 0 for one that is gone: nobody knows it any more."""
        try:
            record = self.exit
        except ContainerNotFound:
            return 0
        return None if record is None else record.exit_code

    def _exec_create(self, asked: "ExecRequest") -> "RemoteExec":  # type: ignore[override] # the same methods
        document = ExecCreate(
            cmd=Words(list(asked.command)),
            user=asked.user or "",
            env=list(asked.environment) or None,
            working_dir=asked.working_dir or "",
            tty=asked.tty,
            attach_stdin=asked.stdin,
            attach_stdout=asked.stdout,
            attach_stderr=asked.stderr,
            privileged=asked.privileged,
            detach_keys=asked.detach_keys,
        )
        made = understood(self._post("exec", body=document), ExecCreated)
        return RemoteExec(made.id, self._api, self.id, asked.command, asked.tty)

    def _popen(self, asked: "ExecRequest") -> RemoteProcess:
        """Closing lets it go on, and so does a timeout of `exec`: the Engine API cannot end it."""
        return self._exec_create(asked).start()

    def _check_started(self, result: ExecResult) -> None:
        """Docker tells by the stream alone that the program could not be started. Raises what that means."""
        said = (result.stdout or result.stderr).decode("utf-8", "replace").strip()
        if result.exit_code in (126, 127) and said.startswith("OCI runtime exec failed"):
            raise refused(400, said, {"container": self.name})


class RemoteExec:
    """As `wherry.execs.Exec`."""

    def __init__(self, id: str, api: Api, container: str, command: tuple[str, ...], terminal: bool) -> None:
        self.id, self._api = id, api
        self._container, self._command, self._terminal = container, command, terminal

    @property
    def attrs(self) -> dict[str, Any]:
        """What `GET /exec/ID/json` tells. Raises ExecNotFound."""
        found: dict[str, Any] = self._api.get(f"/exec/{self.id}/json", about={"exec_id": self.id})
        return found

    @property
    def document(self) -> ExecInspect:
        """What `attrs` tells, as a value. Raises ExecNotFound."""
        return self._api.read(ExecInspect, f"/exec/{self.id}/json", about={"exec_id": self.id})

    @property
    def running(self) -> bool:
        return self.document.running

    @property
    def exit_code(self) -> int | None:
        """None before it has ended."""
        found = self.document
        return None if found.running else found.exit_code

    def start(self) -> RemoteProcess:
        """As `Exec.start`."""
        asked, about = ExecStart(tty=self._terminal), {"container": self._container}
        connection, early, head = self._api.hijack(Request("POST", f"/exec/{self.id}/start", None, asked, about=about))
        return RemoteProcess(
            connection,
            early,
            raw=is_raw(head, terminal=self._terminal),
            command=self._command,
            ended=lambda: self.exit_code,
            resize=self.resize,
        )

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size."""
        self._api.post(f"/exec/{self.id}/resize", {"h": rows, "w": columns}, about={"exec_id": self.id})


# -- the collection ----------------------------------------------------------------------------------------------------


class RemoteContainerCollection:
    """`client.containers` of a distant engine."""

    def __init__(self, client: "RemoteClient") -> None:
        self._client, self._api = client, client.api

    def run(
        self, image: str, command: str | Sequence[str] | None = None, **options: Unpack["RunOptions"]
    ) -> RemoteContainer:
        """As `Client.run`."""
        return self._client.run(image, command, **options)

    def create(
        self, image: str, command: str | Sequence[str] | None = None, **options: Unpack["RunOptions"]
    ) -> RemoteContainer:
        """As `Client.create`."""
        return self._client.create(image, command, **options)

    def get(self, name: str) -> RemoteContainer:
        """By name, id, or the beginning of an id. Raises ContainerNotFound."""
        return RemoteContainer(RemoteContainer(name, self._api).document.id, self._api)

    def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        before: str | None = None,
        since: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> "builtins.list[RemoteContainer]":
        """As `ContainerCollection.list`."""
        bounds = {name: value for name, value in (("before", before), ("since", since)) if value is not None}
        found = self.summaries(all=all, limit=limit, filters={**(filters or {}), **bounds})
        return [RemoteContainer(one.id, self._api) for one in found]

    def summaries(
        self, *, all: bool = False, limit: int | None = None, filters: Mapping[str, Any] | None = None
    ) -> "builtins.list[ContainerSummary]":
        """As `ContainerCollection.summaries`."""
        query = {"all": all, "limit": limit, "filters": _filters(filters)}
        return self._api.read_all(ContainerSummary, "/containers/json", query)

    def prune(self) -> "builtins.list[str]":
        """Remove every container that does not run; returns their ids."""
        return self._api.ask(ContainersPruned, "/containers/prune").containers_deleted or []


_filters = filters  # `list` has an argument of that name


def create(api: Api, image: str, options: Options, given: Mapping[str, Any]) -> RemoteContainer:
    """A container; the image must be there. Raises ImageNotFound, NameInUse and what else the engine refuses with."""
    query = {"name": options.name, "platform": options.platform if api.version >= (1, 41) else None}
    request, about = creation.request(image, options, given), {"container": options.name or image, "image": image}
    return RemoteContainer(api.ask(ContainerCreated, "/containers/create", query, request, about=about).id, api)


# -- documents ---------------------------------------------------------------------------------------------------------


def _exit_record(found: ContainerInspect) -> ExitRecord | None:
    state = found.state
    if state.status not in ("exited", "dead"):
        return None
    return ExitRecord(
        exit_code=state.exit_code,
        signal=state.exit_code - 128 if 128 < state.exit_code <= 128 + 64 else None,
        oom_killed=state.oom_killed,
        started=_time(state.started_at),
        finished=_time(state.finished_at),
        restarts=found.restart_count,
    )


def _time(text: str | None) -> int:
    """RFC 3339 in nanoseconds since 1970; 0 for none."""
    if not text or text.startswith("0001-"):
        return 0
    whole, _, rest = text.partition(".")
    digits = "".join(character for character in rest if character.isdigit())[:9] if rest else ""
    moment = datetime.fromisoformat(whole.removesuffix("Z")[:19]).replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NANO + int(digits.ljust(9, "0") or 0)


def _unix(when: float | datetime) -> str:
    """Seconds since 1970 with their fraction, as the API takes them."""
    seconds = when.timestamp() if isinstance(when, datetime) else when
    return f"{seconds:.9f}" if seconds else "0"


class _Lines:
    """Lines out of pieces that begin with their time: each frame does, and each line where there are no frames."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._parts: dict[str, tuple[int, bytes]] = {}  # by stream: what has no newline yet, and its time

    def feed(self, stream: str, content: bytes) -> Iterator[Line]:
        if self._raw:
            *lines, rest = (self._parts.pop(stream, (0, b""))[1] + content).split(b"\n")
            for line in lines:
                time, text = _timed(line + b"\n")
                yield Line(stream=_STREAM_NUMBERS[stream], time=time, content=text)
            if rest:
                self._parts[stream] = 0, rest
            return
        time, text = _timed(content)
        if stream in self._parts:  # a long line comes in several frames
            time, begun = self._parts.pop(stream)
            text = begun + text
        if text.endswith(b"\n"):
            yield Line(stream=_STREAM_NUMBERS[stream], time=time, content=text)
        else:
            self._parts[stream] = time, text

    def end(self) -> Iterator[Line]:
        for stream, begun in self._parts.items():
            time, text = _timed(begun[1]) if self._raw else begun
            yield Line(stream=_STREAM_NUMBERS[stream], time=time, content=text)


def _timed(content: bytes) -> tuple[int, bytes]:
    time, _, rest = content.partition(b" ")
    return _time(time.decode("ascii", "replace")), rest


def _sample(document: Mapping[str, Any]) -> "Stats":
    from wherry.stats import Stats

    found = Stats(document)
    found.setdefault("networks", {})
    found["memory_stats"].setdefault("stats", {})
    found["blkio_stats"]["io_service_bytes_recursive"] = found["blkio_stats"].get("io_service_bytes_recursive") or []
    return found


_UPDATES = (
    *("blkio_weight", "cpu_period", "cpu_quota", "cpu_shares", "cpuset_cpus", "cpuset_mems", "nano_cpus", "pids_limit"),
)
_SIZES = {
    "kernel_memory": "kernel_memory",
    "mem_limit": "memory",
    "mem_reservation": "memory_reservation",
    "memswap_limit": "memory_swap",
}


def _update(changes: Mapping[str, Any]) -> HostConfig:
    found: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "cpus":
            found["nano_cpus"] = int(float(value) * 1e9)
        elif name == "restart_policy":
            policy = Options.parse(None, {"restart_policy": value}).restart
            found["restart_policy"] = RestartPolicy(name=policy.name, maximum_retry_count=policy.maximum)
        elif name in _SIZES:
            found[_SIZES[name]] = size_in_bytes(value, name)
        elif name in _UPDATES:
            found[name] = value
        else:
            raise TypeError(f"update() got an unexpected keyword argument {name!r}")
    return HostConfig(**found)
