"""What a container has whichever OCI runtime makes it: wherry's own in the shim, or another one by its command."""

import glob
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wherry
from support import engines, leftovers
from support.leftovers import settled
from support.world import World
from wherry import Client, Container
from wherry.errors import (
    Conflict,
    ExecutableNotFound,
    ExecutableNotRunnable,
    InvalidArgument,
    StartFailed,
    Unsupported,
    UserNotFound,
)

pytestmark = pytest.mark.e2e

_SLEEP = "sleep 1000"


@pytest.fixture(params=["wherry", "runc", "crun", "wherry-oci"])
def client(request: pytest.FixtureRequest, world: World) -> Iterator[Client]:
    """One whose containers have this runtime, and which has busybox."""
    runtime = request.param if request.param == "wherry" else engines.runtime(request.param)
    world.push("busybox")
    with Client(runtime=runtime) as made:
        made.images.pull("busybox")
        yield made


@pytest.fixture
def foreign(client: Client) -> Client:
    """The same, without wherry's own."""
    if client._runtime == "wherry":
        pytest.skip("about runtimes that are called by their commands")
    return client


# Without a network, so that they run where the kernel has none for containers.
def _run(client: Client, command: str | list[str], **options: Any) -> Container:
    return client.run("busybox", command, network="none", **options)


def _lines(client: Client, script: str, **options: Any) -> list[str]:
    return client.check_output("busybox", ["sh", "-c", script], network="none", **options).decode().splitlines()


def test_it_is_confined_as_ever(client: Client) -> None:
    """Docker's capabilities, a seccomp filter that refuses, masked and read-only paths."""
    script = (
        "grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; "
        "unshare -m true 2>/dev/null || echo filtered; cat /proc/keys | wc -c; "
        "(echo 0 > /proc/sys/kernel/panic) 2>/dev/null || echo read-only; "
        "(mknod /x b 1 1 && cat /x) 2>/dev/null || echo kept"
    )
    with Client() as own:
        expected = _lines(own, script, security_opt=["no-new-privileges"])
    found = _lines(client, script, security_opt=["no-new-privileges"])
    assert found == expected
    assert found[2:] == ["NoNewPrivs: 1", "Seccomp: 2", "filtered", "0", "read-only", "kept"]
    unconfined = _lines(client, "grep Seccomp: /proc/self/status", security_opt=["seccomp=unconfined"])
    assert unconfined == ["Seccomp:\t0"]
    assert _lines(client, "grep Seccomp: /proc/self/status", privileged=True) == ["Seccomp:\t0"]


def test_users_are_those_of_the_image(client: Client) -> None:
    """By name and number, with their home and groups, in the first process and in further ones."""
    script = "id -u; id -g; id -G; echo $HOME; pwd"
    assert _lines(client, script, user="nobody", working_dir="/new/place") == [
        "65534",
        "65534",
        "65534",
        "/home",
        "/new/place",
    ]
    assert _lines(client, script, user="1234:5", group_add=["7"])[:4] == ["1234", "5", "5 7", "/"]
    with pytest.raises(UserNotFound, match="nobody-knows"):
        _run(client, "true", user="nobody-knows")
    with _run(client, _SLEEP) as container:
        assert container.exec(["sh", "-c", script], user="nobody").stdout == b"65534\n65534\n65534\n/home\n/\n"
        with pytest.raises(UserNotFound):
            container.exec("true", user="nobody-knows")


