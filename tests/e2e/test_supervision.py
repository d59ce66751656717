"""What a shim does for its container with nobody else about: restarts, health checks, the owner's end."""

import gzip
import os
import signal
import subprocess
import sys

import pytest

from support import layout, leftovers
from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import InvalidArgument, NotHealthy

pytestmark = pytest.mark.e2e


def _until(container: Container, status: str) -> None:
    assert settled(lambda: [] if container.status == status else [container.status]) == []


def test_on_failure_starts_it_again_as_often_as_asked(client: Client) -> None:
    """Three lives in one log, the last one's exit code, and the count."""
    container = client.run(
        "busybox",
        "sh -c 'echo life; exit 3'",
        network="none",
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
    )
    ended = container.wait(30)
    assert (ended.exit_code, ended.restarts) == (3, 2)
    assert container.logs() == "life\n" * 3
    assert container.attrs["RestartCount"] == 2


def test_always_goes_on_until_it_is_stopped(client: Client) -> None:
    """Ended it comes back, in the same network and with the same port; stopped it stays so."""
    script = "trap exit HUP; echo ready; while :; do sleep 0.01; done"
    with client.run("busybox", ["sh", "-c", script], restart_policy="always", ports={80: None}) as container:
        first, port = container.pid, container.port(80)
        address = container.attrs["NetworkSettings"]["IPAddress"]
        assert settled(lambda: [] if "ready" in container.logs() else ["early"]) == []
        container.kill(signal.SIGHUP)  # not its stop signal
        assert settled(lambda: [] if container.pid not in (0, first) else ["same"]) == []
        assert (container.port(80), container.attrs["NetworkSettings"]["IPAddress"]) == (port, address)
        assert container.exec("true").exit_code == 0
        container.stop(timeout=0)
        assert container.status == "exited"


def test_one_that_waits_for_its_next_start_can_be_stopped(client: Client) -> None:
    """restarting is a state of its own: it lists, and ends at once."""
    with client.run("busybox", "false", network="none", restart_policy="unless-stopped") as container:
        assert settled(lambda: [] if container._engine.state(container._record).restarts > 2 else ["early"]) == []
        _until(container, "restarting")
        assert container in client.containers.list()
        container.stop()
        _until(container, "exited")
        assert container.wait().exit_code == 1


def test_nothing_is_checked_while_it_is_paused(client: Client) -> None:
    """A frozen container is not ill: no result comes in, and when it goes on it is still well."""
    check = {"test": "true", "interval": "10ms", "retries": 1}
    with (
        client.run("busybox", "sleep 1000", network="none", healthcheck=check) as container,
        client.run("busybox", "sleep 1000", network="none", healthcheck=check) as other,
    ):
        container.wait_healthy(30)
        container.pause()
        filters = {"event": "exec_die", "container": other.id}
        with client.events(filters=filters) as events:  # time passes, in which it would have been checked
            for _ in range(5):
                next(events)
        assert container.health == "healthy"
        container.unpause()
        container.wait_healthy(30)


def test_a_health_check_tells_when_it_is_well_and_when_not(client: Client) -> None:
    """starting, healthy, unhealthy after the retries, healthy again."""
    check = {"test": "cat /well", "interval": "20ms", "retries": 2, "timeout": "10s"}
    with client.run("busybox", "sleep 1000", network="none", healthcheck=check) as container:
        assert container.health == "starting"
        container.exec(["touch", "/well"])
        container.wait_healthy(30)
        assert container.health == "healthy"
        container.exec(["rm", "/well"])
        assert settled(lambda: [] if container.health == "unhealthy" else ["well"]) == []
        log = container.attrs["State"]["Health"]["Log"]
        assert log[-1]["ExitCode"] == 1
        assert "can't open '/well'" in log[-1]["Output"]
        with pytest.raises(NotHealthy, match="can't open '/well'"):
            container.wait_healthy(30)


def test_waiting_for_health_ends_with_the_container(client: Client) -> None:
    """At once, with the end of its log."""
    check = {"test": ["CMD", "false"], "interval": "1h"}
    with (
        client.run("busybox", "sh -c 'echo last words; exit 4'", network="none", healthcheck=check) as container,
        pytest.raises(NotHealthy, match="exited: last words"),
    ):
        container.wait_healthy(30)
    with (
        client.run("busybox", "sleep 1000", network="none") as unchecked,
        pytest.raises(InvalidArgument, match="no health check"),
    ):
        unchecked.wait_healthy(1)


