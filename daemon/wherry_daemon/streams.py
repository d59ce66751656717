"""A process' streams over a hijacked connection, and documents one after the other."""

import json
import select
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wherry.engineapi.document import told
from wherry_daemon.http import Hijacked

if TYPE_CHECKING:
    from wherry.detachkeys import DetachKeys
    from wherry.execution import Process

_STREAMS = {"stdout": 1, "stderr": 2}


def frame(stream: int, content: bytes) -> bytes:
    """Docker's multiplexed frame: the stream, three zeros, the length, the bytes (Engine API, "Stream format")."""
    return bytes((stream, 0, 0, 0)) + len(content).to_bytes(4, "big") + content


def carry(
    client: Hijacked,
    process: "Process",
    *,
    terminal: bool,
    stdin: bool,
    wanted: Iterable[str],
    end_input: bool = True,
    keys: "DetachKeys | None" = None,
) -> None:
    """
    Both directions between *client* and *process* until the process has ended or the client has gone.

    *wanted* are the streams that are sent; with *end_input* the end of what the client sends ends the process' stdin.
    """
    chosen = frozenset(wanted)
    watched = select.poll()
    input_open = stdin
    watched.register(client.fileno(), select.POLLIN if input_open else 0)
    while True:
        source = process.fileno()  # another one before the start than after it
        watched.register(source, select.POLLIN)
        pending = process.pending
        events = dict(watched.poll(0 if pending or (client.pending and input_open) else None))
        if source in events and _begins(process):
            watched.unregister(source)
            continue
        if (pending or source in events) and not _pass_output(client, process, terminal, chosen):
            client.end()
            return
        if events.get(client.fileno(), 0) & (select.POLLHUP | select.POLLERR):
            return
        if input_open and (client.pending or events.get(client.fileno(), 0) & select.POLLIN):
            more = _pass_input(client, process, keys, end_input)
            if more is None:
                return
            input_open = more
            if not more:
                watched.modify(client.fileno(), 0)
        if process.fileno() != source:
            watched.unregister(source)


def _begins(process: "Process") -> bool:
    """Whether its container was started just now: its streams are there, and need not have anything to read yet."""
    from wherry.attachment import Attachment

    if isinstance(process, Attachment) and process._conversation is None:
        return process.conversation is not None
    return False


def _pass_output(client: Hijacked, process: "Process", terminal: bool, wanted: frozenset[str]) -> bool:
    """False once it has ended."""
    piece = process.read()
    if piece is None:
        return False
    stream, content = piece
    if stream in wanted:
        client.write(content if terminal else frame(_STREAMS[stream], content))
    return True


def _pass_input(client: Hijacked, process: "Process", keys: "DetachKeys | None", end_input: bool) -> bool | None:
    """Whether more may come; None when the user leaves."""
    typed = client.read()
    if typed is None:
        return True
    if not typed:
        if end_input:
            process.close_stdin()
        return False
    leaves = False
    if keys is not None:
        typed, leaves = keys.pass_on(typed)
    try:
        process.write(typed)
    except BrokenPipeError:  # it has ended; what it still wrote is on its way
        return False
    return None if leaves else True


def documents(found: Iterable[Any]) -> Iterator[bytes]:
    """Documents, a line each."""
    return map(encoded, found)


def encoded(document: Any) -> bytes:
    """A document of `wherry.engineapi`, a list of such, or what `json` writes, as a line of JSON."""
    shown = document if isinstance(document, dict) else told(document)
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"