def test_mounts_are_the_same(client: Client, tmp_path: Path) -> None:
    """A part of a volume, a read-only bind with what is mounted below it, a volume that the image fills, a tmpfs."""
    client.volumes.create("parts")
    _lines(client, "mkdir -p /v/a/b; echo inside > /v/a/b/f", volumes=["parts:/v"])
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], check=True)
    try:
        script = (
            "cat /part/f; echo more >> /part/f; touch /bind/x 2>/dev/null || echo ro; "
            "touch /bind/below/x 2>/dev/null || "
            "echo ro; echo x > /t/x; stat -c %a /t; ls /etc/passwd"
        )
        found = _lines(
            client,
            script,
            mounts=[wherry.Mount("/part", "parts", subpath="a/b")],
            volumes=[f"{tmp_path}:/bind:ro"],
            tmpfs={"/t": "mode=1770"},
        )
    finally:
        subprocess.run(["umount", below], check=True)
    assert found == ["inside", "ro", "ro", "1770", "/etc/passwd"]
    assert _lines(client, "cat /v/a/b/f", volumes=["parts:/v:ro"]) == ["inside", "more"]


def test_an_image_is_mounted(client: Client) -> None:
    """With several layers, read-only."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 8):
        pytest.skip("an image of several layers is mounted by Linux 6.8")
    with _run(client, ["touch", "/added"]) as container:
        container.wait(timeout=20)
        container.commit("two-layers")
    script = "ls /image/added /image/bin/busybox; touch /image/x 2>/dev/null || echo ro"
    found = _lines(client, script, mounts=[wherry.Mount("/image", "two-layers", type="image")])
    assert found == ["/image/added", "/image/bin/busybox", "ro"]


def test_health_is_checked(client: Client) -> None:
    """By processes in the container, till it is well."""
    check = {"test": ["CMD-SHELL", "test -e /well"], "interval": "100ms", "retries": 50}
    with _run(client, ["sh", "-c", "sleep 0.5; touch /well; exec sleep 1000"], healthcheck=check) as container:
        container.wait_healthy(timeout=60)
        assert container.attrs["State"]["Health"]["Status"] == "healthy"


def test_a_bind_hands_mounts_on_when_it_is_asked_to(client: Client, tmp_path: Path) -> None:
    """From the host into the container (rslave), and back (rshared)."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-rshared", tmp_path], check=True)
        for name in ("in", "out"):
            (tmp_path / name).mkdir()
        with _run(client, _SLEEP, volumes=[f"{tmp_path}:/m:rslave"]) as container:
            subprocess.run(["mount", "-t", "tmpfs", "fromhost", tmp_path / "in"], check=True)
            assert "fromhost /m/in" in container.exec(["cat", "/proc/mounts"]).output
        with _run(client, _SLEEP, volumes=[f"{tmp_path}:/m:rshared"], privileged=True) as container:
            container.exec(["mount", "-t", "tmpfs", "fromcontainer", "/m/out"], check=True)
            assert f"fromcontainer {tmp_path}/out" in Path("/proc/mounts").read_text()
    finally:
        subprocess.run(["umount", "--recursive", tmp_path], check=True)


def test_nothing_of_its_root_is_mounted_on_the_host(client: Client) -> None:
    """While it runs."""
    with _run(client, _SLEEP) as container:
        assert [mount for mount in leftovers.mounts() if container.id in mount] == []


def test_names_of_the_host_and_its_domain(client: Client) -> None:
    """Set in its own namespace."""
    script = "hostname; cat /proc/sys/kernel/domainname"
    assert _lines(client, script, hostname="h", domainname="d.example") == ["h", "d.example"]


def test_an_init_reaps_and_passes_signals_on(client: Client) -> None:
    """A program that handles nothing ends by SIGTERM at once, and orphans do not stay."""
    with _run(client, ["sleep", "1000"], init=True) as container:
        container.exec(["sh", "-c", "sleep 0 & exec true"])
        script = "for i in $(seq 100); do ps -o args | grep -q '^\\[sleep' || exit 0; sleep 0.05; done; exit 1"
        container.exec(["sh", "-c", script], check=True)
        assert container.exec(["cat", "/proc/1/comm"]).output.strip() in ("wherry-init", "docker-init", "tini-static")
        container.kill("SIGTERM")
        assert container.wait(timeout=20).exit_code == 143


