"""Engines that others made do with `wherry-oci` what they do with runc: the same commands, the same results."""

import gzip
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from support import engines
from support.engines import Engine
from support.layout import Layout

pytestmark = pytest.mark.e2e

_PATIENCE_S = 30
# It ends itself with 5 when it is told to stop, and tells its health by a file.
_SERVICE = "trap 'exit 5' TERM; touch /tmp/ok; while :; do sleep 0.1; done"
_LIMIT = 64 << 20
_MEMORY = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"
_OPTIONS = (
    "--hostname here --user 5:6 --group-add 7 --read-only --tmpfs /t --ulimit nofile=100:200 --workdir /t --env A=b "
    "--sysctl net.ipv4.ip_unprivileged_port_start=80 --cap-drop ALL --cap-add CHOWN --oom-score-adj 100 "
    "--volume /etc:/e:ro"
).split()
# What a container is like from inside: names, ids, rights, limits, mounts, devices. Where v1 and v2 groups are there at
# once, runc 1.1 shows v1's alone.
_SHAPE = (
    "hostname; id; pwd; ulimit -n; umask; touch /x 2>/dev/null || echo read-only; touch /t/x && echo writable; "
    "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; cut -d' ' -f2 /proc/mounts | grep -v cgroup/unified | sort; "
    "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/self/oom_score_adj; ls /dev /proc/self/fd; env | sort"
)


@pytest.fixture
def rootfs(tmp_path: Path, image: Callable[[str], Layout]) -> Path:
    """busybox as the tar that engines import."""
    layout = image("busybox")
    (layer,) = layout.manifest["layers"]
    path = tmp_path / "rootfs.tar"
    path.write_bytes(gzip.decompress(layout.blob(layer["digest"]).read_bytes()))
    return path


def _until(look: Callable[[], Any], wanted: Any) -> Any:
    """What *look* gives when it is *wanted*, or when time is up."""
    deadline = time.monotonic() + _PATIENCE_S
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _size_at_a_terminal(*words: str) -> str:
    """What a container's terminal says of its size, to somebody at a terminal of 41 rows and 101 columns."""
    child = pexpect.spawn(words[0], list(words[1:]), dimensions=(41, 101), encoding="utf-8", timeout=_PATIENCE_S)
    try:
        child.expect("ready")
        child.sendline("stty size; exit 3")
        child.expect(r"\n(\d+ \d+)\r")
        assert isinstance(child.match, re.Match)
        size = child.match[1]
        child.expect(pexpect.EOF)
    finally:
        child.close()
    return f"{size}, exit status {child.exitstatus}"


_AT_A_TERMINAL = ("sh", "-c", "echo ready; exec sh")


def _statuses(run: Callable[..., Any], *, starting: bool) -> dict[str, int]:
    """With what a run, or an exec, of several programs ends."""
    programs = {"not there": ["nosuch"], "no file": ["/nosuch"], "a directory": ["/etc"], "no program": ["/etc/passwd"]}
    ending = {"status": ["sh", "-c", "exit 7"], "signal": ["sh", "-c", "kill -9 $$"]}
    return {what: run(*words).returncode for what, words in (programs | (ending if starting else {})).items()}


# --- dockerd --------------------------------------------------------------------------------------------------------


