"""Containers that wait for their program: what they run, what is left of them, and when."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support import leftovers
from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.errors import Conflict, ExecutableNotFound, InvalidArgument
from wherry.pool import Pool

pytestmark = pytest.mark.e2e


@pytest.fixture
def pool(client: Client) -> Iterator[Pool]:
    with client.pool("busybox", size=1, network="none", environment={"ONE": "1"}, user="nobody") as made:
        yield made


def test_a_pools_container_runs_what_it_is_told(pool: Pool) -> None:
    """Command, environment and directory come last; user, HOME and all else are as with run."""
    script = "echo $ONE $TWO $HOME; pwd; id -un; exit 3"
    with pool.run(["sh", "-c", script], environment={"TWO": "2"}, working_dir="/tmp") as container:
        assert container.wait(30).exit_code == 3
        home = [
            line.split(":")[5] for line in container.path("/etc/passwd").read_text().splitlines() if "nobody" in line
        ]
        assert container.logs().splitlines() == [f"1 2 {home[0]}", "/tmp", "nobody"]
        assert container.attrs["Path"] == "sh"
        assert {"ONE=1", "TWO=2"} <= set(container.attrs["Config"]["Env"])


def test_it_is_a_container_like_others_from_then_on(client: Client) -> None:
    """It lists, takes execs, has its network and ports, and starts again with the same program."""
    with (
        client.pool("busybox", size=1, ports={80: None}) as pool,
        pool.run(["sh", "-c", "echo hello; exec httpd -f -p 80"]) as container,
    ):
        assert container in client.containers.list()
        assert container.port(80)
        assert container.ip
        assert container.exec("true").exit_code == 0
        container.restart(timeout=0)
        assert container.status == "running"
        assert settled(lambda: [] if container.logs() == "hello\n" * 2 else [container.logs()]) == []


def test_a_pool_fills_itself_again(pool: Pool) -> None:
    """Of one that waits several can be run, each another container."""
    containers = [pool.run("sleep 1000") for _ in range(3)]
    try:
        assert len({container.id for container in containers}) == 3
        assert settled(lambda: [] if pool.waiting == 1 else [f"{pool.waiting} wait"]) == []
    finally:
        for container in containers:
            container.remove(force=True)


def test_leaving_a_pool_removes_those_that_wait(client: Client, world: World) -> None:
    """Processes, records and directories; what was run goes on."""
    with client.pool("busybox", size=2, lifetime="detached") as pool:
        assert len(client.containers.list(all=True)) == 2
        container = pool.run("sleep 1000")
    assert client.containers.list(all=True) == [container]
    assert container.status == "running"
    container.remove(force=True)
    assert client.check() == []
    assert world.left_over() == []
    with pytest.raises(Conflict, match="closed"):
        pool.run("true")


def test_what_makes_another_container_is_for_the_pool(pool: Pool, client: Client) -> None:
    """It is refused by name, before a container is used up."""
    with pytest.raises(InvalidArgument, match="volumes= is for the pool"):
        pool.run("true", volumes=["/tmp:/x"])  # type: ignore[call-arg] # that is the test
    with pytest.raises(InvalidArgument, match="name= cannot hold"):
        client.pool("busybox", name="one")
    with pytest.raises(InvalidArgument, match="a waiting container takes"):
        pool.run("true", environment={"LONG": "x" * 70_000})


def test_a_program_that_is_not_there_is_told_as_run_does(pool: Pool, client: Client, world: World) -> None:
    """And its container is gone."""
    with pytest.raises(ExecutableNotFound, match="nonesuch"):
        pool.run("nonesuch")
    pool.close()
    assert client.containers.list(all=True) == []
    assert client.check() == []


def test_nothing_of_a_pool_is_left_when_its_process_is_killed(client: Client, world: World) -> None:
    """Those that wait, and those that run, go with their owner; what it was making then goes with the next look."""
    script = """
from wherry import Client
pool = Client().pool("busybox", size=2)
pool.run("sleep 1000")
print("ready", flush=True)
import signal; signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert world.left_over() != []
        os.kill(owner.pid, signal.SIGKILL)
    assert settled(lambda: leftovers.processes(f"{world.path}/")) == []
    assert settled(lambda: [container.id for container in client.containers.list(all=True)]) == []
    assert client.check() == []
    assert settled(lambda: os.listdir(world.root / "containers")) == []
    assert settled(world.left_over) == []