def test_a_check_that_takes_too_long_has_failed(client: Client) -> None:
    """And its process is killed."""
    check = {"test": ["CMD", "sleep", "777"], "interval": "10ms", "timeout": "50ms", "retries": 1}
    with client.run("busybox", "sleep 1000", network="none", healthcheck=check) as container:
        with pytest.raises(NotHealthy, match="exceeded timeout"):
            container.wait_healthy(30)
        container.pause()
        container.unpause()
        assert len([line for line in container.exec("ps").output.splitlines() if "sleep 777" in line]) <= 2


def test_an_images_own_check_is_used_unless_it_is_turned_off(client: Client, world: World) -> None:
    """NONE takes it away, options change its times."""
    config = {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_600_000_000_000}}
    base = world.image("busybox")
    layers = [gzip.decompress(base.blob(layer["digest"]).read_bytes()) for layer in base.manifest["layers"]]
    world.registry.push(layout.write(world.path / "checked", layers, config), "library/checked:latest")
    with client.run("checked", "sleep 1000", network="none", healthcheck={"interval": "10ms"}) as container:
        container.wait_healthy(30)
    with client.run("checked", "sleep 1000", network="none", healthcheck={"test": ["NONE"]}) as container:
        assert container.health is None


_OWNER = """
import sys
from wherry import Client
container = Client().run("busybox", "sleep 1000", lifetime="owner", name="owned", ports={80: None})
print(container.pid, flush=True)
input()
"""


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_an_owned_container_lives_no_longer_than_its_owner(client: Client, world: World, how: str) -> None:
    """Ended or killed -9, network and all is taken down, with nobody to do it but the shim."""
    client.images.pull("busybox")
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        assert int(owner.stdout.readline()) > 0
        assert client.containers.get("owned").status == "running"
        if how == "ends":
            owner.stdin.write("\n")
        else:
            owner.kill()
        owner.stdin.close()
    assert settled(lambda: [*leftovers.processes(f"{world.path}/"), *leftovers.published()]) == []
    assert list((world.root / "containers").iterdir()) == []
    assert client.containers.list(all=True) == []


def test_a_restarted_container_still_ends_with_its_owner(client: Client) -> None:
    """The two go together; one that removes itself and a restart policy do not."""
    with pytest.raises(InvalidArgument, match="exclude each other"):
        client.run("busybox", "true", auto_remove=True, restart_policy="always")
    with client.run("busybox", "false", network="none", lifetime="owner", restart_policy="always") as container:
        assert settled(lambda: [] if container._engine.state(container._record).restarts > 1 else ["early"]) == []


def _kill_shim(container: Container) -> int:
    """SIGKILL; its number."""
    shim = container._engine.state(container._record).shim
    os.kill(shim, signal.SIGKILL)
    assert settled(lambda: [] if container._engine.state(container._record).shim == 0 else ["alive"]) == []
    return shim


def test_a_container_whose_shim_was_killed_goes_on_and_can_be_ended(client: Client, world: World) -> None:
    """It is listed as running, stops and is removed; how it ended nobody knows, and the record says so."""
    with client.run("busybox", "sleep 1000", ports={80: 8080}) as container:
        pid = container.pid
        _kill_shim(container)
        assert (container.status, container.pid) == ("running", pid)
        assert client.containers.list() == [container]
        container.stop(timeout=0)
        assert container.status == "exited"
        ended = container.wait()
        assert (ended.known, ended.exit_code) == (False, 255)
        assert "its shim was killed" in container.attrs["State"]["Error"]
        container.start()
        assert container.exec("true").exit_code == 0
        assert container.port(80) == 8080
    assert settled(lambda: [*leftovers.processes(f"{world.path}/"), *leftovers.published()]) == []


def test_a_container_whose_shim_was_killed_leaves_nothing(client: Client, world: World) -> None:
    """Removed by force, and one that removes itself, by whoever comes next once it has ended."""
    container = client.run("busybox", "sleep 1000", ports={80: 8080})
    _kill_shim(container)
    container.remove(force=True)
    removes_itself = client.run("busybox", "sleep 0.3", auto_remove=True, ports={80: 8080})
    _kill_shim(removes_itself)
    assert settled(lambda: [c.id for c in client.containers.list(all=True)]) == []
    assert settled(lambda: [*leftovers.processes(f"{world.path}/"), *leftovers.published()]) == []
    assert list((world.root / "containers").iterdir()) == []
    assert client.check() == []
