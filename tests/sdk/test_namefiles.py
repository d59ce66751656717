"""Docker's rules for a container's /etc/hostname, /etc/hosts and /etc/resolv.conf."""

from pathlib import Path

import pytest

from wherry.namefiles import host_resolv_conf, hostname_file, hosts_file, parse_extra_hosts, resolv_conf
from wherry_oci.errors import InvalidArgument

pytestmark = pytest.mark.unit

HOST = """\
# made by something
; and something else
domain old.example
search lan.example corp.example
nameserver 127.0.0.1
nameserver 192.0.2.53
nameserver ::1
nameserver fe80::1%eth0
options ndots:2 timeout:1
options rotate
"""


def test_the_hostname_is_one_line() -> None:
    """With its end."""
    assert hostname_file("web") == "web\n"


def test_hosts_has_localhost_extra_hosts_and_the_container_itself() -> None:
    """In this order; the full name comes before the short one."""
    text = hosts_file("web", domainname="example.org", addresses=["172.30.0.2"], extra_hosts=[("db", "10.0.0.1")])
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert text.endswith("10.0.0.1\tdb\n172.30.0.2\tweb.example.org web\n")
    assert hosts_file("web", addresses=["172.30.0.2"]).endswith("\n172.30.0.2\tweb\n")
    assert "web" not in hosts_file("web")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (None, []),
        ({}, []),
        ({"db": "10.0.0.1"}, [("db", "10.0.0.1")]),
        (["db:10.0.0.1", "six:::1", "six2=[fd00::1]"], [("db", "10.0.0.1"), ("six", "::1"), ("six2", "fd00::1")]),
        (["host:host-gateway"], [("host", "172.30.0.1")]),
        ({"host.docker.internal": "host-gateway"}, [("host.docker.internal", "172.30.0.1")]),
        (["db:10.0.0.1", "db:10.0.0.2"], [("db", "10.0.0.1"), ("db", "10.0.0.2")]),
    ],
)
def test_extra_hosts_are_said_in_every_way(extra: object, expected: list[tuple[str, str]]) -> None:
    """As docker-py and the command line have them."""
    assert parse_extra_hosts(extra, "172.30.0.1") == expected


@pytest.mark.parametrize(
    "wrong",
    [["db"], ["db:"], [":10.0.0.1"], ["db:x"], {"": "10.0.0.1"}, {"a b": "10.0.0.1"}, "db:10.0.0.1", [7], {"d": 7}],
)
def test_a_wrong_extra_host_is_refused(wrong: object) -> None:
    """InvalidArgument, never a broken file; a line end cannot add a line."""
    with pytest.raises(InvalidArgument, match="extra_hosts"):
        parse_extra_hosts(wrong)
    with pytest.raises(InvalidArgument):
        parse_extra_hosts({"a\n1.2.3.4 b": "10.0.0.1"})
    with pytest.raises(InvalidArgument, match="host-gateway needs a bridge"):
        parse_extra_hosts(["a:host-gateway"])


def test_servers_that_a_container_cannot_reach_are_left_out() -> None:
    """Loopback and IPv6 ones; search and options stay."""
    assert resolv_conf(HOST) == (
        "nameserver 192.0.2.53\nsearch lan.example corp.example\noptions ndots:2 timeout:1 rotate\n"
    )


def test_public_servers_stand_in_for_loopback_ones_only() -> None:
    """Docker's fallback; also for a host without resolv.conf."""
    for host in ("nameserver 127.0.0.53\n", "nameserver 127.1.2.3\nnameserver ::1\n", ""):
        assert resolv_conf(host) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_a_container_in_the_hosts_network_has_the_hosts_servers() -> None:
    """All of them."""
    assert resolv_conf(HOST, loopback=True).count("nameserver") == 4


def test_what_is_given_takes_the_place_of_the_hosts() -> None:
    """Each on its own; a search domain of "." means none."""
    text = resolv_conf(HOST, dns=["127.0.0.1", "fd00::53"], search=["a.example"], options=["ndots:0"])
    assert text == "nameserver 127.0.0.1\nnameserver fd00::53\nsearch a.example\noptions ndots:0\n"
    assert "search" not in resolv_conf(HOST, search=["."])
    assert resolv_conf(HOST, search=[], options=[], dns=[]) == resolv_conf(HOST)


@pytest.mark.parametrize("wrong", ["dns.example", "", "1.2.3", 8, "1.2.3.4\nsearch x"])
def test_a_server_must_be_an_address(wrong: str) -> None:
    """Else the resolver in the container would ignore it in silence."""
    with pytest.raises(InvalidArgument, match=r"dns: .* is no IP address"):
        resolv_conf(HOST, dns=[wrong])


def test_the_servers_behind_systemd_resolved_are_found(tmp_path: Path) -> None:
    """Its own stub, on loopback, is of no use to a container."""
    stub, real = tmp_path / "resolv.conf", tmp_path / "real.conf"
    stub.write_text("nameserver 127.0.0.53\nsearch lan\n")
    assert host_resolv_conf(str(stub), str(real)) == "nameserver 127.0.0.53\nsearch lan\n"
    real.write_text("nameserver 192.0.2.1\n")
    assert host_resolv_conf(str(stub), str(real)) == "nameserver 192.0.2.1\n"
    stub.write_text("nameserver 192.0.2.2\n")
    assert host_resolv_conf(str(stub), str(real)) == "nameserver 192.0.2.2\n"
    assert host_resolv_conf(str(tmp_path / "none"), str(real)) == ""
