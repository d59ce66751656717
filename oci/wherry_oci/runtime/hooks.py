"""
Hooks: programs that an engine wants run at points of a container's life (config.md "POSIX-platform Hooks").

The container's state is on their standard input. What they write is kept for the message of one that fails.
"""

import os
import select
from time import monotonic

from wherry_oci.runtime import quickjson
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
_KEPT = 4096  # bytes of output, for a message
BEFORE_PIVOT = ("prestart", "createRuntime")


def asked(config: "dict[str, Any]", *kinds: str) -> "list[tuple[str, dict[str, Any]]]":
    """The hooks of *kinds*, in order, each with its kind."""
    hooks = config.get("hooks") or {}
    return [(kind, hook) for kind in kinds for hook in hooks.get(kind) or ()]


def run_all(config: "dict[str, Any]", state: "dict[str, Any]", *kinds: str) -> None:
    """Run the hooks of *kinds* one after the other. Raises RuntimeFailure at the first that fails."""
    for kind, hook in asked(config, *kinds):
        run(kind, hook, state)


def run(kind: str, hook: "dict[str, Any]", state: "dict[str, Any]") -> None:
    """Run one hook to its end, within its `timeout` (seconds). Raises RuntimeFailure."""
    path = hook["path"]
    stdin = os.memfd_create("state", os.MFD_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        with open(stdin, "wb", closefd=False) as file:  # memory, so a hook that does not read it holds up nobody
            file.write(quickjson.dumps(state).encode("utf-8", "surrogateescape"))
        os.lseek(stdin, 0, os.SEEK_SET)
        os.set_blocking(reader, False)
        pid = _spawn(hook, stdin, writer)
        os.close(writer)
        writer = -1
        status, said = _wait(pid, reader, hook.get("timeout"))
    except OSError as error:
        raise RuntimeFailure("system", f"run {kind} hook", f"{path}: {os_error_text(error)}", path) from None
    finally:
        for fd in (stdin, reader, writer):
            if fd >= 0:
                os.close(fd)
    if status is None:
        raise RuntimeFailure("system", f"run {kind} hook", f"{path} did not end within {hook['timeout']} s", path)
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        how = f"exit status {code}" if code >= 0 else f"signal {-code}"
        words = said.decode("utf-8", "replace").strip()
        raise RuntimeFailure("system", f"run {kind} hook", f"{path}: {how}" + (f": {words}" if words else ""), path)


def _spawn(hook: "dict[str, Any]", stdin: int, output: int) -> int:
    arguments = [os.fsencode(argument) for argument in hook.get("args") or [hook["path"]]]
    pairs = [item.partition("=") for item in hook.get("env") or ()]
    environment = {os.fsencode(name): os.fsencode(value) for name, _, value in pairs if name}
    streams = [(os.POSIX_SPAWN_DUP2, fd, stream) for stream, fd in enumerate((stdin, output, output))]
    return os.posix_spawn(
        os.fsencode(hook["path"]),
        arguments,
        environment,
        file_actions=streams,
        setsigmask=[],
        setsigdef=[_SIGPIPE, _SIGXFSZ],
    )


def _wait(pid: int, reader: int, timeout_s: float | None) -> tuple[int | None, bytes]:
    """Its status (None: it was killed when its time was up) and the beginning of what it wrote."""
    deadline = monotonic() + timeout_s if timeout_s else None
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(reader, select.POLLIN)
    said = b""
    try:
        while True:
            left_ms = None if deadline is None else max(0, int((deadline - monotonic()) * 1000))
            events = poll.poll(left_ms)
            if not events:
                os.kill(pid, _SIGKILL)
                os.waitpid(pid, 0)
                return None, said
            ready = [fd for fd, _ in events]
            if reader in ready:
                piece = _read(reader)
                if piece:
                    said = (said + piece)[:_KEPT]
                else:
                    poll.unregister(reader)
            if handle in ready and reader not in ready:
                return os.waitpid(pid, 0)[1], said
            if handle in ready:
                return os.waitpid(pid, 0)[1], (said + (_read(reader) or b""))[:_KEPT]
    finally:
        os.close(handle)


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except BlockingIOError:
        return b""
