"""The proxy for ports that the kernel does not translate: whole streams, ends of them, datagrams, and bounds."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.host import Host
from wherry_shim.loop import READABLE, Loop
from wherry_shim.proxy import Proxy

pytestmark = pytest.mark.root

_LOOPBACK = "::1"


@contextmanager
def _proxy(kind: int, port: int) -> Iterator[tuple[str, int]]:
    """Where a proxy to this port of loopback listens, in a thread of its own."""
    loop = Loop()
    listener = socket.socket(socket.AF_INET6, kind)
    listener.bind((_LOOPBACK, 0))
    proxy = Proxy(loop)
    protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
    proxy.use([(listener, {"protocol": protocol, "container_ip": _LOOPBACK, "container_port": port})])
    reader, writer = os.pipe()
    loop.watch(reader, READABLE, lambda events: setattr(loop, "running", False))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        os.write(writer, b"x")
        thread.join()
        proxy.close()
        listener.close()
        os.close(reader)
        os.close(writer)


@contextmanager
def _server() -> Iterator[socket.socket]:
    with socket.create_server((_LOOPBACK, 0), family=socket.AF_INET6) as server:
        server.settimeout(30)
        yield server


def _all(end: socket.socket) -> bytes:
    with end.makefile("rb") as file:
        return file.read()


def test_whole_streams_go_both_ways_and_end_one_by_one(host: Host) -> None:
    """More than any buffer holds; who has said all still hears all."""
    content = os.urandom(1 << 20) * 8
    with _server() as server, _proxy(socket.SOCK_STREAM, server.getsockname()[1]) as address:
        client = socket.create_connection(address, timeout=30)
        accepted, _ = server.accept()
        accepted.settimeout(30)
        heard: list[bytes] = []
        with client, accepted:
            listener = threading.Thread(target=lambda: heard.append(_all(accepted)))
            listener.start()
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            listener.join()
            assert heard == [content]
            speaker = threading.Thread(target=accepted.sendall, args=(content,))
            speaker.start()
            received = b""
            while len(received) < len(content):
                received += client.recv(1 << 20)
            speaker.join()
            assert received == content
            accepted.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def test_a_container_that_does_not_listen_is_an_end_at_once(host: Host) -> None:
    """Not a connection that hangs."""
    with _server() as server:
        port = server.getsockname()[1]
    with _proxy(socket.SOCK_STREAM, port) as address, socket.create_connection(address, timeout=30) as client:
        with_nothing: Any = None
        try:
            with_nothing = client.recv(1)
        except ConnectionResetError:
            with_nothing = b""
        assert with_nothing == b""


def test_connections_are_bounded_and_the_rest_wait_their_turn(host: Host) -> None:
    """200 clients at once; all are served in the end, and no more than 128 at a time."""
    with _server() as server, _proxy(socket.SOCK_STREAM, server.getsockname()[1]) as address:
        server.listen(256)
        clients = [socket.create_connection(address, timeout=30) for _ in range(200)]
        try:
            for client in clients:  # they are accepted in their order
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"x")
                assert client.recv(1) == b"x"
                client.close()
        finally:
            for client in clients:
                client.close()


def test_datagrams_find_their_way_back(host: Host) -> None:
    """Two peers, each answered by itself."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind((_LOOPBACK, 0))
        server.settimeout(30)
        with _proxy(socket.SOCK_DGRAM, server.getsockname()[1]) as address:
            peers = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]
            try:
                for number, peer in enumerate(peers):
                    peer.settimeout(30)
                    for _ in range(3):
                        peer.sendto(b"%d" % number, address)
                        piece, sender = server.recvfrom(100)
                        server.sendto(b"answer to " + piece, sender)
                        assert peer.recv(100) == b"answer to %d" % number
            finally:
                for peer in peers:
                    peer.close()
