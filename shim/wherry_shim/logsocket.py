"""Where log messages are sent: a socket that may be slow, or gone, and never holds a container up for long."""

from _socket import (
    AF_UNIX,
    AF_UNSPEC,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    TCP_NODELAY,
    getaddrinfo,
    socket,
)
from errno import EAGAIN, ENOBUFS
from time import monotonic

_PATIENCE_S = 0.1  # for a receiver that takes nothing; after that every message is tried without waiting
_CONNECT_S = 5.0
_AGAIN_S = 1.0  # between two tries to reach one that has gone


class LogSocket:
    """
    *address* is `unixgram://PATH`, `unix://PATH`, `udp://HOST:PORT` or `tcp://HOST:PORT`.

    A receiver that restarts is found again.
    """

    def __init__(self, address: str) -> None:
        """Raises OSError."""
        self._scheme, _, self._place = address.partition("://")
        self._is_stream = self._scheme in ("unix", "tcp")
        self._stalled = False
        self._tried = monotonic()
        self._end: socket | None = self._connected()

    def _connected(self) -> socket:
        kind = (SOCK_STREAM if self._is_stream else SOCK_DGRAM) | SOCK_CLOEXEC
        if self._scheme in ("unix", "unixgram"):
            return _connect(socket(AF_UNIX, kind), self._place)
        host, _, port = self._place.rpartition(":")
        family, _, _, _, target = getaddrinfo(host.strip("[]"), port, AF_UNSPEC, kind & ~SOCK_CLOEXEC)[0]
        end = _connect(socket(family, kind), target)
        if self._is_stream:
            end.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        return end

    def send(self, message: bytes) -> bool:
        """Whether *message* was taken."""
        for _ in range(2):  # to one that has restarted the first try fails
            if self._end is None and not self._reconnect():
                return False
            assert self._end is not None
            try:
                self._end.settimeout(0 if self._stalled else _PATIENCE_S)
                self._end.sendall(message)
            except OSError as error:
                if isinstance(error, TimeoutError) or error.errno in (EAGAIN, ENOBUFS):
                    self._stalled = True
                    if self._is_stream:  # half a message may be on its way: the rest would be taken for another
                        self._drop()
                    return False
                self._drop()
                self._tried = 0.0
                continue
            self._stalled = False
            return True
        return False

    def _reconnect(self) -> bool:
        if monotonic() - self._tried < _AGAIN_S:
            return False
        self._tried = monotonic()
        try:
            self._end = self._connected()
        except OSError:
            return False
        return True

    def _drop(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None
            self._tried = monotonic()

    def close(self) -> None:
        """Safe to repeat."""
        self._drop()


def _connect(end: socket, target: "str | tuple[object, ...]") -> socket:
    try:
        end.settimeout(_CONNECT_S)
        end.connect(target)
    except BaseException:
        end.close()
        raise
    return end
