"""DNS messages as a resolver for containers reads and makes them; every input is hostile."""

import os
import random

import pytest

from wherry_shim import dns

pytestmark = pytest.mark.unit


def _query(name: str, type: int = dns.A, *, id: int = 7, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label)
    head = id.to_bytes(2, "big") + flags.to_bytes(2, "big") + b"\0\1" + bytes(6)
    return head + labels + b"\0" + type.to_bytes(2, "big") + b"\0\1"


def _parsed(message: bytes) -> dns.Question:
    question = dns.parse(message)
    assert question is not None
    return question


def test_a_question_is_read_in_lower_case() -> None:
    """Names are the same in any case (RFC 1035, 2.3.3)."""
    question = _parsed(_query("WeB.Front", dns.AAAA))
    assert (question.id, question.name, question.type) == (7, "web.front", dns.AAAA)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        bytes(11),
        _query("a")[:-1],
        _query("a", flags=0x8100),  # an answer
        _query("a", flags=0x2800),  # an update
        _query("a")[:4] + b"\0\2" + _query("a")[6:],  # two questions
        _query("a")[:12] + b"\xc0\x0c\0\1\0\1",  # a name that points at itself
        _query("a")[:12] + b"\x40" + bytes(80),  # a label of 64
        _query("a")[:12] + b"\1a" * 200 + b"\0\0\1\0\1",  # a name of 400
        _query("a")[:12] + b"\5ab",  # a label that ends too soon
        _query("a")[:-2] + b"\0\3",  # class CHAOS
    ],
)
def test_what_is_no_question_is_none(message: bytes) -> None:
    """No exception, whatever it is."""
    assert dns.parse(message) is None


def test_noise_is_never_more_than_no_question() -> None:
    """Random bytes, and good questions with some bytes changed."""
    chance = random.Random(7)
    for _ in range(5000):
        message = bytearray(_query("web.front.example"))
        for _ in range(chance.randrange(4)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        del message[chance.randrange(len(message)) :]
        dns.parse(bytes(message))
        dns.parse(os.urandom(chance.randrange(64)))
        dns.error_answer(bytes(message) + bytes(12), dns.FORMAT_ERROR)
        dns.same_question(bytes(message), os.urandom(20))


def test_an_answer_has_the_addresses_of_the_type_that_was_asked_for() -> None:
    """Of a name that is there but not in that family the answer is empty, not that there is no such name."""
    message = _query("web")
    addresses = ["172.30.0.2", "fd00::2"]
    answer = dns.address_answer(message, _parsed(message), addresses, dns.UDP_SIZE)
    assert answer[:2] == message[:2]
    assert answer[2] & 0x80
    assert answer[3] & 0x0F == dns.NO_ERROR
    assert answer[6:8] == b"\0\1"
    assert answer.endswith(bytes((172, 30, 0, 2)))
    six = dns.address_answer(_query("web", dns.AAAA), _parsed(_query("web", dns.AAAA)), addresses, dns.UDP_SIZE)
    assert six.endswith(b"\xfd" + bytes(14) + b"\2")
    mail = dns.address_answer(_query("web", 15), _parsed(_query("web", 15)), addresses, dns.UDP_SIZE)
    assert (mail[3] & 0x0F, mail[6:8]) == (dns.NO_ERROR, b"\0\0")


def test_an_answer_that_is_too_long_is_cut_off_and_says_so() -> None:
    """Never longer than the limit."""
    message = _query("web")
    answer = dns.address_answer(message, _parsed(message), ["172.30.0.2"] * 60, dns.UDP_SIZE)
    assert len(answer) <= dns.UDP_SIZE
    assert answer[2] & 0x02
    whole = dns.address_answer(message, _parsed(message), ["172.30.0.2"] * 60, 65535)
    assert (whole[2] & 0x02, int.from_bytes(whole[6:8], "big")) == (0, 60)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.30.172.in-addr.arpa", "172.30.0.2"),
        ("2." + "0." * 27 + "0.0.d.f.ip6.arpa", "fd00::2"),
        ("0.30.172.in-addr.arpa", None),
        ("x.0.30.172.in-addr.arpa", None),
        ("1.2.ip6.arpa", None),
        ("web", None),
    ],
)
def test_a_reversed_address_is_read(name: str, address: str | None) -> None:
    """Both families; what is none is no address."""
    assert dns.reversed_address(name) == address


def test_an_answer_to_another_question_is_not_taken() -> None:
    """Whoever guesses port and number must guess the question, too."""
    assert dns.same_question(_query("web"), _query("WEB"))
    assert not dns.same_question(_query("web"), _query("wet"))
    assert not dns.same_question(_query("web"), _query("web", dns.AAAA))
    assert not dns.same_question(_query("web"), b"")
