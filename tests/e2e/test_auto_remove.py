"""What removes itself at its end still tells how it ended, and what it said."""

import json
import subprocess
import sys

import pytest

from support.world import World
from wherry import Client
from wherry.errors import ContainerNotFound

pytestmark = pytest.mark.e2e

_LINES = 200
_WORK = f"""
import json, sys
from wherry import Client
script = "i=0; while [ $i -lt {_LINES} ]; do echo out $i; i=$((i+1)); done; echo the end >&2; exit 3"
wrong = []
expected = "".join(f"out {{i}}\\n" for i in range({_LINES}))
with Client() as client:
    for number in range(50):
        container = client.run("busybox", ["sh", "-c", script], network="none", auto_remove=True)
        if number % 2:
            container.wait(condition="removed")
        code = container.wait(60).exit_code
        said = (container.logs(stderr=False), container.logs(stdout=False))
        if code != 3 or said != (expected, "the end\\n"):
            wrong.append((number, code, len(said[0]), said[1]))
print(json.dumps(wrong))
"""


def test_200_runs_of_exit_3_with_auto_remove_tell_200_times_3_and_the_full_output(client: Client, world: World) -> None:
    """From 4 processes at once; to half of those who ask it is gone by then."""
    client.images.pull("busybox")
    processes = [
        subprocess.Popen([sys.executable, "-c", _WORK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [process.communicate() for process in processes]
    assert [error for _, error in results if error] == []
    assert [json.loads(output) for output, _ in results] == [[], [], [], []]
    assert client.containers.list(all=True) == []


def test_of_much_output_the_end_is_kept(client: Client) -> None:
    """64 KiB, at their times; every driver that keeps a log."""
    for driver in ("local", "json-file"):
        script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the end"
        container = client.run("busybox", ["sh", "-c", script], auto_remove=True, log_config={"Type": driver})
        ended = container.wait(condition="removed")
        with pytest.raises(ContainerNotFound):
            container.name  # noqa: B018 # the property is asked for
        kept = container.output()
        assert kept == b"x" * (len(kept) - 9) + b"\nthe end\n"
        assert len(kept) == 1 << 16
        assert container.logs(tail=1) == "the end\n"
        assert [ended.started < line.time < ended.finished for line in container.logs(follow=True)] == [True, True]
