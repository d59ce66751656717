"""What config.json can ask for besides the usual, in real containers: each by what the container then sees."""

import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import bundles
from support.bundles import Runtime
from support.layout import Layout

pytestmark = pytest.mark.root

_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_NOTIF_BYTES = 80  # struct seccomp_notif
_MIB = 1 << 20


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    made = bundles.prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


def _change(runtime: Runtime, *arguments: str, change: Callable[[dict[str, Any]], None]) -> None:
    """The usual configuration, changed."""
    config = runtime.configure(*arguments)
    change(config)
    (runtime.bundle / "config.json").write_text(json.dumps(config))


def _output(runtime: Runtime, *arguments: str, **options: Any) -> str:
    done = runtime(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/ns/time").exists(), reason="this kernel has no time namespaces")
def test_a_time_namespace_begins_where_its_offsets_say(runtime: Runtime) -> None:
    """config-linux.md "Offset for Time Namespace"; for execs, too."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 10**8, "nanosecs": 5}, "monotonic": {"secs": 1000}}

    _change(runtime, "sh", "-c", "cat /proc/uptime /proc/self/timens_offsets; exec sleep 1000", change=change)
    output = runtime("run", "--detach", "one")
    assert output.returncode == 0, output.stderr
    assert float(_output(runtime, "exec", "one", "cat", "/proc/uptime").split()[0]) > 10**8


def test_a_network_device_moves_into_the_container_under_its_new_name(runtime: Runtime) -> None:
    """config-linux.md "Network Devices"."""
    subprocess.run(["ip", "link", "add", "moving0", "type", "veth", "peer", "name", "staying0"], check=True)
    try:
        _change(
            runtime,
            "ls",
            "/sys/class/net",
            change=lambda config: config["linux"].update(netDevices={"moving0": {"name": "inside0"}}),
        )
        assert _output(runtime, "run", "one").split() == ["inside0", "lo"]
        _change(runtime, "true", change=lambda config: config["linux"].update(netDevices={"nosuch0": {}}))
        assert "move network device nosuch0" in runtime("run", "two").stderr
    finally:
        subprocess.run(["ip", "link", "del", "staying0"], check=False, capture_output=True)


def test_a_process_is_scheduled_as_it_asks(runtime: Runtime) -> None:
    """scheduler, ioPriority and personality, of a start and, with its CPUs, of an exec."""
    asked = {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
    }
    seen = "cd /proc/self; cut -d' ' -f19,41 stat; ionice -p $$; cat personality; grep Cpus_allowed_list status"
    runtime.configure(
        "sh", "-c", f"{seen}; exec sleep 1000", process=asked, linux={"personality": {"domain": "LINUX32"}}
    )
    started = runtime("run", "--detach", "one")
    assert started.returncode == 0, started.stderr
    last = max(os.sched_getaffinity(0))
    process: dict[str, Any] = {"args": ["sh", "-c", seen], "cwd": "/", "env": ["PATH=/bin"], **asked}
    process["execCPUAffinity"] = {"initial": "0", "final": str(last)}
    (runtime.path / "process.json").write_text(json.dumps(process))
    output = _output(runtime, "exec", "--process", str(runtime.path / "process.json"), "one").splitlines()
    assert output == ["5 3", "best-effort: prio 6", "00000008", f"Cpus_allowed_list:\t{last}"]


def test_memory_lies_where_the_policy_says(runtime: Runtime) -> None:
    """config-linux.md "Memory policy"; a kernel without nodes says that it has no such call."""
    runtime.configure("cat", "/proc/self/numa_maps", linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}})
    done = runtime("run", "one")
    if "function not implemented" in done.stderr:
        pytest.skip("this kernel has no set_mempolicy")
    if Path("/proc/self/numa_maps").exists():
        assert " bind:0 " in done.stdout, done.stderr
    runtime.configure("true", linux={"memoryPolicy": {"mode": "MPOL_NONSENSE"}})
    assert "'MPOL_NONSENSE' is none of" in runtime("run", "two").stderr


def _answer(listener: socket.socket, errno: int) -> dict[str, Any]:
    """Take a seccomp listener, answer one call with *errno*; the state that came with the listener."""
    end, _ = listener.accept()
    with end:
        message, descriptors, _, _ = socket.recv_fds(end, 1 << 16, 1)
    state: dict[str, Any] = json.loads(message)
    try:
        notified = bytearray(_NOTIF_BYTES)
        fcntl.ioctl(descriptors[0], _NOTIF_RECV, notified)
        fcntl.ioctl(
            descriptors[0], _NOTIF_SEND, struct.pack("=QqiI", *struct.unpack_from("=Q", notified), 0, -errno, 0)
        )
    finally:
        os.close(descriptors[0])
    return state


def test_somebody_else_answers_system_calls(runtime: Runtime) -> None:
    """SCMP_ACT_NOTIFY: the listener comes to listenerPath with the state; by start, and by exec."""
    path = runtime.path / "listener.sock"
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    script = "mkdir /tmp/x 2>&1; exec sleep 1000"
    runtime.configure("sh", "-c", script, linux={"seccomp": section})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        assert runtime("run", "--detach", "one").returncode == 0
        state = _answer(listener, 17)
        assert (state["fds"], state["metadata"], state["state"]["id"]) == (["seccompFd"], "meta", "one")
        assert state["pid"] == state["state"]["pid"] == runtime.state("one")["pid"]
        command = runtime.words("exec", "one", "sh", "-c", "mkdir /tmp/y")
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as executing:
            further = _answer(listener, 28)
            assert executing.stderr is not None
            assert "No space left on device" in executing.stderr.read()
        assert further["pid"] != state["pid"]
        assert further["state"]["status"] == "running"


def test_without_anybody_to_notify_there_is_no_container(runtime: Runtime) -> None:
    """Nobody listens, or no path is given: an error, and nothing is left."""
    section = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
    runtime.configure("true", linux={"seccomp": section})
    assert "listenerPath" in runtime("run", "one").stderr
    runtime.configure("true", linux={"seccomp": {**section, "listenerPath": str(runtime.path / "nobody")}})
    assert "send the seccomp listener" in runtime("run", "one").stderr
    assert os.listdir(runtime.root) == []
    assert runtime("create", "two").returncode == 0
    assert "send the seccomp listener" in runtime("start", "two").stderr
    assert runtime.state("two")["status"] == "stopped"


def test_without_pivot_root_the_root_is_the_containers_all_the_same(runtime: Runtime) -> None:
    """`--no-pivot`, for hosts on an initramfs."""
    (runtime.rootfs / "mark").write_text("inside\n")
    runtime.configure("sh", "-c", "cat /mark; cd ../../../..; cat mark; exec sleep 1000")
    started = runtime("run", "--detach", "--no-pivot", "one")
    assert started.returncode == 0, started.stderr
    assert (
        _output(runtime, "exec", "one", "sh", "-c", "cat /mark; ls -d /proc/1/root/mark")
        == "inside\n/proc/1/root/mark\n"
    )


def test_descriptors_are_handed_on_as_many_as_are_asked_for(runtime: Runtime) -> None:
    """`--preserve-fds` and LISTEN_FDS, counted from 3."""
    runtime.configure("sh", "-c", "cat <&3; cat <&4; [ -e /proc/self/fd/5 ] && echo too many; true")
    names = [str(runtime.path / f"file{number}") for number in (0, 1, 2)]
    for number, name in enumerate(names):
        Path(name).write_text(f"{number}\n")
    opening = ["sh", "-c", 'exec 3<"$1" 4<"$2" 5<"$3"; shift 3; exec "$@"', "sh", *names]
    asked: list[tuple[dict[str, str], list[str]]] = [
        ({}, ["--preserve-fds", "2"]),
        ({"LISTEN_FDS": "2"}, []),
        ({"LISTEN_FDS": "1"}, ["--preserve-fds", "1"]),
    ]
    for environment, flags in asked:
        done = subprocess.run(
            [*opening, *runtime.words("run", *flags, "one")],
            cwd=runtime.bundle,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **environment},
        )
        assert done.stdout == "0\n1\n", done.stderr


def test_features_are_those_that_work(runtime: Runtime) -> None:
    """As the specification's document, with what runc names and this runtime has, too."""
    found = json.loads(_output(runtime, "features"))
    assert (found["ociVersionMin"], found["ociVersionMax"].split(".")[0]) == ("1.0.0", "1")
    assert {"time", "cgroup", "user"} <= set(found["linux"]["namespaces"])
    assert "SCMP_ACT_NOTIFY" in found["linux"]["seccomp"]["actions"]
    assert {"idmap", "tmpcopyup", "rro", "rbind"} <= set(found["mountOptions"])
    assert found["linux"]["intelRdt"] == {"enabled": False}


def test_statistics_and_kills_for_memory_are_told_as_events(runtime: Runtime) -> None:
    """`events --stats` once, and `events` as long as the container is there."""
    runtime.configure(
        "sleep", "1000", linux={"resources": {"memory": {"limit": 16 * _MIB, "swap": 16 * _MIB}, "pids": {"limit": 9}}}
    )
    assert runtime("run", "--detach", "one").returncode == 0
    stats = json.loads(_output(runtime, "events", "--stats", "one"))
    assert (stats["type"], stats["id"]) == ("stats", "one")
    assert stats["data"]["memory"]["usage"]["limit"] == 16 * _MIB
    assert stats["data"]["pids"] == {"current": 1, "limit": 9}
    command = runtime.words("events", "--interval", "100ms", "one")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # it has counted the kills until now
        assert runtime("exec", "one", "sh", "-c", "x=a; while :; do x=$x$x; done").returncode == 137
        assert any(json.loads(line) == {"type": "oom", "id": "one"} for line in watcher.stdout)
        assert runtime("delete", "--force", "one").returncode == 0
        watcher.stdout.read()
        assert watcher.wait(30) == 0


def test_a_mount_has_mappings_of_its_own(runtime: Runtime) -> None:
    """uidMappings of a mount, in a container that has no user namespace; recursively with `ridmap`."""
    volume, other = runtime.path / "volume", runtime.path / "other"
    (volume / "below").mkdir(parents=True)
    other.mkdir()
    os.chown(volume, 1000, 1000)
    os.chown(other, 1001, 1001)
    mapping = [{"containerID": 1000, "hostID": 5000, "size": 10}]
    subprocess.run(["mount", "--bind", other, volume / "below"], check=True)
    try:
        for option, below in (("idmap", "1001"), ("ridmap", "5001")):
            config = runtime.configure("stat", "-c", "%u", "/v", "/v/below")
            bind = {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind", option]}
            config["mounts"].append({**bind, "uidMappings": mapping, "gidMappings": mapping})
            (runtime.bundle / "config.json").write_text(json.dumps(config))
            assert _output(runtime, "run", f"one-{option}").split() == ["5000", below]
    finally:
        subprocess.run(["umount", volume / "below"], check=True)


def test_a_poststart_or_poststop_hook_that_fails_or_hangs_is_a_warning(runtime: Runtime) -> None:
    """config.md "Poststart", "Poststop": the container's life goes on, and so do the other hooks."""
    log = runtime.path / "log"
    last = {"path": "/bin/sh", "args": ["sh", "-c", f"echo ran >> {log}"]}
    slow = {"path": "/bin/sleep", "args": ["sleep", "99"], "timeout": 1}
    failing = {"path": "/bin/false"}
    runtime.configure("sleep", "1000", hooks={"poststart": [slow, last], "poststop": [failing, last]})
    started = runtime("run", "--detach", "one")
    assert (started.returncode, "did not end within 1 s" in started.stderr) == (0, True)
    assert runtime.state("one")["status"] == "running"
    deleted = runtime("delete", "--force", "one")
    assert (deleted.returncode, "/bin/false: exit status 1" in deleted.stderr) == (0, True)
    assert log.read_text() == "ran\nran\n"


def test_a_terminal_has_the_size_that_is_asked_for(runtime: Runtime) -> None:
    """consoleSize."""
    size = {"height": 33, "width": 77}
    runtime.configure("sh", "-c", "stty size; exec sleep 1000", process={"terminal": True, "consoleSize": size})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime.path / "console.sock"))
        listener.listen()
        listener.settimeout(60)
        assert runtime("run", "--detach", "--console-socket", str(runtime.path / "console.sock"), "one").returncode == 0
        end, _ = listener.accept()
        with end:
            _, descriptors, _, _ = socket.recv_fds(end, 100, 1)
    try:
        assert os.read(descriptors[0], 7) == b"33 77\r\n"
    finally:
        os.close(descriptors[0])


def test_what_this_machine_cannot_do_is_refused(runtime: Runtime) -> None:
    """intelRdt: an error that names it, before anything is made."""
    runtime.configure("true", linux={"intelRdt": {"closID": "x"}})
    assert "$.linux.intelRdt" in runtime("create", "one").stderr
    assert not runtime.root.exists() or os.listdir(runtime.root) == []
