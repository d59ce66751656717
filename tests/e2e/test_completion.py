"""What a shell offers after a half-typed word."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wherry
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e

_WHERRY = str(Path(sys.executable).with_name("wherry"))


def _offered(*words: str) -> list[str]:
    """For the last of *words*."""
    line = {"COMP_WORDS": " ".join(["wherry", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [_WHERRY],
        env={**os.environ, **line, "_WHERRY_COMPLETE": "bash_complete"},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return [one.partition(",")[2] for one in done.stdout.split()]


def test_names_are_completed(client: Client, world: World) -> None:
    """Of containers, images, networks and volumes, also of an engine elsewhere; none when there is no engine."""
    client.create("busybox", "true", name="alpha")
    client.create("busybox", "true", name="beta", volumes=["data:/d"])
    client.networks.create("alley")
    assert _offered("start", "a") == ["alpha"]
    assert sorted(_offered("rm", "-f", "")) == ["alpha", "beta"]
    assert _offered("run", "bus") == ["busybox:latest"]
    assert _offered("network", "rm", "al") == ["alley"]
    assert _offered("volume", "inspect", "d") == ["data"]
    assert sorted(_offered("inspect", "al")) == ["alley", "alpha"]
    assert "--interactive" in _offered("exec", "--int")
    assert _offered("-H", "unix:///nosuch", "start", "a") == []
    with wherry.docker_host(Client(host="")) as address:
        assert _offered("-H", address, "logs", "b") == ["beta"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_understands_its_script(shell: str, world: World) -> None:
    """What `wherry completion` prints has no error."""
    script = world.wherry("completion", shell).stdout
    assert "_WHERRY_COMPLETE" in script
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=30)
