"""Networks' records, addresses, and the host's side, in network namespaces of the test's own."""

import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support import host as hosts
from support.leftovers import settled
from support.namespace import inside, new_namespace, output, own_namespace
from wherry import network
from wherry.network import Network
from wherry.portbinding import parse_ports
from wherry_images.database import Database
from wherry_oci.errors import AlreadyExists, Conflict, InvalidArgument, Unavailable
from wherry_oci.linux.nftables import NftSocket, Transaction
from wherry_oci.linux.rtnetlink import RouteSocket, add_address, delete_link, new_bridge, set_link
from wherry_shim.network import attach, detach
from wherry_shim.portmaps import ADDRESSED, PORTS

pytestmark = pytest.mark.root


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A root directory's database with the tables of this module."""
    opened = Database(tmp_path / "wherry.db")
    opened.migrate(network.COMPONENT, network.MIGRATIONS)
    yield opened
    opened.close()


@pytest.fixture
def host() -> Iterator[None]:
    """A network namespace of the test's own, which the test is in."""
    with new_namespace() as namespace, inside(namespace):
        yield


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


def links() -> dict[str, str]:
    """Name and kind of all devices here that somebody made."""
    with RouteSocket() as route:
        return {link.name: link.kind for link in route.links() if link.kind in ("bridge", "veth")}


# Addresses


# Pools


def test_the_default_network_is_made_once(database: Database, host: None) -> None:
    """With Docker's name and wherry's pool; found, not made, from then on."""
    with database.transaction() as connection:
        made = network.default_network(connection)
        assert network.default_network(connection) == made
    assert (made.name, made.driver, made.subnet, made.gateway, made.bridge, made.internal) == (
        "bridge",
        "bridge",
        "172.30.0.0/16",
        "172.30.0.1",
        "wherry0",
        False,
    )
    assert made.table == f"wherry-{made.root}"
    assert made.mtu == 1500
    with RouteSocket() as route:
        assert route.link("wherry0").address == made.mac


def test_the_pool_overlaps_no_route_of_the_host(database: Database, host: None) -> None:
    """Neither a larger nor a smaller one, nor another network of ours; a VPN's halves of the world are passed over."""
    with RouteSocket() as route:
        route.execute([new_bridge("lan")])
        lan = route.link("lan").index
        route.execute([set_link(lan, up=True), add_address(lan, "172.30.7.7/24"), add_address(lan, "172.28.0.1/15")])
        output("ip", "route", "add", "0.0.0.0/1", "dev", "lan")
        output("ip", "route", "add", "128.0.0.0/1", "dev", "lan")
        output("ip", "route", "add", "172.26.5.5/32", "dev", "lan")
    with database.transaction() as connection:
        chosen = [network.create_network(connection, f"net{number}").subnet for number in range(3)]
    assert chosen == ["172.27.0.0/16", "172.25.0.0/16", "172.24.0.0/16"]


def test_when_no_pool_is_free_the_error_says_so_and_nothing_is_left(database: Database, host: None) -> None:
    """The device that was to have it is gone."""
    with RouteSocket() as route:
        route.execute([new_bridge("lan")])
        lan = route.link("lan").index
        route.execute([set_link(lan, up=True), add_address(lan, "172.16.0.1/12"), add_address(lan, "192.168.0.1/16")])
        route.execute([add_address(lan, "10.89.0.1/16")])
    with pytest.raises(Unavailable, match="no subnet is free"), database.transaction() as connection:
        network.default_network(connection)
    assert links() == {"lan": "bridge"}


def test_two_roots_on_one_host_do_not_meet(tmp_path: Path, host: None) -> None:
    """Devices, subnets and tables are apart, even when several processes begin at the same moment."""
    script = (
        "import sys, json\n"
        "from wherry import network\n"
        "from wherry_images.database import Database\n"
        "database = Database(sys.argv[1] + '/wherry.db')\n"
        "database.migrate(network.COMPONENT, network.MIGRATIONS)\n"
        "sys.stdin.readline()\n"
        "with database.transaction() as connection:\n"
        "    made = network.default_network(connection)\n"
        "network.ensure_bridge(made, sys.argv[1])\n"
        "print(json.dumps([made.bridge, made.subnet, made.table]))\n"
    )
    workers = []
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / str(number))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    made = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    for column in range(3):
        assert len({row[column] for row in made}) == 6
    with NftSocket() as netfilter:
        assert sorted(netfilter.tables()) == sorted(row[2] for row in made)


