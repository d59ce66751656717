"""A connection to a systemd manager, and the few of its methods that scopes take (org.freedesktop.systemd1(5))."""

import os
import socket
from time import monotonic

from wherry_oci.errors import Unavailable
from wherry_oci.linux.ids import is_host_root
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    from jeepney import Message

    Property = tuple[str, tuple[str, Any]]  # name, and the value with its signature

_BUS, _MANAGER = "org.freedesktop.DBus", "org.freedesktop.systemd1.Manager"
_SYSTEMD, _ROOT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_SYSTEM_BUS, _SYSTEM_PRIVATE = "/run/dbus/system_bus_socket", "/run/systemd/private"
_TIMEOUT_S = 30.0
_PIECE = 1 << 16
_SIOCOUTQ = 0x5411  # unix(7): bytes that are not read yet
NO_SUCH_UNIT, UNIT_EXISTS = f"{_SYSTEMD}.NoSuchUnit", f"{_SYSTEMD}.UnitExists"


class CallFailed(RuntimeFailure):
    """systemd refused a call: `name` is the error's (`org.freedesktop.systemd1.NoSuchUnit`)."""

    def __init__(self, member: str, unit: str, name: str, text: str) -> None:
        super().__init__("system", f"systemd: {member} {unit}".rstrip(), text or name)
        self.name = name


class Manager:
    """
    The system's manager for root, the user's own for others. A context manager: the connection ends with it.

    It is reached by the bus, or, where no bus runs, by systemd's own socket. Methods raise CallFailed, and Unavailable
    when it does not answer.
    """

    def __init__(self) -> None:
        """Raises Unavailable, with all that was tried."""
        try:
            from jeepney import Parser
        except ImportError:
            raise Unavailable(
                "--systemd-cgroup speaks to systemd by jeepney, which is not installed: pip install 'wherry[systemd]', "
                "or let the engine use the cgroupfs driver"
            ) from None
        self._parser = Parser()
        self._serial = 0
        self._signals: list[Message] = []
        self._end, self._by_bus = _connect()
        try:
            if self._by_bus:
                self._call(_BUS, "/org/freedesktop/DBus", _BUS, "Hello")
                rule = f"type='signal',interface='{_MANAGER}',member='JobRemoved',path='{_ROOT}'"
                self._call(_BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", "s", (rule,))
                self._manage("Subscribe")
        except BaseException:
            self._end.close()
            raise

    def __enter__(self) -> "Manager":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self._end.close()

    @property
    def version(self) -> int:
        """systemd's: 252."""
        digits = ""
        for character in str(self._property("Version")).lstrip("v"):
            if not character.isdigit():
                break
            digits += character
        return int(digits or 0)

    @property
    def cgroup(self) -> str:
        """The group below which its slices are; "" is the root."""
        return str(self._property("ControlGroup")).rstrip("/")

    def start_transient(self, unit: str, properties: "list[Property]") -> None:
        """Make *unit*, and wait until it is there."""
        self._job("StartTransientUnit", unit, "ssa(sv)a(sa(sv))", (unit, "replace", properties, []))

    def stop(self, unit: str) -> None:
        """Stop it, and wait; that there is none is fine."""
        try:
            self._job("StopUnit", unit, "ss", (unit, "replace"))
        except CallFailed as failure:
            if failure.name != NO_SUCH_UNIT:
                raise
        self.reset_failed(unit)

    def reset_failed(self, unit: str) -> None:
        """Have it forget how *unit* failed, if it knows it."""
        try:
            self._manage("ResetFailedUnit", "s", (unit,))
        except CallFailed:
            return

    def set_properties(self, unit: str, properties: "list[Property]") -> None:
        """Change them, till the next boot."""
        self._manage("SetUnitProperties", "sba(sv)", (unit, True, properties))

    # how

    def _property(self, name: str) -> "Any":
        (value,) = self._call(_SYSTEMD, _ROOT, f"{_BUS}.Properties", "Get", "ss", (_MANAGER, name))
        return value[1]

    def _manage(self, member: str, signature: str | None = None, body: "tuple[Any, ...]" = ()) -> "tuple[Any, ...]":
        return self._call(_SYSTEMD, _ROOT, _MANAGER, member, signature, body)

    def _job(self, member: str, unit: str, signature: str, body: "tuple[Any, ...]") -> None:
        """Call what begins a job, and wait until that is removed, which its result comes with."""
        (job,) = self._manage(member, signature, body)
        deadline = monotonic() + _TIMEOUT_S
        while True:
            for message in self._signals:
                if message.body[1] == job:
                    if message.body[3] not in ("done", "skipped"):
                        raise CallFailed(member, unit, str(message.body[3]), f"the job ended as {message.body[3]}")
                    return
            self._keep(self._receive(deadline, f"{member} {unit}"))

    def _call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str | None = None,
        body: "tuple[Any, ...]" = (),
    ) -> "tuple[Any, ...]":
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        address = DBusAddress(path, destination, interface)
        self._serial += 1
        what = f"{member} {body[0] if body else ''}".rstrip()
        deadline = monotonic() + _TIMEOUT_S
        try:
            self._end.sendall(new_method_call(address, member, signature, body).serialise(serial=self._serial))
        except OSError as error:
            raise Unavailable(f"systemd: {what}: {os_error_text(error)}") from error
        while True:
            message = self._receive(deadline, what)
            if message.header.fields.get(HeaderFields.reply_serial) != self._serial:
                self._keep(message)
            elif message.header.message_type is MessageType.error:
                name = str(message.header.fields.get(HeaderFields.error_name))
                unit = str(body[0]) if body else ""
                raise CallFailed(member, unit, name, str(message.body[0]) if message.body else "")
            else:
                return tuple(message.body)

    def _keep(self, message: "Message") -> None:
        from jeepney import HeaderFields

        if message.header.fields.get(HeaderFields.member) == "JobRemoved":
            self._signals.append(message)

    def _receive(self, deadline: float, what: str) -> "Message":
        while (message := self._parser.get_next_message()) is None:
            try:
                self._end.settimeout(max(deadline - monotonic(), 0.001))
                piece = self._end.recv(_PIECE)
            except OSError as error:
                said = f"no answer in {_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else os_error_text(error)
                raise Unavailable(f"systemd: {what}: {said}") from error
            if not piece:
                raise Unavailable(f"systemd: {what}: the connection was closed")
            self._parser.add_data(piece)
        return message


