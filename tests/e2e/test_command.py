"""The wherry command, as docker's users type it."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

import wherry
from support.leftovers import settled
from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e

_WHERRY = str(Path(sys.executable).with_name("wherry"))


@pytest.fixture(params=["here", "elsewhere"])
def box(world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose registry has busybox; its command does the work itself, or has an engine elsewhere do it."""
    world.push("busybox")
    if request.param == "here":
        yield world
        return
    with Client(host="") as client, wherry.docker_host(client) as address:
        monkeypatch.setenv("WHERRY_HOST", address)
        yield world


def test_run_shows_the_output_and_ends_with_the_programs_exit_code(box: World) -> None:
    """Each stream to its own, and --rm leaves nothing."""
    done = box.wherry(
        "run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert box.wherry("ps", "-aq").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["busybox", "nope"], 127, "executable file not found"),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["--user", "who", "busybox", "true"], 125, "user 'who'|user who"),
        (["--memory", "lots", "busybox", "true"], 125, "mem_limit='lots' is no size"),
        (["--no-such-flag", "busybox"], 125, "No such option"),
        (["--pull", "never", "nothing"], 125, "no such image"),
    ],
)
def test_what_cannot_run_has_dockers_exit_codes(box: World, arguments: list[str], code: int, said: str) -> None:
    """125 for wherry's own failure, 126 and 127 for the program's; one line, no traceback."""
    box.wherry("pull", "-q", "busybox")
    done = box.wherry("run", "--rm", "--network", "none", *arguments, check=False)
    assert done.returncode == code
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stderr
    assert box.wherry("ps", "-aq").stdout == ""


def test_standard_input_goes_in_whole(box: World) -> None:
    """`-i` with a pipe: a megabyte through cat."""
    text = "0123456789abcde\n" * 65536
    done = box.wherry("run", "--rm", "-i", "--network", "none", "busybox", "cat", input=text)
    assert done.stdout == text