def test_a_network_with_options(database: Database, host: None) -> None:
    """Subnet, gateway, device name, MTU, labels: as asked, and read back."""
    with database.transaction() as connection:
        made = network.create_network(
            connection,
            "mine",
            subnet="10.77.0.0/24",
            gateway="10.77.0.254",
            internal=True,
            options={network.BRIDGE_OPTION: "mybridge", network.MTU_OPTION: "1400"},
            labels={"a": "b"},
        )
        assert network.get_network(connection, "mine") == made
    assert (made.subnet, made.gateway, made.bridge, made.mtu) == ("10.77.0.0/24", "10.77.0.254", "mybridge", 1400)
    assert (made.internal, dict(made.labels)) == (True, {"a": "b"})
    with RouteSocket() as route:
        assert (route.link("mybridge").index, "10.77.0.254/24") in route.addresses()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subnet": "10.0.0.1/8"}, InvalidArgument, "subnet '10.0.0.1/8': .* has host bits set"),
        ({"subnet": "nonsense"}, InvalidArgument, "subnet 'nonsense'"),
        ({"subnet": "10.0.0.0/31"}, InvalidArgument, "has no room"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}, InvalidArgument, "gateway 10.0.1.1 is no host's address"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.0"}, InvalidArgument, "gateway 10.0.0.0 is no host's address"),
        ({"subnet": "10.0.0.0/24", "gateway": "x"}, InvalidArgument, "gateway 'x'"),
        ({"subnet": "172.30.5.0/24"}, Conflict, "subnet 172.30.5.0/24 overlaps 172.30.0.0/16"),
        ({"options": {network.BRIDGE_OPTION: "lo"}}, Conflict, "device lo is there already"),
        ({"options": {network.BRIDGE_OPTION: "n" * 16}}, Unavailable, "could not make bridge nnn"),
    ],
)
def test_a_network_that_cannot_be_is_refused(
    database: Database, host: None, options: dict[str, object], error: type[Exception], message: str
) -> None:
    """With the reason, and nothing of it is left."""
    with database.transaction() as connection:
        network.default_network(connection)
    with pytest.raises(error, match=message), database.transaction() as connection:
        network.create_network(connection, "other", **options)  # type: ignore[arg-type] # one at a time
    with database.read() as connection:
        assert [net.name for net in network.networks(connection)] == ["bridge"]
    assert links() == {"wherry0": "bridge"}


def test_a_name_is_used_once(database: Database, host: None) -> None:
    """AlreadyExists, before anything is made."""
    with database.transaction() as connection:
        network.create_network(connection, "net")
        with pytest.raises(AlreadyExists, match="a network is called 'net' already"):
            network.create_network(connection, "net")
    assert links() == {"wherry0": "bridge"}


def test_two_names_of_one_address_are_two_networks(database: Database, host: None) -> None:
    """A bridge's address tells its network's name in 16 bits only: who comes second takes nothing from the first."""
    seen: dict[int, str] = {}
    number = 0
    while (other := seen.setdefault(zlib.crc32(f"net{number}".encode()) & 0xFFFF, f"net{number}")) == f"net{number}":
        number += 1
    with database.transaction() as connection:
        first = network.create_network(connection, other)
        second = network.create_network(connection, f"net{number}")
    assert first.mac == second.mac
    assert links() == {first.bridge: "bridge", second.bridge: "bridge"}


def _begin_network(database: Database, name: str) -> None:
    """Make a network, and fail before it is committed."""
    with suppress(KeyboardInterrupt), database.transaction() as connection:
        network.create_network(connection, name)
        raise KeyboardInterrupt


def test_a_device_that_a_killed_call_left_is_made_anew(database: Database, host: None) -> None:
    """Between device and commit: the next call for that name takes the device over, collect removes it."""
    for _ in range(2):
        _begin_network(database, network.DEFAULT)
        assert links() == {"wherry0": "bridge"}
    with database.transaction() as connection:
        assert network.default_network(connection).bridge == "wherry0"
    _begin_network(database, "never")
    assert links() == {"wherry0": "bridge", "wherry1": "bridge"}
    with database.transaction() as connection:
        network.collect(connection, set())
    assert links() == {"wherry0": "bridge"}


