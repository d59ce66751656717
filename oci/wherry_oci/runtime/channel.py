"""The line between a runtime and a process that it makes: JSON messages, descriptors beside them, EOF at exec."""

import os
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from select import POLLIN, poll

from wherry_oci.runtime import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST = 1 << 16
_DESCRIPTORS = 4


def listen(directory: str, name: str) -> socket:
    """A socket at *name* in *directory*, however long its path is; only its owner may come. Raises OSError."""
    end = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.bind(f"/proc/self/fd/{fd}/{name}")
        os.chmod(name, 0o600, dir_fd=fd)
        end.listen(1)
    except BaseException:
        end.close()
        raise
    finally:
        os.close(fd)
    return end


def connect(directory: str, name: str) -> socket:
    """The other end of it. Raises OSError."""
    end = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.connect(f"/proc/self/fd/{fd}/{name}")
    except BaseException:
        end.close()
        raise
    finally:
        os.close(fd)
    return end


class Channel:
    """One end. Messages are whole (SOCK_SEQPACKET), and both ends close on exec."""

    def __init__(self, end: socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        """Two joined ends."""
        first, second = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        return cls(first), cls(second)

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: "dict[str, Any]", descriptors: "list[int] | None" = None) -> None:
        """Raises OSError (EPIPE when the other end is gone)."""
        data = quickjson.dumps(message).encode("utf-8", "surrogateescape")[:_LONGEST]
        if descriptors:
            rights = b"".join(fd.to_bytes(4, "little") for fd in descriptors)
            self._end.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)])
        else:
            self._end.send(data)

    def has_message(self, within_ms: int = 0) -> bool:
        """Whether `receive` will not wait longer than *within_ms*."""
        waiting = poll()
        waiting.register(self._end.fileno(), POLLIN)
        return bool(waiting.poll(within_ms))

    def receive(self) -> "tuple[dict[str, Any], list[int]] | None":
        """The next message and its descriptors, or None when the other end is closed. Raises OSError."""
        try:
            data, ancillary, _, _ = self._end.recvmsg(_LONGEST, CMSG_SPACE(4 * _DESCRIPTORS), MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # it ended with a message of ours unread
            return None
        if not data:
            return None
        descriptors = [
            int.from_bytes(rights[at : at + 4], "little")
            for level, kind, rights in ancillary
            if level == SOL_SOCKET and kind == SCM_RIGHTS
            for at in range(0, len(rights) // 4 * 4, 4)
        ]
        return quickjson.loads(data), descriptors

    def close(self) -> None:
        self._end.close()