def test_it_is_restarted_and_told_by_whom_it_was_killed(client: Client) -> None:
    """A restart policy makes it anew, with what it wrote; memory that runs out is told."""
    script = "echo run >> /runs; wc -l < /runs; test $(wc -l < /runs) -ge 3"
    with _run(client, ["sh", "-c", script], restart_policy="on-failure:5") as container:
        record = container.wait(timeout=60)
        assert (record.exit_code, record.restarts) == (0, 2)
        assert container.logs() == "1\n2\n3\n"
    script = "x=a; while :; do x=$x$x; done"
    with _run(client, ["sh", "-c", script], mem_limit="8m", memswap_limit="8m") as container:
        record = container.wait(timeout=60)
        assert (record.oom_killed, record.signal) == (True, 9)


def test_limits_are_set_and_changed(client: Client) -> None:
    """In the group that is its own, while it runs."""
    name = "/sys/fs/cgroup/pids/pids.max" if Path("/sys/fs/cgroup/pids").is_dir() else "/sys/fs/cgroup/pids.max"
    with _run(client, _SLEEP, pids_limit=50, mem_limit="64m") as container:
        assert container.exec(["cat", name]).output == "50\n"
        container.update(pids_limit=60)
        assert container.exec(["cat", name]).output == "60\n"
        container.restart(timeout=0)
        assert container.exec(["cat", name]).output == "60\n"


def test_a_terminal_is_one_of_the_container(client: Client) -> None:
    """With a size that is changed, and job control."""
    with _run(client, ["sh"], tty=True, stdin_open=True) as container:
        with container.attach() as attachment:
            attachment.resize(31, 42)
            attachment.write(b"stty size; tty; exit 3\n")
            output = attachment.communicate(timeout=20)[0]
            assert b"31 42" in output
            assert b"/dev/pts/0" in output
        assert container.wait(timeout=20).exit_code == 3


def test_what_is_wrong_with_the_program_is_told(client: Client, tmp_path: Path) -> None:
    """Missing, not executable, no program: at the start and in an exec; nothing is left."""
    (tmp_path / "f").write_text("no program")
    for command, error in (
        ("nosuch", ExecutableNotFound),
        ("/no/such", ExecutableNotFound),
        ("/etc/passwd", ExecutableNotRunnable),
        ("/etc", ExecutableNotRunnable),
    ):
        with pytest.raises(error):
            _run(client, [command])
        with _run(client, _SLEEP) as container, pytest.raises(error):
            container.exec([command])
    with pytest.raises(StartFailed):
        _run(client, _SLEEP, sysctls={"kernel.nosuch": "1"})
    assert client.containers.list(all=True) == []


def _kill_shim(world: World, container: Container) -> None:
    shim = json.loads((world.run / container.id / "state.json").read_text())["shim"]
    os.kill(shim, signal.SIGKILL)
    assert settled(lambda: glob.glob(f"/proc/{shim}/exe")) == []


def test_a_killed_shim_leaves_nothing_that_stays(client: Client, world: World) -> None:
    """The container goes on, is stopped, started again, and removed."""
    container = _run(client, _SLEEP)
    _kill_shim(world, container)
    assert container.status == "running"
    container.kill()
    assert settled(lambda: [container.status] if container.status == "running" else []) == []
    container.start()
    assert container.exec(["echo", "again"]).output == "again\n"
    _kill_shim(world, container)
    container.remove(force=True)
    assert client.containers.list(all=True) == []


def test_it_is_the_runtime_that_was_asked_for(foreign: Client, world: World) -> None:
    """Its own command finds it, with the state that it has."""
    runtime = str(foreign._runtime)
    with _run(foreign, _SLEEP) as container:

        def state() -> str:
            words = [runtime, "--root", f"{world.run}/{container.id}/runtime/state", "state", container.id]
            done = subprocess.run(words, capture_output=True, check=True)
            return str(json.loads(done.stdout)["status"])

        assert state() == "running"
        container.pause()
        assert state() == "paused"
        container.unpause()
        assert state() == "running"
        assert container.attrs["HostConfig"]["Runtime"] == runtime
        container.stop(timeout=0)
        container.wait(condition="not-running")
        assert settled(lambda: glob.glob(f"{world.run}/{container.id}/runtime")) == []


