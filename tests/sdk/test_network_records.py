"""Networks' records and addresses, in the database alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry import network
from wherry.network import Network
from wherry.portbinding import parse_ports
from wherry_images.database import Database
from wherry_oci.errors import Conflict, InvalidArgument, NotFound, Unavailable

pytestmark = pytest.mark.unit


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A root directory's database with the tables of this module."""
    opened = Database(tmp_path / "wherry.db")
    opened.migrate(network.COMPONENT, network.MIGRATIONS)
    yield opened
    opened.close()


def record(
    database: Database, name: str = "net", subnet: str = "172.30.0.0/16", gateway: str = "172.30.0.1"
) -> Network:
    """A network that is in the database alone."""
    first = int.from_bytes(bytes(int(part) for part in subnet.partition("/")[0].split(".")), "big") + 1
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO networks(id, name, driver, subnet, gateway, bridge, next_ipv4)"
            " VALUES (?, ?, 'bridge', ?, ?, ?, ?)",
            (os.urandom(32).hex(), name, subnet, gateway, f"br-{name}", first),
        )
        return network.get_network(connection, name)


def test_addresses_are_given_in_order_and_come_back_last(database: Database) -> None:
    """Gateway, network and broadcast addresses are left out; what was given back waits until all others were used."""
    net = record(database, subnet="10.9.0.0/29", gateway="10.9.0.1")
    with database.transaction() as connection:
        given = [network.allocate(connection, net, f"c{number}").ipv4 for number in range(3)]
        assert given == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
        network.release(connection, "c0")
        assert network.allocate(connection, net, "c3").ipv4 == "10.9.0.5"
        assert network.allocate(connection, net, "c4").ipv4 == "10.9.0.6"
        assert network.allocate(connection, net, "c5").ipv4 == "10.9.0.2"
        with pytest.raises(Unavailable, match=r"all addresses of 10\.9\.0\.0/29 are in use"):
            network.allocate(connection, net, "c6")
        network.release(connection, "c2")
        assert network.allocate(connection, net, "c6").ipv4 == "10.9.0.4"


@pytest.mark.parametrize("gateway", ["10.9.0.1", "10.9.0.4", "10.9.0.6"])
def test_the_gateways_address_is_never_given(database: Database, gateway: str) -> None:
    """Wherever it is in the subnet."""
    net = record(database, subnet="10.9.0.0/29", gateway=gateway)
    with database.transaction() as connection:
        given = {network.allocate(connection, net, f"c{number}").ipv4 for number in range(5)}
        with pytest.raises(Unavailable):
            network.allocate(connection, net, "one too many")
    assert given == {f"10.9.0.{number}" for number in range(1, 7)} - {gateway}


def test_a_container_keeps_its_place(database: Database) -> None:
    """Asked again, the same address, MAC and device; so a restart changes nothing."""
    net = record(database)
    with database.transaction() as connection:
        first = network.allocate(connection, net, "c", aliases=["web", "www"])
    with database.transaction() as connection:
        assert network.allocate(connection, net, "c") == first
        assert network.endpoints(connection, "c") == [(net, first)]
        assert network.members(connection, net) == [first]
    assert first.mac == "02:42:ac:1e:00:02"
    assert first.aliases == ("web", "www")
    assert len(first.device) == 15


def test_a_wanted_address_is_given_or_refused(database: Database) -> None:
    """Outside, taken, the gateway's, or no address at all: each has its error."""
    net = record(database)
    with database.transaction() as connection:
        wanted = network.allocate(connection, net, "a" * 64, ipv4="172.30.9.9", mac="02:00:00:00:00:09")
        assert (wanted.ipv4, wanted.mac) == ("172.30.9.9", "02:00:00:00:00:09")
        with pytest.raises(Conflict, match=r"172\.30\.9\.9 in network 'net' is in use by container a{12}:"):
            network.allocate(connection, net, "b", ipv4="172.30.9.9")
        with pytest.raises(Conflict, match="in use by the gateway"):
            network.allocate(connection, net, "b", ipv4="172.30.0.1")
        for outside in ("172.31.0.1", "172.30.0.0", "172.30.255.255"):
            with pytest.raises(InvalidArgument, match="is no host's address of network 'net'"):
                network.allocate(connection, net, "b", ipv4=outside)
        for wrong in ("172.30.1", "x", "", "172.30.0.999", "fd00::1"):
            with pytest.raises(InvalidArgument, match="is no IPv4 address"):
                network.allocate(connection, net, "b", ipv4=wrong)
        assert network.allocate(connection, net, "b").ipv4 == "172.30.0.2"


