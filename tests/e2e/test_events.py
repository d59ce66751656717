"""What happens is told: by whoever did it, to whoever asks, then or later."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e


def _told(client: Client, **chosen: Any) -> list[dict[str, Any]]:
    with client.events(follow=False, **chosen) as events:
        return list(events)


def _actions(client: Client, **chosen: Any) -> list[str]:
    return [event["Action"] for event in _told(client, **chosen)]


def test_a_containers_whole_life_is_told(client: Client) -> None:
    """Docker's actions in docker's order, with what each of them tells."""
    with client.run("busybox", "sleep 1000", name="web", network="none", labels={"tier": "front"}) as container:
        container.pause()
        container.unpause()
        container.exec(["sh", "-c", "exit 3"])
        container.rename("site")
        container.kill("USR1")
        container.stop(timeout=0)
    events = _told(client, filters={"container": container.id})
    assert [event["Action"] for event in events] == [
        *("create", "start", "pause", "unpause"),
        *("exec_create: sh -c exit 3", "exec_start: sh -c exit 3", "exec_die"),
        *("rename", "kill", "kill", "kill", "die", "stop", "destroy"),
    ]
    by_action = {event["Action"]: event["Actor"]["Attributes"] for event in events}
    assert by_action["start"] == {"image": "busybox", "name": "web", "tier": "front"}
    assert by_action["exec_die"]["exitCode"] == "3"
    assert by_action["exec_die"]["execID"] == by_action["exec_start: sh -c exit 3"]["execID"]
    assert (by_action["rename"]["oldName"], by_action["rename"]["name"]) == ("/web", "site")
    assert by_action["kill"]["signal"] in ("9", "15")
    assert (by_action["die"]["name"], by_action["die"]["exitCode"]) == ("site", "137")
    assert "execDuration" in by_action["die"]


def test_who_removes_itself_says_so(client: Client) -> None:
    """By its shim: nobody else is there."""
    container = client.run("busybox", "true", network="none", auto_remove=True)
    client._engine.wait(container.id, gone=True)
    assert _actions(client, filters={"container": container.id}) == ["create", "start", "die", "destroy"]


def test_memory_that_ran_out_is_told(client: Client) -> None:
    """oom, before die."""
    hungry = ["sh", "-c", "a=x; while :; do a=$a$a; done"]
    with client.run("busybox", hungry, network="none", mem_limit="8m", memswap_limit="8m") as container:
        container.wait(60)
        assert _actions(client, filters={"container": container.id}) == ["create", "start", "oom", "die"]


def test_a_health_check_tells_only_what_changes(client: Client) -> None:
    """health_status once, however many checks there are."""
    check = {"test": "true", "interval": "10ms"}
    with client.run("busybox", "sleep 1000", network="none", healthcheck=check) as container:
        with client.events(filters={"event": "exec_die", "container": container.id}) as events:
            for _ in range(3):
                next(events)
        filters = {"event": "health_status", "container": container.id}
        assert _actions(client, filters=filters) == ["health_status: healthy"]


def test_images_tell_their_own(client: Client, tmp_path: Path) -> None:
    """Pulled, tagged, saved, loaded, and taken away."""
    image = client.images.pull("busybox")
    client.images.tag("busybox", "other:1")
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"".join(client.images.save("other:1")))
    client.images.remove("other:1")
    client.images.load(str(archive))
    for name in ("other:1", "busybox"):
        client.images.remove(name)
    events = _told(client, filters={"type": "image"})
    actions = [event["Action"] for event in events]
    assert actions[:7] == ["pull", "tag", "save", "untag", "load", "untag", "untag"]
    assert actions[-1] == "delete"  # after its digests, which were names of it, too
    assert events[3]["Actor"]["Attributes"]["name"] == "other:1"
    assert events[1]["Actor"]["ID"] == image.id
    assert events[0]["Actor"]["Attributes"]["name"] == "busybox"


def test_another_process_hears_it_at_once(world: World, client: Client) -> None:
    """`wherry events` in one, a container in the other."""
    command = [str(Path(sys.executable).with_name("wherry")), "events", "--format", "json", "--since", "1h"]
    client.create("busybox", "true", name="first", network="none")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert json.loads(listening.stdout.readline())["Action"] == "pull"
        first = json.loads(listening.stdout.readline())
        assert (first["Action"], first["Actor"]["Attributes"]["name"]) == ("create", "first")
        client.create("busybox", "true", name="second", network="none")
        assert json.loads(listening.stdout.readline())["Actor"]["Attributes"]["name"] == "second"
        listening.kill()
    shown = world.wherry("events", "--until", "0s", "--filter", "container=second").stdout
    assert shown.split(" ", 1)[1].startswith("container create ")
    assert shown.endswith(" (image=busybox, name=second)\n")
