"""rtnetlink against the kernel, with ip(8) as the judge."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from support.namespace import inside, new_namespace, output, own_namespace
from wherry_oci.linux.netlink import NetlinkError
from wherry_oci.linux.rtnetlink import (
    RouteSocket,
    add_address,
    add_route,
    delete_address,
    delete_link,
    new_bridge,
    new_veth,
    set_link,
)

pytestmark = pytest.mark.root

needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip(8), of Debian's package iproute2")


@pytest.fixture
def other() -> Iterator[int]:
    """A second network namespace."""
    with new_namespace() as namespace:
        yield namespace


@pytest.fixture
def route() -> Iterator[RouteSocket]:
    """A socket in a network namespace of the test's own, which the test is in."""
    with new_namespace() as namespace, inside(namespace), RouteSocket() as opened:
        yield opened


def test_a_bridge_is_made_with_its_address_and_mac(route: RouteSocket) -> None:
    """What is asked for is what the kernel has, and what `link` reads back."""
    route.execute([new_bridge("br", address="02:00:00:00:00:07", mtu=1400)])
    bridge = route.link("br")
    route.execute([set_link(bridge.index, up=True), add_address(bridge.index, "172.30.0.1/16")])

    bridge = route.link("br")
    assert (bridge.name, bridge.kind, bridge.address, bridge.mtu, bridge.up) == (
        "br",
        "bridge",
        "02:00:00:00:00:07",
        1400,
        True,
    )
    assert (bridge.index, "172.30.0.1/16") in route.addresses()
    assert ("172.30.0.0/16", bridge.index) in route.routes()


@needs_ip
def test_ip_sees_what_was_made(route: RouteSocket, other: int) -> None:
    """ip(8) reads the same devices, addresses and routes from the kernel."""
    route.execute([new_bridge("br")])
    index = route.link("br").index
    pair = new_veth("outer", "eth0", peer_namespace=other, peer_address="02:42:00:00:00:02", master=index, mtu=1280)
    route.execute([pair, set_link(index, up=True)])
    with inside(other):
        inner = RouteSocket()
        with inner:
            device = inner.link("eth0").index
            inner.execute(
                [
                    set_link(device, up=True),
                    add_address(device, "172.30.0.2/16"),
                    add_address(device, "fd00::2/64"),
                    add_route(device, gateway="172.30.0.1"),
                    add_route(device, destination="10.9.0.0/16", gateway="172.30.0.9"),
                    add_route(device, gateway="fd00::1"),
                ]
            )
        (seen,) = json.loads(output("ip", "-j", "address", "show", "dev", "eth0"))
        routes = json.loads(output("ip", "-j", "route"))
        (route6,) = json.loads(output("ip", "-j", "-6", "route", "show", "default"))

    assert (seen["address"], seen["mtu"], "UP" in seen["flags"]) == ("02:42:00:00:00:02", 1280, True)
    addresses = {(one["local"], one["prefixlen"], one.get("broadcast")) for one in seen["addr_info"]}
    assert {("172.30.0.2", 16, "172.30.255.255"), ("fd00::2", 64, None)} <= addresses
    assert {(one["dst"], one.get("gateway")) for one in routes} == {
        ("default", "172.30.0.1"),
        ("10.9.0.0/16", "172.30.0.9"),
        ("172.30.0.0/16", None),
    }
    assert route6["gateway"] == "fd00::1"
    (outer,) = json.loads(output("ip", "-j", "link", "show", "dev", "outer"))
    assert (outer["master"], "UP" in outer["flags"]) == ("br", True)


def test_the_ports_of_a_bridge_are_listed(route: RouteSocket, other: int) -> None:
    """`links(master)` gives the devices below a bridge and no others."""
    route.execute([new_bridge("one"), new_bridge("two")])
    one, two = route.link("one").index, route.link("two").index
    for number, master in enumerate((one, one, two)):
        route.execute([new_veth(f"port{number}", f"peer{number}", peer_namespace=other, master=master)])

    assert [link.name for link in route.links(one)] == ["port0", "port1"]
    assert {"lo", "one", "two", "port0", "port1", "port2"} <= {link.name for link in route.links()}


def test_a_device_is_renamed_moved_and_removed(route: RouteSocket, other: int) -> None:
    """set_link changes what it is given and leaves the rest."""
    route.execute([new_bridge("br"), new_veth("here", "there", peer_namespace=other)])
    here = route.link("here")
    route.execute([set_link(here.index, master=route.link("br").index, mtu=1300, address="02:00:00:00:00:09")])
    changed = route.link_at(here.index)
    assert (changed.master, changed.mtu, changed.address) == (route.link("br").index, 1300, "02:00:00:00:00:09")

    route.execute([set_link(here.index, up=False, master=0)])
    route.execute([set_link(here.index, name="moved", namespace_fd=other)])
    with inside(other), RouteSocket() as inner:
        assert {"moved", "there"} <= {link.name for link in inner.links()}
        inner.execute([delete_link("moved")])
        assert "there" not in {link.name for link in inner.links()}, "its peer goes with it"


