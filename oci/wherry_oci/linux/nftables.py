"""
nf_tables (linux/netfilter/nf_tables.h): tables, chains, rules and maps, changed in transactions.

Expressions are functions that give bytes; a rule is what runs them in order until one does not match. Registers are
the 32-bit ones, numbered from 0 to 15, so keys and data of several fields lie in registers side by side, every field
padded to 4 bytes.
"""

import errno
from _struct import Struct

from wherry_oci.linux.netlink import (
    APPEND,
    CREATE,
    EXCLUSIVE,
    NETFILTER,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    be32,
    each,
    nested,
    string,
    text,
)

IPV4, IPV6, INET = 2, 10, 1  # NFPROTO_*
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4  # NF_INET_*
RAW, DESTINATION_NAT, FILTER, SOURCE_NAT = -300, -100, 0, 100  # NF_IP_PRI_*

# The types of nft(8), which shows sets by them: name: (number, bytes in a key)
TYPES = {
    "ipv4_addr": (7, 4),
    "ipv6_addr": (8, 16),
    "inet_proto": (12, 4),
    "inet_service": (13, 4),
    "ifname": (41, 16),
}
_TYPE_BITS = 6  # of one type in the number of a concatenation

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN = (_SUBSYSTEM | number for number in (0, 1, 2, 3, 4))
_NEWRULE, _DELRULE, _NEWSET, _NEWSETELEM = (_SUBSYSTEM | number for number in (6, 8, 9, 12))
_GETSETELEM, _DELSETELEM, _GETGEN = (_SUBSYSTEM | number for number in (13, 14, 16))

_NAME = 1  # NFTA_{TABLE,CHAIN_TABLE,RULE_TABLE,SET_TABLE,SET_ELEM_LIST_TABLE}: the table, everywhere
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LEN, _SET_DATA_TYPE, _SET_DATA_LEN, _SET_ID = 2, 3, 4, 5, 6, 7, 10
_SET_USERDATA, _HOST_ORDER = 13, b"\0\4\1\0\0\0"  # libnftnl's own: key byte order
_SET_INTERVAL, _SET_MAP = 0x4, 0x8
_LIST_SET, _LIST_ELEMENTS = 2, 3
_ELEM_KEY, _ELEM_DATA, _ELEM_FLAGS = 1, 2, 3
_INTERVAL_END = 1
_LIST_ELEM, _EXPR_NAME, _EXPR_DATA, _DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 1, 1, 2, 1, 2, 1
_REGISTER_32 = 8  # NFT_REG32_00

_META_KEYS = {"iifname": 6, "oifname": 7, "l4proto": 16}
_CT_KEYS = {"state": 0, "status": 2}
_PAYLOAD_BASES = {"network": 1, "transport": 2}
_DROP, _ACCEPT = 0, 1

_NFGENMSG = Struct(">BBH")  # family, version, resource
_ELEMENTS_AT_ONCE = 400  # in one message: their list is one attribute, of at most 64 KiB

Keys = list[bytes] | dict[bytes, bytes]
Elements = dict[bytes, bytes]  # key: data, both as their registers look


# Fields of keys and data


def address(packed: bytes) -> bytes:
    """An IP address (network order) as a field."""
    return packed


def port(number: int) -> bytes:
    """A port as a field."""
    return number.to_bytes(2, "big") + b"\0\0"


def protocol(number: int) -> bytes:
    """An IP protocol as a field."""
    return bytes((number, 0, 0, 0))


def device(name: str) -> bytes:
    """A network device's name as a field."""
    return name.encode().ljust(16, b"\0")


# Expressions


def meta(key: str, register: int) -> bytes:
    """Load "iifname", "oifname" (four registers) or "l4proto"."""
    return _expression("meta", be32(2, _META_KEYS[key]), be32(1, _REGISTER_32 + register))


def payload(base: str, offset: int, size: int, register: int) -> bytes:
    """Load *size* bytes of the "network" or "transport" header."""
    return _expression(
        "payload",
        be32(1, _REGISTER_32 + register),
        be32(2, _PAYLOAD_BASES[base]),
        be32(3, offset),
        be32(4, size),
    )


def compare(register: int, data: bytes, *, equal: bool = True) -> bytes:
    """Go on only if the register holds (or does not hold) *data*."""
    return _expression(
        "cmp", be32(1, _REGISTER_32 + register), be32(2, 0 if equal else 1), nested(3, attribute(_DATA_VALUE, data))
    )


