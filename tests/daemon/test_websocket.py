"""Attaching over a WebSocket: docker-py's `attach_socket(ws=True)`, and a client of its own mind."""

import subprocess
import sys
from collections.abc import Iterator

import docker
import pytest
import requests
import websocket

from support.host import free_port
from support.leftovers import settled
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e


@pytest.fixture
def port(world: World) -> Iterator[int]:
    """A daemon's on loopback, which docker-py's WebSockets need."""
    world.push("busybox")
    Client().images.pull("busybox")
    number = free_port()
    command = [sys.executable, "-m", "wherry_daemon", "-H", f"tcp://127.0.0.1:{number}", "--insecure-loopback"]
    with subprocess.Popen([*command, "--log-level", "warning"]) as daemon:
        try:
            assert settled(lambda: _problem(number)) == []
            yield number
        finally:
            daemon.terminate()


def _problem(port: int) -> list[str]:
    try:
        Client(host=f"tcp://127.0.0.1:{port}").version()
    except Exception as error:
        return [str(error)]
    return []


def _opened(port: int, name: str, query: str) -> "websocket.WebSocket":
    return websocket.create_connection(f"ws://127.0.0.1:{port}/containers/{name}/attach/ws?{query}", timeout=20)


def test_docker_py_reads_by_it(port: int) -> None:
    """Attached before the start, to the last byte; no frames, whatever the terminal."""
    api = docker.APIClient(base_url=f"tcp://127.0.0.1:{port}", version="1.41")
    made = api.create_container("busybox", ["printf", "hi there"], detach=True)
    end = api.attach_socket(made, {"stdout": 1, "stream": 1, "logs": 1}, ws=True)
    try:
        api.start(made)
        assert end.recv() == b"hi there"
    finally:
        end.close()
        api.remove_container(made, force=True)
        api.close()


def test_both_ways_until_it_is_closed(port: int) -> None:
    """What is sent is read, pings are answered, and a close lets the container go on."""
    with Client().run("busybox", "cat", stdin_open=True, tty=False, name="one") as container:
        end = _opened(port, "one", "stream=1&stdin=1&stdout=1")
        end.send_binary(b"by")
        end.send("tes")
        read = bytearray()
        while len(read) < 5:
            read += end.recv_data()[1]
        assert read == b"bytes"
        end.ping(b"there?")
        code, said = end.recv_data(control_frame=True)
        assert (code, said) == (websocket.ABNF.OPCODE_PONG, b"there?")
        end.close()
        assert container.status == "running"


def test_the_end_of_the_container_closes_it(port: int) -> None:
    """By a message, after the last of the output; what is sent to no stdin is dropped."""
    with Client().run("busybox", ["sh", "-c", "until test -e /go; do sleep 0.01; done; echo out"]) as container:
        end = _opened(port, container.id, "stream=1&stdout=1&stderr=1")
        end.send_binary(b"for nobody")
        container.exec("touch /go")
        assert end.recv() == b"out\n"
        code, _ = end.recv_data()
        assert code == websocket.ABNF.OPCODE_CLOSE
        end.shutdown()  # type: ignore[no-untyped-call]


def test_a_plain_request_is_refused(port: int) -> None:
    """And a page of somewhere else."""
    made = Client().create("busybox", "true")
    refused = requests.get(f"http://127.0.0.1:{port}/containers/{made.id}/attach/ws", timeout=20)
    assert (refused.status_code, "no request for a WebSocket" in refused.json()["message"]) == (400, True)
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(
            f"ws://127.0.0.1:{port}/containers/{made.id}/attach/ws", origin="http://elsewhere.example", timeout=20
        )