def test_a_container_leaves_one_network_or_all(database: Database) -> None:
    """Releasing what is not there is fine."""
    one, two = record(database, "one", "10.1.0.0/16", "10.1.0.1"), record(database, "two", "10.2.0.0/16", "10.2.0.1")
    with database.transaction() as connection:
        for net in (one, two):
            network.allocate(connection, net, "c")
        network.release(connection, "c", one)
        assert [place.id for place, _ in network.endpoints(connection, "c")] == [two.id]
        network.release(connection, "c")
        network.release(connection, "c")
        assert network.endpoints(connection, "c") == []


def test_no_address_is_given_twice_by_many_processes(database: Database) -> None:
    """Four processes, each with 50 containers, half of them given back meanwhile."""
    net = record(database)
    script = (
        "import sys\n"
        "from wherry import network\n"
        "from wherry_images.database import Database\n"
        "database = Database(sys.argv[1])\n"
        "for number in range(50):\n"
        "    with database.transaction(durable=False) as connection:\n"
        "        net = network.get_network(connection, 'net')\n"
        "        network.allocate(connection, net, f'{sys.argv[2]}-{number}')\n"
        "    if number % 2:\n"
        "        with database.transaction(durable=False) as connection:\n"
        "            network.release(connection, f'{sys.argv[2]}-{number}')\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, database.path, str(number)]) for number in range(4)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0, 0]
    with database.transaction() as connection:
        members = network.members(connection, net)
        after = network.allocate(connection, net, "after").ipv4
    assert len(members) == 100
    assert len({member.ipv4 for member in members}) == 100
    assert after == "172.30.0.202", "each of the 200 before had one of its own, given back or not"


def test_a_network_is_found_by_name_id_and_beginning_of_id(database: Database) -> None:
    """Names come first, and what is ambiguous is not found."""
    one, two = record(database, "one", "10.1.0.0/16", "10.1.0.1"), record(database, "two", "10.2.0.0/16", "10.2.0.1")
    with database.transaction() as connection:
        assert network.get_network(connection, "one") == one
        assert network.get_network(connection, two.id) == two
        assert network.get_network(connection, two.id[:12]) == two
        assert network.networks(connection) == [one, two]
        for name in ("three", "", "*", one.id[:2], "%"):
            with pytest.raises(NotFound, match="no network is called"):
                network.get_network(connection, name)


def test_a_plan_is_json_and_complete(database: Database) -> None:
    """What the shim's docstring promises, for each mode."""
    net = record(database)
    with database.transaction() as connection:
        endpoint = network.allocate(connection, net, "c")
    plan = network.plan("c", [(net, endpoint)], parse_ports({80: 8080, 81: "9000-9002"}))
    assert json.loads(json.dumps(plan)) == plan
    assert plan == {
        "container": "c",
        "mode": "bridge",
        "sysctls": {"net.ipv6.conf.default.disable_ipv6": "1"},
        "table": net.table,
        "proxy": False,
        "interfaces": [
            {
                "network": net.id,
                "bridge": "br-net",
                "host_device": endpoint.device,
                "device": "eth0",
                "mac": "02:42:ac:1e:00:02",
                "mtu": 1500,
                "addresses": ["172.30.0.2/16"],
                "gateways": ["172.30.0.1"],
            }
        ],
        "ports": [
            {"host_ip": "0.0.0.0", "host_port": 8080, "container_port": 80, "protocol": "tcp"},
            {
                "host_ip": "0.0.0.0",
                "host_port": 9000,
                "last_host_port": 9002,
                "container_port": 81,
                "protocol": "tcp",
            },
        ],
    }
    assert network.plan("c", mode="host") == {"container": "c", "mode": "host"}
    assert network.plan("c", mode="join", path="/proc/1/fd/3") == {
        "container": "c",
        "mode": "join",
        "path": "/proc/1/fd/3",
    }
    assert set(network.plan("c", mode="none", sysctls={"a": "b"})["sysctls"]) == {
        "net.ipv6.conf.default.disable_ipv6",
        "a",
    }


def test_the_tables_are_made_once(database: Database) -> None:
    """The root's mark is the same for ever."""
    with database.read() as connection:
        (before,) = connection.execute("SELECT id FROM network_root").fetchall()
    again = Database(database.path)
    again.migrate(network.COMPONENT, network.MIGRATIONS)
    with again.read() as connection:
        assert connection.execute("SELECT id FROM network_root").fetchall() == [before]
    again.close()
