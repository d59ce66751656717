"""A name server for tests: every name has one address, those that begin with `many` have sixty."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from wherry_shim import dns

ADDRESS = "203.0.113.7"
MANY = [f"203.0.113.{number}" for number in range(1, 61)]


class NameServer:
    """`asked` has the names that it was asked for, by udp and tcp at port 53 of *address* in this network."""

    def __init__(self, address: str) -> None:
        self.asked: list[str] = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        self._tcp = socket.create_server((address, 53))
        # What ends a server's threads comes from its own network, too.
        self._ends = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._threads = [threading.Thread(target=one) for one in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def _datagrams(self) -> None:
        while True:
            message, sender = self._udp.recvfrom(4096)
            if message == b"end":
                return
            self._udp.sendto(self._answer(message, 512), sender)

    def _streams(self) -> None:
        while True:
            accepted, _ = self._tcp.accept()
            with accepted:
                head = accepted.recv(2)
                if not head:
                    return
                answer = self._answer(accepted.recv(int.from_bytes(head, "big")), 65535)
                accepted.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, message: bytes, limit: int) -> bytes:
        question = dns.parse(message)
        assert question is not None
        self.asked.append(question.name)
        return dns.address_answer(message, question, MANY if question.name[:4] == "many" else [ADDRESS], limit)

    def end(self) -> None:
        """Close it."""
        address = self._udp.getsockname()
        datagram, stream = self._ends
        datagram.sendto(b"end", address)
        stream.connect(address)
        stream.close()
        for thread in self._threads:
            thread.join()
        for one in (datagram, self._udp, self._tcp):
            one.close()


@contextmanager
def answering(address: str) -> Iterator[NameServer]:
    """A name server at *address*, as long as the block lasts."""
    server = NameServer(address)
    try:
        yield server
    finally:
        server.end()
