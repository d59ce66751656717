"""Further processes in a running container, with what subprocess.Popen has."""

from collections.abc import Mapping
from select import poll
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from wherry.errors import START_FAILURES, StartFailed
from wherry.specification import chosen_capabilities
from wherry_oci.runtime import quickjson
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim.client import Conversation, ShimGone, input_frames
from wherry_shim.connection import CONTROL, STDERR, STDOUT

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.execrequest import ExecRequest
    from wherry.local import LocalEngine

_POLLIN, _POLLOUT = 1, 4
_SIGKILL = 9
_LOST_EXIT_CODE = 137  # the container ended, and the process with it


@attrs.frozen(kw_only=True)
class ExecResult:
    """How a process in a container ended, and all that it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def output(self) -> str:
        """What it wrote to stdout, as text."""
        return self.stdout.decode("utf-8", "replace")


def process_document(record: "Record", asked: "ExecRequest") -> dict[str, Any]:
    """The shim's request: config.json's `process`, and the user by name."""
    settings = record.settings
    merged = dict(item.partition("=")[::2] for item in (*settings["environment"], *asked.environment))
    if asked.tty:
        merged.setdefault("TERM", "xterm")
    rights = chosen_capabilities(
        settings["cap_add"], settings["cap_drop"], privileged=asked.privileged or settings["privileged"]
    )
    return {
        "process": {
            "terminal": asked.tty,
            "args": list(asked.command),
            "env": [f"{name}={value}" for name, value in merged.items()],
            "cwd": asked.working_dir or settings["working_dir"],
            "capabilities": {"bounding": rights, "effective": rights, "permitted": rights, "inheritable": []},
            "noNewPrivileges": settings["no_new_privileges"],
        },
        "user": asked.user if asked.user is not None else settings["user"],
        "groups": settings["group_add"],
    }


class Process:
    """
    A process that `exec` or `popen` started. A context manager: on leaving, what still runs is killed.

    Read it with `communicate`, or piece by piece with `read`; it waits when nobody reads.
    """

    def __init__(self, conversation: Conversation, pid: int, command: tuple[str, ...]) -> None:
        self.conversation = conversation
        self.pid = pid  # the host's number
        self.command = command
        self.exit_code: int | None = None

    @classmethod
    def start(
        cls, engine: "LocalEngine", record: "Record", request: dict[str, Any], *, terminal: bool, stdin: bool
    ) -> "Process":
        """Raises Conflict, ExecutableNotFound, ExecutableNotRunnable, UserNotFound, StartFailed."""
        command = tuple(request["process"]["args"])
        try:
            conversation, answer = engine.converse(record, "exec", terminal=terminal, stdin=stdin, **request)
        except RuntimeFailure as failure:
            raise _start_error(record.name, failure) from None
        return cls(conversation, int(answer["pid"]), command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.exit_code is None:
                self.kill()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it; it goes on. Safe to repeat."""
        self.conversation.close()

    def _begin(self) -> None:
        """Wait for its start, after which `fileno` is always the same."""

    def fileno(self) -> int:
        """Readable when `read` would not wait, unless something is `pending`; for select(2) and its kin."""
        return self.conversation.fileno()

    @property
    def pending(self) -> bool:
        """Whether a piece is there that select(2) and its kin do not know of."""
        return self.conversation.pending

    def read(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """
        The next piece of output as ("stdout" or "stderr", bytes), or None once it has ended.

        Raises TimeoutError after *timeout* seconds.
        """
        while self.exit_code is None:
            if not self.pending:
                self._await_input(timeout)
            frame = self.conversation.frame()
            if frame is None:
                self.exit_code = _LOST_EXIT_CODE
                return None
            stream, payload = frame
            if stream == CONTROL:
                self.exit_code = int(quickjson.loads(payload)["exit_code"])
            elif stream in (STDOUT, STDERR):
                return ("stdout" if stream == STDOUT else "stderr"), payload
        return None

    def _await_input(self, timeout: float | None) -> None:
        if timeout is not None:
            self._poll(_POLLIN, timeout)

    def write(self, content: bytes) -> None:
        """Give it *content* to read. Raises BrokenPipeError when it has ended."""
        try:
            self.conversation.write_input(content)
        except ShimGone:
            raise BrokenPipeError("the process has ended") from None

    def close_stdin(self) -> None:
        """End its input."""
        try:
            self.conversation.end_input()
        except ShimGone:  # it has ended by itself
            pass

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """
        Give it *input*, read both streams to the end, and return them.

        After *timeout* seconds it is killed and TimeoutError raised, with what it wrote as `stdout` and `stderr`.
        """
        deadline = None if timeout is None else monotonic() + timeout
        streams = {"stdout": bytearray(), "stderr": bytearray()}
        unsent = bytearray() if input is None else input_frames(input)
        try:
            while self.exit_code is None:
                self._exchange(unsent, streams, None if deadline is None else deadline - monotonic())
        except TimeoutError:
            self.kill()
            error = TimeoutError(f"{' '.join(self.command)} did not end in {timeout} s, and was killed")
            error.stdout, error.stderr = bytes(streams["stdout"]), bytes(streams["stderr"])  # type: ignore[attr-defined]
            raise error from None
        return bytes(streams["stdout"]), bytes(streams["stderr"])

    def _exchange(self, unsent: bytearray, streams: Mapping[str, bytearray], timeout: float | None) -> None:
        """Send or receive, whichever can be done first: a program that writes while it reads waits for neither."""
        if not self.pending:
            events = self._poll(_POLLIN | (_POLLOUT if unsent else 0), timeout)
            if events & _POLLOUT and unsent:
                del unsent[: self.conversation.try_send(unsent)]
            if not events & ~_POLLOUT:
                return
        piece = self.read()
        if piece is not None:
            streams[piece[0]].extend(piece[1])

    def _poll(self, events: int, timeout: float | None) -> int:
        """Raises TimeoutError after *timeout* seconds."""
        waiting = poll()
        waiting.register(self.conversation.fileno(), events)
        ready = waiting.poll(None if timeout is None else max(0, timeout * 1000))
        if not ready:
            raise TimeoutError(f"{' '.join(self.command)} did not end or write in {timeout:.3g} s")
        return ready[0][1]

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; output that nobody has read is thrown away. Raises TimeoutError."""
        deadline = None if timeout is None else monotonic() + timeout
        while self.read(None if deadline is None else deadline - monotonic()) is not None:
            continue
        assert self.exit_code is not None
        return self.exit_code

    def kill(self, signal: int = _SIGKILL) -> None:
        """Send it a signal; that it has ended is fine."""
        try:
            self.conversation.control(signal=signal)
        except ShimGone:
            return

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size."""
        self.conversation.control(rows=rows, columns=columns)


def _start_error(container: str, failure: RuntimeFailure) -> StartFailed:
    made = START_FAILURES.get(failure.kind, StartFailed)
    return made(container, str(failure), failure.step, failure.path, failure.errno)
