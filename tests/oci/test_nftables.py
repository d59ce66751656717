"""nf_tables transactions against the kernel, with nft(8) as the judge."""

import errno
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import inet_aton

import pytest

from support.namespace import inside, new_namespace, output
from wherry_oci.linux import nftables
from wherry_oci.linux.netlink import NetlinkError
from wherry_oci.linux.nftables import NftSocket, Transaction

pytestmark = pytest.mark.root

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft(8), of Debian's package nftables")

TCP = nftables.protocol(6)
TARGET = inet_aton("172.30.0.2") + nftables.port(80)
OTHER = inet_aton("172.30.0.3") + nftables.port(80)


@pytest.fixture
def netfilter() -> Iterator[NftSocket]:
    """A socket in a network namespace of the test's own, which the test is in."""
    with new_namespace() as namespace, inside(namespace), NftSocket() as opened:
        yield opened


def key(port: int) -> bytes:
    return TCP + nftables.port(port)


def make_table(netfilter: NftSocket) -> None:
    change = Transaction("boat")
    change.make_table()
    change.make_set("boats", ("ifname",))
    change.make_set("pairs", ("ifname", "ifname"))
    change.make_set("nets", ("ipv4_addr",), interval=True)
    change.make_map("ports", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
    netfilter.commit(change)


def add(netfilter: NftSocket, elements: dict[bytes, bytes], *, exclusive: bool = False) -> None:
    change = Transaction("boat")
    change.add_elements("ports", elements, exclusive=exclusive)
    netfilter.commit(change)


def delete(netfilter: NftSocket, *keys: bytes) -> None:
    change = Transaction("boat")
    change.delete_elements("ports", list(keys))
    netfilter.commit(change)


@needs_nft
def test_nft_reads_every_expression_as_it_was_meant(netfilter: NftSocket) -> None:
    """Each function gives the bytes that the kernel takes for that expression."""
    make_table(netfilter)
    change = Transaction("boat")
    change.make_chain("before", "filter", nftables.PREROUTING, nftables.RAW)
    change.make_chain("to", "nat", nftables.PREROUTING, nftables.DESTINATION_NAT)
    change.make_chain("from", "nat", nftables.POSTROUTING, nftables.SOURCE_NAT)
    change.make_chain("through", "filter", nftables.FORWARD, nftables.FILTER)
    change.add_rule(
        "before",
        nftables.meta("iifname", 0),
        nftables.compare(0, nftables.device("lo"), equal=False),
        nftables.payload("network", 16, 1, 0),
        nftables.compare(0, b"\x7f"),
        nftables.drop(),
    )
    change.add_rule(
        "to",
        nftables.destination_type(0),
        nftables.compare(0, (2).to_bytes(4, "little")),
        nftables.payload("network", 9, 1, 0),
        nftables.payload("transport", 2, 2, 1),
        nftables.lookup("ports", 0, into=0),
        nftables.translate_destination(0, 1),
    )
    change.add_rule(
        "from",
        nftables.payload("network", 12, 4, 0),
        nftables.lookup("nets", 0),
        nftables.meta("oifname", 0),
        nftables.lookup("boats", 0, found=False),
        nftables.masquerade(),
    )
    change.add_rule(
        "through",
        nftables.meta("iifname", 0),
        nftables.meta("oifname", 4),
        nftables.lookup("pairs", 0),
        nftables.accept(),
    )
    change.add_rule("through", nftables.conntrack("state", 0), nftables.any_bit(0, 6), nftables.accept())
    change.add_rule("through", nftables.conntrack("status", 0), nftables.any_bit(0, 0x20), nftables.drop())
    change.add_elements("boats", [nftables.device("wherry0")])
    change.add_elements("pairs", [nftables.device("wherry0") + nftables.device("eth1")])
    change.add_interval("nets", inet_aton("172.30.0.0"), inet_aton("172.31.0.0"))
    change.add_elements("ports", {key(8080): TARGET})
    netfilter.commit(change)

    said = [line.strip() for line in output("nft", "list", "table", "ip", "boat").splitlines() if line.strip() != "}"]
    assert [line for line in said if line] == [
        "table ip boat {",
        "set boats {",
        "type ifname",
        'elements = { "wherry0" }',
        "set pairs {",
        "type ifname . ifname",
        'elements = { "wherry0" . "eth1" }',
        "set nets {",
        "type ipv4_addr",
        "flags interval",
        "elements = { 172.30.0.0/16 }",
        "map ports {",
        "type inet_proto . inet_service : ipv4_addr . inet_service",
        "elements = { tcp . 8080 : 172.30.0.2 . 80 }",
        "chain before {",
        "type filter hook prerouting priority raw; policy accept;",
        'iifname != "lo" ip daddr 127.0.0.0/8 drop',
        "chain to {",
        "type nat hook prerouting priority dstnat; policy accept;",
        "fib daddr type local dnat ip to ip protocol . th dport map @ports",
        "chain from {",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip saddr @nets oifname != @boats masquerade",
        "chain through {",
        "type filter hook forward priority filter; policy accept;",
        "iifname . oifname @pairs accept",
        "ct state established,related accept",
        "ct status dnat drop",
    ]


@needs_nft
def test_what_nft_saves_it_restores(netfilter: NftSocket, tmp_path: Path) -> None:
    """Administrators save and restore the whole rule set; ours must survive that."""
    make_table(netfilter)
    change = Transaction("boat")
    change.add_elements("boats", [nftables.device("wherry0")])
    change.add_elements("pairs", [nftables.device("wherry0") + nftables.device("eth1")])
    change.add_elements("ports", {key(8080): TARGET})
    netfilter.commit(change)
    before = {name: netfilter.elements("boat", name) for name in ("boats", "pairs", "ports")}
    saved = tmp_path / "saved.nft"
    saved.write_text(output("nft", "list", "ruleset"))
    output("nft", "flush", "ruleset")
    output("nft", "-f", str(saved))
    assert {name: netfilter.elements("boat", name) for name in ("boats", "pairs", "ports")} == before


def test_making_what_is_there_changes_nothing(netfilter: NftSocket) -> None:
    """Tables, sets, maps and chains are made again without error, and keep their elements."""
    make_table(netfilter)
    add(netfilter, {key(8080): TARGET})
    make_table(netfilter)
    assert netfilter.elements("boat", "ports") == {key(8080): TARGET}


def test_flushing_and_adding_rules_in_one_transaction_replaces_them(netfilter: NftSocket) -> None:
    """However often it is done, the rules are there once."""
    for _ in range(3):
        change = Transaction("boat")
        change.make_table()
        change.make_chain("in", "filter", nftables.INPUT, nftables.FILTER)
        change.flush_chain("in")
        change.add_rule("in", nftables.accept())
        netfilter.commit(change)
    if shutil.which("nft"):
        assert output("nft", "list", "table", "ip", "boat").count("accept\n") == 1


def test_an_element_is_added_twice_replaced_and_removed(netfilter: NftSocket) -> None:
    """The same again is fine, other data is EEXIST, and a removed one is ENOENT."""
    make_table(netfilter)
    add(netfilter, {key(8080): TARGET})
    add(netfilter, {key(8080): TARGET})
    with pytest.raises(NetlinkError) as caught:
        add(netfilter, {key(8080): OTHER})
    assert caught.value.errno in (errno.EEXIST, errno.EBUSY)
    with pytest.raises(NetlinkError) as caught:
        add(netfilter, {key(8080): TARGET}, exclusive=True)
    assert caught.value.errno == errno.EEXIST

    change = Transaction("boat")
    change.delete_elements("ports", [key(8080)])
    change.add_elements("ports", {key(8080): OTHER})
    netfilter.commit(change)
    assert netfilter.elements("boat", "ports") == {key(8080): OTHER}

    delete(netfilter, key(8080))
    with pytest.raises(NetlinkError) as caught:
        delete(netfilter, key(8080))
    assert caught.value.errno == errno.ENOENT
    assert netfilter.elements("boat", "ports") == {}


def test_a_transaction_is_all_or_nothing(netfilter: NftSocket) -> None:
    """One refusal anywhere, and nothing of it is there; the first refusal is the one that is raised."""
    make_table(netfilter)
    change = Transaction("boat")
    change.add_elements("boats", [nftables.device("one")])
    change.add_elements("missing", [nftables.device("two")])
    change.add_elements("lost", [nftables.device("two")])
    change.add_elements("boats", [nftables.device("three")])
    with pytest.raises(NetlinkError, match="could not add to set boat missing") as caught:
        netfilter.commit(change)
    assert caught.value.errno == errno.ENOENT
    assert netfilter.elements("boat", "boats") == {}

    add(netfilter, {key(1): TARGET})  # and the socket goes on
    assert netfilter.elements("boat", "ports") == {key(1): TARGET}


def test_a_refusal_of_the_last_change_is_seen(netfilter: NftSocket) -> None:
    """The last one alone is acknowledged; its failure is not taken for that."""
    make_table(netfilter)
    change = Transaction("boat")
    change.add_elements("boats", [nftables.device("one")])
    change.add_elements("missing", [nftables.device("two")])
    with pytest.raises(NetlinkError, match="could not add to set boat missing"):
        netfilter.commit(change)


def test_twenty_thousand_elements_go_in_one_transaction(netfilter: NftSocket) -> None:
    """More than a message, and more than a socket's buffer holds by default."""
    make_table(netfilter)
    many = {key(port): TARGET for port in range(1, 20_001)}
    add(netfilter, many)
    assert netfilter.find("boat", "ports", many) == many
    delete(netfilter, *many)
    assert netfilter.elements("boat", "ports") == {}


def test_an_interval_is_added_again_and_removed(netfilter: NftSocket) -> None:
    """Its end is not taken for an element."""
    make_table(netfilter)
    for _ in range(2):
        change = Transaction("boat")
        change.add_interval("nets", inet_aton("172.30.0.0"), inet_aton("172.31.0.0"))
        netfilter.commit(change)
    assert netfilter.elements("boat", "nets") == {inet_aton("172.30.0.0"): b""}
    change = Transaction("boat")
    change.delete_interval("nets", inet_aton("172.30.0.0"), inet_aton("172.31.0.0"))
    netfilter.commit(change)
    assert netfilter.elements("boat", "nets") == {}


def test_a_change_for_an_old_generation_is_refused(netfilter: NftSocket) -> None:
    """Who read, and then writes, learns that somebody wrote in between."""
    make_table(netfilter)
    generation = netfilter.generation()
    add(netfilter, {key(1): TARGET})
    assert netfilter.generation() != generation
    change = Transaction("boat")
    change.delete_elements("ports", [key(1)])
    with pytest.raises(NetlinkError) as caught:
        netfilter.commit(change, generation)
    assert caught.value.errno == errno.ERESTART
    netfilter.commit(change, netfilter.generation())
    assert netfilter.elements("boat", "ports") == {}


def test_the_table_is_looked_for_and_removed(netfilter: NftSocket) -> None:
    """has_table, has_element and tables agree, before and after."""
    assert not netfilter.has_table("boat")
    assert not netfilter.has_element("boat", "boats", nftables.device("one"))
    make_table(netfilter)
    assert netfilter.has_table("boat")
    assert netfilter.tables() == ["boat"]
    assert not netfilter.has_element("boat", "boats", nftables.device("one"))
    assert not netfilter.has_element("boat", "missing", nftables.device("one"))
    change = Transaction("boat")
    change.add_elements("boats", [nftables.device("one")])
    netfilter.commit(change)
    assert netfilter.has_element("boat", "boats", nftables.device("one"))

    change = Transaction("boat")
    change.delete_table()
    netfilter.commit(change)
    assert netfilter.tables() == []
    with pytest.raises(NetlinkError) as caught:
        netfilter.commit(change)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(NetlinkError):
        netfilter.elements("boat", "boats")


def test_transactions_of_many_threads_do_not_lose_each_other(netfilter: NftSocket) -> None:
    """Each commits by a socket of its own; the kernel puts them in a row."""
    make_table(netfilter)
    failures: list[BaseException] = []

    def work(base: int) -> None:
        try:
            with NftSocket() as mine:
                for port in range(base, base + 100):
                    add(mine, {key(port): TARGET})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1 + 100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(netfilter.elements("boat", "ports")) == 800
