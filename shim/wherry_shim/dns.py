"""DNS messages (RFC 1035), as far as a resolver for containers reads and makes them. Pure; every input is hostile."""

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

A, PTR, AAAA, ANY = 1, 12, 28, 255
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 4, 5
UDP_SIZE = 512  # bytes of an answer to whoever names no other limit

_HEADER = 12
_LONGEST = 255
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0080
_RECURSION_DESIRED, _OPCODE = 0x0100, 0x7800
_IN = 1
_TTL_S = 5  # who caches finds out soon that a container has gone
_POINTER_TO_QUESTION = b"\xc0\x0c"
_REVERSE, _REVERSE_6 = ".in-addr.arpa", ".ip6.arpa"


class Question:
    """A query's header and its one question: `name` (lower case, no final dot), `type`, and the `end` of it."""

    __slots__ = ("end", "flags", "id", "name", "type")

    def __init__(self, id: int, flags: int, name: str, type: int, end: int) -> None:
        self.id, self.flags, self.name, self.type, self.end = id, flags, name, type, end


def parse(message: bytes) -> "Question | None":
    """The question in a query; None for what is no query that one could answer, be it with an error."""
    if len(message) < _HEADER:
        return None
    number, flags, questions = (int.from_bytes(message[at : at + 2], "big") for at in (0, 2, 4))
    if flags & _RESPONSE or questions != 1 or flags & _OPCODE:
        return None
    labels = []
    at = _HEADER
    while True:
        if at >= len(message) or at - _HEADER > _LONGEST:
            return None
        size = message[at]
        at += 1
        if size == 0:
            break
        if size > 63:  # a pointer: nothing comes before a question that it could lead to
            return None
        labels.append(message[at : at + size])
        at += size
    if at + 4 > len(message) or int.from_bytes(message[at + 2 : at + 4], "big") not in (_IN, ANY):
        return None
    name = b".".join(labels).decode("latin-1").lower()
    return Question(number, flags, name, int.from_bytes(message[at : at + 2], "big"), at + 4)


def same_question(one: bytes, other: bytes) -> bool:
    """Whether two messages have the same question, whatever the case of its letters."""
    end = one.find(b"\0", _HEADER) + 5
    return end > _HEADER + 4 and one[_HEADER:end].lower() == other[_HEADER:end].lower()


def address_answer(message: bytes, question: Question, addresses: "list[str]", limit: int) -> bytes:
    """The answer to *message*: those of *addresses* that are of the type asked for; cut off at *limit* bytes."""
    records = []
    for address in addresses:
        family, kind = (AF_INET6, AAAA) if ":" in address else (AF_INET, A)
        if question.type in (kind, ANY):
            records.append(_record(kind, inet_pton(family, address)))
    return _answer(message, question, records, limit)


def name_answer(message: bytes, question: Question, name: str, limit: int) -> bytes:
    """The answer to *message* that *name* is the name which was asked for."""
    labels = name.encode("latin-1", "replace").split(b".")
    packed = b"".join(bytes((len(label[:63]),)) + label[:63] for label in labels) + b"\0"
    return _answer(message, question, [_record(PTR, packed)] if question.type in (PTR, ANY) else [], limit)


def error_answer(message: bytes, code: int) -> bytes:
    """An answer with that code and nothing else."""
    question = parse(message)
    flags = int.from_bytes(message[2:4], "big") & _RECURSION_DESIRED
    head = message[:2] + (flags | _RESPONSE | _RECURSION | code).to_bytes(2, "big")
    if question is None:
        return head + bytes(8)
    return head + b"\0\1" + bytes(6) + message[_HEADER : question.end]


def _record(kind: int, data: bytes) -> bytes:
    head = kind.to_bytes(2, "big") + _IN.to_bytes(2, "big") + _TTL_S.to_bytes(4, "big")
    return _POINTER_TO_QUESTION + head + len(data).to_bytes(2, "big") + data


def _answer(message: bytes, question: Question, records: "list[bytes]", limit: int) -> bytes:
    asked = message[_HEADER : question.end]
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION | (question.flags & _RECURSION_DESIRED)
    body, count = b"", 0
    for record in records:
        if _HEADER + len(asked) + len(body) + len(record) > limit:
            flags |= _TRUNCATED
            break
        body += record
        count += 1
    head = question.id.to_bytes(2, "big") + flags.to_bytes(2, "big") + b"\0\1" + count.to_bytes(2, "big") + bytes(4)
    return head + asked + body


def reversed_address(name: str) -> "str | None":
    """The address that a name below in-addr.arpa or ip6.arpa stands for; None for others."""
    try:
        if name.endswith(_REVERSE):
            return inet_ntop(AF_INET, inet_pton(AF_INET, ".".join(name[: -len(_REVERSE)].split(".")[::-1])))
        if name.endswith(_REVERSE_6):
            digits = "".join(name[: -len(_REVERSE_6)].split(".")[::-1])
            return inet_ntop(AF_INET6, bytes.fromhex(digits)) if len(digits) == 32 else None
    except (OSError, ValueError):
        pass
    return None
