"""A person at a terminal: bash in a container, by the wherry command under a pty."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from support.world import World

pytestmark = pytest.mark.e2e

_PATIENCE_S = 60.0
_PROMPT = "ready> "
_DETACH_KEYS = "\x10\x11"


@pytest.fixture
def typed(world: World) -> "Iterator[Terminals]":
    """Terminals in which the wherry command is run, with Debian's bash at hand; they are closed in the end."""
    world.push("debian")
    made = Terminals(world)
    yield made
    made.close()


class Terminals:
    """Gives terminals; each is a pty of its own, 33 lines by 99 columns."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._children: list[pexpect.spawn[str]] = []

    def wherry(self, *arguments: str) -> "pexpect.spawn[str]":
        child = pexpect.spawn(
            str(Path(sys.executable).with_name("wherry")),
            list(arguments),
            env=os.environ | self.world.environment,
            encoding="utf-8",
            timeout=_PATIENCE_S,
            dimensions=(33, 99),
        )
        self._children.append(child)
        return child

    def bash(self, *options: str) -> "pexpect.spawn[str]":
        """A shell of which the next thing to be read is what one asks of it."""
        child = self.wherry("run", "-it", *options, "--env", f"PS1={_PROMPT}", "debian", "bash", "--norc")
        child.expect_exact(_PROMPT)
        return child

    def close(self) -> None:
        for child in self._children:
            child.close(force=True)


def _answer(child: "pexpect.spawn[str]", line: str) -> str:
    """What *line* makes bash write before its next prompt."""
    child.sendline(line)
    child.expect_exact(f"{line}\r\n")  # and not the prompt that readline draws anew for a new window size
    child.expect_exact(_PROMPT)
    return re.sub(r"\x1b\[\?2004[hl]\r?", "", child.before or "").strip()  # less readline's bracketed paste


def _end(child: "pexpect.spawn[str]") -> int | None:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def test_jobs_are_stopped_and_brought_back(typed: Terminals) -> None:
    """Ctrl-Z, jobs, fg: the shell has the terminal for its own, and says nothing of the lack of job control."""
    child = typed.bash("--rm")
    assert "no job control" not in (child.before or "")
    child.sendline("echo begun; cat")
    child.expect_exact("\r\nbegun\r\n")  # what is typed before would be the shell's, which sets the terminal otherwise
    child.sendline("one")
    child.expect("one\r\none\r\n")  # the echo, and cat's own: it is there to be stopped
    child.send("\x1a")
    child.expect("Stopped")
    child.expect_exact(_PROMPT)
    assert re.search(r"\[1\]\+ +Stopped +cat", _answer(child, "jobs"))
    child.sendline("fg")
    child.expect(r"cat\r\n")
    child.sendline("two")
    child.expect("two\r\ntwo\r\n")
    child.send("\x04")
    child.expect_exact(_PROMPT)
    assert _answer(child, "jobs") == ""
    child.sendline("exit 7")
    assert _end(child) == 7


def test_ctrl_c_ends_the_program_and_not_the_shell(typed: Terminals) -> None:
    """It is the container's terminal that makes a signal of it, for those in its foreground."""
    child = typed.bash("--rm")
    child.sendline("echo begun; cat")
    child.expect_exact("\r\nbegun\r\n")  # what is typed before would be the shell's, which sets the terminal otherwise
    child.sendline("one")
    child.expect("one\r\none\r\n")
    child.send("\x03")
    child.expect_exact(_PROMPT)
    assert _answer(child, "echo $?") == "130"
    child.sendline("exit 0")
    assert _end(child) == 0


def test_the_window_s_size_is_the_container_s_and_changes_with_it(typed: Terminals) -> None:
    """From the beginning, and by SIGWINCH, of which the program inside is told."""
    child = typed.bash("--rm")
    assert _answer(child, "stty size") == "33 99"
    child.sendline("""bash -c 'trap "stty size; exit" WINCH; echo "wait"ing; while :; do sleep 0.05; done'""")
    child.expect_exact("\nwaiting\r\n")
    child.setwinsize(44, 111)
    child.expect_exact("44 111")
    child.expect_exact(_PROMPT)
    child.sendline("exit 3")
    assert _end(child) == 3


def test_one_leaves_by_the_detach_keys_and_comes_back(typed: Terminals) -> None:
    """The shell goes on meanwhile, with all that it knows; the exit code is for whoever is there at the end."""
    child = typed.bash("--name", "c")
    _answer(child, "known=before")
    child.send(_DETACH_KEYS)
    assert _end(child) == 0
    assert "Up" in typed.world.wherry("ps", "--filter", "name=c").stdout

    again = typed.wherry("attach", "c")
    again.sendline("echo known: $known")  # typed ahead: nothing of it is lost
    again.expect_exact("known: before")
    again.expect_exact(_PROMPT)
    assert _answer(again, "stty size") == "33 99"
    again.sendline("exit 9")
    assert _end(again) == 9

    restarted = typed.wherry("start", "-ai", "--detach-keys", "ctrl-x,q", "c")
    restarted.expect_exact(_PROMPT)
    assert _answer(restarted, "echo $known") == ""
    restarted.send("\x18q")
    assert _end(restarted) == 0
    third = typed.wherry("attach", "--detach-keys", "ctrl-x,q", "c")
    third.sendline("exit 4")
    assert _end(third) == 4

    refused = typed.world.wherry("attach", "c", check=False)
    assert refused.returncode == 1
    assert "cannot attach to container c: it is not running but exited" in refused.stderr
    typed.world.wherry("rm", "c")
