"""Containers: everything below /containers."""

import base64
import json
import re
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

import attrs

from wherry import execs, logreader
from wherry.container import timestamp
from wherry.containersummary import summaries
from wherry.detachkeys import DetachKeys
from wherry.engineapi import document
from wherry.engineapi.containers import (
    ContainerCreate,
    ContainerCreated,
    ContainersPruned,
    ContainerTop,
    ContainerUpdated,
    ContainerWait,
    FilesystemChange,
    HostConfig,
    LogConfig,
    PathStat,
)
from wherry.engineapi.execs import ExecCreate, ExecCreated, ExecStart
from wherry.errors import NotRunning, StartFailed
from wherry.execrequest import ExecRequest
from wherry.inspection import container_document
from wherry.local import signal_number
from wherry.logreader import Line
from wherry.options import Options, nanoseconds
from wherry.waiting import wait_while
from wherry_daemon import creation
from wherry_daemon.context import Context, filters
from wherry_daemon.http import FRAMES, RAW_STREAM, TAR, Answer, Empty, Hijack, Hijacked, Json, Request, Stream
from wherry_daemon.refusals import BadParameter, NotModified, message
from wherry_daemon.routes import Routes
from wherry_daemon.streams import carry, documents, encoded, frame
from wherry_daemon.websocket import accept
from wherry_images.errors import ImageNotFound
from wherry_oci.errors import Conflict, Error, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.containerstore import Record

route = Routes()

_NANO = 1_000_000_000
_KILL_PATIENCE_S = 10.0
_UNIX_TIME = re.compile(r"(?P<seconds>\d+)(?:\.(?P<rest>\d*))?")  # in text, for a float has too few digits
_NEW_STREAM_TYPE = (1, 42)  # from here on the type of a stream tells whether it is framed


@route("POST", "/containers/create")
def create(context: Context, request: Request) -> Answer:
    asked = request.parsed(ContainerCreate)
    if not asked.image:
        raise BadParameter("no command specified: config cannot be empty in order to create a container")
    given = creation.options(asked)
    command = given.pop("command", None)
    given["pull"] = "never"
    if name := request.text("name"):
        given["name"] = name.removeprefix("/")
    if platform := request.text("platform"):
        given["platform"] = platform
    try:
        options = Options.parse(command, given, as_docker=True)
    except Error:
        raise
    except (AttributeError, IndexError, KeyError, ValueError) as error:  # inside of an object of the request
        raise BadParameter(f"the request makes no sense: {type(error).__name__}: {error}") from error
    try:
        record = context.engine.create(asked.image, options)
    except ImageNotFound:
        raise
    except NotFound as error:  # 404 would have the docker command pull the image and try again
        raise BadParameter(message(error)) from error
    _keep_request(context, record.id, asked)
    return Json(status=201, document=ContainerCreated(id=record.id))


_REQUEST = "request.json"


def _keep_request(context: Context, container_id: str, asked: ContainerCreate) -> None:
    """For what only clients make something of: how they attach, the size of their console."""
    path = context.engine.store.directory(container_id) / _REQUEST
    path.write_text(json.dumps(document.asked(asked)), encoding="utf-8", errors="surrogateescape")


def _kept_request(context: Context, container_id: str) -> ContainerCreate:
    try:
        found = json.loads((context.engine.store.directory(container_id) / _REQUEST).read_bytes())
    except (FileNotFoundError, ValueError):
        return ContainerCreate()
    return document.parse(found, ContainerCreate)


_TOLD_BACK = ("attach_stdin", "attach_stdout", "attach_stderr", "stdin_once", "volumes", "exposed_ports", "image")
_HOST_TOLD_BACK = (
    *("binds", "console_size", "log_config", "port_bindings", "links", "mounts", "network_mode", "extra_hosts"),
    *("blkio_weight", "blkio_weight_device", "blkio_device_read_bps", "blkio_device_read_iops"),
    *("blkio_device_write_bps", "blkio_device_write_iops", "cgroupns_mode", "cpu_realtime_period"),
    *("cpu_realtime_runtime", "device_cgroup_rules", "ipc_mode", "isolation", "memory_swappiness"),
    *("oom_kill_disable", "pid_mode", "storage_opt", "uts_mode", "volume_driver", "annotations"),
)