def test_without_rights_the_error_says_which(database: Database, tmp_path: Path) -> None:
    """PermissionDenied, from an ordinary user's process in a namespace that is not its own."""
    # Imports and files first: an ordinary user may not read them here.
    script = (
        "import os, sys\n"
        "from wherry import network\n"
        "from wherry_images.database import Database\n"
        "from wherry_oci.errors import PermissionDenied\n"
        "database = Database(sys.argv[1])\n"
        "with database.transaction() as connection:\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "    try:\n"
        "        network.default_network(connection)\n"
        "    except PermissionDenied as error:\n"
        "        os.write(1, str(error).encode())\n"
        "    os._exit(0)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, database.path], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.startswith("could not make bridge wherry0: Operation not permitted")
    assert "CAP_NET_ADMIN" in said.stdout


# The host's side


@pytest.fixture
def net(database: Database, host: None) -> Network:
    with database.transaction() as connection:
        return network.default_network(connection)


def test_ensure_bridge_makes_all_and_repeating_it_changes_nothing(net: Network, tmp_path: Path) -> None:
    """Device up with its address, sysctls, table; the second time two questions."""
    network.ensure_bridge(net, tmp_path / "run")
    with RouteSocket() as route, NftSocket() as netfilter:
        bridge = route.link("wherry0")
        assert (bridge.up, bridge.mtu, bridge.address) == (True, 1500, net.mac)
        assert (bridge.index, "172.30.0.1/16") in route.addresses()
        assert netfilter.tables() == [net.table]
        generation = netfilter.generation()
        network.ensure_bridge(net, tmp_path / "run")
        assert netfilter.generation() == generation
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert Path("/proc/sys/net/ipv4/conf/wherry0/route_localnet").read_text() == "1\n"
    assert Path("/proc/sys/net/ipv6/conf/wherry0/disable_ipv6").read_text() == "1\n"


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft(8), of Debian's package nftables")
def test_the_table_reads_as_it_is_meant(net: Network, tmp_path: Path) -> None:
    """By nft's eyes, and what nft saves can be restored."""
    network.ensure_bridge(net, tmp_path / "run")
    said = output("nft", "list", "ruleset")
    for line in (
        'iifname != "lo" ip daddr 127.0.0.0/8 drop',
        "dnat ip to ip daddr . ip protocol . th dport map @addressed",
        "fib daddr type local dnat ip to ip protocol . th dport map @ports",
        "ip saddr 127.0.0.0/8 oifname @bridges masquerade",
        "ip saddr @subnets oifname != @bridges masquerade",
        "ip saddr @subnets oifname @bridges ct status dnat masquerade",
        "iifname . oifname @within accept",
        "ct state established,related accept",
        "elements = { 172.30.0.0/16 }",
    ):
        assert line in said
    saved = tmp_path / "saved.nft"
    saved.write_text(said)
    output("nft", "flush", "ruleset")
    output("nft", "-f", str(saved))
    assert output("nft", "list", "ruleset") == said


@pytest.mark.parametrize("lost", ["table", "device", "address", "up", "all"])
def test_what_is_missing_is_made_again(net: Network, tmp_path: Path, lost: str) -> None:
    """A reboot, a firewall's restart, an administrator's hand."""
    network.ensure_bridge(net, tmp_path / "run")
    with RouteSocket() as route:
        index = route.link("wherry0").index
        if lost in ("table", "all"):
            change = Transaction(net.table)
            change.delete_table()
            with NftSocket() as netfilter:
                netfilter.commit(change)
        if lost in ("device", "all"):
            route.execute([delete_link("wherry0")])
        if lost in ("address", "up"):
            route.execute([set_link(index, up=False)])
        if lost == "address":
            output("ip", "address", "flush", "dev", "wherry0")
        network.ensure_bridge(net, tmp_path / "run")
        bridge = route.link("wherry0")
        assert (bridge.up, bridge.address) == (True, net.mac)
        assert (bridge.index, "172.30.0.1/16") in route.addresses()
    with NftSocket() as netfilter:
        assert len(netfilter.elements(net.table, "bridges")) == 1


def test_networks_share_a_table_that_goes_with_the_last(database: Database, net: Network, tmp_path: Path) -> None:
    """Each takes only its own entries away; another table is never touched."""
    foreign = Transaction("foreign")
    foreign.make_table()
    with NftSocket() as netfilter:
        netfilter.commit(foreign)
        with database.transaction() as connection:
            inner = network.create_network(connection, "inner", internal=True)
        for made in (net, inner):
            network.ensure_bridge(made, tmp_path / "run")
        assert len(netfilter.elements(net.table, "within")) == 2
        with database.transaction() as connection:
            network.remove_network(connection, inner)
        assert len(netfilter.elements(net.table, "within")) == 1
        assert netfilter.elements(net.table, "internal") == {}
        assert len(netfilter.elements(net.table, "subnets")) == 1
        for _ in range(2):
            with database.transaction() as connection:
                network.remove_bridge(connection, net)
        assert netfilter.tables() == ["foreign"]
    assert links() == {}
    with database.read() as connection:
        assert network.networks(connection) == [net], "the record stays"
    network.ensure_bridge(net, tmp_path / "run")
    assert links() == {"wherry0": "bridge"}


def test_a_network_in_use_is_not_taken_down(database: Database, net: Network, tmp_path: Path) -> None:
    """An address that was given keeps it, whether its container runs yet or not."""
    network.ensure_bridge(net, tmp_path / "run")
    with database.transaction() as connection:
        network.allocate(connection, net, "c")
    for remove in (network.remove_bridge, network.remove_network):
        with pytest.raises(Conflict, match="network 'bridge' has 1 containers"), database.transaction() as connection:
            remove(connection, net)
    assert links() == {"wherry0": "bridge"}


def test_a_foreign_device_of_that_name_is_left_alone(net: Network, tmp_path: Path) -> None:
    """After a reboot somebody else may have the name: an error, not his device."""
    with RouteSocket() as route:
        route.execute([delete_link("wherry0"), new_bridge("wherry0", address="02:00:00:00:00:01")])
        with pytest.raises(Conflict, match="the device wherry0 of this host is not wherry's"):
            network.ensure_bridge(net, tmp_path / "run")
        assert route.link("wherry0").address == "02:00:00:00:00:01"


def test_many_threads_ensure_one_bridge(net: Network, tmp_path: Path) -> None:
    """All return when all is there."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            network.ensure_bridge(net, tmp_path / "run")
            with RouteSocket() as route:
                assert route.link("wherry0").up
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_bridges_come_and_go_under_many_processes(database: Database, net: Network, tmp_path: Path) -> None:
    """
    Each takes an address, ensures the bridge, finds it, gives the address back and tries to take the bridge down:
    nobody's bridge goes while he has an address, and in the end nothing is there.
    """
    script = (
        "import sys\n"
        "from wherry import network\n"
        "from wherry_images.database import Database\n"
        "from wherry_oci.errors import Conflict\n"
        "from wherry_oci.linux.nftables import NftSocket, device\n"
        "from wherry_oci.linux.rtnetlink import RouteSocket\n"
        "database = Database(sys.argv[1])\n"
        "for number in range(12):\n"
        "    with database.transaction(durable=False) as connection:\n"
        "        net = network.default_network(connection)\n"
        "        network.allocate(connection, net, sys.argv[3])\n"
        "    network.ensure_bridge(net, sys.argv[2])\n"
        "    with RouteSocket() as route, NftSocket() as netfilter:\n"
        "        assert route.link(net.bridge).up\n"
        "        assert netfilter.has_element(net.table, 'bridges', device(net.bridge))\n"
        "    with database.transaction(durable=False) as connection:\n"
        "        network.release(connection, sys.argv[3])\n"
        "        try:\n"
        "            network.remove_bridge(connection, net)\n"
        "        except Conflict:\n"
        "            pass\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", script, database.path, str(tmp_path / "run"), f"c{number}"])
        for number in range(4)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0, 0, 0]
    with NftSocket() as netfilter:
        assert netfilter.tables() == []
    assert links() == {}


def test_collect_removes_what_the_dead_left(database: Database, net: Network, tmp_path: Path) -> None:
    """Addresses, devices and published ports of the dead go, those of the living and of others stay."""
    network.ensure_bridge(net, tmp_path / "run")
    with database.transaction() as connection:
        places = {name: (net, network.allocate(connection, net, name)) for name in ("living", "dead")}
    ports = {"living": {80: 8080, 81: ("127.0.0.1", 8081)}, "dead": {80: 8082, 81: ("127.0.0.1", 8083)}}
    made = {name: attach(network.plan(name, [place], parse_ports(ports[name]))) for name, place in places.items()}
    try:
        with RouteSocket() as route:
            route.execute([new_bridge("foreign")])
        for _ in range(2):
            with database.transaction() as connection:
                network.collect(connection, {"living"})
        with NftSocket() as netfilter:
            for name in (PORTS, ADDRESSED):
                assert len(netfilter.elements(net.table, name)) == 1
        assert links() == {"wherry0": "bridge", "foreign": "bridge", places["living"][1].device: "veth"}
        with database.read() as connection:
            assert [member.container for member in network.members(connection, net)] == ["living"]
    finally:
        for attachment in made.values():
            detach(attachment)


def test_collect_works_when_nothing_was_ever_made(database: Database, host: None) -> None:
    """Before the first network, and with a network whose table is gone."""
    with database.transaction() as connection:
        network.collect(connection, set())
        network.default_network(connection)
        network.collect(connection, set())
    assert links() == {"wherry0": "bridge"}


def test_an_overlap_with_a_route_that_came_later_is_an_error_for_new_networks_only(
    database: Database, net: Network, tmp_path: Path
) -> None:
    """The network that was first goes on working."""
    network.ensure_bridge(net, tmp_path / "run")
    own = own_namespace()
    with new_namespace() as neighbour:
        hosts.wire(hosts.Network(own), hosts.Network(neighbour))
        os.close(own)
        with pytest.raises(Conflict, match="overlaps"), database.transaction() as connection:
            network.create_network(connection, "late", subnet=f"{hosts.ADDRESS.rpartition('.')[0]}.0/24")


# Plans


# Killed at any moment

_KILLED = """
import os, signal, sys
from wherry import network
from wherry.portbinding import parse_ports
from wherry_images.database import Database
from wherry_shim.network import attach, detach

database, moment, calls = Database(sys.argv[1]), int(sys.argv[3]), 0

def count(frame, event, argument):
    # Each call of C code, so each system call and more.
    global calls
    if event == "c_call":
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)