def test_a_device_is_moved_to_a_process(route: RouteSocket, other: int) -> None:
    """The namespace may be named by a process in it."""
    with inside(other):
        holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        here = own_namespace()
        try:
            route.execute([new_veth("mover", "stays", peer_namespace=here)])
        finally:
            os.close(here)
        route.execute([set_link(route.link("mover").index, namespace_pid=holder.pid)])
        with inside(other), RouteSocket() as inner:
            assert inner.link("mover").kind == "veth"
    finally:
        holder.communicate(b"\n", timeout=60)


def test_an_address_is_taken_away(route: RouteSocket) -> None:
    """delete_address undoes add_address, and says when there is nothing to undo."""
    route.execute([new_bridge("br")])
    index = route.link("br").index
    route.execute([add_address(index, "172.30.0.1/16"), delete_address(index, "172.30.0.1/16")])
    assert (index, "172.30.0.1/16") not in route.addresses()
    with pytest.raises(NetlinkError) as caught:
        route.execute([delete_address(index, "172.30.0.1/16")])
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_error_says_what_was_tried_and_why_the_kernel_refused(route: RouteSocket) -> None:
    """errno, the request in words, and the kernel's own explanation."""
    route.execute([new_bridge("br")])
    index = route.link("br").index
    route.execute([set_link(index, up=True), add_address(index, "172.30.0.1/16")])
    with pytest.raises(NetlinkError) as caught:
        route.execute([add_route(index, gateway="203.0.113.1")])

    assert caught.value.errno == errno.ENETUNREACH
    assert str(caught.value) == (
        f"could not add route to everywhere via 203.0.113.1 through device {index}: "
        "Network is unreachable (Nexthop has invalid gateway)"
    )


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: new_bridge("br"), errno.EEXIST),
        (lambda: new_bridge("n" * 16), errno.ERANGE),
        (lambda: delete_link("nothing"), errno.ENODEV),
        (lambda: add_address(999, "172.30.0.1/16"), errno.ENODEV),
        (lambda: set_link(999, up=True), errno.ENODEV),
    ],
)
def test_a_refusal_has_its_errno(route: RouteSocket, make: object, number: int) -> None:
    """Callers tell failures apart by errno."""
    route.execute([new_bridge("br")])
    assert callable(make)
    with pytest.raises(NetlinkError) as caught:
        route.execute([make()])
    assert caught.value.errno == number


def test_of_several_requests_the_first_failure_is_raised_and_the_socket_goes_on(route: RouteSocket) -> None:
    """All are carried out, each answer is read, and nothing of them confuses the next call."""
    with pytest.raises(NetlinkError, match="could not remove device nothing"):
        route.execute([new_bridge("one"), delete_link("nothing"), new_bridge("one"), new_bridge("two")])
    assert {"one", "two"} <= {link.name for link in route.links()}
    assert route.link("two").name == "two"


def test_hundreds_of_requests_go_in_one_batch(route: RouteSocket) -> None:
    """Answers are read until all are there."""
    route.execute([new_bridge("br")])
    index = route.link("br").index
    wanted = [f"10.{number // 200}.{number % 200}.1/24" for number in range(300)]
    route.execute([add_address(index, address) for address in wanted])
    assert {address for its, address in route.addresses() if its == index} == set(wanted)


def test_a_list_that_changes_meanwhile_is_still_whole(route: RouteSocket) -> None:
    """The kernel says when a dump was disturbed; it is read again, so what stays is always in it."""
    route.execute([new_bridge("br")])
    index = route.link("br").index
    steady = [f"10.0.{number}.1/24" for number in range(200)]
    route.execute([add_address(index, address) for address in steady])
    stop = threading.Event()

    def disturb() -> None:
        with RouteSocket() as mine:
            while not stop.is_set():
                mine.execute([add_address(index, "172.30.0.1/16"), delete_address(index, "172.30.0.1/16")])

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(50):
            assert set(steady) <= {address for its, address in route.addresses() if its == index}
    finally:
        stop.set()
        thread.join()


def test_a_socket_stays_in_the_namespace_in_which_it_was_made(route: RouteSocket, other: int) -> None:
    """What is asked of it is asked there, wherever its owner is."""
    with inside(other):
        inner = RouteSocket()
    with inner:
        inner.execute([new_bridge("inner")])
        assert inner.link("inner").kind == "bridge"
    with pytest.raises(NetlinkError):
        route.link("inner")


def test_a_user_without_the_right_is_told_so(route: RouteSocket) -> None:
    """EPERM, not silence."""
    # In a process of its own: a thread's credentials do not come back.
    script = (
        "import os\n"
        "from wherry_oci.linux.rtnetlink import *\n"
        "from wherry_oci.linux.netlink import NetlinkError\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "try: RouteSocket().execute([new_bridge('br')])\n"
        "except NetlinkError as error: os.write(1, f'{error.errno} {error}'.encode())\n"
        "os._exit(0)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.startswith(f"{errno.EPERM} could not make bridge br")


def test_the_socket_is_not_inherited(route: RouteSocket) -> None:
    """A descriptor with rights to the network must not reach a container."""
    assert not os.get_inheritable(route.fileno())
