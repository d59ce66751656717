"""
The shim's protocol, and one client's connection as the shim sees it.

A client connects to `run/ID/shim.sock` and sends one line of JSON, `{"version": 1, "op": …}`; the answer is one line,
`{"ok": true, …}` or `{"ok": false, "kind": …, "message": …}`. After `attach` and `exec` the connection goes on in
frames as Docker multiplexes streams: a byte for the stream (0 stdin, 1 stdout, 2 stderr, 3 control), three zeros, the
payload's length (u32, big-endian), the payload; a control payload is JSON. An empty stdin frame ends stdin. What a
client need not know is left out of a message, and what it does not know it ignores, so older and newer ones meet.
"""

import os
from _socket import MSG_DONTWAIT, SCM_RIGHTS, SO_PEERCRED, SOL_SOCKET, socket

from wherry_oci.runtime import quickjson
from wherry_shim.loop import READABLE, WRITABLE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1
APPOINTMENTS = "attach"  # below a run directory: sockets of clients that wait for the start
STDIN, STDOUT, STDERR, CONTROL = 0, 1, 2, 3
HEADER_SIZE = 8

_LONGEST_REQUEST = 1 << 20
_LONGEST_FRAME = 1 << 20
_READ_SIZE = 1 << 16
_BACKLOG_LIMIT = 4 << 20  # of what a client has not read


def frame(stream: int, payload: bytes) -> bytes:
    """One frame."""
    return stream.to_bytes(1, "big") + b"\0\0\0" + len(payload).to_bytes(4, "big") + payload


def connect_below(end: socket, directory: str, name: str) -> None:
    """
    Connect *end* to the socket *name* in *directory*. Raises OSError.

    The path goes through a descriptor: a socket's path is limited to 107 bytes, a directory's is not.
    """
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


class Connection:
    """A client. It never makes the shim wait: what it does not read is kept up to a limit, then it is let go."""

    def __init__(
        self,
        loop: Loop,
        end: socket,
        on_request: "Callable[[Connection, dict[str, Any]], None]",
    ) -> None:
        self._loop, self._end, self._on_request = loop, end, on_request
        self._received = bytearray()
        self._unsent = bytearray()
        self._on_frame: Callable[[int, bytes], None] | None = None
        self._closing = False
        self._held = False
        self.closed = False
        self.on_close: list[Callable[[], None]] = []
        self.on_drain: Callable[[], None] | None = None
        loop.watch(end.fileno(), READABLE, self._on_events)

    def peer_is_trusted(self) -> bool:
        """Whether the client is root or the shim's own user."""
        credentials = self._end.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
        return int.from_bytes(credentials[4:8], "little") in (0, os.geteuid())

    # out

    def answer(self, **message: "Any") -> None:
        """Send the one answer to the request."""
        self.send(quickjson.dumps({"ok": True, **message}).encode("utf-8", "surrogateescape") + b"\n")

    def answer_with(self, descriptor: int, **message: "Any") -> None:
        """As `answer`, with *descriptor* beside it, which stays the caller's to close; then close."""
        content = quickjson.dumps({"ok": True, **message}).encode() + b"\n"
        try:
            rights = descriptor.to_bytes(4, "little")
            self._end.sendmsg([content], [(SOL_SOCKET, SCM_RIGHTS, rights)], MSG_DONTWAIT)
        except OSError:  # it has gone, or has sent so much that it cannot be told anything
            pass
        self.close()

    def refuse(self, kind: str, message: str, **facts: "Any") -> None:
        """Answer that it cannot be, and end the connection."""
        record = {"ok": False, "kind": kind, "message": message, **facts}
        self.send(quickjson.dumps(record).encode("utf-8", "surrogateescape") + b"\n")
        self.finish()

    def send_frame(self, stream: int, payload: bytes) -> None:
        """Send a frame; a client that lags behind by more than the limit is dropped."""
        self.send(frame(stream, payload))

    def send(self, content: bytes) -> None:
        if self.closed:
            return
        if not self._unsent:
            try:
                content = content[self._end.send(content, MSG_DONTWAIT) :]
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
        if content:
            self._unsent += content
            if len(self._unsent) > _BACKLOG_LIMIT:
                self.close()
                return
            self._watch()

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken yet."""
        return len(self._unsent)

    def ended(self, exit_code: int) -> None:
        """The process that it was about has ended: say so, and close."""
        self.send_frame(CONTROL, quickjson.dumps({"exit_code": exit_code}).encode())
        self.finish()

    def finish(self) -> None:
        """Close once all is sent."""
        self._closing = True
        if not self._unsent:
            self.close()

    def hold(self, held: bool) -> None:
        """Whether to leave what the client sends where it is, because nobody can take it now."""
        self._held = held
        self._watch()
        if not held and self._on_frame is not None and not self.closed:
            self._take_frames()

    def _watch(self) -> None:
        if not self.closed:
            events = (0 if self._held else READABLE) | (WRITABLE if self._unsent else 0)
            self._loop.watch(self._end.fileno(), events, self._on_events)

    def _flush(self) -> None:
        try:
            sent = self._end.send(self._unsent, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._watch()
            if self._closing:
                self.close()
            elif self.on_drain is not None:
                self.on_drain()

    # in

    def speak_frames(self, on_frame: "Callable[[int, bytes], None]") -> None:
        """From here on what the client sends is frames; those that came with the request are handled at once."""
        self._on_frame = on_frame
        self._take_frames()

    def _on_events(self, events: int) -> None:
        if events & WRITABLE and self._unsent:
            self._flush()
        if events & READABLE and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            piece = self._end.recv(_READ_SIZE, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.close()
            return
        self._received += piece
        if self._on_frame is not None:
            self._take_frames()
        else:
            self._take_request()

    def _take_request(self) -> None:
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            if len(self._received) > _LONGEST_REQUEST:
                self.close()
            return
        self._received = rest
        try:
            request = quickjson.loads(bytes(line))
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError as error:
            self.refuse("invalid", f"the request is no JSON object: {error}")
            return
        self._on_request(self, request)

    def _take_frames(self) -> None:
        assert self._on_frame is not None
        while len(self._received) >= HEADER_SIZE and not self.closed and not self._held:
            length = int.from_bytes(self._received[4:8], "big")
            if length > _LONGEST_FRAME:
                self.close()
                return
            if len(self._received) < HEADER_SIZE + length:
                return
            stream = self._received[0]
            payload = bytes(self._received[HEADER_SIZE : HEADER_SIZE + length])
            del self._received[: HEADER_SIZE + length]
            self._on_frame(stream, payload)

    def close(self) -> None:
        """Let the client go. Safe to repeat."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._end.fileno())
        self._end.close()
        for action in self.on_close:
            action()
