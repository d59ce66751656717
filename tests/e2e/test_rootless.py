"""Containers of an ordinary user: the same client, with no rights but those of everybody."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from support import host as hosts
from support import leftovers, users
from support import world as worlds
from support.host import Host
from support.layout import Layout
from support.registry import Registry
from support.users import User
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import StartFailed, Unsupported
from wherry.readiness import Port
from wherry.rootless.adaptation import LimitWarning
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim import records

pytestmark = pytest.mark.e2e


@pytest.fixture
def user(ordinary_user: User) -> Iterator[User]:
    """This process acts for an ordinary user."""
    if users.current() is not None:
        yield ordinary_user
        return
    with users.being(ordinary_user):
        yield ordinary_user


@pytest.fixture
def world(user: User, host: Host, registry: Registry, image: Callable[[str], Layout]) -> Iterator[World]:
    """The user's."""
    with worlds.made(host, registry, image) as made:
        yield made
        left = leftovers.settled(made.left_over)
        assert not left, "the test left over:\n" + "\n".join(left)


def _holder(user: User) -> int:
    record = records.read(str(user.holder), "holder")
    assert record is not None
    pid: int = record["pid"]
    return pid


def _fetched(client: Client, web: Container, network: str) -> str:
    """The page of a container, as another one in its network gets it."""
    with client.run("busybox", "sleep 1000", network=network) as other:
        descriptor = other._engine.socket(other.id, socket.AF_INET, socket.SOCK_STREAM)
        with socket.socket(fileno=descriptor) as end:
            end.settimeout(10)
            end.connect((web.ip, 80))
            end.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            with end.makefile("rb") as answer:
                return answer.read().partition(b"\r\n\r\n")[2].decode().strip()


def test_root_in_the_container_is_the_user_and_others_are_ids_of_its_own(client: Client, user: User) -> None:
    """What root writes is the user's, what others write belongs to ids from /etc/subuid; nobody has a right outside."""
    script = "id -u; touch /mine; touch /his; chown 33:33 /his; cat /proc/self/uid_map"
    with client.run("busybox", ["sh", "-c", f"{script}; sleep 1000"], network="none") as container:
        container.wait_for(lambda one: "65536" in one.logs())
        lines = container.logs().splitlines()
        assert lines[0] == "0"
        assert lines[1].split() == ["0", str(user.uid), "1"]
        upper = Path(client._engine.root, "containers", container.id, "upper")
        assert os.stat(upper / "mine").st_uid == user.uid
        assert os.stat(upper / "his").st_uid == user.first + 32
        assert os.stat(f"/proc/{container.pid}").st_uid in (0, user.uid)
        assert container.path("/his").stat().st_uid == 33


def test_another_runtime_is_refused(client: Client) -> None:
    """It would need rights that a user's own does without; nothing is left."""
    with pytest.raises(Unsupported, match="runtime"):
        client.run("busybox", "true", network="none", runtime="runc")
    assert client.containers.list(all=True) == []


def test_layers_are_unpacked_and_stacked_with_whiteouts_and_owners(client: Client) -> None:
    """A commit with a removed file and a directory made anew shows just that, and so does its container's diff."""
    made = "mkdir /data; touch /data/old"
    changed = "rm /etc/passwd; rm -r /data; mkdir /data; touch /data/new; chown 5:6 /data/new"
    for number, script in enumerate((made, changed)):
        with client.run(f"layer{number}" if number else "busybox", ["sh", "-c", script], network="none") as container:
            assert container.wait(30).exit_code == 0
            found = {(change.kind, change.path) for change in container.diff()}
            container.commit(f"layer{number + 1}")
    assert {("deleted", "/etc/passwd"), ("added", "/data/new")} <= found
    shown = client.check_output("layer2", ["sh", "-c", "ls /etc; ls -ln /data"], network="none").decode()
    assert "passwd" not in shown
    assert "old" not in shown
    assert shown.splitlines()[-1].split()[2:4] == ["5", "6"]


def test_published_ports_lead_from_the_hosts_network_to_the_container(
    world: World, client: Client, pytestconfig: pytest.Config
) -> None:
    """On loopback and from a neighbour, by tcp; a port below the lowest for users is refused, with what to do."""
    world.push("nginx")
    with client.run("nginx", ports={80: None}) as web:
        port = web.port(80)
        web.wait_for(Port(80))
        for address in ("127.0.0.1", hosts.ADDRESS):
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as page:
                assert b"nginx" in page.read()
        with users.as_root():
            assert b"nginx" in world.host.neighbour.get(f"http://{hosts.ADDRESS}:{port}/")
    users.set_lowest_port(1024)
    try:
        with pytest.raises(StartFailed, match="ip_unprivileged_port_start"):
            client.run("nginx", ports={80: 80})
    finally:
        users.set_lowest_port(0 if pytestconfig.getoption("rootless") else 1024)


def test_containers_reach_each_other_in_bridges_of_the_user(client: Client) -> None:
    """A network of the user's own, which the host's network knows nothing of."""
    made = client.networks.create("inner")
    try:
        with client.run("busybox", "httpd -f -p 80 -h /etc", name="web", network="inner") as web:
            web.wait_for(Port(80))
            assert _fetched(client, web, "inner") == web.short_id
        assert "wherry0" not in {name for _, name in socket.if_nameindex()}
    finally:
        made.remove()


