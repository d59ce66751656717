"""Between the container's root and its program nothing is opened, imported or looked up: strace shows each call."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import bundles
from support.bundles import Runtime
from support.layout import Layout

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
# What takes a path, or makes a process of a file; `execve` of the program is what all is for.
_OPENING = "open openat openat2 creat execve execveat readlink readlinkat name_to_handle_at open_by_handle_at".split()
_LOOKING = "stat lstat newfstatat statx access faccessat faccessat2 chdir".split()
_PATH = re.compile(r'"([^"]*)"')


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    made = bundles.prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


def _calls_after(runtime: Runtime, mark: str, *arguments: str) -> list[tuple[str, str]]:
    """Name and path of the calls of the process that made the call *mark*, from there on: till it executes, or ends."""
    log = runtime.path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-s", "4096", "-o", str(log), *runtime.words(*arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=runtime.bundle,
        timeout=60,
        check=False,
    )
    found: list[tuple[str, str]] = []
    process = ""
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        pid, name, rest = call.groups()
        if name == mark and not process:
            process = pid
        elif pid == process and name in (*_OPENING, *_LOOKING):
            path = _PATH.search(rest)
            found.append((name, path[1] if path else ""))
            if name == "execve":
                break
    assert process, f"no {mark} in {log}"
    return [(name, path) for name, path in found if path]  # a stat of a descriptor has none


def _configurations() -> dict[str, dict[str, Any]]:
    hook = {"path": "/bin/true", "args": ["true"]}
    filtered = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}
    scheduled = {"scheduler": {"policy": "SCHED_BATCH", "nice": 1}, "execCPUAffinity": {"initial": "0", "final": "0"}}
    return {
        "plain": {},
        "a user without rights": {"process": {"user": {"uid": 5, "gid": 6, "additionalGids": [7]}, "cwd": "/tmp"}},
        "a filter": {"linux": {"seccomp": filtered}},
        "a filter and new privileges": {"linux": {"seccomp": filtered}, "process": {"noNewPrivileges": False}},
        "a hook": {"hooks": {"startContainer": [hook]}},
        "a scheduler": {"process": scheduled},
    }


@pytest.mark.parametrize("name", _configurations())
def test_nothing_is_opened_between_pivot_root_and_the_program(runtime: Runtime, name: str) -> None:
    """But for the look at where PATH leads, and the working directory; a hook is its own process."""
    (runtime.rootfs / "tmp").mkdir(exist_ok=True)
    runtime.configure("true", **_configurations()[name])
    calls = _calls_after(runtime, "pivot_root", "run", "one")
    opened = [call for call in calls if call[0] in _OPENING]
    assert opened == [("execve", "/bin/true")]
    assert {path for name, path in calls if name in _LOOKING and not path.endswith("/true")} <= {"/", "/tmp"}


def test_nothing_is_opened_while_a_created_container_waits(runtime: Runtime) -> None:
    """It waits at its gate for `start`, as long as that takes."""
    runtime.configure("sleep", "1000")
    log = runtime.path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(log), *runtime.words("create", "one")]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=runtime.bundle)
    try:
        while tracer.poll() is None:
            if runtime("start", "one").returncode == 0:
                break
        runtime("kill", "one", "KILL")
    finally:
        tracer.wait(60)
    lines = log.read_text(errors="replace").splitlines()
    first = next(line for line in lines if "pivot_root(" in line)
    mine = [line for line in lines[lines.index(first) :] if line.startswith(first.split()[0] + " ")]
    calls = [call for line in mine if (call := _CALL.match(line))]
    opened = [call[3] for call in calls if call[2] in _OPENING]
    assert opened[0].startswith('"/bin/sleep"')


_WRONG = [{"args": ["nosuch"]}, {"args": ["/etc"]}, {"cwd": "/closed", "user": {"uid": 5, "gid": 5}}]


@pytest.mark.parametrize("wrong", _WRONG)
def test_a_failure_is_told_without_opening_anything(runtime: Runtime, wrong: dict[str, Any]) -> None:
    """No traceback, no codec, no message catalogue is looked for in what is the container's."""
    (runtime.rootfs / "closed").mkdir(mode=0o700)
    runtime.configure("true", process=wrong)
    calls = _calls_after(runtime, "pivot_root", "run", "one")
    assert [call for call in calls if call[0] in _OPENING] == []


def test_an_exec_opens_what_says_who_it_is_and_nothing_else(runtime: Runtime) -> None:
    """Of the container's, its root, passwd, and with a terminal its devpts: each below a descriptor, links inside."""
    runtime.configure("sleep", "1000")
    assert runtime("run", "--detach", "one").returncode == 0
    process = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]}
    (runtime.path / "process.json").write_text(json.dumps(process))
    calls = _calls_after(runtime, "setsid", "exec", "--process", str(runtime.path / "process.json"), "one")
    opened = [call for call in calls if call[0] in _OPENING]
    assert opened == [("openat", "/"), ("openat2", "etc/passwd"), ("execve", "/bin/true")]