@route("GET", "/containers/{id}/json")
def inspect(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    found = container_document(context.engine, record, context.engine.state(record), sizes=request.flag("size"))
    asked = _kept_request(context, record.id)
    config = attrs.evolve(found.config, **_said(asked, _TOLD_BACK))
    # A variable that was asked for without a value is not set, and shown all the same.
    config = attrs.evolve(config, env=[*(config.env or ()), *(item for item in asked.env or () if "=" not in item)])
    host = attrs.evolve(found.host_config, **_said(asked.host_config, _HOST_TOLD_BACK))
    # docker-py reads the logs of json-file and journald alone; `local` is read by the same calls.
    log = host.log_config or LogConfig()
    log = attrs.evolve(log, type="json-file" if log.type in ("", "local") else log.type)
    return Json(document=attrs.evolve(found, config=config, host_config=attrs.evolve(host, log_config=log)))


def _said(asked: object, names: Sequence[str]) -> dict[str, Any]:
    """Those of the fields that the request has something in."""
    return {name: value for name in names if (value := getattr(asked, name))}


@route("GET", "/containers/json")
def listing(context: Context, request: Request) -> Answer:
    wanted = filters(request.mapping("filters"))
    bounds = {name: request.text(name) for name in ("before", "since") if request.text(name)}
    limit = request.number("limit", 0)
    return Json(
        document=summaries(
            context.engine,
            all=request.flag("all"),
            limit=limit if limit > 0 else None,
            filters={**wanted, **bounds},
            sizes=request.flag("size"),
        )
    )


# life


@route("POST", "/containers/{id}/start")
def start(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    if context.engine.state(record).alive:
        raise NotModified
    try:
        context.engine.start(record.id)
    except StartFailed:
        if record.auto_remove:
            context.engine.remove(record.id, force=True)
        raise
    return Empty()


@route("POST", "/containers/{id}/stop")
def stop(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    if not context.engine.state(record).alive:
        raise NotModified
    context.engine.stop(record.id, _patience(request), request.text("signal") or None)
    return Empty()


def _patience(request: Request) -> float | None:
    return request.number("t", 0) if request.text("t") else None


@route("POST", "/containers/{id}/restart")
def restart(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    context.engine.stop(record.id, _patience(request), request.text("signal") or None)
    context.engine.start(record.id)
    return Empty()


@route("POST", "/containers/{id}/kill")
def kill(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    signal = request.text("signal") or "SIGKILL"
    try:
        context.engine.kill(record.id, signal)
    except NotRunning:
        raise Conflict(f"cannot kill container: {name}: container {record.id} is not running") from None
    if signal_number(signal) == SIGKILL:  # Docker answers when it has ended
        context.engine.wait(record.id, _KILL_PATIENCE_S)
    return Empty()


@route("POST", "/containers/{id}/pause")
def pause(context: Context, request: Request, name: str) -> Answer:
    container = context.container(name)
    if container.status == "paused":
        raise Conflict(f"Container {container.id} is already paused")
    container.pause()
    return Empty()


@route("POST", "/containers/{id}/unpause")
def unpause(context: Context, request: Request, name: str) -> Answer:
    container = context.container(name)
    if container.status != "paused":
        raise Conflict(f"Container {container.id} is not paused")
    container.unpause()
    return Empty()


@route("POST", "/containers/{id}/rename")
def rename(context: Context, request: Request, name: str) -> Answer:
    container, wanted = context.container(name), request.text("name").removeprefix("/")
    if container.name == wanted:
        raise BadParameter("Renaming a container with the same name as its current name")
    container.rename(wanted)
    return Empty()


@route("POST", "/containers/{id}/resize")
def resize(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    context.engine.tell_shim(record.id, "resize", rows=request.number("h", 0), columns=request.number("w", 0))
    return Empty(status=200)


@route("POST", "/containers/{id}/wait")
def wait(context: Context, request: Request, name: str) -> Answer:
    container = context.container(name)
    condition = request.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise BadParameter(f"invalid condition: {condition!r}")

    def ended() -> Iterator[bytes]:
        chosen = condition
        if chosen == "not-running":  # who waits for a removal asks for no record: it may be gone by now
            state = context.engine.state(context.engine.record(container.id))
            if state.status == "created":
                yield from documents([ContainerWait()])
                return
            if state.alive and _is_restarted(context, container.id):
                chosen = "next-exit"  # Docker tells the first end, whatever comes after it
        connection = request.connection
        record = wait_while(context.engine, container.id, chosen, lambda: 0.0 if connection.client_left() else None)
        if record is not None:
            yield from documents([ContainerWait(status_code=record.exit_code)])

    return Stream(pieces=ended(), at_once=True)


def _is_restarted(context: Context, container_id: str) -> bool:
    return context.engine.record(container_id).settings["restart"]["name"] not in ("", "no")


@route("DELETE", "/containers/{id}")
def remove(context: Context, request: Request, name: str) -> Answer:
    if request.flag("link"):
        raise BadParameter("links of names are not removed one by one: disconnect the container, or remove it")
    record = context.engine.record(name.removeprefix("/"))
    if not request.flag("force") and context.engine.state(record).alive:
        raise Conflict(
            f'cannot remove container "/{record.name}": container is running: '
            "stop the container before removing or force remove"
        )
    context.container(record.id).remove(force=request.flag("force"), v=request.flag("v"))
    return Empty()


@route("POST", "/containers/prune")
def prune(context: Context, request: Request) -> Answer:
    wanted = filters(request.mapping("filters"))
    unknown = set(wanted) - {"label", "label!", "until"}
    if unknown:
        raise BadParameter(f"invalid filter {min(unknown)!r}")
    until = moment(wanted.pop("until", None))
    removed, freed = [], 0
    for container in context.client.containers.list(all=True, filters=wanted):
        record = context.engine.record(container.id)
        if context.engine.state(record).alive or (until is not None and record.created > until):
            continue
        size = context.engine.size(record.id)
        try:
            container.remove()
        except (Conflict, InvalidArgument):
            continue
        removed.append(record.id)
        freed += size
    return Json(document=ContainersPruned(containers_deleted=removed, space_reclaimed=freed))


def moment(given: Any) -> int | None:
    """Nanoseconds since 1970 of a time stamp, or of a span before now; None for none. Raises InvalidArgument."""
    text = str(given[0] if isinstance(given, list) and given else given or "")
    if not text:
        return None
    if found := _UNIX_TIME.fullmatch(text):
        return int(found["seconds"]) * _NANO + int((found["rest"] or "").ljust(9, "0")[:9])
    try:
        return int(datetime.fromisoformat(text).timestamp() * _NANO)
    except ValueError:
        return time.time_ns() - nanoseconds(text, "until")


@route("POST", "/containers/{id}/update")
def update(context: Context, request: Request, name: str) -> Answer:
    context.container(name).update(**creation.changes(request.parsed(HostConfig)))
    return Json(document=ContainerUpdated(warnings=[]))


# looking


@route("GET", "/containers/{id}/top")
def top(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    if not context.engine.state(record).pid:
        raise Conflict(f"container {record.id} is not running")
    if request.text("ps_args") not in ("", "-ef"):
        return Json(document=_ps(context, record.id, request.text("ps_args")))
    found = context.container(name).top()
    return Json(document=ContainerTop(titles=found["Titles"], processes=found["Processes"]))


def _ps(context: Context, container_id: str, arguments: str) -> ContainerTop:
    """What the host's ps tells of a container's processes, in the columns that were asked for."""
    import subprocess

    done = subprocess.run(["ps", *arguments.split()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadParameter(f"ps {arguments}: {done.stderr.strip()}")
    head, *rows = done.stdout.splitlines()
    titles = head.split()
    if "PID" not in titles:
        raise BadParameter(f"Couldn't find PID field in ps output: {arguments}")
    column = titles.index("PID")
    here = set(map(str, context.engine.processes(container_id)))
    split = [row.split(None, len(titles) - 1) for row in rows]
    return ContainerTop(titles=titles, processes=[row for row in split if len(row) > column and row[column] in here])


_CHANGES = {"modified": 0, "added": 1, "deleted": 2}


@route("GET", "/containers/{id}/changes")
def changes(context: Context, request: Request, name: str) -> Answer:
    found = context.container(name).diff()
    return Json(document=[FilesystemChange(path=one.path, kind=_CHANGES[one.kind]) for one in found] or None)


@route("GET", "/containers/{id}/stats")
def stats(context: Context, request: Request, name: str) -> Answer:
    container = context.container(name)
    if not request.flag("stream", True):
        if not request.flag("one-shot"):
            return Json(document=_second_sample(container))
        return Json(document=container.stats(stream=False))
    samples = container.stats(stream=True)
    return Stream(pieces=documents(samples))


def _second_sample(container: Any) -> Any:
    """As Docker does it: two samples, so that the first can stand for what was before."""
    return next(iter(container.stats(stream=True, interval=0.2)))


@route("GET", "/containers/{id}/logs")
def logs(context: Context, request: Request, name: str) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    stdout, stderr = request.flag("stdout"), request.flag("stderr")
    if not stdout and not stderr:
        raise BadParameter("Bad parameters: you must choose at least one stream")
    tail = request.text("tail", "all")
    lines = _log_lines(
        context,
        record,
        streams=_chosen_streams(stdout, stderr),
        tail=int(tail) if tail.isdigit() else None,
        since=moment(request.text("since")) or 0,
        until=moment(request.text("until")),
        client=request.connection.fileno() if request.flag("follow") else None,
    )
    stamped = (_stamped(line) for line in lines) if request.flag("timestamps") else lines
    terminal = bool(record.settings["tty"])
    pieces = (line.content if terminal else frame(line.stream, line.content) for line in stamped)
    return Stream(pieces=pieces, type=RAW_STREAM if terminal or not _new_types(request) else FRAMES, at_once=True)


def _chosen_streams(stdout: bool, stderr: bool) -> frozenset[int]:
    return frozenset(number for number, wanted in ((1, stdout), (2, stderr)) if wanted)


def _log_lines(
    context: Context,
    record: "Record",
    *,
    streams: frozenset[int],
    tail: int | None = None,
    since: int = 0,
    until: int | None = None,
    client: int | None = None,
) -> Iterator[Line]:
    """The log's lines, and with *client* those to come, until it hangs up."""
    run = context.engine.store.run_directory(record.id)
    with context.engine.log_reader(record) as reader:
        if tail is not None and not since and until is None:
            yield from logreader.last(reader, tail, streams)
            if client is None:
                return
            pieces = logreader.follow(reader, run, client)
            yield from logreader.lines(pieces, streams=streams)
            return
        pieces = reader.pieces() if client is None else logreader.follow(reader, run, client)
        found = logreader.lines(pieces, streams=streams, since=since, until=until)
        yield from found if tail is None else deque(found, maxlen=tail)


def _stamped(line: Line) -> Line:
    return attrs.evolve(line, content=f"{timestamp(line.time)} ".encode() + line.content)


def _new_types(request: Request) -> bool:
    return request.version is None or request.version >= _NEW_STREAM_TYPE


# attaching


@route("POST", "/containers/{id}/attach")
def attach(context: Context, request: Request, name: str) -> Answer:
    return _attach(context, request, name, websocket=False)


@route("GET", "/containers/{id}/attach/ws")
def attach_websocket(context: Context, request: Request, name: str) -> Answer:
    """As `attach`, by messages of a WebSocket, in which both streams come without frames."""
    return _attach(context, request, name, websocket=True)


def _attach(context: Context, request: Request, name: str, *, websocket: bool) -> Answer:
    record = context.engine.record(name.removeprefix("/"))
    state = context.engine.state(record)
    if state.status == "paused":
        raise Conflict(f"container {name} is paused, unpause the container before attach")
    keys = DetachKeys(request.text("detachKeys"))
    stdin = request.flag("stdin") and bool(record.settings["stdin_open"])
    wanted = [stream for stream in ("stdout", "stderr") if request.flag(stream)]
    streaming = request.flag("stream")
    terminal = bool(record.settings["tty"])
    raw = terminal or websocket
    once = _kept_request(context, record.id).stdin_once
    opening = accept(request.headers, request.path, discards=not stdin) if websocket else None
    container = context.container(record.id)
    attachment = container.attach(logs=request.flag("logs")) if streaming else None

    def serve(client: Hijacked) -> None:
        if attachment is None:
            if request.flag("logs"):
                streams = _chosen_streams("stdout" in wanted, "stderr" in wanted)
                for line in _log_lines(context, record, streams=streams):
                    client.write(line.content if raw else frame(line.stream, line.content))
            client.end()
            return
        with attachment:
            carry(
                client,
                attachment,
                terminal=raw,
                # A WebSocket is listened to in any case: the client closes it by a message.
                stdin=stdin or websocket,
                wanted=wanted,
                end_input=stdin and (once or not terminal),
                keys=keys if terminal else None,
            )

    kind = RAW_STREAM if raw or not _new_types(request) else FRAMES
    return Hijack(serve=serve, type=kind, websocket=opening)


# files


@route("GET", "/containers/{id}/export")
def export(context: Context, request: Request, name: str) -> Answer:
    return Stream(pieces=context.container(name).export(), type=TAR)


@route("HEAD", "/containers/{id}/archive")
def archive_stat(context: Context, request: Request, name: str) -> Answer:
    return Empty(status=200, headers=(_path_stat(context, name, request.text("path")),))


@route("GET", "/containers/{id}/archive")
def get_archive(context: Context, request: Request, name: str) -> Answer:
    path = request.text("path")
    header = _path_stat(context, name, path)
    return Stream(pieces=context.container(name).get_archive(path), type=TAR, headers=(header,))


def _path_stat(context: Context, name: str, path: str) -> tuple[str, str]:
    if not path:
        raise BadParameter("missing required parameter: path")
    with context.engine.rootfs(name.removeprefix("/")) as root:
        try:
            status = root.stat(path, follow=False)
        except NotFound:
            raise NotFound(f"Could not find the file {path} in container {name}") from None
        link = root.link(path) if stat.S_ISLNK(status.st_mode) else ""
    found = PathStat(
        name=path.rstrip("/").rpartition("/")[2] or "/",
        size=status.st_size,
        mode=_go_mode(status.st_mode),
        mtime=timestamp(status.st_mtime_ns),
        link_target=link,
    )
    return "X-Docker-Container-Path-Stat", base64.b64encode(encoded(found)).decode()


# Go's os.FileMode has its own bits for what is no permission.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def _go_mode(mode: int) -> int:
    bits = sum(bit for ours, bit in _GO_BITS.items() if mode & ours)
    return mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits


@route("PUT", "/containers/{id}/archive")
def put_archive(context: Context, request: Request, name: str) -> Answer:
    path = request.text("path")
    if not path:
        raise BadParameter("missing required parameter: path")
    context.container(name).put_archive(path, request.pieces())
    return Empty(status=200)


# execs


@route("POST", "/containers/{id}/exec")
def exec_create(context: Context, request: Request, name: str) -> Answer:
    asked = request.parsed(ExecCreate)
    if not asked.cmd:
        raise BadParameter("No exec command specified")
    record = context.engine.record(name.removeprefix("/"))
    state = context.engine.state(record)
    if state.status == "paused":
        raise Conflict(f"Container {name} is paused, unpause the container before exec")
    if state.status != "running":
        raise Conflict(f"container {record.id} is not running")
    wanted = ExecRequest.of(
        asked.cmd,
        user=asked.user or None,
        environment=asked.env,
        working_dir=asked.working_dir or None,
        tty=asked.tty,
        stdin=asked.attach_stdin,
        stdout=asked.attach_stdout,
        stderr=asked.attach_stderr,
        privileged=asked.privileged,
        detach_keys=asked.detach_keys,
    )
    made = execs.create(context.engine, record.id, wanted)
    return Json(status=201, document=ExecCreated(id=made))


@route("POST", "/exec/{id}/start")
def exec_start(context: Context, request: Request, exec_id: str) -> Answer:
    asked = request.parsed(ExecStart)
    made = context.client.get_exec(exec_id)
    described = made.document
    terminal = described.process_config.tty
    raw = asked.tty  # the start's, not the process' own: that is how Docker chooses, and clients read
    try:
        process = made.start()
    except StartFailed as error:
        if asked.detach:
            raise
        return _failed_exec(context, exec_id, error, raw)
    if asked.detach:
        process.close()
        return Empty(status=200)
    streams = (("stdout", described.open_stdout), ("stderr", described.open_stderr))
    wanted = [stream for stream, is_open in streams if is_open]
    keys = DetachKeys(described.detach_keys) if terminal else None
    if terminal and asked.console_size is not None and len(asked.console_size) == 2:
        process.resize(*asked.console_size)

    def serve(client: Hijacked) -> None:
        try:
            carry(client, process, terminal=raw, stdin=described.open_stdin, wanted=wanted, keys=keys)
        finally:
            process.close()

    return Hijack(serve=serve, type=RAW_STREAM if raw or not _new_types(request) else FRAMES)


_NOT_STARTED = 126


def _failed_exec(context: Context, exec_id: str, error: StartFailed, raw: bool) -> Answer:
    """As Docker does it: the reason is what the process says, and its exit code is a shell's."""
    context.failed_execs[exec_id] = getattr(error, "exit_code", _NOT_STARTED)
    reason = message(error).partition("process: ")[2]
    said = f"OCI runtime exec failed: exec failed: unable to start container process: {reason}\r\n".encode()

    def serve(client: Hijacked) -> None:
        client.write(said if raw else frame(1, said))
        client.end()

    return Hijack(serve=serve)


@route("GET", "/exec/{id}/json")
def exec_inspect(context: Context, request: Request, exec_id: str) -> Answer:
    found = context.client.get_exec(exec_id).document
    if exec_id in context.failed_execs:
        found = attrs.evolve(found, running=False, exit_code=context.failed_execs[exec_id])
    return Json(document=found)


@route("POST", "/exec/{id}/resize")
def exec_resize(context: Context, request: Request, exec_id: str) -> Answer:
    context.client.get_exec(exec_id).resize(request.number("h", 0), request.number("w", 0))
    return Empty(status=200)
