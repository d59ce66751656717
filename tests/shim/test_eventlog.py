"""The events on disk: whole, in order, bounded, and followed across files."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wherry.events import EventStream
from wherry_oci.errors import InvalidArgument
from wherry_shim.eventlog import CURRENT, PREVIOUS, EventLog

pytestmark = pytest.mark.unit

_WRITER = """
import sys
from wherry_shim.eventlog import EventLog
log = EventLog(sys.argv[1], largest=60_000)
for number in range(200):
    log.append("container", "start", sys.argv[2], number=number)
"""


def _actions(directory: Path, **chosen: object) -> list[str]:
    with EventStream(directory, follow=False, **chosen) as events:  # type: ignore[arg-type] # the test's own choice
        return [event["Action"] for event in events]


def test_an_event_is_told_in_dockers_words(tmp_path: Path) -> None:
    """Type, action, actor, times; and the names that older clients read."""
    EventLog(str(tmp_path)).append("container", "die", "c1", image="busybox", name="web", exitCode=3)
    with EventStream(tmp_path, follow=False) as events:
        [event] = events
    assert event["time"] == event["timeNano"] // 10**9
    del event["time"], event["timeNano"]
    assert event == {
        "status": "die",
        "id": "c1",
        "from": "busybox",
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "c1", "Attributes": {"image": "busybox", "name": "web", "exitCode": "3"}},
        "scope": "local",
    }


def test_many_writers_lose_and_mix_nothing_while_files_change(tmp_path: Path) -> None:
    """A follower that began before them gets every event once, in order, whatever was renamed meanwhile."""
    with EventStream(tmp_path) as events:
        writers = [
            subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), f"w{number}"]) for number in range(3)
        ]
        got = [next(events) for _ in range(600)]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for number in range(3):
        own = [event["Actor"]["Attributes"]["number"] for event in got if event["Actor"]["ID"] == f"w{number}"]
        assert own == [str(count) for count in range(200)]
    assert [event["timeNano"] for event in got] == sorted(event["timeNano"] for event in got)


def test_the_files_are_bounded_and_the_last_events_stay(tmp_path: Path) -> None:
    """Two files, none much larger than the limit, whatever has happened."""
    log = EventLog(str(tmp_path), largest=2000)
    for number in range(100):
        log.append("container", f"a{number}", "c1")
    assert sorted(os.listdir(tmp_path)) == [CURRENT, PREVIOUS]
    assert all((tmp_path / name).stat().st_size < 2400 for name in (CURRENT, PREVIOUS))
    kept = _actions(tmp_path)
    assert kept == [f"a{number}" for number in range(100 - len(kept), 100)]
    assert len(kept) > 10


def test_a_half_written_line_costs_only_itself(tmp_path: Path) -> None:
    """Its writer was killed."""
    log = EventLog(str(tmp_path))
    log.append("container", "one", "c1")
    with (tmp_path / CURRENT).open("ab") as file:
        file.write(b'{"Type": "conta\n')
    log.append("container", "two", "c1")
    assert _actions(tmp_path) == ["one", "two"]


def test_since_and_until_bound_what_is_told(tmp_path: Path) -> None:
    """Both ends belong to it, and an end that is over ends the stream with no need to say follow."""
    log = EventLog(str(tmp_path))
    for action in ("one", "two", "three"):
        log.append("container", action, "c1")
    lines = (tmp_path / CURRENT).read_text().splitlines()
    moved = []
    for second, line in zip((10, 20, 30), lines, strict=True):
        moved.append(json.dumps({**json.loads(line), "timeNano": second * 10**9}))
    (tmp_path / CURRENT).write_text("\n".join(moved) + "\n")
    assert _actions(tmp_path, since=20, until=20) == ["two"]
    with EventStream(tmp_path, until=20) as events:
        assert [event["Action"] for event in events] == ["one", "two"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"type": "image"}, ["pull"]),
        ({"event": ["start", "pull"]}, ["start", "pull"]),
        ({"event": "exec_create"}, ["exec_create: ls"]),
        ({"container": "web"}, ["start", "exec_create: ls", "connect"]),
        ({"container": "abc"}, ["start", "exec_create: ls", "connect"]),
        ({"image": "busybox"}, ["start", "exec_create: ls", "pull"]),
        ({"image": "busybox:1.36", "event": "pull"}, ["pull"]),
        ({"label": "tier=front"}, ["start"]),
        ({"label": "tier"}, ["start"]),
        ({"label": "tier=back"}, []),
        ({"network": "net1"}, ["connect"]),
        ({"volume": "data"}, ["mount"]),
    ],
)
def test_filters_are_dockers(tmp_path: Path, filters: dict[str, str], expected: list[str]) -> None:
    """Names, beginnings of ids, images with and without their tag, labels with and without a value."""
    container = "abc" + "0" * 61
    log = EventLog(str(tmp_path))
    log.append("container", "start", container, image="busybox:1.36", name="web", tier="front")
    log.append("container", "exec_create: ls", container, image="busybox:1.36", name="web")
    log.append("image", "pull", "busybox:1.36", name="busybox:1.36")
    log.append("network", "connect", "f" * 64, name="net1", container=container)
    log.append("volume", "mount", "data", driver="local")
    if filters == {"container": "web"}:  # a network knows a container by its id alone
        expected = expected[:2]
    assert _actions(tmp_path, filters=filters) == expected


def test_an_unknown_filter_is_refused_and_leaves_nothing_open(tmp_path: Path) -> None:
    """Before anything is opened."""
    with pytest.raises(InvalidArgument, match="'colour' is none of"):
        EventStream(tmp_path, filters={"colour": "red"})


def test_another_thread_can_end_the_waiting(tmp_path: Path) -> None:
    """A server does that when its client has gone."""
    events = EventStream(tmp_path)
    ended = threading.Event()

    def wait() -> None:
        assert list(events) == []
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    events.close()
    waiting.join(30)
    assert ended.is_set()
    events.close()
