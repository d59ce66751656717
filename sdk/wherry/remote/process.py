"""Processes of a distant container: their streams over a connection that was hijacked, framed or raw."""

import socket
from collections.abc import Callable, Mapping
from select import POLLIN, POLLOUT, poll
from time import monotonic, sleep
from types import TracebackType
from typing import Any

from wherry.attachment import Attachment
from wherry.remote.connection import Connection, Head
from wherry_oci.errors import Unsupported

FRAMES = "application/vnd.docker.multiplexed-stream"
_STREAMS = {1: "stdout", 2: "stderr"}
_READ_SIZE = 1 << 16
_HEADER = 8  # bytes before each frame: the stream, three zeros, the length (Engine API, "Stream format")
_TOLD_S = 10.0  # after its streams have ended the engine may take a moment to know the exit code


class Frames:
    """Takes frames apart as their bytes come."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._rest = bytearray()

    def feed(self, piece: bytes) -> None:
        self._rest += piece

    def next(self) -> tuple[str, bytes] | None:
        """The next piece that is whole, as ("stdout" or "stderr", bytes)."""
        if self._raw:
            content = bytes(self._rest)
            self._rest.clear()
            return ("stdout", content) if content else None
        while len(self._rest) >= _HEADER:
            end = _HEADER + int.from_bytes(self._rest[4:_HEADER], "big")
            if len(self._rest) < end:
                return None
            stream, content = self._rest[0], bytes(self._rest[_HEADER:end])
            del self._rest[:end]
            if content:
                return _STREAMS.get(stream, "stdout"), content
        return None


class RemoteProcess(Attachment):
    """As `wherry.execution.Process`. The Engine API cannot end an exec: `kill` says so, closing lets it go on."""

    def __init__(
        self,
        connection: Connection,
        early: bytes,
        *,
        raw: bool,
        command: tuple[str, ...],
        ended: Callable[[], int | None],
        resize: Callable[[int, int], None],
    ) -> None:
        """*ended* gives the exit code, None as long as it runs."""
        self._connection, self._ended, self._resize = connection, ended, resize
        connection.socket.settimeout(None)
        self._frames = Frames(raw=raw)
        self._frames.feed(early)
        self._next = self._frames.next()
        self.pid = 0
        self.command = command
        self.exit_code: int | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; it goes on. Safe to repeat."""
        self._connection.close()

    def _begin(self) -> None:
        """Its connection is there from the first."""

    def fileno(self) -> int:
        """Readable when `read` would not wait, unless a piece is there already."""
        return self._connection.fileno()

    @property
    def pending(self) -> bool:
        """As `Process.pending`."""
        return self._next is not None

    def read(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """As `Process.read`."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if self._next is not None:
                found, self._next = self._next, self._frames.next()
                return found
            if self.exit_code is not None:
                return None
            if deadline is not None:
                self._poll(POLLIN, max(0.0, deadline - monotonic()))
            self._receive()

    def _receive(self) -> None:
        try:
            piece = self._connection.socket.recv(_READ_SIZE)
        except OSError:
            piece = b""
        if piece:
            self._frames.feed(piece)
            self._next = self._frames.next()
        else:
            self.exit_code = self._told()

    def _told(self) -> int:
        deadline = monotonic() + _TOLD_S
        while (code := self._ended()) is None:
            if monotonic() >= deadline:
                raise TimeoutError(
                    f"{' '.join(self.command)}: its streams have ended, and the engine says that it runs"
                )
            sleep(0.01)
        return code

    def write(self, content: bytes) -> None:
        """As `Process.write`."""
        try:
            self._connection.socket.sendall(content)
        except OSError:
            raise BrokenPipeError("the process has ended") from None

    def close_stdin(self) -> None:
        """End its input."""
        try:
            self._connection.socket.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended by itself
            pass

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """As `Process.communicate`, but that nothing is killed after *timeout* seconds: the Engine API cannot."""
        deadline = None if timeout is None else monotonic() + timeout
        streams = {"stdout": bytearray(), "stderr": bytearray()}
        unsent = memoryview(input or b"")
        ends = input is not None
        try:
            while True:
                if self._next is None and self.exit_code is None:
                    left = None if deadline is None else max(0.0, deadline - monotonic())
                    events = self._poll(POLLIN | (POLLOUT if unsent else 0), left)
                    if unsent and events & POLLOUT:
                        unsent = unsent[self._sent(unsent) :]
                    if ends and not unsent:
                        ends = False
                        self.close_stdin()
                    if not events & ~POLLOUT:
                        continue
                piece = self.read()
                if piece is None:
                    return bytes(streams["stdout"]), bytes(streams["stderr"])
                streams[piece[0]].extend(piece[1])
        except TimeoutError:
            error = TimeoutError(f"{' '.join(self.command)} did not end in {timeout} s, and goes on")
            error.stdout, error.stderr = bytes(streams["stdout"]), bytes(streams["stderr"])  # type: ignore[attr-defined]
            raise error from None

    def _sent(self, unsent: memoryview) -> int:
        try:
            return self._connection.socket.send(unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:  # it has ended; what it wrote is still to be read
            return len(unsent)

    def _poll(self, events: int, timeout: float | None) -> int:
        waiting = poll()
        waiting.register(self._connection.fileno(), events)
        ready = waiting.poll(None if timeout is None else timeout * 1000)
        if not ready:
            raise TimeoutError(f"{' '.join(self.command)} did not end or write in {timeout:.3g} s")
        return ready[0][1]

    def kill(self, signal: int = 9) -> None:
        """Raises Unsupported."""
        raise Unsupported(
            "the Engine API has no way to send a signal to an exec: run `kill` in the container, or kill the container"
        )

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size."""
        self._resize(rows, columns)


def is_raw(head: Head, *, terminal: bool) -> bool:
    """Whether the stream has no frames; older engines do not say."""
    kind = _header(head.headers, "content-type")
    return terminal if kind != FRAMES else False


def _header(headers: Mapping[str, Any], name: str) -> str:
    return str(headers.get(name, "")).partition(";")[0]
