"""Limits and restart policies changed under a running container, and kept for its next start."""

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import Conflict, InvalidArgument
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies

pytestmark = pytest.mark.e2e


def _limits(container: Container) -> tuple[int, int]:
    """Bytes of memory and number of processes, as the kernel has them."""
    used = Cgroup(f"/wherry/{container.id}", Hierarchies.find()).stats()
    return used["memory"]["usage"]["limit"], used["pids"]["limit"]


def test_limits_change_while_it_runs_and_stay_for_its_next_start(client: Client) -> None:
    """Up, though memory grows beyond what memory and swap were together, and down again."""
    with client.run("busybox", "sleep 1000", network="none", mem_limit="32m") as container:
        container.update(mem_limit="256m", pids_limit=77)
        assert _limits(container) == (256 << 20, 77)
        container.update(mem_limit="64m")
        assert _limits(container) == (64 << 20, 77)
        container.stop(timeout=0)
        container.start()
        assert _limits(container) == (64 << 20, 77)
        host = container.attrs["HostConfig"]
        assert (host["Memory"], host["PidsLimit"]) == (64 << 20, 77)


def test_one_that_does_not_run_is_changed_for_its_start(client: Client) -> None:
    """In its records alone."""
    with client.create("busybox", "sleep 1000", network="none") as container:
        container.update(mem_limit="48m")
        container.start()
        assert _limits(container)[0] == 48 << 20


def test_what_the_kernel_refuses_is_not_kept(client: Client) -> None:
    """A processor that is not there: the old limits stand, live and recorded."""
    with client.run("busybox", "sleep 1000", network="none", cpuset_cpus="0") as container:
        with pytest.raises(Conflict, match="cannot update container"):
            container.update(cpuset_cpus="4000")
        assert container.attrs["HostConfig"]["CpusetCpus"] == "0"
        container.restart(timeout=0)
        assert container.status == "running"


def test_a_restart_policy_holds_from_its_next_end_on(client: Client) -> None:
    """Given to one that runs without any, and taken away again."""
    script = "trap 'exit 1' HUP; echo ready; while :; do sleep 0.01; done"
    with client.run("busybox", ["sh", "-c", script], network="none") as container:
        container.update(restart_policy="always")
        first = container.pid
        assert settled(lambda: [] if "ready" in container.logs() else ["early"]) == []
        container.kill("HUP")
        assert settled(lambda: [] if container.pid not in (0, first) else ["not again"]) == []
        container.update(restart_policy="no")
        assert settled(lambda: [] if container.logs().count("ready") == 2 else ["early"]) == []
        container.kill("HUP")
        assert container.wait(30).exit_code == 1
        assert container.attrs["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_what_makes_no_sense_is_refused_by_its_name(client: Client) -> None:
    """Before anything is changed."""
    with client.create("busybox", "true", network="none", mem_limit="32m", memswap_limit="32m", cpus=1) as container:
        with pytest.raises(InvalidArgument, match="memswap_limit"):
            container.update(mem_limit="64m")
        with pytest.raises(InvalidArgument, match="nano_cpus"):
            container.update(cpu_quota=1000)
        with pytest.raises(TypeError, match="'memory'"):
            container.update(memory="64m")  # type: ignore[call-arg] # what is under test
        assert container.attrs["HostConfig"]["Memory"] == 32 << 20


def test_the_command_changes_several(client: Client, world: World) -> None:
    """One line each, as docker prints."""
    for name in ("one", "two"):
        client.create("busybox", "true", name=name, network="none")
    done = world.wherry("update", "--memory", "40m", "--restart", "on-failure:3", "one", "two")
    assert done.stdout == "one\ntwo\n"
    host = client.containers.get("two").attrs["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]) == (40 << 20, {"Name": "on-failure", "MaximumRetryCount": 3})
