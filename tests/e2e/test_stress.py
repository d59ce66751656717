"""Many processes pull, run, remove and prune in one world at a time."""

import json
import os
import subprocess
import sys
from sqlite3 import Connection

import pytest

from support.world import World
from wherry import Client
from wherry_images import Image, ImageStore

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("WHERRY_STRESS_SECONDS", "6"))

_WORK = """
import json, random, sys, time
from wherry import Client
from wherry_images.errors import ImageInUse, ImageNotFound

seconds, number, *names = sys.argv[1:]
chance = random.Random(int(number))
until = time.monotonic() + float(seconds)
counts = dict.fromkeys(("pulled", "ran", "removed", "pruned", "listed"), 0)
with Client() as client:
    while time.monotonic() < until:
        name = chance.choice(names)
        what = chance.random()
        if what < 0.2:
            client.images.pull(name)
            counts["pulled"] += 1
        elif what < 0.7:
            word = f"{number}-{counts['ran']}"
            container = client.run(name, ["sh", "-c", "cat /etc/passwd >/dev/null && echo $0 && exit 3", word])
            assert container.wait(timeout=60).exit_code == 3, word
            assert container.logs() == word + chr(10), (word, container.logs())
            container.remove()
            counts["ran"] += 1
        elif what < 0.8:
            try:
                client.images.remove(name, force=chance.random() < 0.3)
                counts["removed"] += 1
            except (ImageNotFound, ImageInUse):
                pass
        elif what < 0.9:
            client.images.prune(all=chance.random() < 0.5)
            counts["pruned"] += 1
        else:
            client.containers.list(all=True)
            client.images.list()
            counts["listed"] += 1
print(json.dumps(counts))
"""


def test_8_processes_pull_run_remove_and_prune_at_once(world: World) -> None:
    """No error in any of them, every container ends as it should, and `wherry system check` finds nothing wrong."""
    world.push("busybox", "many-layers")
    command = [sys.executable, "-c", _WORK, str(SECONDS)]
    processes = [
        subprocess.Popen(
            [*command, str(number), "busybox", "many-layers"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    results = [(*process.communicate(), process.returncode) for process in processes]
    assert [error for _, error, status in results if status] == []
    counts = [json.loads(output) for output, _, _ in results]
    assert all(one["ran"] for one in counts), counts
    print(counts)
    assert world.wherry("system", "check", "--content").stdout == ""
    assert world.wherry("ps", "--all", "--quiet").stdout == ""


_START = """
import sys
from wherry import Client
client = Client()
for number in range(25):
    client.run("busybox", "sleep 1000", name=f"c{sys.argv[1]}-{number}", network=("none", "bridge")[number % 5 == 0])
"""
_END = """
import sys
from wherry import Client
client = Client()
for number in range(25):
    container = client.containers.get(f"c{sys.argv[1]}-{number}")
    container.stop(timeout=0)
    assert container.status == "exited"
    container.remove()
"""


def _from_4_processes(script: str) -> list[str]:
    """Run *script* in 4 processes at once; what those that failed said."""
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    return [error for one in running for _, error in [one.communicate()] if one.returncode]


def test_100_containers_start_and_end_from_4_processes_at_once(client: Client, world: World) -> None:
    """All start, all are stopped and removed, and nothing is left."""
    client.images.pull("busybox")
    assert _from_4_processes(_START) == []
    running = client.containers.list()
    assert len(running) == 100
    assert len({container.pid for container in running} - {0}) == 100
    assert _from_4_processes(_END) == []
    assert client.containers.list(all=True) == []
    assert world.left_over() == []
    assert client.check() == []


def test_an_image_that_is_removed_before_it_is_held_is_pulled_again(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between run()'s look at the image and the container's record somebody else removes it: nobody need know."""
    client.images.pull("busybox")
    hold = ImageStore.hold
    removed: list[str] = []

    def meanwhile(store: ImageStore, connection: Connection, holder: str, image: Image) -> None:
        if not removed:
            removed.append(image.id)
            connection.rollback()
            world.wherry("rmi", "--force", "busybox")
        hold(store, connection, holder, image)

    monkeypatch.setattr(ImageStore, "hold", meanwhile)
    assert client.run("busybox", "true").wait().exit_code == 0
    assert client.images.get("busybox").id == removed[0]