def _connect() -> tuple[socket.socket, bool]:
    """A connection, and whether it goes by the bus."""
    tried = []
    for address, by_bus in _addresses(os.environ):
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            end.settimeout(_TIMEOUT_S)
            end.connect(address)
            _authenticate(end)
        except OSError as error:
            end.close()
            tried.append(f"{address}: {(error.strerror or str(error)).lower()}")
        else:
            return end, by_bus
    raise Unavailable(
        f"--systemd-cgroup: no systemd can be reached ({'; '.join(tried) or 'XDG_RUNTIME_DIR is not set'}): let the "
        "engine use the cgroupfs driver"
    )


def _addresses(environment: "os._Environ[str] | dict[str, str]") -> "Iterator[tuple[str, bool]]":
    """Where to look, in that order: the paths of sockets, and whether a bus is behind them."""
    if is_host_root():
        yield from ((path, True) for path in _paths(environment.get("DBUS_SYSTEM_BUS_ADDRESS", "")))
        yield _SYSTEM_BUS, True
        yield _SYSTEM_PRIVATE, False
        return
    yield from ((path, True) for path in _paths(environment.get("DBUS_SESSION_BUS_ADDRESS", "")))
    directory = environment.get("XDG_RUNTIME_DIR")
    if directory:
        yield f"{directory}/bus", True
        yield f"{directory}/systemd/private", False


def _paths(addresses: str) -> "Iterator[str]":
    if addresses:
        from jeepney.bus import get_connectable_addresses

        try:
            yield from get_connectable_addresses(addresses)
        except (RuntimeError, ValueError):  # none of them is a socket of this machine
            return


def _authenticate(end: socket.socket) -> None:
    """
    D-Bus specification, "Authentication Protocol": EXTERNAL, with this user's number as the host counts.

    Who is root of a user namespace has another number out there, which is the one that a bus sees.
    """
    end.sendall(b"\0AUTH EXTERNAL " + str(_host_user()).encode().hex().encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        piece = end.recv(1024)
        if not piece:
            raise ConnectionResetError(0, "it refuses this user")
        answer += piece
    if not answer.startswith(b"OK "):
        raise PermissionError(0, f"it refuses this user ({answer.decode('ascii', 'replace').strip()})")
    end.sendall(b"BEGIN\r\n")
    _await_reader(end)


def _await_reader(end: socket.socket) -> None:
    """
    Till the other end has read what was sent.

    systemd (252) takes a message that it reads along with BEGIN for part of the greeting, and answers it only when more
    comes: what is asked first must come after that.
    """
    from fcntl import ioctl
    from time import sleep

    deadline = monotonic() + _TIMEOUT_S
    while int.from_bytes(ioctl(end, _SIOCOUTQ, bytes(4)), "little"):
        if monotonic() > deadline:
            raise TimeoutError(0, f"it has not read a greeting in {_TIMEOUT_S:g} s")
        sleep(0.0005)


def _host_user(map: str = "/proc/self/uid_map") -> int:
    own = os.geteuid()
    with open(map, encoding="ascii") as lines:
        for line in lines:
            inside, outside, size = (int(field) for field in line.split())
            if inside <= own < inside + size:
                return outside + own - inside
    return own
