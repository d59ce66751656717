"""Which containers a list shows, and what a wait waits for."""

import threading
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client, recovery
from wherry.errors import ContainerNotFound, InvalidArgument, NotRunning
from wherry.state import ExitRecord

pytestmark = pytest.mark.e2e


def test_a_handle_looks_at_its_own_container_alone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it tells takes no walk over all others; one that was removed by somebody else is not found all the same."""
    with client.run("busybox", "sleep 1000", network="none", name="one") as container:
        again = Client().containers.get("one")
        walk = Mock(wraps=recovery.collect)
        monkeypatch.setattr(recovery, "collect", walk)
        assert (again.name, again.status, again.image, again.exit) == ("one", "running", "busybox", None)
        assert again.attrs["Id"] == again.id
        assert walk.call_count == 0
        container.remove(force=True)
        with pytest.raises(ContainerNotFound):
            again.status  # noqa: B018 # the property is asked for


def test_every_filter_of_dockers_chooses(client: Client, world: World) -> None:
    """One world of containers, looked at through each of them."""
    check = {"test": "true", "interval": "10ms"}
    first = client.run("busybox", "sh -c 'exit 3'", name="first", network="none", labels={"tier": "back"})
    first.wait(30)
    web = client.run(
        "busybox", "sleep 1000", name="web", labels={"tier": "front"}, ports={80: None}, volumes=["data:/data"]
    )
    well = client.run("busybox", "sleep 1000", name="well", network="none", healthcheck=check)
    well.wait_healthy(30)
    well.pause()
    made = client.create("busybox", "true", name="made", network="none")

    def names(**filters: Any) -> str:
        return " ".join(container.name for container in client.containers.list(all=True, filters=filters))

    assert names() == "made well web first"
    assert names(id=web.id[:10]) == "web"
    assert names(name="^/?we") == "well web"
    assert names(label="tier") == "web first"
    assert names(label=["tier=front"]) == "web"
    assert names(exited=3) == "first"
    assert names(status=["paused", "created"]) == "made well"
    assert names(ancestor="busybox") == "made well web first"
    assert names(ancestor=client.images.get("busybox").id) == "made well web first"
    assert names(ancestor="nothing-like-it") == ""
    assert names(before="web") == "first"
    assert names(since="web") == "made well"
    assert names(volume="data") == names(volume="/data") == "web"
    assert names(network="bridge") == "web"
    assert names(network="none") == "made well first"
    assert names(publish=80) == names(publish="80/tcp") == names(expose="70-90") == "web"
    assert names(publish="80/udp") == ""
    assert names(health="healthy") == "well"
    assert names(health="none") == "made web first"
    assert names(**{"is-task": True}) == ""
    assert names(label="tier", status="running") == "web"
    well.unpause()
    assert [container.name for container in client.containers.list()] == ["well", "web"]
    assert client.containers.list(limit=1) == [made]
    assert client.containers.list(filters={"status": "exited"}) == [first]  # docker's look at all then, too
    shown = world.wherry("ps", "--all", "--quiet", "--no-trunc", "--filter", "exited=3").stdout
    assert shown == f"{first.id}\n"


@pytest.mark.parametrize(
    "filters", [{"colour": "red"}, {"status": "asleep"}, {"health": "ill"}, {"exited": "x"}, {"publish": "http"}]
)
def test_a_filter_that_makes_no_sense_is_refused(client: Client, filters: dict[str, str]) -> None:
    """By its name, though there is nothing to choose from."""
    with pytest.raises(InvalidArgument, match=next(iter(filters))):
        client.containers.list(filters=filters)


def test_before_and_since_need_a_container(client: Client) -> None:
    """One that is not there is no bound."""
    with pytest.raises(ContainerNotFound):
        client.containers.list(since="nobody")


class _Waiting:
    """A wait in another thread."""

    def __init__(self, client: Client, name: str, condition: str) -> None:
        self.ended: ExitRecord | None = None
        self._container, self._condition = client.containers.get(name), condition
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        self.ended = self._container.wait(60, self._condition)  # type: ignore[call-overload] # one of the conditions

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> ExitRecord | None:
        """What it came to."""
        self._thread.join(60)
        return self.ended


def test_the_next_exit_is_one_that_is_still_to_come(client: Client) -> None:
    """Waited for before its start, as `docker run` does; what has been does not count."""
    with client.create("busybox", "sh -c 'exit 4'", name="job", network="none") as container:
        for _ in range(2):
            waiting = _Waiting(client, "job", "next-exit")
            container.start()
            ended = waiting.result()
            assert ended is not None
            assert ended.exit_code == 4
        with pytest.raises(TimeoutError):
            container.wait(0.01, "next-exit")


def test_every_exit_counts_of_one_that_is_started_again(client: Client) -> None:
    """not-running waits for the last one."""
    script = ["sh", "-c", "trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done"]
    with client.run("busybox", script, name="job", network="none", restart_policy="always") as container:
        assert settled(lambda: [] if "ready" in container.logs() else ["early"]) == []
        waiting = _Waiting(client, "job", "next-exit")

        def end_it() -> list[str]:
            if waiting.is_over:
                return []
            with suppress(NotRunning):
                container.kill("HUP")
            return ["it still waits"]

        assert settled(end_it) == []
        ended = waiting.result()
        assert ended is not None
        assert ended.exit_code in (5, 129)  # before its trap was set
        assert client.containers.list() == [container]


def test_removed_is_when_nothing_is_left(client: Client) -> None:
    """Its exit code comes along; what is there is waited for, what never was is not."""
    container = client.run("busybox", "sh -c 'exit 6'", name="job", network="none")
    container.wait(30)
    with pytest.raises(TimeoutError, match="still there"):
        container.wait(0.01, "removed")
    container.remove()
    with pytest.raises(ContainerNotFound):
        container.wait(0.01, "removed")
    client.run("busybox", "sleep 1000", name="brief", network="none", auto_remove=True)
    waiting = _Waiting(client, "brief", "removed")
    client.containers.get("brief").kill()
    ended = waiting.result()
    assert ended is not None
    assert ended.exit_code == 137
    assert client.containers.list(all=True) == []
