"""What a container uses, held against what it is known to use."""

import json

import pytest

from support.host import Host
from support.world import World
from wherry import Client
from wherry.errors import NotRunning

pytestmark = pytest.mark.e2e


def test_one_sample_tells_what_docker_tells(client: Client, host: Host) -> None:
    """Memory with its limit, processes, the network's bytes."""
    with client.run("busybox", "sleep 1000", mem_limit="64m", pids_limit=50) as container:
        assert container.exec(["wget", "-q", "-O", "/dev/null", f"http://{host.address}:1/"]).exit_code == 1
        stats = container.stats(stream=False)
    assert stats["id"] == container.id
    assert stats.memory_limit == 64 << 20
    assert 0 < stats.memory_usage < 64 << 20
    assert 0 < stats.memory_percent < 100
    assert (stats.pids, stats["pids_stats"]["limit"]) == (1, 50)
    assert stats.network_sent > 0
    assert stats["networks"]["eth0"]["tx_bytes"] == stats.network_sent
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats.cpu_percent == 0.0


def test_processor_time_is_told_between_two_samples(client: Client) -> None:
    """One that does nothing else takes most of one processor, one that is frozen nothing at all."""
    with client.run("busybox", ["sh", "-c", "while :; do :; done"], network="none") as container:
        samples = container.stats(interval=0.3)
        next(samples)
        busy = next(samples)
        assert busy.cpu_percent > 5
        assert busy["precpu_stats"]["system_cpu_usage"] < busy["cpu_stats"]["system_cpu_usage"]
        container.pause()
        next(samples)
        assert next(samples).cpu_percent < 1
        container.unpause()


def test_a_stream_ends_with_its_container(client: Client) -> None:
    """At once, with no error, however long the interval is."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        samples = container.stats(interval=600)
        next(samples)
        container.kill()
        assert list(samples) == []
        with pytest.raises(NotRunning):
            container.stats(stream=False)


def test_all_are_told_that_run(client: Client) -> None:
    """Those that do not are left out; a container with another's network or none has no counters."""
    client.create("busybox", "true", network="none")
    with client.run("busybox", "sleep 1000", network="none") as container:
        assert [(stats["id"], stats["networks"]) for stats in client.stats()] == [(container.id, {})]


def test_the_command_prints_dockers_columns(client: Client, world: World) -> None:
    """And its JSON has docker's names."""
    with client.run("busybox", "sleep 1000", name="web", network="none", mem_limit="64m") as container:
        heading, line = world.wherry("stats", "--no-stream").stdout.splitlines()
        assert heading.split("  ")[0] == "CONTAINER ID"
        assert line.startswith(f"{container.short_id}   web ")
        assert " / 64MiB " in line
        shown = json.loads(world.wherry("stats", "--no-stream", "--format", "json", "web").stdout)
        assert (shown["Name"], shown["PIDs"], shown["NetIO"]) == ("web", "1", "0B / 0B")
        assert shown["CPUPerc"].endswith("%")
