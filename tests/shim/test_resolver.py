"""A container's name server: what it makes of servers that are silent, wrong or too slow, and of those who ask."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.namespace import inside, new_namespace, output
from wherry_shim import dns, nametable
from wherry_shim.loop import Loop
from wherry_shim.naming import identity
from wherry_shim.resolver import ADDRESS, Resolver

pytestmark = pytest.mark.root

_INTERFACE = {"network": "net", "names": ["self"], "links": [["web", "store"]], "gateways": ["10.0.0.1"]}


class Asked:
    """A resolver in a namespace of its own, whose loop turns while the test waits."""

    def __init__(self, run: Path, namespace: int, servers: list[str]) -> None:
        self.loop, self.namespace = Loop(), namespace
        self.resolver = Resolver(self.loop, str(run), namespace, servers)
        self.resolver.use([_INTERFACE])

    def asker(self, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        with inside(self.namespace):
            made = socket.socket(socket.AF_INET, kind)
            made.connect((ADDRESS, 53))
        made.setblocking(False)
        return made

    def turn_until(self, done: Callable[[], bool]) -> None:
        for _ in range(200):
            if done():
                return
            self.loop.after(0.05, lambda: None)
            self.loop.step()
        raise AssertionError("it never came")

    def answer(self, asker: socket.socket) -> bytes:
        found: list[bytes] = []

        def look() -> bool:
            try:
                found.append(asker.recv(65535))
            except BlockingIOError:
                return False
            return True

        self.turn_until(look)
        return found[0]


@contextmanager
def _resolver(run: Path, *servers: str) -> Iterator[Asked]:
    with new_namespace() as namespace:
        with inside(namespace):
            output("ip", "link", "set", "lo", "up")
        asked = Asked(run, namespace, list(servers))
        try:
            yield asked
        finally:
            asked.resolver.close()


@contextmanager
def _server(address: str) -> Iterator[socket.socket]:
    """On the host's loopback: whoever has such an address is asked from there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        server.setblocking(False)
        yield server


def _query(name: str, number: int = 7, type: int = dns.A) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6) + labels + b"\0" + type.to_bytes(2, "big") + b"\0\1"


@pytest.fixture
def host() -> Iterator[None]:
    """A network namespace of the test's own, which the test is in, with a loopback."""
    with new_namespace() as namespace, inside(namespace):
        output("ip", "link", "set", "lo", "up")
        yield


def test_a_silent_server_is_not_waited_for(host: None, tmp_path: Path) -> None:
    """The next one is asked; others' questions are answered meanwhile."""
    nametable.write(
        str(tmp_path), "net", "c", {"names": ["web"], "network": "n", "addresses": ["10.0.0.9"], **identity(0)}
    )
    with (
        _server("127.0.0.2") as silent,
        _server("127.0.0.3") as good,
        _resolver(tmp_path, "127.0.0.2", "127.0.0.3") as asked,
        asked.asker() as asker,
        asked.asker() as other,
    ):
        asker.send(_query("far.example"))
        asked.loop.step()
        for name in ("web", "store"):
            other.send(_query(name))
            assert asked.answer(other).endswith(bytes((10, 0, 0, 9)))
        assert silent.recv(4096)[2:] == _query("far.example")[2:]
        came: list[tuple[bytes, Any]] = []

        def look() -> bool:
            try:
                came.append(good.recvfrom(4096))
            except BlockingIOError:
                return False
            return True

        asked.turn_until(look)
        message, sender = came[0]
        question = dns.parse(message)
        assert question is not None
        wrong = dns.address_answer(_query("evil.example"), question, ["6.6.6.6"], 512)
        good.sendto(message[:2] + wrong[2:], sender)
        good.sendto(dns.address_answer(message, question, ["203.0.113.7"], 512), sender)
        answer = asked.answer(asker)
        assert answer[:2] == b"\0\7"
        assert answer.endswith(bytes((203, 0, 113, 7)))


def test_nobody_listening_is_an_error_at_once(host: None, tmp_path: Path) -> None:
    """By datagram and by connection."""
    with _resolver(tmp_path, "127.0.0.2") as asked, asked.asker() as asker:
        asker.send(_query("far.example"))
        assert asked.answer(asker)[3] & 0x0F == dns.SERVER_FAILURE
        with asked.asker(socket.SOCK_STREAM) as stream:
            query = _query("far.example")
            stream.send(len(query).to_bytes(2, "big") + query[:5])
            asked.loop.step()
            stream.send(query[5:])
            assert asked.answer(stream)[5] & 0x0F == dns.SERVER_FAILURE


def test_what_is_under_way_is_bounded(host: None, tmp_path: Path) -> None:
    """A flood of questions that nobody answers costs a bounded number of descriptors; the rest fail at once."""
    with (
        _server("127.0.0.2"),
        _resolver(tmp_path, "127.0.0.2") as asked,
        asked.asker() as asker,
    ):
        before = len(os.listdir("/proc/self/fd"))
        failed = 0
        for number in range(400):
            asker.send(_query("far.example", number))
            asked.loop.after(0, lambda: None)
            asked.loop.step()
            try:
                failed += asker.recv(512)[3] & 0x0F == dns.SERVER_FAILURE
            except BlockingIOError:
                continue
        assert len(os.listdir("/proc/self/fd")) - before <= 130
        assert failed >= 200


def test_noise_is_answered_with_an_error_or_not_at_all(host: None, tmp_path: Path) -> None:
    """And a question after it as ever."""
    with _resolver(tmp_path) as asked, asked.asker() as asker:
        for noise in (b"", b"x", bytes(12), b"\0\7\x80" + bytes(20), b"\0\5\0\0" + os.urandom(300)):
            asker.send(noise)
            asked.loop.after(0, lambda: None)
            asked.loop.step()
        asker.send(_query("far.example", 99))
        asked.turn_until(lambda: _last(asker)[:2] == b"\0c")


def _last(asker: socket.socket) -> bytes:
    last = b""
    while True:
        try:
            last = asker.recv(4096)
        except BlockingIOError:
            return last
