"""How an ordinary user's containers reach the world and are reached: through pasta, slirp4netns, or neither."""

import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support import host as hosts
from support import users
from support import world as worlds
from support.host import Host
from support.layout import Layout
from support.leftovers import settled
from support.nameserver import ADDRESS, answering
from support.registry import Registry
from support.users import User
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import StartFailed
from wherry_shim import records

pytestmark = pytest.mark.e2e

_PROGRAMS = {"pasta": "/usr/bin/pasta", "slirp4netns": "/usr/bin/slirp4netns"}
_PATIENCE_S = 10.0
_SERVE = ["sh", "-c", "echo here > /tmp/index.html; exec httpd -f -h /tmp -p 80"]


@pytest.fixture(params=["pasta", "slirp4netns", ""])
def way(request: pytest.FixtureRequest, host: Host, ordinary_user: User, tmp_path: Path) -> Iterator[str]:
    """The one program that a user without a holder finds; "" for none. The host's name server is on its loopback."""
    wanted: str = request.param
    if wanted and not os.access(_PROGRAMS[wanted], os.X_OK):
        pytest.skip(f"needs {_PROGRAMS[wanted]}")
    servers = tmp_path / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\n")
    servers.chmod(0o644)
    shown = {path: "/dev/null" for name, path in _PROGRAMS.items() if name != wanted and os.path.exists(path)}
    shown["/etc/resolv.conf"] = str(servers)
    with ExitStack() as undo:
        with users.as_root():
            users.end_holder(ordinary_user.holder)
            for path, source in shown.items():
                hosts.show(source, path)
        if users.current() is None:
            undo.enter_context(users.being(ordinary_user))
        yield wanted
        with users.as_root():
            users.end_holder(ordinary_user.holder)
            for path in shown:
                hosts.uncover(path)


@pytest.fixture
def world(way: str, host: Host, registry: Registry, image: Callable[[str], Layout]) -> Iterator[World]:
    """The user's."""
    with worlds.made(host, registry, image) as made:
        yield made
        left = settled(made.left_over)
        assert not left, "the test left over:\n" + "\n".join(left)


def _socket(container: Container, kind: int) -> socket.socket:
    made = socket.socket(fileno=container._engine.socket(container.id, socket.AF_INET, kind))
    made.settimeout(_PATIENCE_S)
    return made


def _echoed(container: Container, host: Host, kind: socket.SocketKind) -> str:
    """The address as which a server on the neighbour sees the container, having heard and answered it."""

    def served() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.bind((host.neighbour_address, 0))
        return made

    with ExitStack() as stack:
        server = stack.enter_context(host.neighbour.call(served))
        client = stack.enter_context(_socket(container, kind))
        server.settimeout(_PATIENCE_S)
        if kind == socket.SOCK_STREAM:
            server.listen()
            client.connect(server.getsockname())
            end, peer = server.accept()
            stack.enter_context(end).settimeout(_PATIENCE_S)
            client.sendall(b"ping")
            said = end.recv(10)
        else:
            client.connect(server.getsockname())
            client.sendall(b"ping")
            end, (said, peer) = server, server.recvfrom(10)
            end.connect(peer)
        end.sendall(b"pong")
        assert (said, client.recv(10)) == (b"ping", b"pong")
    return str(peer[0])


def _page(container: Container, address: str, port: int | None) -> str:
    with _socket(container, socket.SOCK_STREAM) as client:
        client.connect((address, port))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with client.makefile("rb") as answer:
            return answer.read().partition(b"\r\n\r\n")[2].decode().strip()