def live():
    with database.transaction() as connection:
        net = network.default_network(connection)
        place = (net, network.allocate(connection, net, "c"))
    network.ensure_bridge(net, sys.argv[2])
    made = attach(network.plan("c", [place], parse_ports({80: 8080, "53/udp": ("127.0.0.1", 5353)})))
    detach(made)
    with database.transaction() as connection:
        network.release(connection, "c")
        network.remove_network(connection, net)

sys.setprofile(count)
live()
sys.setprofile(None)
print(calls)
"""


def test_whoever_is_killed_leaves_what_collect_removes(database: Database, host: None, tmp_path: Path) -> None:
    """
    One process goes through the whole life of a network and a container in it, and is killed at sixty moments of it:
    then collecting and removing leaves nothing, and the next one can begin.
    """

    def run(moment: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _KILLED, database.path, str(tmp_path / "run"), str(moment)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    whole = run(0)
    assert whole.stderr == ""
    last = int(whole.stdout)
    assert last > 300
    for moment in range(1, last, last // 60):
        killed = run(moment)
        assert killed.returncode == -9, (moment, killed.stderr)
        with database.transaction() as connection:
            network.collect(connection, set())
            for net in network.networks(connection):
                with NftSocket() as netfilter:
                    for name in (PORTS, ADDRESSED):
                        assert not netfilter.has_table(net.table) or netfilter.elements(net.table, name) == {}
                network.remove_network(connection, net)
        with NftSocket() as netfilter:
            assert netfilter.tables() == [], moment
        assert "bridge" not in links().values(), moment
    assert run(0).stderr == ""
    # A namespace that nobody holds any more takes its devices along when the kernel finds the time.
    assert settled(lambda: list(links())) == []