def test_detached_containers_are_listed_inspected_and_ended(box: World) -> None:
    """run -d, ps, inspect, logs, exec, kill, wait, stop, rm."""
    script = "echo hello; trap 'exit 4' TERM; while :; do sleep 0.01; done"
    run = box.wherry("run", "-d", "--name", "one", "-p", "8080:80", "-l", "a=b", "busybox", "sh", "-c", script)
    container = run.stdout.strip()
    listed = box.wherry("ps").stdout.splitlines()
    assert listed[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert listed[1].startswith(container[:12])
    assert "0.0.0.0:8080->80/tcp" in listed[1]
    assert box.wherry("port", "one", "80").stdout == "0.0.0.0:8080\n"
    [document] = json.loads(box.wherry("inspect", "one").stdout)
    assert (document["Id"], document["Name"], document["State"]["Running"]) == (container, "/one", True)
    assert document["Config"]["Labels"] == {"a": "b"}
    assert box.wherry("exec", "-e", "X=1", "one", "sh", "-c", "echo $X; exit 9", check=False).returncode == 9
    assert settled(lambda: [] if "hello" in box.wherry("logs", "one").stdout else ["nothing"]) == []
    assert box.wherry("logs", "--tail", "0", "one").stdout == ""
    refused = box.wherry("rm", "one", check=False)
    assert (refused.returncode, "is running" in refused.stderr) == (1, True)
    assert box.wherry("stop", "one").stdout == "one\n"
    assert box.wherry("wait", "one").stdout == "4\n"
    assert "Exited (4)" in box.wherry("ps", "-a").stdout
    assert box.wherry("start", "one").stdout == "one\n"
    assert box.wherry("kill", "one").stdout == "one\n"
    assert box.wherry("rm", "-f", "one").stdout == "one\n"
    assert box.wherry("inspect", "one", check=False).returncode == 1


def test_logs_follow_to_the_end(box: World) -> None:
    """It ends when the container ends, with every line."""
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done"
    box.wherry("run", "-d", "--name", "one", "--network", "none", "busybox", "sh", "-c", script)
    assert box.wherry("logs", "-f", "one").stdout == "".join(f"line {i}\n" for i in range(1, 6))
    box.wherry("rm", "one")


def test_images_are_pulled_listed_and_removed(box: World) -> None:
    """pull, images, inspect, rmi; one that a container uses stays."""
    assert "Digest: sha256:" in box.wherry("pull", "busybox").stdout
    lines = box.wherry("images").stdout.splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert lines[1].split()[:2] == ["busybox", "latest"]
    [document] = json.loads(box.wherry("inspect", "busybox").stdout)
    assert document["RepoTags"] == ["busybox:latest"]
    box.wherry("create", "--name", "user", "busybox")
    assert box.wherry("rmi", "busybox", check=False).returncode == 1
    box.wherry("rm", "user")
    assert "Untagged: busybox:latest\n" in box.wherry("rmi", "busybox").stdout
    assert box.wherry("images", "-q").stdout == ""


def test_signals_of_the_terminal_go_to_the_container(box: World) -> None:
    """Ctrl-C ends `wherry run` by ending what it runs."""
    script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.01; done"
    child = pexpect.spawn(_WHERRY, ["run", "--rm", "--network", "none", "busybox", "sh", "-c", script], timeout=30)
    try:
        child.expect("ready")
        child.sendintr()
        child.expect("caught")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 3
    finally:
        child.close(force=True)


def test_a_terminal_session_works_as_a_person_expects(box: World) -> None:
    """A prompt, echo, the window's size and its changes, job control, Ctrl-C, the exit code."""
    child = pexpect.spawn(
        _WHERRY, ["run", "--rm", "-it", "--network", "none", "busybox", "sh"], timeout=30, dimensions=(33, 101)
    )
    try:
        child.expect("# ")
        child.sendline("stty size")
        child.expect("33 101")
        child.setwinsize(44, 122)
        child.expect("# ")
        child.sendline("until stty size | grep -q 44; do :; done; stty size")
        child.expect("44 122")
        child.sendline("sleep 1000")
        child.expect("sleep 1000")
        _interrupt(child)
        child.sendline("sleep 1000 & jobs")
        child.expect("Running")
        child.sendline("exit 5")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 5
    finally:
        child.close(force=True)


def _interrupt(child: "pexpect.spawn[str]") -> None:
    """Ctrl-C until the prompt is back: the first one may come before the shell has started its program."""
    for _ in range(20):
        child.sendintr()
        if child.expect(["# ", pexpect.TIMEOUT], timeout=1) == 0:
            return
    raise AssertionError("the program does not end by Ctrl-C")


def test_the_detach_keys_leave_the_container_running(box: World) -> None:
    """Ctrl-P Ctrl-Q; the first of them alone is the program's."""
    child = pexpect.spawn(_WHERRY, ["run", "--name", "one", "-it", "--network", "none", "busybox", "sh"], timeout=30)
    try:
        child.expect("# ")
        child.send("\x10\x11")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
    assert Client().containers.get("one").status == "running"
    box.wherry("rm", "-f", "one")


def test_exec_with_a_terminal(box: World) -> None:
    """-it in a running container."""
    box.wherry("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    child = pexpect.spawn(_WHERRY, ["exec", "-it", "one", "sh"], timeout=30, dimensions=(20, 90))
    try:
        child.expect("# ")
        child.sendline("tty; stty size")
        child.expect("/dev/pts/0")
        child.expect("20 90")
        child.sendline("exit 6")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 6
    finally:
        child.close(force=True)
    box.wherry("rm", "-f", "one")


def test_help_and_version(box: World) -> None:
    """Every verb has a line, and every verb its own help."""
    overview = box.wherry("--help").stdout
    for verb in ("run", "ps", "logs", "exec", "stop", "kill", "rm", "pull", "images", "rmi", "inspect", "version"):
        assert f"  {verb} " in overview
        assert "Usage:" in box.wherry(verb, "--help").stdout
    assert "KernelVersion:" in box.wherry("version").stdout
    assert os.uname().release in box.wherry("version").stdout
