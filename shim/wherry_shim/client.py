"""Talking to a shim: what the engine uses, without a connection that outlives a call."""

import os
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from wherry_oci.errors import Conflict, Error, NotFound, Unsupported
from wherry_oci.runtime import quickjson
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim import records
from wherry_shim.connection import APPOINTMENTS, CONTROL, HEADER_SIZE, STDIN, VERSION, connect_below, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_READ_SIZE = 1 << 16
_SHORTEST_S = 0.001
_FRAME_PIECE = 1 << 16


class ShimGone(NotFound):
    """No shim answers: the container has ended, or its shim was killed."""


def connect(run_directory: str, timeout_s: float | None = None) -> socket:
    """A connected socket; *timeout_s* holds for each operation on it. Raises ShimGone."""
    end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        connect_below(end, run_directory, records.SOCKET)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        end.close()
        raise ShimGone(f"no shim at {run_directory}") from None
    except BaseException:
        end.close()
        raise
    # 0 would mean "do not wait for the answer either"
    end.settimeout(None if timeout_s is None else max(timeout_s, _SHORTEST_S))
    return end


def input_frames(content: bytes) -> bytearray:
    """*content* for a process' stdin, and its end, ready to be sent."""
    framed = bytearray()
    for at in range(0, len(content), _FRAME_PIECE):
        framed += frame(STDIN, content[at : at + _FRAME_PIECE])
    return framed + frame(STDIN, b"")


class Conversation:
    """One request and what follows it. A context manager; whoever makes it closes it."""

    def __init__(
        self,
        run_directory: str,
        op: str,
        timeout_s: float | None = None,
        *,
        end: socket | None = None,
        **request: "Any",
    ) -> None:
        """With *end*, a connected socket, the shim has called, and no request is needed."""
        self._received = bytearray()
        if end is not None:
            self._end = end
            return
        self._end = connect(run_directory, timeout_s)
        try:
            message = quickjson.dumps({"version": VERSION, "op": op, **request})
            self._send(message.encode("utf-8", "surrogateescape") + b"\n")
        except BaseException:
            self._end.close()
            raise

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat."""
        self._end.close()

    def fileno(self) -> int:
        """For select(2) and its kin. What has been received already does not show there: see `pending`."""
        return self._end.fileno()

    @property
    def pending(self) -> bool:
        """Whether a whole frame has been received already."""
        size = HEADER_SIZE + int.from_bytes(self._received[4:8], "big")
        return len(self._received) >= HEADER_SIZE and len(self._received) >= size

    @property
    def has_line(self) -> bool:
        """Whether a whole line has been received already."""
        return b"\n" in self._received

    def _send(self, content: bytes) -> None:
        try:
            self._end.sendall(content)
        except (BrokenPipeError, ConnectionResetError):
            raise ShimGone("the shim has ended") from None

    def try_send(self, content: "bytes | bytearray") -> int:
        """Send as much of *content*, which is whole frames, as goes without waiting; all of it when nobody listens."""
        try:
            return self._end.send(content, MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return len(content)

    def _receive(self) -> bytes:
        try:
            return self._end.recv(_READ_SIZE)
        except ConnectionResetError:
            return b""

    def line(self) -> bytes | None:
        """The next line without its newline, or None at the end. Raises TimeoutError."""
        while b"\n" not in self._received:
            piece = self._receive()
            if not piece:
                return None
            self._received += piece
        line, _, rest = self._received.partition(b"\n")
        self._received = rest
        return bytes(line)

    def answer(self) -> "dict[str, Any]":
        """The answer to the request. Raises ShimGone, TimeoutError, or what the shim refused it with."""
        line = self.line()
        if line is None:
            raise ShimGone("the shim ended before it answered")
        answer: dict[str, Any] = quickjson.loads(line)
        if not answer.get("ok"):
            raise refusal(answer)
        return answer

    def descriptor(self) -> int:
        """The descriptor that comes with the answer. Raises as `answer` does."""
        content, ancillary, _, _ = self._end.recvmsg(_READ_SIZE, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
        self._received += content
        self.answer()
        for level, kind, rights in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                return int.from_bytes(rights[:4], "little")
        raise ShimGone("the shim sent no descriptor")

    def frame(self) -> "tuple[int, bytes] | None":
        """The next frame (stream, payload), or None at the end. Raises TimeoutError."""
        while not self.pending:
            piece = self._receive()
            if not piece:
                return None
            self._received += piece
        size = int.from_bytes(self._received[4:8], "big")
        stream = self._received[0]
        payload = bytes(self._received[HEADER_SIZE : HEADER_SIZE + size])
        del self._received[: HEADER_SIZE + size]
        return stream, payload

    def write_input(self, content: bytes) -> None:
        """Send *content* to the process' stdin. Raises ShimGone."""
        for at in range(0, len(content), _FRAME_PIECE):
            self._send(frame(STDIN, content[at : at + _FRAME_PIECE]))

    def end_input(self) -> None:
        """Close the process' stdin."""
        self._send(frame(STDIN, b""))

    def control(self, **order: int) -> None:
        """`signal=N`, or `rows=N, columns=N`."""
        self._send(frame(CONTROL, quickjson.dumps(order).encode()))


class Appointment:
    """
    Being attached from the first byte on to a container that is not started yet: its shim calls before it starts.

    Whoever makes it closes it, or takes the conversation.
    """

    def __init__(self, run_directory: str) -> None:
        """Raises OSError."""
        self._run = run_directory
        directory = f"{run_directory}/{APPOINTMENTS}"
        os.makedirs(directory, 0o700, exist_ok=True)
        self._path = f"{directory}/{os.urandom(8).hex()}"
        self._listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{fd}/{os.path.basename(self._path)}")
            self._listener.listen(1)
        except BaseException:
            self._listener.close()
            raise
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """Readable when the shim has called; for select(2) and its kin."""
        return self._listener.fileno()

    def conversation(self) -> Conversation:
        """Wait for the shim, and be attached. Once."""
        fd, _ = self._listener._accept()  # type: ignore[attr-defined] # what socket.accept itself calls
        self._listener.close()
        return Conversation(self._run, "attach", end=socket(fileno=fd))

    def close(self) -> None:
        """It is not wanted any more. Safe to repeat."""
        self._listener.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:  # the shim has called
            return


def call(run_directory: str, op: str, timeout_s: float | None = None, **request: "Any") -> "dict[str, Any]":
    """One request and its answer. Raises ShimGone, TimeoutError, or what the shim refused it with."""
    with Conversation(run_directory, op, timeout_s, **request) as conversation:
        return conversation.answer()


def call_for_descriptor(run_directory: str, op: str, timeout_s: float | None = None, **request: "Any") -> int:
    """One request whose answer is a descriptor, the caller's to close. Raises as `call` does."""
    with Conversation(run_directory, op, timeout_s, **request) as conversation:
        return conversation.descriptor()


def refusal(answer: "dict[str, Any]") -> Error:
    """The error that a shim's refusal is."""
    kind, message = str(answer.get("kind")), str(answer.get("message"))
    if kind == "gone":
        return ShimGone(message)
    if kind == "conflict":
        return Conflict(message)
    if "step" in answer:
        return RuntimeFailure.from_json(answer)
    if kind == "not_found":
        return NotFound(message)
    if kind == "unsupported":
        return Unsupported(message)
    return Conflict(message)
