"""Messages to a syslog and to the journal, as those take them."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry_shim.forwarding import Forwarder, journal_message, syslog_message

pytestmark = pytest.mark.unit

_TIME = 1_700_000_000_123_456_789


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "log"))
        made.settimeout(10)
        yield made


def _forward(tmp_path: Path, form: str, *pieces: tuple[int, bytes]) -> Forwarder:
    forwarder = Forwarder(f"unixgram://{tmp_path}/log", syslog_message(3, form, "tag"))
    for stream, piece in pieces:
        forwarder.append(stream, piece, _TIME)
    return forwarder


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>Nov 1[45] \d\d:13:20 tag\[PID\]: one\n"),
        ("rfc3164", rb"<30>Nov 1[45] \d\d:13:20 HOST tag\[PID\]: one\n"),
        ("rfc5424", rb"<30>1 2023-11-14T22:13:20Z HOST tag PID tag - one\n"),
        ("rfc5424micro", rb"<30>1 2023-11-14T22:13:20.123456Z HOST tag PID tag - one\n"),
    ],
)
def test_a_syslog_gets_a_message_for_each_line(
    tmp_path: Path, receiver: socket.socket, form: str, pattern: bytes
) -> None:
    """In Docker's forms; what came in pieces is one, and stderr is an error."""
    forwarder = _forward(tmp_path, form, (1, b"o"), (2, b"bad\n"), (1, b"ne\nrest"))
    assert receiver.recv(1000).startswith(b"<27>")
    wanted = pattern.replace(b"PID", str(os.getpid()).encode())
    wanted = wanted.replace(b"HOST", re.escape(os.uname().nodename.encode()))
    assert re.fullmatch(wanted, receiver.recv(1000))
    forwarder.close()
    assert receiver.recv(1000).endswith(b" rest\n")
    assert forwarder.lost == 0


def test_the_journal_gets_fields(tmp_path: Path, receiver: socket.socket) -> None:
    """Of a line of more than 16 KiB the parts say that they are parts; a newline does not end a field."""
    forwarder = Forwarder(f"unixgram://{tmp_path}/log", journal_message({"CONTAINER_NAME": "a\nb"}))
    forwarder.append(2, b"x" * 20000 + b"\n", _TIME)
    common = b"SYSLOG_TIMESTAMP=2023-11-14T22:13:20.123456789Z\n"
    name = b"CONTAINER_NAME\n\x03\0\0\0\0\0\0\0a\nb\n"
    first, second = receiver.recv(1 << 17), receiver.recv(1 << 17)
    assert first == (
        b"MESSAGE=" + b"x" * 16384 + b"\nPRIORITY=3\n" + common + b"CONTAINER_PARTIAL_MESSAGE=true\n" + name
    )
    assert second == b"MESSAGE=" + b"x" * (20000 - 16384) + b"\nPRIORITY=3\n" + common + name
    forwarder.close()


def test_who_takes_nothing_costs_a_moment_once(tmp_path: Path, receiver: socket.socket) -> None:
    """What does not fit is counted; when there is room again it goes on."""
    forwarder = _forward(tmp_path, "", *[(1, b"line\n")] * 2000)
    assert 0 < forwarder.lost < 10_000
    lost = forwarder.lost
    receiver.recv(1000)
    forwarder.append(1, b"line\n", _TIME)
    assert forwarder.lost == lost
    forwarder.close()


def test_one_that_restarts_is_found_again(tmp_path: Path) -> None:
    """Nothing is lost when it listens again by the time of the next line."""
    forwarders: list[Forwarder] = []
    for number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(tmp_path / "log"))
            receiver.settimeout(10)
            forwarders = forwarders or [_forward(tmp_path, "")]
            forwarders[0].append(1, b"%d\n" % number, _TIME)
            assert receiver.recv(1000).endswith(b": %d\n" % number)
        (tmp_path / "log").unlink()
    forwarders[0].append(1, b"lost\n", _TIME)
    assert forwarders[0].lost == 5
    forwarders[0].close()


@pytest.mark.parametrize("scheme", ["udp", "tcp", "unix"])
def test_it_goes_over_every_kind_of_socket(tmp_path: Path, scheme: str) -> None:
    """UDP, TCP and a stream of this machine."""
    family = socket.AF_UNIX if scheme == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "log") if scheme == "unix" else ("127.0.0.1", 0))
        listener.settimeout(10)
        place = f"{tmp_path}/log" if scheme == "unix" else f"127.0.0.1:{listener.getsockname()[1]}"
        if scheme != "udp":
            listener.listen()
        forwarder = Forwarder(f"{scheme}://{place}", syslog_message(16, "", "tag"))
        forwarder.append(1, b"one\n", _TIME)
        forwarder.close()
        end = listener if scheme == "udp" else listener.accept()[0]
        end.settimeout(10)
        assert end.recv(1000).startswith(b"<134>Nov")
        end.close()


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    """At once, not when something is written."""
    with pytest.raises(FileNotFoundError):
        _forward(tmp_path, "")
