"""`wherry-oci` as engines call it: states, hooks, namespaces and failures, in real containers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import wherry_oci
from support import bundles
from support.bundles import Runtime
from support.layout import Layout
from wherry_oci.runtime import lifecycle

pytestmark = pytest.mark.root


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    made = bundles.prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_container_goes_through_its_states(runtime: Runtime) -> None:
    """created, running, paused, stopped; each operation is refused in the states that do not allow it."""
    runtime.configure("sleep", "1000")
    assert runtime("create", "--pid-file", str(runtime.path / "pid"), "one").returncode == 0
    state = runtime.state("one")
    assert state["status"] == "created"
    assert state["pid"] == int((runtime.path / "pid").read_text())
    assert runtime("start", "one").returncode == 0
    assert runtime.state("one")["status"] == "running"
    assert "cannot be started" in runtime("start", "one").stderr
    assert runtime("pause", "one").returncode == 0
    assert runtime.state("one")["status"] == "paused"
    assert "is paused" in runtime("exec", "one", "true").stderr
    assert runtime("resume", "one").returncode == 0
    assert "cannot be deleted" in runtime("delete", "one").stderr
    assert runtime("kill", "one", "KILL").returncode == 0
    _until(lambda: runtime.state("one")["status"] == "stopped")
    assert "is not running" in runtime("kill", "one").stderr
    assert runtime("delete", "one").returncode == 0
    assert "does not exist" in runtime("state", "one").stderr
    assert runtime("delete", "--force", "one").returncode == 0


def test_run_gives_output_and_exit_status_and_leaves_nothing(runtime: Runtime) -> None:
    """As shells count: 128 and the number for a signal."""
    runtime.configure("sh", "-c", "echo out; echo err >&2; exit 7")
    done = runtime("run", "one")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr
    runtime.configure("sh", "-c", "kill -9 $$; sleep 1000 & exec sh -c 'kill -9 $$'", linux={"namespaces": _SHARED_PID})
    assert runtime("run", "two").returncode == 137
    assert os.listdir(runtime.root) == []


_SHARED_PID = [{"type": kind} for kind in ("network", "ipc", "uts", "mount", "cgroup")]


# A process that has all loaded waits for the others, creates, and says whether it won.
_RACER = """
import sys
sys.path.insert(0, sys.argv[1])
from wherry_oci.errors import AlreadyExists
from wherry_oci.runtime import container, lifecycle
from wherry_oci.runtime.lifecycle import Options
for line in sys.stdin:
    try:
        directory, process = lifecycle.create(sys.argv[2], line.strip(), sys.argv[3], Options())
    except AlreadyExists:
        print("lost", flush=True)
    else:
        directory.unlock()
        print("won", flush=True)
"""


def test_of_many_creates_of_one_id_exactly_one_wins(runtime: Runtime) -> None:
    """However they race: 120 ids, each wanted by four processes at the same moment; the winner's container works."""
    runtime.configure("sleep", "1000")
    source = str(Path(wherry_oci.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-c", _RACER, source, str(runtime.root), str(runtime.bundle)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(4)
    ]
    try:
        for attempt in range(120):
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(f"race{attempt}\n")
                racer.stdin.flush()
            answers = [racer.stdout.readline() for racer in racers if racer.stdout is not None]
            assert sorted(answers) == ["lost\n", "lost\n", "lost\n", "won\n"]
            if attempt % 20 == 0:
                assert runtime("start", f"race{attempt}").returncode == 0
            lifecycle.delete(str(runtime.root), f"race{attempt}", force=True, warn=pytest.fail)
    finally:
        for racer in racers:
            racer.communicate()
    assert os.listdir(runtime.root) == []


def test_hooks_run_in_their_order_with_the_state_on_their_input(runtime: Runtime) -> None:
    """prestart, createRuntime, createContainer at create; startContainer, poststart at start; poststop at delete."""
    log = runtime.rootfs / "log"

    def hook(kind: str, *, inside: bool = False) -> list[dict[str, object]]:
        where = "/log" if inside else str(log)
        script = f'echo {kind} $(sed "s/.*status.:.\\([a-z]*\\).*/\\1/") >> {where}'
        return [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]

    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    hooks = {kind: hook(kind, inside=kind == "startContainer") for kind in kinds}
    runtime.configure("sleep", "1000", hooks=hooks, root={"readonly": False})
    assert runtime("create", "one").returncode == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == list(kinds[:3])
    assert runtime("start", "one").returncode == 0
    assert runtime("delete", "--force", "one").returncode == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == list(kinds)
    assert "poststart running" in log.read_text()
    assert "poststop stopped" in log.read_text()


def test_a_hook_that_fails_or_hangs_ends_the_create(runtime: Runtime) -> None:
    """With its words, or its time, in the error; and nothing is left."""
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]}
    runtime.configure("true", hooks={"createRuntime": [failing]})
    assert "exit status 3: no luck" in runtime("create", "one").stderr
    runtime.configure(
        "true", hooks={"createContainer": [{"path": "/bin/sleep", "args": ["sleep", "99"], "timeout": 1}]}
    )
    assert "did not end within 1 s" in runtime("create", "one").stderr
    assert os.listdir(runtime.root) == []