def any_bit(register: int, mask: int) -> bytes:
    """Go on only if one bit of *mask* (machine order) is set in the register, which is changed."""
    number = be32(1, _REGISTER_32 + register) + be32(2, _REGISTER_32 + register) + be32(3, 4)
    return _expression(
        "bitwise",
        number,
        nested(4, attribute(_DATA_VALUE, mask.to_bytes(4, "little"))),
        nested(5, attribute(_DATA_VALUE, bytes(4))),
    ) + compare(register, bytes(4), equal=False)


def conntrack(key: str, register: int) -> bytes:
    """Load the connection's "state" or "status"."""
    return _expression("ct", be32(1, _REGISTER_32 + register), be32(2, _CT_KEYS[key]))


def destination_type(register: int) -> bytes:
    """Load what kind of route leads to the destination (RTN_*: 2 is one of this machine's own addresses)."""
    return _expression("fib", be32(1, _REGISTER_32 + register), be32(2, 3), be32(3, 2))


def lookup(name: str, register: int, *, into: int | None = None, found: bool = True) -> bytes:
    """Go on only if the set has (or, not *found*, lacks) what is in the registers; load a map's data *into* others."""
    return _expression(
        "lookup",
        text(1, name),
        be32(2, _REGISTER_32 + register),
        be32(3, _REGISTER_32 + into) if into is not None else b"",
        b"" if found else be32(5, 1),
    )


def translate_destination(address_register: int, port_register: int, family: int = IPV4) -> bytes:
    """Send the connection to the address and port in these registers."""
    return _expression(
        "nat",
        be32(1, 1),
        be32(2, family),
        be32(3, _REGISTER_32 + address_register),
        be32(5, _REGISTER_32 + port_register),
    )


def masquerade() -> bytes:
    """Let the connection come from the address of the device by which it leaves."""
    return _expression("masq")


def accept() -> bytes:
    """Be done with this chain."""
    return _verdict(_ACCEPT)


def drop() -> bytes:
    """Forget the packet."""
    return _verdict(_DROP)


class Chain:
    """A base chain: where its packets come from, and whether it `drops` those that no rule of its own accepts."""

    __slots__ = ("drops", "family", "hook", "name", "table")

    def __init__(self, family: int, body: bytes) -> None:
        its = attributes(body, 4)
        self.family = family
        self.table, self.name = string(its[_NAME]), string(its[_CHAIN_NAME])
        hook = attributes(its.get(_CHAIN_HOOK, b"")).get(_HOOK_NUMBER, b"")
        self.hook = int.from_bytes(hook, "big") if hook else None
        self.drops = bool(its.get(_CHAIN_POLICY)) and int.from_bytes(its[_CHAIN_POLICY], "big") == _DROP


