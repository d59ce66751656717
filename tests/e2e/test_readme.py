"""README.md says what is true: its examples run as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from support.world import World

pytestmark = pytest.mark.e2e

README = (Path(__file__).parents[2] / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_examples_run(world: World) -> None:
    """In a row, as a reader would paste them; they clean up after themselves."""
    world.push("nginx", "busybox")
    printed = world.python("\n".join(_blocks("python"))).stdout
    assert printed.startswith("running 8080")
    assert "uid=0(root)" in printed


def test_the_command_line_examples_run(world: World) -> None:
    """Line after line, each succeeding, and nothing is left of the container."""
    world.push("nginx")
    lines = [shlex.split(line) for block in _blocks("sh") for line in block.splitlines() if line.startswith("wherry ")]
    assert len(lines) == 6
    outputs = [world.wherry(*line[1:]).stdout for line in lines]
    assert "docker-nginx" in outputs[1]
    assert "docker-nginx" not in world.wherry("ps", "--all").stdout
