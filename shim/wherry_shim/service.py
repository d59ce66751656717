"""What a shim answers to its clients: one method for each operation of the protocol (connection.py)."""

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket

from wherry_oci.errors import Error
from wherry_oci.runtime import quickjson
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim import records
from wherry_shim.connection import APPOINTMENTS, CONTROL, STDIN, VERSION, Connection, connect_below
from wherry_shim.loop import READABLE, Loop
from wherry_shim.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_shim.readiness import Readiness
    from wherry_shim.supervisor import Supervisor

_BACKLOG = 128
_FLUSH_S = 10.0


def input_frames(
    streams: Streams, connection: Connection, kill: "Callable[[int], None]"
) -> "Callable[[int, bytes], None]":
    """What to do with a client's frames: stdin's go into *streams*, control's change the window's size or *kill*."""

    def on_frame(stream: int, payload: bytes) -> None:
        if stream == STDIN:
            streams.write_input(payload)
            if streams.input_is_full:
                connection.hold(True)
                streams.on_input_room.append(lambda: connection.hold(False))
        elif stream == CONTROL:
            _control(quickjson.loads(payload), streams, kill)

    return on_frame


def _control(order: "dict[str, Any]", streams: Streams, kill: "Callable[[int], None]") -> None:
    if "signal" in order:
        kill(int(order["signal"]))
    if "rows" in order:
        streams.resize(int(order["rows"]), int(order["columns"]))