class Transaction:
    """Changes of one table that `NftSocket.commit` makes all together or not at all."""

    __slots__ = ("_sets", "family", "messages", "table")

    def __init__(self, table: str, family: int = IPV4) -> None:
        self.table = table
        self.family = family
        self.messages: list[Message] = []
        self._sets = 0

    def make_table(self) -> None:
        """Make the table unless it is there."""
        self._add(_NEWTABLE, CREATE, text(_NAME, self.table) + be32(2, 0), f"could not make table {self.table}")

    def delete_table(self) -> None:
        """Remove the table with all that it holds. ENOENT if there is none."""
        self._add(_DELTABLE, 0, text(_NAME, self.table), f"could not remove table {self.table}")

    def make_chain(self, name: str, type: str, hook: int, priority: int) -> None:
        """Make a base chain, whose packets are accepted in the end, unless it is there."""
        body = text(_NAME, self.table) + text(_CHAIN_NAME, name) + text(_CHAIN_TYPE, type)
        body += nested(_CHAIN_HOOK, be32(_HOOK_NUMBER, hook), be32(_HOOK_PRIORITY, priority))
        body += be32(_CHAIN_POLICY, _ACCEPT)
        self._add(_NEWCHAIN, CREATE, body, f"could not make chain {self.table} {name}")

    def flush_chain(self, name: str) -> None:
        """Remove all rules of the chain."""
        body = text(_NAME, self.table) + text(_RULE_CHAIN, name)
        self._add(_DELRULE, 0, body, f"could not empty chain {self.table} {name}")

    def add_rule(self, chain: str, *expressions: bytes) -> None:
        """Append a rule."""
        body = text(_NAME, self.table) + text(_RULE_CHAIN, chain) + nested(_RULE_EXPRESSIONS, *expressions)
        self._add(_NEWRULE, CREATE | APPEND, body, f"could not add a rule to chain {self.table} {chain}")

    def make_set(self, name: str, key: tuple[str, ...], *, interval: bool = False) -> None:
        """Make a set, whose *key* has fields of these TYPES, unless it is there."""
        self._make_set(name, key, None, _SET_INTERVAL if interval else 0)

    def make_map(self, name: str, key: tuple[str, ...], data: tuple[str, ...]) -> None:
        """Make a map from *key* to *data*, both of fields of TYPES, unless it is there."""
        self._make_set(name, key, data, _SET_MAP)

    def add_elements(self, name: str, elements: Keys, *, exclusive: bool = False) -> None:
        """
        Add to a set or map. What is there with the same data is left alone, unless *exclusive*: EEXIST then;
        what is there with other data: EEXIST (EBUSY before Linux 5.7).
        """
        packed = _set_elements(elements)
        self._change_elements(_NEWSETELEM, CREATE | (EXCLUSIVE if exclusive else 0), name, packed, "add to")

    def delete_elements(self, name: str, keys: list[bytes]) -> None:
        """Take these keys from a set or map. ENOENT if one is not there."""
        self._change_elements(_DELSETELEM, 0, name, _set_elements(keys), "remove from")

    def add_interval(self, name: str, first: bytes, after: bytes) -> None:
        """Add what lies from *first* to before *after* to an interval set. EEXIST if it overlaps others."""
        self._change_elements(_NEWSETELEM, CREATE, name, _interval(first, after), "add to")

    def delete_interval(self, name: str, first: bytes, after: bytes) -> None:
        """Take such an interval away. ENOENT if it is not there."""
        self._change_elements(_DELSETELEM, 0, name, _interval(first, after), "remove from")

    def _make_set(self, name: str, key: tuple[str, ...], data: tuple[str, ...] | None, flags: int) -> None:
        self._sets += 1
        body = text(_NAME, self.table) + text(_SET_NAME, name) + be32(_SET_FLAGS, flags)
        body += be32(_SET_KEY_TYPE, _type(key)) + be32(_SET_KEY_LEN, _size(key))
        if data is not None:
            body += be32(_SET_DATA_TYPE, _type(data)) + be32(_SET_DATA_LEN, _size(data))
        body += be32(_SET_ID, self._sets)
        if key == ("ifname",):
            body += attribute(_SET_USERDATA, _HOST_ORDER)  # for nft(8), which else takes a lone name for a number
        self._add(_NEWSET, CREATE, body, f"could not make set {self.table} {name}")

    def _change_elements(self, type: int, flags: int, name: str, elements: list[bytes], verb: str) -> None:
        head = text(_NAME, self.table) + text(_LIST_SET, name)
        for start in range(0, len(elements), _ELEMENTS_AT_ONCE):
            body = head + nested(_LIST_ELEMENTS, *elements[start : start + _ELEMENTS_AT_ONCE])
            self._add(type, flags, body, f"could not {verb} set {self.table} {name}")

    def _add(self, type: int, flags: int, body: bytes, what: str) -> None:
        self.messages.append(Message(type, flags, _NFGENMSG.pack(self.family, 0, 0) + body, what))


