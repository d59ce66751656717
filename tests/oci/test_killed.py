"""`wherry-oci` killed at one system call after the other: what is left, `delete --force` takes away entirely."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import bundles, leftovers
from support.bundles import Runtime
from support.layout import Layout

pytestmark = pytest.mark.root

_CALL = re.compile(r"(\w+)\(")
# Calls that change nothing for anybody else: to be killed at one of them is to be killed at the next that does.
_WITHOUT_EFFECT = frozenset(
    "access brk epoll_wait fcntl fstat futex getcwd getdents64 geteuid getpid getrandom gettid gettimeofday ioctl "
    "lseek lstat madvise mmap mprotect munmap newfstatat poll pread64 prctl read readlink rt_sigaction rt_sigprocmask "
    "stat statx uname".split()
)
_POINTS = 24  # of each command
_ENOUGH = 16


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    made = bundles.prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


def _traced(runtime: Runtime, log: Path, options: list[str], *arguments: str) -> int:
    """Run the command, but not its children, under strace with *options*; its status, which is not 0 for a kill."""
    done = subprocess.run(
        ["strace", "-qq", "-o", str(log), *options, *runtime.words(*arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=runtime.bundle,
        timeout=60,
        check=False,
    )
    return done.returncode


def _steps(log: Path, first: str) -> list[tuple[str, int]]:
    """The calls with an effect from the one whose line has *first*: the name, and the how-manieth of it each is."""
    counts: dict[str, int] = {}
    steps: list[tuple[str, int]] = []
    begun = False
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name = call[1]
        counts[name] = counts.get(name, 0) + 1
        begun = begun or first in line
        if begun and name not in _WITHOUT_EFFECT:
            steps.append((name, counts[name]))
    return steps


def _spread(steps: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [steps[number * len(steps) // _POINTS] for number in range(_POINTS)]


def _what_is_left(runtime: Runtime, config: dict[str, Any]) -> list[str]:
    """Of the container: its record, its group in every hierarchy, processes that have its files."""
    return [
        *(f"directory {path}" for path in (runtime.root.iterdir() if runtime.root.exists() else ())),
        *(f"group {path}" for path in Path("/sys/fs/cgroup").glob(f"*{config['linux']['cgroupsPath']}")),
        *(f"group {path}" for path in Path("/sys/fs/cgroup").glob(config["linux"]["cgroupsPath"].lstrip("/"))),
        *leftovers.processes(f"{runtime.path}/"),
    ]


def _nothing_stays(runtime: Runtime, config: dict[str, Any], where: str) -> None:
    deleted = runtime("delete", "--force", "one")
    assert deleted.returncode == 0, f"killed at {where}: {deleted.stderr}"
    left = leftovers.settled(lambda: _what_is_left(runtime, config))
    assert left == [], f"killed at {where}: {left}"


def _prepare(runtime: Runtime, command: str) -> None:
    """Bring the container to where *command* is what comes next."""
    if command != "create":
        assert runtime("create", "one").returncode == 0
    if command == "delete":
        assert runtime("start", "one").returncode == 0


@pytest.mark.parametrize("command", ["create", "start", "delete"])
def test_a_command_killed_at_any_step_leaves_what_delete_force_removes(runtime: Runtime, command: str) -> None:
    """Neither record, nor control group, nor process is there afterwards, and the id can be used again."""
    config = runtime.configure("sleep", "1000")
    log = runtime.path / "trace"
    arguments = [command, *(["--force"] if command == "delete" else []), "one"]
    _prepare(runtime, command)
    assert _traced(runtime, log, [], *arguments) == 0
    _nothing_stays(runtime, config, "no call")
    # What comes before the container's directory is opened or made only reads modules.
    steps = _steps(log, f'"{runtime.root}')
    killed = 0
    for name, count in _spread(steps):
        _prepare(runtime, command)
        options = ["-e", f"inject={name}:signal=KILL:when={count}"]
        killed += _traced(runtime, log, options, *arguments) != 0
        _nothing_stays(runtime, config, f"{name} number {count}")
    assert killed >= _ENOUGH  # calls differ a little from run to run: the last ones may not be reached
