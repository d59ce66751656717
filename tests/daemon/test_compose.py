"""docker compose on the daemon: two services with a network and a volume, from up to down."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator

import pytest

import wherry
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e

_FILE = """
version: "3.7"
services:
  web:
    image: nginx
    ports: ["80"]
    environment: {A: b}
    volumes: ["pages:/pages"]
    labels: {tier: front}
  job:
    image: busybox
    command: ["sh", "-c", "until wget -q -O /pages/page http://web/; do sleep 0.1; done; echo fetched; sleep 1000"]
    depends_on: [web]
    volumes: ["pages:/pages"]
    restart: on-failure
volumes:
  pages: {}
"""


@pytest.fixture
def compose(world: World) -> Iterator[Callable[..., str]]:
    """The program on a daemon of the test's, whichever of both is installed; what it prints."""
    words = _program()
    world.push("busybox", "nginx")
    (world.path / "compose.yaml").write_text(_FILE)
    with Client(host="") as client, wherry.docker_host(client) as address:
        for name in ("busybox", "nginx"):
            client.images.pull(name)

        def run(*arguments: str) -> str:
            options = ["-f", str(world.path / "compose.yaml"), "-p", "trial"]
            done = subprocess.run(
                [*words, *options, *arguments],
                env={**os.environ, "DOCKER_HOST": address, "DOCKER_CONFIG": str(world.path)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
            return done.stdout

        yield run


def _program() -> tuple[str, ...]:
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    if shutil.which("docker") and _has_compose():
        return ("docker", "compose")
    pytest.skip("docker compose is not installed")


def _has_compose() -> bool:
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def test_two_services_from_up_to_down(compose: Callable[..., str]) -> None:
    """They find each other by name, share a volume, and leave nothing; a second up changes nothing."""
    compose("up", "-d")
    with Client(host="") as client:
        ids = {one.id for one in client.containers.list()}
        assert len(ids) == 2
        assert set(compose("ps", "-q").split()) == ids
        compose("up", "-d")
        assert {one.id for one in client.containers.list()} == ids
        assert compose("exec", "-T", "web", "sh", "-c", "echo $A").strip() == "b"
        port = compose("port", "web", "80").strip().rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.status == 200
        [job] = client.containers.list(filters={"label": "com.docker.compose.service=job"})
        job.wait_for(wherry.LogLine("fetched"), timeout=30)
        assert "fetched" in compose("logs", "job")
        assert "html" in compose("exec", "-T", "web", "cat", "/pages/page")
        compose("stop", "-t", "0", "job")
        compose("restart", "-t", "0", "web")
        assert [one.id for one in client.containers.list()] == [one for one in ids if one != job.id]
        compose("down", "-v", "-t", "0")
        assert client.containers.list(all=True) == []
        assert [one.name for one in client.networks.list(filters={"type": "custom"})] == []
        assert client.volumes.list() == []


def test_one_service_runs_a_command(compose: Callable[..., str]) -> None:
    """`run --rm`, with what the service needs started first, and `config`."""
    assert "nginx" in compose("config")
    assert compose("run", "--rm", "-T", "job", "sh", "-c", "wget -q -O - http://web/ | grep -c html").strip().isdigit()
    with Client(host="") as client:
        [web] = client.containers.list(all=True)
        assert json.loads(json.dumps(web.attrs))["Config"]["Labels"]["tier"] == "front"
    compose("down", "-v", "-t", "0")