def test_exec_takes_what_flags_and_files_say(runtime: Runtime) -> None:
    """user, cwd, env, --process; and its exit status; a program that is not there is 255."""
    runtime.configure("sleep", "1000")
    assert runtime("run", "--detach", "one").returncode == 0
    done = runtime("exec", "--user", "5:6", "--cwd", "/bin", "--env", "A=b", "one", "sh", "-c", "id -u; pwd; echo $A")
    assert done.stdout.split() == ["5", "/bin", "b"]
    process = {"args": ["sh", "-c", "exit 9"], "cwd": "/", "env": ["PATH=/bin"]}
    (runtime.path / "process.json").write_text(json.dumps(process))
    assert runtime("exec", "--process", str(runtime.path / "process.json"), "one").returncode == 9
    missing = runtime("exec", "one", "nosuch")
    assert (missing.returncode, "executable file not found" in missing.stderr) == (255, True)
    refused = runtime("ps", "one", "--", "--nosuch")
    assert (refused.returncode, "unknown gnu long option" in refused.stderr) == (1, True)
    pids = json.loads(runtime("ps", "--format", "json", "one").stdout)
    assert pids == [runtime.state("one")["pid"]]


def test_a_tmpfs_has_the_mode_of_what_it_covers_and_is_everybodys_else(runtime: Runtime) -> None:
    """As with runc; a mode that is given counts more, and `tmpcopyup` brings along what was there."""
    for name in ("covered", "given", "copied"):
        (runtime.rootfs / name).mkdir(mode=0o711)
    (runtime.rootfs / "copied/link").symlink_to("file")
    (runtime.rootfs / "copied/file").write_text("brought\n")
    (runtime.rootfs / "copied/file").chmod(0o640)
    os.chown(runtime.rootfs / "copied", 5, 6)
    config = runtime.configure(
        "sh", "-c", "cd /; stat -c '%a %u %F' new covered given copied copied/file copied/link; cat copied/link"
    )
    options = {"new": [], "covered": [], "given": ["mode=0700"], "copied": ["tmpcopyup"]}
    config["mounts"] += [
        {"destination": f"/{name}", "type": "tmpfs", "source": "tmpfs", "options": given}
        for name, given in options.items()
    ]
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    done = runtime("run", "one")
    assert done.stdout.splitlines() == [
        "1777 0 directory",
        "711 0 directory",
        "700 0 directory",
        "711 5 directory",
        "640 0 regular file",
        "777 0 symbolic link",
        "brought",
    ], done.stderr


def test_a_mounted_passwd_says_where_home_is(runtime: Runtime) -> None:
    """podman gives its containers a passwd of its own making."""
    (runtime.path / "passwd").write_text("somebody:x:5:6:somebody:/tmp/home:/bin/sh\n")
    config = runtime.configure("sh", "-c", "echo $HOME", process={"user": {"uid": 5, "gid": 6}})
    config["mounts"].append(
        {"destination": "/etc/passwd", "type": "bind", "source": str(runtime.path / "passwd"), "options": ["bind"]}
    )
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    assert runtime("run", "one").stdout == "/tmp/home\n"


