"""The ways to an engine: by the environment, ssh, TLS, and `auto`."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import wherry
from support.host import free_port
from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.errors import InvalidArgument, NotFound, Unsupported
from wherry.remote.connection import EngineUnreachable

pytestmark = pytest.mark.e2e

# In the place of ssh(1): says what it was called with, and does what `docker system dial-stdio` would do there.
_SSH = """#!{python}
import socket, sys, threading
open({told!r}, "w").write(" ".join(sys.argv[1:]))
end = socket.socket(socket.AF_UNIX)
end.connect({socket!r})
def up():
    while piece := sys.stdin.buffer.read1(65536):
        end.sendall(piece)
    end.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while piece := end.recv(65536):
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
"""


def test_through_ssh(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docker does it; streams go both ways."""
    world.push("busybox")
    with wherry.docker_host() as address:
        told, script = world.path / "told", world.path / "ssh"
        script.write_text(_SSH.format(python=sys.executable, told=str(told), socket=address.removeprefix("unix://")))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{world.path}:{os.environ['PATH']}")
        client = Client(host="ssh://me@far:2222")
        with client.run("busybox", "sleep 1000") as container:
            assert container.exec("cat", input=b"through").stdout == b"through"
    assert told.read_text() == "-p 2222 -o ConnectTimeout=30 -T -- me@far docker system dial-stdio"


def test_with_certificates(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends show theirs; without one, or with another authority's, nobody comes in."""
    authority, port = trustme.CA(), free_port()
    server, ours = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    files = {name: world.path / f"{name}.pem" for name in ("ca", "cert", "key", "server-cert", "server-key")}
    authority.cert_pem.write_to_path(files["ca"])
    for prefix, issued in (("", ours), ("server-", server)):
        issued.private_key_pem.write_to_path(files[f"{prefix}key"])
        issued.cert_chain_pems[0].write_to_path(files[f"{prefix}cert"])
    options = [f"--tlscacert={files['ca']}", f"--tlscert={files['server-cert']}", f"--tlskey={files['server-key']}"]
    command = [sys.executable, "-m", "wherry_daemon", "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", *options]
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(world.path))
    with subprocess.Popen([*command, "--log-level", "error"]) as daemon:
        try:
            assert settled(lambda: _problem(Client.from_env())) == []
            assert Client.from_env().containers.list() == []
            files["cert"].rename(world.path / "away.pem")
            with pytest.raises((EngineUnreachable, InvalidArgument)):
                Client.from_env().version()
            trustme.CA().cert_pem.write_to_path(files["ca"])
            with pytest.raises(InvalidArgument, match="certificate verify failed"):
                Client.from_env().version()
        finally:
            daemon.terminate()
    assert ipaddress.ip_address("127.0.0.1").is_loopback


def _problem(client: Client) -> list[str]:
    try:
        client.version()
    except EngineUnreachable as error:
        return [str(error)]
    return []


def test_auto_takes_what_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon if there is one, else none is needed; WHERRY_HOST says it for a whole program."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{world.path}/nosuch.sock")
    monkeypatch.setenv("WHERRY_HOST", "auto")
    with Client() as client:
        assert "PythonVersion" in client.version()  # this process' own engine tells of its interpreter
    with wherry.docker_host(Client(host="")) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        client = Client()
        assert "ApiVersion" in client.version()
        with pytest.raises(Unsupported, match="the one of this process"):
            client.check()


def test_a_context_that_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told at once."""
    monkeypatch.setenv("DOCKER_CONFIG", str(Path(world.path)))
    monkeypatch.setenv("DOCKER_CONTEXT", "nosuch")
    with pytest.raises(NotFound, match="nosuch"):
        Client.from_env()