class Service:
    """The socket, and the clients that are there."""

    def __init__(self, loop: Loop, run_directory: str, supervisor: "Supervisor") -> None:
        self._loop, self._supervisor = loop, supervisor
        self._followers: list[Connection] = []
        self._attached: list[Connection] = []
        self._waiters: list[Connection] = []
        self._waiters_for_gone: list[Connection] = []
        self._waiters_for_next_exit: list[Connection] = []
        self._waiters_for_health: list[Connection] = []
        self._clients: set[Connection] = set()
        self._readiness: dict[Connection, Readiness] = {}
        self._operations: dict[str, Callable[[Connection, dict[str, Any]], None]] = {
            "ping": self._ping,
            "wait": self._wait,
            "ready": self._ready,
            "kill": self._kill,
            "follow": self._follow,
            "attach": self._attach,
            "exec": self._exec,
            "exec-inspect": self._exec_inspect,
            "exec-resize": self._exec_resize,
            "resize": self._resize,
            "rename": self._rename,
            "update": self._update,
            "pause": self._pause,
            "unpause": self._unpause,
            "socket": self._socket,
            "connect": self._connect,
            "disconnect": self._disconnect,
            "names": self._names,
        }
        self._listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        self._listen(run_directory)
        loop.watch(self._listener.fileno(), READABLE, self._on_connect)

    def _listen(self, run_directory: str) -> None:
        """Bound through a descriptor of the directory: a socket's path is limited to 107 bytes, a root's is not."""
        directory = os.open(run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                os.unlink(records.SOCKET, dir_fd=directory)
            except FileNotFoundError:
                pass
            self._listener.bind(f"/proc/self/fd/{directory}/{records.SOCKET}")  # umask 077: mode 0700
            self._listener.listen(_BACKLOG)
        finally:
            os.close(directory)

    def _on_connect(self, events: int) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined] # what socket.accept itself calls
        except OSError:  # it went away, or descriptors ran out: the next round tells
            return
        connection = self._welcome(socket(fileno=fd))
        if not connection.peer_is_trusted():
            connection.refuse("permission_denied", "only root and the container's owner may speak to its shim")

    def _on_request(self, connection: Connection, request: "dict[str, Any]") -> None:
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            connection.refuse("unsupported", f"this shim (version {VERSION}) knows no operation {request.get('op')!r}")
            return
        try:
            operation(connection, request)
        except RuntimeFailure as failure:
            connection.refuse(**failure.to_json())  # type: ignore[arg-type] # its kind and message are texts
        except Error as error:  # of the network: its text is all that a client needs
            connection.refuse("system", str(error))
        except (KeyError, TypeError, ValueError) as error:
            connection.refuse("invalid", f"request {request.get('op')}: {type(error).__name__} {error}")
        except OSError as error:
            connection.refuse("system", f"{request.get('op')}: {(error.strerror or str(error)).lower()}")

    # events of the container

    def on_output(self, stream: int, piece: bytes) -> None:
        """The container wrote *piece*: followers learn that there is more to read, the attached get it."""
        for connection in self._followers:
            if not connection.backlog:
                connection.send(b"\n")
        for connection in list(self._attached):
            connection.send_frame(stream, piece)
        for readiness in self._readiness.values():
            readiness.on_output(stream, piece)

    def on_run_end(self, record: "dict[str, Any]") -> None:
        """A run has ended, all its output is written; another one may follow."""
        payload = quickjson.dumps(record).encode()
        for connection in list(self._attached):
            connection.send_frame(CONTROL, payload)
            connection.finish()
        self._answer(self._waiters_for_next_exit, record)

    def on_exit(self, record: "dict[str, Any]") -> None:
        """The container has ended for good: tell everybody."""
        for connection in list(self._followers):
            connection.send(b"end\n")
            connection.finish()
        self._answer(self._waiters, record)
        self._answer(self._waiters_for_health, {"kind": "ended", **record})
        self._answer(list(self._readiness), {"ended": True})

    def on_health(self, status: str) -> None:
        """A check has come to a result."""
        if status != "starting":
            self._answer(self._waiters_for_health, {"health": status})

    def on_gone(self, record: "dict[str, Any]") -> None:
        """All that the container had is taken down."""
        self._answer(self._waiters_for_gone, record)

    def _answer(self, waiters: "list[Connection]", record: "dict[str, Any]") -> None:
        for connection in list(waiters):
            connection.answer(**record)
            connection.finish()

    def close(self) -> None:
        """No new clients."""
        self._loop.forget(self._listener.fileno())
        self._listener.close()

    def flush(self) -> None:
        """Let those who have not taken all yet do so, for a bounded time; for the container's end."""
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True

        self._loop.after(_FLUSH_S, expire)
        while not expired and any(client.backlog for client in self._clients):
            self._loop.step()

    # operations

    def _ping(self, connection: Connection, request: "dict[str, Any]") -> None:
        connection.answer(version=VERSION, shim=os.getpid())
        connection.finish()

    def _wait(self, connection: Connection, request: "dict[str, Any]") -> None:
        """
        Answered with the exit record when the container has ended for good, or with `until` "next-exit" when this run
        has, "gone" when all is taken down; "healthy" with the first health that is not "starting", or the exit record.
        """
        until = request.get("until", "exited")
        if until == "healthy" and (health := self._supervisor.health) not in (None, "starting"):
            connection.answer(health=health)
            connection.finish()
            return
        groups = {
            "exited": self._waiters,
            "next-exit": self._waiters_for_next_exit,
            "gone": self._waiters_for_gone,
            "healthy": self._waiters_for_health,
        }
        self._join(groups[until], connection)

    def _ready(self, connection: Connection, request: "dict[str, Any]") -> None:
        """Answered when all `conditions` (readiness.py) have come true, or with `ended` at the container's end."""
        from wherry_shim.readiness import Readiness

        def answer() -> None:
            connection.answer()
            connection.finish()

        def leave() -> None:
            self._readiness.pop(connection).cancel()

        self._readiness[connection] = readiness = Readiness(self._loop, self._supervisor, request["conditions"], answer)
        connection.on_close.append(leave)
        readiness.look()

    def _follow(self, connection: Connection, request: "dict[str, Any]") -> None:
        """One newline whenever the log has grown since the last one was taken, and `end` when it will not any more."""
        connection.answer()
        self._join(self._followers, connection)

    def _join(self, group: "list[Connection]", connection: Connection) -> None:
        group.append(connection)
        connection.on_close.append(lambda: group.remove(connection) if connection in group else None)

    def _kill(self, connection: Connection, request: "dict[str, Any]") -> None:
        """With `stop` it is meant to end: it is not started again, whatever its restart policy."""
        self._supervisor.kill(int(request["signal"]), stop=bool(request.get("stop")))
        connection.answer()
        connection.finish()

    def _pause(self, connection: Connection, request: "dict[str, Any]") -> None:
        self._supervisor.pause(True)
        connection.answer()
        connection.finish()

    def _unpause(self, connection: Connection, request: "dict[str, Any]") -> None:
        self._supervisor.pause(False)
        connection.answer()
        connection.finish()

    def _resize(self, connection: Connection, request: "dict[str, Any]") -> None:
        self._supervisor.streams.resize(int(request["rows"]), int(request["columns"]))
        self._supervisor.note("resize", height=request["rows"], width=request["columns"])
        connection.answer()
        connection.finish()

    def _rename(self, connection: Connection, request: "dict[str, Any]") -> None:
        self._supervisor.rename(str(request["name"]))
        connection.answer()
        connection.finish()

    def _update(self, connection: Connection, request: "dict[str, Any]") -> None:
        """`resources` as in config.json: each part that is given takes the place of the old one."""
        self._supervisor.update(request.get("resources") or {}, request.get("restart"))
        connection.answer()
        connection.finish()

    def _socket(self, connection: Connection, request: "dict[str, Any]") -> None:
        """A new socket of the container's own network namespace, for the client to connect."""
        made = self._supervisor.new_socket(int(request["family"]), int(request["type"]))
        connection.answer_with(made.fileno())
        made.close()

    def _connect(self, connection: Connection, request: "dict[str, Any]") -> None:
        """One more `interface` (network.py), to a network with this `table`; `changed` is False if it was there."""
        changed = self._supervisor.connect_network(request["interface"], request["table"], request.get("resolver"))
        connection.answer(changed=changed)
        connection.finish()

    def _disconnect(self, connection: Connection, request: "dict[str, Any]") -> None:
        """The interface to `network` (an id) goes; `changed` is False if there was none."""
        connection.answer(changed=self._supervisor.disconnect_network(request["network"]))
        connection.finish()

    def _names(self, connection: Connection, request: "dict[str, Any]") -> None:
        """What it is called from now on, by the ids of `networks` (names, network_name, links: see network.py)."""
        self._supervisor.change_names(request["networks"])
        connection.answer()
        connection.finish()

    def _attach(self, connection: Connection, request: "dict[str, Any]") -> None:
        """With `replay` what it has written since its start comes first."""
        connection.answer()
        if request.get("replay"):
            for stream, piece in self._supervisor.written():
                connection.send_frame(stream, piece)
        self._attach_to(connection)

    def keep_appointments(self, run_directory: str) -> None:
        """
        Those who wanted to be attached from the very first byte listen in `attach/`: call them before the start.

        Who has gone meanwhile is forgotten.
        """
        try:
            names = os.listdir(f"{run_directory}/{APPOINTMENTS}")
        except FileNotFoundError:
            return
        for name in names:
            end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
            try:
                connect_below(end, f"{run_directory}/{APPOINTMENTS}", name)
            except OSError:
                end.close()
            else:
                self._attach_to(self._welcome(end))
            os.unlink(f"{run_directory}/{APPOINTMENTS}/{name}")

    def _welcome(self, end: socket) -> Connection:
        connection = Connection(self._loop, end, self._on_request)
        self._clients.add(connection)
        connection.on_close.append(lambda: self._clients.discard(connection))
        return connection

    def _attach_to(self, connection: Connection) -> None:
        self._supervisor.note("attach")
        self._join(self._attached, connection)
        connection.speak_frames(input_frames(self._supervisor.streams, connection, self._supervisor.kill))

    def _exec_inspect(self, connection: Connection, request: "dict[str, Any]") -> None:
        """`pid`, `running`, `exit_code` (null while it runs) of the exec `exec_id`; without it `running`: their ids."""
        if "exec_id" in request:
            connection.answer(**self._supervisor.execs.record(str(request["exec_id"])))
        else:
            connection.answer(running=self._supervisor.execs.running())
        connection.finish()

    def _exec_resize(self, connection: Connection, request: "dict[str, Any]") -> None:
        self._supervisor.execs.resize(str(request["exec_id"]), int(request["rows"]), int(request["columns"]))
        connection.answer()
        connection.finish()

    def _exec(self, connection: Connection, request: "dict[str, Any]") -> None:
        execution = self._supervisor.execute(request, connection)
        connection.speak_frames(input_frames(execution.streams, connection, execution.kill))