def test_ambient_capabilities_that_the_kernel_does_not_give_are_left_out_with_a_warning(runtime: Runtime) -> None:
    """config.md: what cannot be granted is a warning; `runc spec` asks for such."""
    rights = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"]}
    runtime.configure(
        "grep",
        "CapAmb",
        "/proc/self/status",
        process={"capabilities": {**rights, "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_KILL", "CAP_CHOWN"]}},
    )
    done = runtime("run", "one")
    assert done.stdout.split() == ["CapAmb:", "0000000000000001"], done.stderr
    assert "are left out: CAP_KILL" in done.stderr


def test_ids_are_mapped_and_sources_that_they_cannot_reach_are_bound(runtime: Runtime) -> None:
    """A user namespace; a bind of a directory that is root's alone; an id-mapped one beside it."""
    secret = runtime.path / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").write_text("bound\n")
    (secret / "file").chmod(0o644)
    mapping = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    config = runtime.configure("sh", "-c", "cat /proc/self/uid_map; stat -c %u /mapped/file")
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    config["mounts"].append(
        {"destination": "/mapped", "type": "bind", "source": str(secret), "options": ["rbind", "idmap"]}
    )
    (runtime.rootfs / "mapped").mkdir()
    subprocess.run(["chown", "-R", "100000:100000", runtime.rootfs], check=True)
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    done = runtime("run", "one")
    assert done.stdout.split() == ["0", "100000", "1000", "0"], done.stderr


def test_wrong_configurations_are_refused_with_their_path(runtime: Runtime) -> None:
    """Before anything is made."""
    config = runtime.configure("true")
    config["mounts"][2]["options"][0] = 5
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    assert "$.mounts[2].options[0]: must be a string, not 5" in runtime("create", "one").stderr
    runtime.configure("true", process={"apparmorProfile": "docker-default"})
    if not Path("/sys/module/apparmor").is_dir():
        assert "this kernel runs no AppArmor" in runtime("create", "one").stderr
    assert not runtime.root.exists() or os.listdir(runtime.root) == []


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_a_link_in_the_place_of_proc_or_sys_is_refused(runtime: Runtime, place: str) -> None:
    """CVE-2019-16884, CVE-2019-19921."""
    runtime.configure("true")
    directory = runtime.rootfs / place
    if directory.is_dir():
        directory.rmdir()
    directory.symlink_to("tmp")
    assert "is not a directory but a link" in runtime("run", "one").stderr


def test_the_working_directory_of_an_exec_cannot_be_a_leaked_descriptor(runtime: Runtime) -> None:
    """CVE-2024-21626, by exec, for every descriptor that there could be."""
    runtime.configure("sleep", "1000")
    assert runtime("run", "--detach", "one").returncode == 0
    for number in (3, 4, 5, 6, 7, 8, 9, 200):
        done = runtime("exec", "--cwd", f"/proc/self/fd/{number}", "one", "pwd")
        assert done.returncode == 255, done.stdout


def test_what_enters_is_not_writable_from_inside(runtime: Runtime) -> None:
    """CVE-2019-5736: the interpreter's image is on a read-only mount, or a sealed copy."""
    from wherry_oci.command import image

    copy = runtime.path / "interpreter"
    copy.write_bytes(b"not executed by anybody, so not busy")
    mounted, sealed = image.open_read_only(str(copy)), image._sealed_copy(str(copy))
    with pytest.raises(OSError, match="Read-only"):
        os.open(f"/proc/self/fd/{mounted}", os.O_WRONLY)
    writer = os.open(f"/proc/self/fd/{sealed}", os.O_WRONLY)
    with pytest.raises(OSError, match="not permitted"):
        os.write(writer, b"x")
    for fd in (mounted, sealed, writer):
        os.close(fd)
    runtime.configure("/proc/self/exe")
    assert runtime("run", "one").returncode != 0