def _docker_life(docker: Engine, runtime: str) -> dict[str, Any]:
    """One container's life, and others beside it: what dockerd says and does."""
    found: dict[str, Any] = {}
    run = ("run", "--rm", "--runtime", runtime)

    def shown(what: str) -> str:
        return docker.output("inspect", "--format", f"{{{{{what}}}}}", "one").strip()

    found["shape"] = docker.output(*run, *_OPTIONS, "bb", "sh", "-c", _SHAPE)
    found["input"] = docker.output(*run, "-i", "--network", "none", "bb", "cat", input="through\n")
    found["run"] = _statuses(lambda *words: docker(*run, "bb", *words), starting=False)
    found["terminal"] = _size_at_a_terminal(*docker.words, *run, "-it", "bb", *_AT_A_TERMINAL)
    health = ("--health-cmd", "test -e /tmp/ok", "--health-interval", "300ms", "--health-retries", "1")
    limits = ("--memory", str(_LIMIT), "--pids-limit", "30", "--cpus", "0.5")
    kept = ("run", "-d", "--name", "one", "--runtime", runtime)
    docker.output(*kept, "--ipc", "shareable", *limits, *health, "bb", "sh", "-c", _SERVICE)
    found["healthy"] = _until(lambda: shown(".State.Health.Status"), "healthy")
    found["limit"] = docker.output("exec", "one", "sh", "-c", _MEMORY)
    found["exec"] = _statuses(lambda *words: docker("exec", "one", *words), starting=True)
    found["exec at a terminal"] = docker.output("exec", "-t", "--user", "5", "one", "sh", "-c", "tty; id -u")
    joined = ("--pid", "container:one", "--network", "container:one", "--ipc", "container:one")
    found["joined"] = docker.output(
        *run, *joined, "bb", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; ls /sys/class/net"
    )
    docker.output("exec", "one", "rm", "/tmp/ok")
    found["unhealthy"] = _until(lambda: shown(".State.Health.Status"), "unhealthy")
    docker.output("pause", "one")
    found["paused"] = shown(".State.Status")
    docker.output("unpause", "one")
    docker.output("update", "--memory", str(2 * _LIMIT), "--memory-swap", str(3 * _LIMIT), "one")
    found["updated"] = docker.output("exec", "one", "sh", "-c", _MEMORY)
    docker.output("stop", "one")
    found["stopped"] = shown(".State.Status"), shown(".State.ExitCode")
    docker.output("restart", "one")
    found["restarted"] = shown(".State.Status"), docker.output("exec", "one", "echo", "again")
    docker.output("kill", "one")
    found["killed"] = docker.output("wait", "one").strip()
    docker.output("rm", "one")
    greedy = ("--memory", str(_LIMIT // 4), "--memory-swap", str(_LIMIT // 4), "--restart", "on-failure:1")
    hungry = "x=a; while :; do x=$x$x; done"
    docker.output(*kept, *greedy, "bb", "sh", "-c", hungry)
    found["out of memory"] = _until(lambda: (shown(".RestartCount"), shown(".State.Status")), ("1", "exited"))
    found["why"] = shown(".State.ExitCode")  # whether it knows that memory ran out depends on which event came first
    docker.output("rm", "one")
    return found


def test_dockerd_does_with_our_runtime_what_it_does_with_runc(tmp_path: Path, rootfs: Path) -> None:
    """run, exec, terminals, health, limits, pause, update, stop, restart, restart policies, out of memory."""
    folder = tmp_path / "d"
    folder.mkdir()
    with engines.docker(folder) as docker:
        docker.output("import", str(rootfs), "bb")
        ours, theirs = (_docker_life(docker, runtime) for runtime in ("wherry", "runc"))
    assert ours == theirs
    assert ours["run"] == {"not there": 127, "no file": 127, "a directory": 126, "no program": 126}
    assert ours["exec"]["status"] == 7
    assert ours["terminal"] == "41 101, exit status 3"
    assert (ours["healthy"], ours["unhealthy"]) == ("healthy", "unhealthy")
    assert (ours["limit"], ours["updated"]) == (f"{_LIMIT}\n", f"{2 * _LIMIT}\n")
    assert (ours["stopped"], ours["killed"]) == (("exited", "5"), "137")
    assert ours["restarted"] == ("running", "again\n")
    assert ours["why"] == "137"


# --- containerd -----------------------------------------------------------------------------------------------------


def _containerd_life(ctr: Engine, runtime: str) -> dict[str, Any]:
    image = "docker.io/library/busybox:latest"
    found: dict[str, Any] = {}
    run = ("run", "--runc-binary", runtime, "--cgroup", f"{ctr.cgroup_parent}/one")

    def status() -> str:
        lines = ctr.output("task", "ls").splitlines()[1:]
        return lines[0].split()[2] if lines else "none"

    found["run"] = _statuses(lambda *words: ctr(*run, "--rm", image, "one", *words), starting=True)
    found["output"] = ctr.output(*run, "--rm", image, "one", "echo", "hello")
    found["terminal"] = _size_at_a_terminal(*ctr.words, *run, "--rm", "-t", image, "one", *_AT_A_TERMINAL)
    ctr.output(*run, "-d", "--memory-limit", str(_LIMIT), image, "one", "sh", "-c", _SERVICE)
    executing = ("task", "exec", "--exec-id", "two", "one")
    found["exec"] = _statuses(lambda *words: ctr(*executing, *words), starting=True)
    ctr.output(*executing, "sh", "-c", "until test -e /tmp/ok; do sleep 0.1; done")
    files = [*Path("/sys/fs/cgroup").glob(f"memory{ctr.cgroup_parent}/one/memory.limit_in_bytes")]
    files += Path("/sys/fs/cgroup").glob(f"{ctr.cgroup_parent[1:]}/one/memory.max")
    found["limit"] = [file.read_text().strip() for file in files]
    ctr.output("task", "pause", "one")
    found["paused"] = status()
    ctr.output("task", "resume", "one")
    ctr.output("task", "kill", "--signal", "TERM", "one")
    found["stopped"] = _until(status, "STOPPED")
    found["removed"] = "exit code 5" in ctr("task", "rm", "one").stderr
    ctr.output("task", "start", "-d", "one")
    found["restarted"] = status()
    ctr.output("task", "kill", "--signal", "KILL", "one")
    _until(status, "STOPPED")
    ctr("task", "rm", "one")
    ctr.output("container", "rm", "one")
    return found


def test_containerd_does_with_our_runtime_what_it_does_with_runc(
    tmp_path: Path, image: Callable[[str], Layout]
) -> None:
    """`ctr run --runc-binary`: run, exec, terminals, limits, pause, stop and start again."""
    folder = tmp_path / "c"
    folder.mkdir()
    with engines.containerd(folder) as ctr:
        archive = tmp_path / "busybox.tar"
        subprocess.run(["tar", "-cf", archive, "-C", image("busybox").path, "."], check=True)
        ctr.output("image", "import", "--base-name", "docker.io/library/busybox", str(archive))
        ours, theirs = (_containerd_life(ctr, runtime) for runtime in (engines.our_runtime(), engines.runc()))
    assert ours == theirs
    assert (ours["run"]["status"], ours["exec"]["status"], ours["output"]) == (7, 7, "hello\n")
    assert ours["terminal"] == "41 101, exit status 3"
    assert (ours["limit"], ours["paused"], ours["stopped"]) == ([str(_LIMIT)], "PAUSED", "STOPPED")
    assert (ours["removed"], ours["restarted"]) == (True, "RUNNING")


# --- podman ---------------------------------------------------------------------------------------------------------


def _podman_life(podman: Engine, runtime: str) -> dict[str, Any]:
    podman = Engine((*podman.words, "--runtime", runtime), podman.cgroup_parent)
    found: dict[str, Any] = {}
    run = ("run", "--rm", "--network", "none", "--cgroup-parent", podman.cgroup_parent)

    def shown(what: str) -> str:
        return podman.output("inspect", "--format", f"{{{{{what}}}}}", "one").strip()

    found["shape"] = podman.output(*run, *_OPTIONS, "--ulimit", "nproc=100:200", "bb", "sh", "-c", _SHAPE)
    found["run"] = _statuses(lambda *words: podman(*run, "bb", *words), starting=False)
    found["terminal"] = _size_at_a_terminal(*podman.words, *run, "-it", "bb", *_AT_A_TERMINAL)
    health = ("--health-cmd", "test -e /tmp/ok", "--health-interval", "disable")
    kept = [*run[:1], "-d", "--name", "one", *run[2:], "--memory", str(_LIMIT), *health]
    podman.output(*kept, "bb", "sh", "-c", _SERVICE)
    found["exec"] = _statuses(lambda *words: podman("exec", "one", *words), starting=True)
    podman.output("exec", "one", "sh", "-c", "until test -e /tmp/ok; do sleep 0.1; done")
    found["healthy"] = podman("healthcheck", "run", "one").returncode
    found["limit"] = podman.output("exec", "one", "sh", "-c", _MEMORY)
    found["exec at a terminal"] = podman.output("exec", "-t", "--user", "5", "one", "sh", "-c", "tty; id -u")
    podman.output("pause", "one")
    found["paused"] = shown(".State.Status")
    podman.output("unpause", "one")
    podman.output("stop", "one")
    found["stopped"] = shown(".State.Status"), shown(".State.ExitCode")
    podman.output("restart", "one")
    found["restarted"] = shown(".State.Status"), podman.output("exec", "one", "echo", "again")
    podman.output("kill", "one")
    found["killed"] = podman.output("wait", "one").strip()
    podman.output("rm", "one")
    return found


def test_podman_does_with_our_runtime_what_it_does_with_runc(tmp_path: Path, rootfs: Path) -> None:
    """`podman --runtime`: run, exec, terminals, health, limits, pause, stop, restart."""
    folder = tmp_path / "p"
    folder.mkdir()
    with engines.podman(folder) as podman:
        podman.output("import", "--signature-policy", str(folder / "policy.json"), str(rootfs), "bb")
        ours, theirs = (_podman_life(podman, runtime) for runtime in (engines.our_runtime(), engines.runc()))
    assert ours == theirs
    assert ours["run"] == {"not there": 127, "no file": 127, "a directory": 126, "no program": 126}
    assert (ours["exec"]["not there"], ours["exec"]["status"]) == (127, 7)
    assert ours["terminal"] == "41 101, exit status 3"
    assert (ours["healthy"], ours["limit"], ours["paused"]) == (0, f"{_LIMIT}\n", "paused")
    assert (ours["stopped"], ours["killed"]) == (("exited", "5"), "137")
    assert ours["restarted"] == ("running", "again\n")