def _asked(container: Container, name: str, server: str) -> str:
    """The first address that *server* tells the container, "" when it tells none."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
    with _socket(container, socket.SOCK_DGRAM) as client:
        client.sendto(question, (server, 53))
        answer = client.recv(512)
    assert answer[:2] == question[:2]
    return socket.inet_ntoa(answer[-4:]) if answer[6:8] == b"\0\1" else ""


def test_containers_reach_the_world_and_it_reaches_them(
    client: Client, world: World, way: str, ordinary_user: User
) -> None:
    """By tcp and udp, and names of the host's servers; what is published answers neighbours in any case."""
    host = world.host
    client.networks.create("front")
    try:
        with client.run("busybox", _SERVE, network="front", ports={80: None}) as web:
            page = f"http://{host.address}:{web.port(80)}/"
            assert settled(lambda: [] if _fetched(host, page) == b"here\n" else ["no answer"]) == []
            with _answering(world):
                if way:
                    assert _echoed(web, host, socket.SOCK_STREAM) == host.address
                    assert _echoed(web, host, socket.SOCK_DGRAM) == host.address
                    assert _page(web, host.address, web.port(80)) == "here"  # the host itself, and back
                    assert _asked(web, "www.example.com", "127.0.0.11") == ADDRESS
                else:
                    with _socket(web, socket.SOCK_STREAM) as alone, pytest.raises(OSError, match="unreachable"):
                        alone.connect((host.neighbour_address, 9))
            found = {check.name: check for check in client.doctor()}["way out"]
            assert found.status == ("ok" if way else "warning")
            assert way in found.found
    finally:
        client.networks.prune()


@contextmanager
def _answering(world: World) -> Iterator[None]:
    """A name server on this host's loopback, where it takes root to have port 53."""
    with ExitStack() as stack:
        with users.as_root():
            stack.enter_context(answering("127.0.0.1"))
        yield


def _fetched(host: Host, page: str) -> bytes:
    try:
        with users.as_root():
            return host.neighbour.get(page)
    except OSError:
        return b""


def _record(user: User) -> dict[str, object]:
    found = records.read(str(user.holder), "holder")
    assert found is not None
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("victim", ["program", "keeper", "holder"])
@pytest.mark.parametrize("way", ["pasta", "slirp4netns"], indirect=True)
def test_whoever_is_killed_the_way_out_comes_back(
    client: Client, world: World, way: str, victim: str, ordinary_user: User
) -> None:
    """The program is started anew by its keeper, a keeper by the next call; a holder's end cuts nobody off."""
    with client.run("busybox", _SERVE, ports={80: None}) as web:
        assert _echoed(web, world.host, socket.SOCK_STREAM) == world.host.address
        before = _record(ordinary_user)
        keeper = before["keeper"]["pid"]  # type: ignore[index] # JSON
        pids = {"program": _children(keeper)[0], "keeper": keeper, "holder": before["pid"]}
        os.kill(pids[victim], signal.SIGKILL)
        assert settled(lambda: ["there"] if _lives(pids[victim]) else []) == []
        if victim == "keeper":
            assert settled(lambda: ["there"] if _lives(pids["program"]) else []) == []
            client.close()
            with client.run("busybox", ["true"], network="none") as other:
                other.wait()
        assert settled(lambda: _unreached(web, world.host)) == []
        page = f"http://{world.host.address}:{web.port(80)}/"
        assert _fetched(world.host, page) == b"here\n"
        if victim == "holder":
            client.close()
            with client.run("busybox", _SERVE) as other:
                assert _echoed(other, world.host, socket.SOCK_STREAM) == world.host.address
            after = _record(ordinary_user)
            assert after["pid"] != before["pid"]
            assert (after["keeper"], after["namespaces"]) == (before["keeper"], before["namespaces"])
    assert _record(ordinary_user)["way_out"] == way


def _unreached(container: Container, host: Host) -> list[str]:
    try:
        return [] if _echoed(container, host, socket.SOCK_STREAM) == host.address else ["by another way"]
    except OSError as error:
        return [str(error)]


def _lives(pid: object) -> bool:
    assert isinstance(pid, int)
    return records.start_time(pid) is not None


def test_the_way_out_goes_with_the_last_container(client: Client, world: World, way: str, ordinary_user: User) -> None:
    """Once there is no holder either."""
    with client.run("busybox", _SERVE):
        record = _record(ordinary_user)
    client.close()
    pid, keeper = record["pid"], record["keeper"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    if way:
        assert settled(lambda: ["there"] if _lives(keeper["pid"]) else []) == []  # type: ignore[index] # JSON
    else:
        assert keeper == {}


@pytest.mark.parametrize("way", [""], indirect=True)
def test_a_users_ports_are_not_of_sctp(client: Client) -> None:
    """The proxy hands none on, and says so before anything is left."""
    with pytest.raises(StartFailed, match=r"publish sctp port 9132: .*knows no sctp"):
        client.run("busybox", "true", ports={"132/sctp": 9132})
    assert client.containers.list(all=True) == []
