"""
The same docker commands on dockerd and on wherry: exit codes, what is printed, and what errors say.

They stand in commands.txt, with the reason where the two differ on purpose. What changes from run to run, or from one
release of Docker to the next (ids, times, addresses, some words), is made alike first.
"""

import difflib
import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

import wherry
from support import engines
from support.world import World
from wherry import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_LIST = Path(__file__).with_name("commands.txt")
_DIFFERS = "# differs: "
_ALIKE = (
    (re.compile(r"failed to create task for container: |runc create failed: "), ""),
    (re.compile(r"^(Error response from daemon: )(\w)", re.MULTILINE), lambda found: found[1] + found[2].lower()),
    (re.compile(r"(?i)you cannot remove a running container .*"), "<running>"),
    (re.compile(r"cannot remove container \S+ container is running: .*"), "<running>"),
    (re.compile(r"(?i)cannot kill container: (\w+): container"), r"cannot kill container: \1: container"),
    (re.compile(r"(external connectivity on endpoint \w+)( \(\w+\))?"), r"\1"),
    (re.compile(r"(port is already allocated) \(.*\)"), r"\1"),
    (re.compile(r"no such image: (\w+):latest"), r"no such image: \1"),
    (re.compile(r"network net id \w+ has"), "network net has"),
    (re.compile(r"(container) (idle|web|peer) (is not (?:running|connected))"), r"\1 <id> \3"),
    (re.compile(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b(10|172|192)\.\d+\.\d+\.\d+\b"), "<ip>"),
    (re.compile(r"/\S*/w-[0-9a-f]{4}-\S+"), "<path>"),
    (re.compile(r"^docker: ", re.MULTILINE), ""),
    (re.compile(r"\n*Run 'docker .*--help' for more information\n?"), "\n"),
    (re.compile(r"\s+$", re.MULTILINE), ""),
)


@attrs.frozen
class _Said:
    code: int
    stdout: str
    stderr: str

    def text(self) -> list[str]:
        return [f"exit {self.code}", "--- stdout", *self.stdout.splitlines(), "--- stderr", *self.stderr.splitlines()]


def _alike(text: str) -> str:
    for pattern, word in _ALIKE:
        text = pattern.sub(word, text)
    return text.strip()


def _said(prefix: tuple[str, ...], line: str) -> _Said:
    """What a line of `COMMANDS` does where *prefix* leads."""
    command, _, given = line.partition(" < ")
    script = 'docker() { command docker "$@"; }; set -o pipefail; ' + command
    done = subprocess.run(
        [*prefix, "bash", "-c", script], input=f"{given}\n", capture_output=True, text=True, timeout=60, check=False
    )
    return _Said(done.returncode, _alike(done.stdout), _alike(done.stderr))


@attrs.frozen
class _Command:
    line: str
    differs: str  # why, "" for one that is alike


def _commands() -> list[_Command]:
    found, reason = [], ""
    for line in _LIST.read_text().splitlines():
        if line.startswith(_DIFFERS):
            reason = line.removeprefix(_DIFFERS)
        elif not line.startswith("#"):
            found.append(_Command(line, reason))
            reason = ""
    return found


def test_docker_commands_do_the_same_on_both(world: World, tmp_path: Path) -> None:
    """Every one of the list, but those that differ on purpose."""
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed")
    commands = _commands()
    assert len(commands) >= 150
    archive = tmp_path / "busybox.tar"
    world.push("busybox")
    with Client(host="") as client:
        client.images.pull("busybox")
        with archive.open("wb") as file:
            file.writelines(client.images.save("busybox"))
        with engines.docker(world.path) as dockerd:
            words = (*dockerd.words[:-3], "env", f"DOCKER_HOST={dockerd.words[-1]}", f"DOCKER_CONFIG={tmp_path}")
            dockerd.output("load", "--quiet", "--input", str(archive))
            theirs = [_said(words, command.line) for command in commands]
        with wherry.docker_host(client) as address:
            words = ("env", f"DOCKER_HOST={address}", f"DOCKER_CONFIG={tmp_path}")
            ours = [_said(words, command.line) for command in commands]
    wrong: list[str] = []
    for command, there, here in zip(commands, theirs, ours, strict=True):
        if command.differs and here == there:
            wrong.append(f"{command.line}\n  is alike now: take its reason away")
        elif here != there and not command.differs:
            lines = difflib.unified_diff(there.text(), here.text(), "dockerd", "wherry", lineterm="", n=0)
            wrong.append("\n  ".join([command.line, *lines]))
    assert wrong == [], "\n".join(wrong)
