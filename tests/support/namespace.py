"""Network namespaces for tests: to be in a new one, or in another for a moment; `support.host` wires two of them."""

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from wherry_oci.linux.namespaces import CLONE_NEWNET, setns, unshare
from wherry_oci.linux.rtnetlink import RouteSocket, set_link

LOOPBACK = 1

_PATIENCE_S = 10.0


def own_namespace() -> int:
    """A descriptor of the network namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread in another namespace for a moment; sockets made there stay there."""
    back = own_namespace()
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(back, CLONE_NEWNET)
    finally:
        os.close(back)


@contextmanager
def new_namespace() -> Iterator[int]:
    """A new namespace with its loopback up, for as long as the block lasts; this thread does not enter it."""
    back = own_namespace()
    try:
        unshare(CLONE_NEWNET)
        try:
            made = own_namespace()
            with RouteSocket() as route:
                route.execute([set_link(LOOPBACK, up=True)])
        finally:
            setns(back, CLONE_NEWNET)
    finally:
        os.close(back)
    try:
        yield made
    finally:
        os.close(made)


def output(*command: str) -> str:
    """What a command prints; it runs in this thread's namespace."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def listening(namespace: int, port: int, address: str = "0.0.0.0") -> socket.socket:
    """A tcp server's socket in that namespace."""
    with inside(namespace):
        server = socket.create_server((address, port))
    server.settimeout(_PATIENCE_S)
    return server


def udp(namespace: int, port: int = 0, address: str = "0.0.0.0") -> socket.socket:
    """A bound udp socket in that namespace."""
    with inside(namespace):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.settimeout(_PATIENCE_S)
    bound.bind((address, port))
    return bound


def ask(namespace: int, address: tuple[str, int], server: socket.socket) -> str:
    """Connect from that namespace to *address*, be answered by *server*; the address that it saw us come from."""
    with inside(namespace):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with client:
        client.settimeout(_PATIENCE_S)
        client.connect(address)
        connection, (source, _) = server.accept()
        with connection:
            connection.settimeout(_PATIENCE_S)
            client.sendall(b"ping")
            assert connection.recv(4) == b"ping"
            connection.sendall(b"pong")
            assert client.recv(4) == b"pong"
    return str(source)


def arrived(receiver: socket.socket) -> bool:
    """Whether something is there to be received, now."""
    return bool(select.select([receiver], [], [], 0)[0])