class NftSocket(Netlink):
    """A netlink socket that commits transactions, and asks."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETFILTER)

    def __enter__(self) -> "NftSocket":
        return self

    def commit(self, transaction: Transaction, generation: int | None = None) -> None:
        """
        Make all changes or none. Raises NetlinkError for the first that was refused.

        With a *generation*, only if nothing has been changed since `generation()` told it: ERESTART else.
        """
        if not transaction.messages:
            return
        batch = _NFGENMSG.pack(0, 0, _SUBSYSTEM >> 8)
        what = f"could not change table {transaction.table}"
        begin = Message(_BATCH_BEGIN, 0, batch + (b"" if generation is None else be32(1, generation)), what)
        end = Message(_BATCH_END, 0, batch, what)
        self.transact(begin, transaction.messages, end)

    def generation(self) -> int:
        """The number of the rule set as it is now, all tables together; every commit of anybody changes it."""
        question = Message(_GETGEN, 0, _NFGENMSG.pack(0, 0, 0), "could not ask for nf_tables' generation")
        ((_kind, body),) = self.execute([question])
        return int.from_bytes(attributes(body, 4)[1], "big")

    def has_table(self, table: str, family: int = IPV4) -> bool:
        """Whether the table is there."""
        body = _NFGENMSG.pack(family, 0, 0) + text(_NAME, table)
        try:
            self.execute([Message(_GETTABLE, 0, body, f"could not look for table {table}")])
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def has_element(self, table: str, name: str, key: bytes, family: int = IPV4) -> bool:
        """Whether the table and its set or map are there, with this key in it."""
        return bool(self.find(table, name, [key], family))

    def find(self, table: str, name: str, keys: Keys, family: int = IPV4) -> Elements:
        """Those of *keys* that the set or map has, with their data; none if there is no such table or set."""
        head = _NFGENMSG.pack(family, 0, 0) + text(_NAME, table) + text(_LIST_SET, name)
        found: Elements = {}
        for key in keys:
            question = Message(
                _GETSETELEM, 0, head + nested(_LIST_ELEMENTS, _element(key)), f"could not look into set {table} {name}"
            )
            try:
                answers = self.execute([question])
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                for _kind, answer in answers:
                    found.update(_elements(answer))
        return found

    def tables(self, family: int = IPV4) -> list[str]:
        """The names of all tables of that family."""
        answers = self.dump(Message(_GETTABLE, 0, _NFGENMSG.pack(family, 0, 0), "could not list tables"))
        return [string(attributes(body, 4)[_NAME]) for _kind, body in answers]

    def chains(self, family: int = IPV4) -> list[Chain]:
        """All chains of that family, of whatever table; those that are no base chains have no hook."""
        answers = self.dump(Message(_GETCHAIN, 0, _NFGENMSG.pack(family, 0, 0), "could not list chains"))
        return [Chain(family, body) for _kind, body in answers]

    def elements(self, table: str, name: str, family: int = IPV4) -> Elements:
        """
        What a set or map holds; a set's data is b"". Of an interval set the first keys alone.

        Right after thousands were added some may be missing: the kernel lists its hash table in pieces, and does not
        say when it has moved things between them. `find` misses none. Raises NetlinkError ENOENT if there is no such
        set.
        """
        body = _NFGENMSG.pack(family, 0, 0) + text(_NAME, table) + text(_LIST_SET, name)
        found: Elements = {}
        for _kind, answer in self.dump(Message(_GETSETELEM, 0, body, f"could not list set {table} {name}")):
            found.update(_elements(answer))
        return found


def _elements(answer: bytes) -> Elements:
    """The elements in one answer, without the ends of intervals."""
    found: Elements = {}
    for _, packed in each(attributes(answer, 4).get(_LIST_ELEMENTS, b"")):
        its = attributes(packed)
        if int.from_bytes(its.get(_ELEM_FLAGS, b""), "big") & _INTERVAL_END:
            continue
        data = attributes(its.get(_ELEM_DATA, b"")).get(_DATA_VALUE, b"")
        found[attributes(its[_ELEM_KEY])[_DATA_VALUE]] = data
    return found


def _expression(name: str, *data: bytes) -> bytes:
    return nested(_LIST_ELEM, text(_EXPR_NAME, name), nested(_EXPR_DATA, *data))


def _verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, 0), nested(2, nested(_DATA_VERDICT, be32(_VERDICT_CODE, code))))


def _type(fields: tuple[str, ...]) -> int:
    number = 0
    for field in fields:
        number = number << _TYPE_BITS | TYPES[field][0]
    return number


def _size(fields: tuple[str, ...]) -> int:
    return sum(TYPES[field][1] for field in fields)


def _set_elements(elements: Keys) -> list[bytes]:
    if isinstance(elements, dict):
        return [_element(key, nested(_ELEM_DATA, attribute(_DATA_VALUE, data))) for key, data in elements.items()]
    return [_element(key) for key in elements]


def _interval(first: bytes, after: bytes) -> list[bytes]:
    return [_element(first), _element(after, be32(_ELEM_FLAGS, _INTERVAL_END))]


def _element(key: bytes, *more: bytes) -> bytes:
    return nested(_LIST_ELEM, nested(_ELEM_KEY, attribute(_DATA_VALUE, key)), *more)