def test_the_hosts_network_is_the_hosts(client: Client, world: World) -> None:
    """Its devices and its loopback; /sys is the host's own."""
    script = "cat /proc/net/dev; ls /sys/class/net"
    shown = client.check_output("busybox", ["sh", "-c", script], network="host").decode()
    assert hosts.DEVICE in shown


def test_a_limit_that_cannot_be_set_is_a_warning_and_a_pause_an_error(client: Client) -> None:
    """This host has v1 groups alone for root."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        container = client.run("busybox", "sleep 1000", network="none", mem_limit="64m")
    with container:
        assert [one.category for one in caught] == [LimitWarning]
        assert "memory" in str(caught[0].message)
        with pytest.raises(RuntimeFailure, match="freezer"):
            container.pause()


def test_a_killed_holder_is_replaced_and_breaks_nobodys_network(client: Client, user: User) -> None:
    """Its namespaces are those of the shims: the next container reaches the running one."""
    made = client.networks.create("held")
    try:
        with client.run("busybox", "httpd -f -p 80 -h /etc", name="web", network="held", ports={80: None}) as web:
            web.wait_for(Port(80))
            before = records.read(str(user.holder), "holder")
            assert before is not None
            os.kill(before["pid"], SIGKILL)
            leftovers.settled(lambda: ["it"] if records.start_time(before["pid"]) == before["start"] else [])
            client.close()  # whoever is inside already needs no holder
            assert _fetched(client, web, "held") == web.short_id
            with urllib.request.urlopen(f"http://127.0.0.1:{web.port(80)}/hostname", timeout=10) as page:
                assert page.read().strip()
            after = records.read(str(user.holder), "holder")
            assert after is not None
            assert after["pid"] != before["pid"]
            assert after["namespaces"] == before["namespaces"]
    finally:
        made.remove()


def test_a_killed_worker_is_replaced(client: Client, user: User) -> None:
    """The call after it works; whoever was waiting for it is told."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        workers = [pid for pid in _children_of_nobody() if b"rootless.worker" in _command(pid)]
        assert workers
        for pid in workers:
            if pid != _holder(user):
                os.kill(pid, SIGKILL)
        leftovers.settled(lambda: [str(pid) for pid in workers if pid != _holder(user) and _command(pid)])
        assert container.path("/etc").is_dir()
        assert container.status == "running"


def _children_of_nobody() -> list[int]:
    """The processes of this user that are here."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _owner(pid) == os.geteuid()]


def _owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_without_ids_to_map_a_container_has_root_alone(user: User, world: World) -> None:
    """Every file is the user's; to become somebody else is an error that says so."""
    world.push("busybox")
    holder = world.path / "single"
    holder.mkdir(0o700)
    script = """
import sys
from wherry import Client
from wherry.errors import StartFailed
with Client() as client:
    shown = "id -u; stat -c %u /etc/passwd; cat /proc/self/uid_map"
    print(client.check_output("busybox", ["sh", "-c", shown], network="none").decode())
    try:
        client.check_output("busybox", "id", user="33", network="none")
    except StartFailed as error:
        print(error)
"""
    with users.as_root():
        user.set_mapped(False)
    try:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(holder)}
        done = world.python(script, env=environment)
    finally:
        with users.as_root():
            user.set_mapped(True)
            users.end_holder(holder / "wherry")
    lines = done.stdout.split("\n")
    assert lines[:2] == ["0", "0"]
    assert lines[2].split() == ["0", str(user.uid), "1"]
    assert "33" in done.stdout.splitlines()[-1]
    assert "/etc/subuid" in done.stdout.splitlines()[-1]


def test_a_user_has_directories_of_its_own(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_DATA_HOME/wherry and $XDG_RUNTIME_DIR/wherry; without those, below the home and /tmp."""
    from wherry.places import root_directory, run_directory

    for name in ("WHERRY_ROOT", "WHERRY_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert (root_directory(), run_directory()) == ("/data/wherry", f"{user.home}/run/wherry")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert (root_directory(), run_directory()) == (f"{user.home}/.local/share/wherry", f"/tmp/wherry-{user.uid}")


def test_unshare_shows_files_and_bridges_as_containers_have_them(client: Client, world: World, user: User) -> None:
    """`wherry unshare COMMAND` is root among the user's own ids."""
    client.volumes.create("shown")
    done = world.wherry("unshare", "sh", "-c", "id -u; cat /proc/self/uid_map; ls $0", client.volumes.get("shown").path)
    assert done.stdout.splitlines()[0] == "0"
    assert str(user.first) in done.stdout
    failed = world.wherry("unshare", "sh", "-c", "exit 7", check=False)
    assert failed.returncode == 7
    client.volumes.remove("shown")


def test_the_doctor_says_what_a_user_has_and_lacks(client: Client, world: World) -> None:
    """Ids, control groups, and the way out; what is lacking comes with a remedy."""
    found = {check.name: check for check in client.doctor()}
    assert found["user"].status == "ok"
    assert found["ids"].status == "ok"
    assert found["cgroups"].status == "warning"
    assert found["cgroups"].remedy
    assert "way out" in found
    done = subprocess.run(
        [sys.executable, "-c", "from wherry import Client; print([c.name for c in Client().doctor()])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ids" in done.stdout
    assert json.dumps([check.name for check in client.doctor()])