def test_a_pool_takes_our_own(foreign: Client) -> None:
    """Others are told their program when they make the container."""
    with pytest.raises(Unsupported, match="runtime"):
        foreign.pool("busybox", _SLEEP).__enter__()


def test_user_namespaces_take_our_own(foreign: Client) -> None:
    """They are refused, not left out."""
    with pytest.raises(Unsupported, match="runtime"):
        _run(foreign, _SLEEP, userns_mode="auto")
    assert foreign.containers.list(all=True) == []


# -- asking for one ----------------------------------------------------------------------------------------------------


def test_a_runtime_that_is_not_there_is_refused(world: World) -> None:
    """By name and by path, at creation, and when it has gone since."""
    world.push("busybox")
    program = world.path / "own-runtime"
    program.symlink_to(engines.our_runtime())
    copy = world.path / "copy"
    copy.write_bytes(Path(engines.our_runtime()).read_bytes())
    copy.chmod(0o755)
    with Client() as client:
        for name in ("nosuch", "/no/such", "relative/path"):
            with pytest.raises(InvalidArgument, match=name):
                client.create("busybox", _SLEEP, runtime=name)
        assert client.containers.list(all=True) == []
        assert client.check_output("busybox", ["echo", "hi"], runtime=str(program)) == b"hi\n"
        container = client.create("busybox", _SLEEP, runtime=str(copy))
        copy.unlink()
        with pytest.raises(StartFailed, match="no such file"):
            container.start()
        container.remove()


def test_the_command_and_the_daemon_take_it_too(world: World) -> None:
    """`wherry run --runtime`, HostConfig.Runtime, /info's Runtimes, docker run --runtime."""
    engines.needed("runc", "docker")
    world.push("busybox")
    said = world.wherry("run", "--runtime", "runc", "--name", "one", "-d", "busybox", "sleep", "1000")
    assert said.returncode == 0, said.stderr
    with wherry.docker_host() as address, Client(host=address, runtime="runc") as client:
        assert client.containers.get("one").attrs["HostConfig"]["Runtime"] == "runc"
        with client.run("busybox", _SLEEP) as container:
            assert container.attrs["HostConfig"]["Runtime"] == "runc"
        docker = ["docker", "--host", address]
        shown = json.loads(
            subprocess.run([*docker, "info", "--format", "{{json .Runtimes}}"], capture_output=True, check=False).stdout
        )
        assert shown["runc"]["path"].endswith("/runc")
        assert "wherry" in shown
        done = subprocess.run(
            [*docker, "run", "--rm", "--runtime", "runc", "busybox", "echo", "hi"], capture_output=True, check=False
        )
        assert (done.stdout, done.returncode) == (b"hi\n", 0), done.stderr
        done = subprocess.run(
            [*docker, "run", "--rm", "--runtime", "nosuch", "busybox"], capture_output=True, check=False
        )
        assert (b"unknown or invalid runtime name" in done.stderr, done.returncode) == (True, 125)
        client.containers.get("one").remove(force=True)


def test_a_container_may_have_another_than_its_client(world: World) -> None:
    """`run(runtime=)` before `Client(runtime=)`, and none is needed for the default."""
    world.push("busybox")
    with Client(runtime="nosuch") as client:
        assert client.check_output("busybox", ["echo", "hi"], runtime="wherry", network="none") == b"hi\n"
        with pytest.raises(InvalidArgument):
            _run(client, _SLEEP)
        with pytest.raises(Conflict):
            client.create("busybox", _SLEEP, runtime="wherry").wait(timeout=1)
