"""After a reboot: live state and processes are gone, the records are not."""

import os
import shutil
from signal import SIGKILL

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container

pytestmark = pytest.mark.e2e


def _reboot(client: Client, world: World) -> None:
    """As far as wherry can tell."""
    for container in client.containers.list():
        state = client._engine.state(container._record)
        os.kill(state.shim, SIGKILL)
        os.kill(state.pid, SIGKILL)
    assert settled(lambda: [container.name for container in client.containers.list()]) == []
    shutil.rmtree(world.run)


def test_what_should_run_is_brought_back(client: Client, world: World) -> None:
    """always whatever was before, unless-stopped unless somebody stopped it, others not; twice is as once."""

    def run(name: str, policy: str) -> Container:
        return client.run("busybox", "sleep 1000", name=name, network="none", restart_policy=policy)

    for name, policy in (("a1", "always"), ("u1", "unless-stopped"), ("n1", "no"), ("f1", "on-failure")):
        run(name, policy)
    for name, policy in (("a2", "always"), ("u2", "unless-stopped")):
        run(name, policy).stop(timeout=0)
    client.create("busybox", "sleep 1000", name="a3", network="none", restart_policy="always")
    _reboot(client, world)
    assert world.wherry("system", "restore").stdout == "a1\nu1\na2\n"
    assert client.restore().started == ()
    assert [container.name for container in client.containers.list()] == ["a2", "u1", "a1"]
    assert all(container.exec("true").exit_code == 0 for container in client.containers.list())


def test_one_that_cannot_be_started_holds_up_no_other(client: Client, world: World) -> None:
    """It is told of, and so is the exit code."""
    broken = client.run("busybox", "sleep 1000", name="broken", network="none", restart_policy="always")
    client.run("busybox", "sleep 1000", name="good", network="none", restart_policy="always")
    _reboot(client, world)
    (client._engine.store.directory(broken.id) / "config.json").write_text("{}")
    done = world.wherry("system", "restore", check=False)
    assert (done.returncode, done.stdout) == (1, "good\n")
    assert "wherry: broken: " in done.stderr
