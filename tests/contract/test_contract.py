"""What `Client` promises, whichever engine does the work."""

import io
import pickle
import tarfile
import threading
import time
from pathlib import Path

import pytest

from support.leftovers import settled
from wherry import Client, Exec, File, LogLine, Port
from wherry.errors import (
    CommandFailed,
    Conflict,
    ContainerError,
    ContainerNotFound,
    ExecutableNotFound,
    InvalidArgument,
    NameInUse,
    NetworkNotFound,
    NotFound,
    NotHealthy,
    NotReady,
    NotRunning,
    VolumeInUse,
    VolumeNotFound,
)
from wherry_images.errors import ImageNotFound

pytestmark = pytest.mark.e2e

_SLEEP = "sleep 1000"


# -- running -----------------------------------------------------------------------------------------------------------


def test_output_is_what_the_program_wrote(engine: Client) -> None:
    """To its end, stdout alone, and nothing is left."""
    assert engine.check_output("busybox", ["sh", "-c", "echo out; echo err >&2"]) == b"out\n"
    assert engine.containers.list(all=True) == []


def test_a_failure_carries_code_and_output(engine: Client) -> None:
    """As subprocess does."""
    with pytest.raises(ContainerError) as raised:
        engine.check_output("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (raised.value.exit_code, raised.value.stdout, raised.value.stderr) == (3, b"out\n", b"err\n")
    assert engine.containers.list(all=True) == []


def test_a_container_goes_through_its_life(engine: Client) -> None:
    """Created, running, paused, exited, started again, removed; by name, id and prefix."""
    container = engine.create("busybox", _SLEEP, name="life", labels={"a": "b"})
    assert (container.status, container.name, container.image) == ("created", "life", "busybox")
    assert (container.pid, container.exit, dict(container.labels)["a"]) == (0, None, "b")
    container.start()
    assert container.status == "running"
    assert container.pid > 1
    container.pause()
    assert container.status == "paused"
    container.unpause()
    container.stop(timeout=0)
    assert container.status == "exited"
    assert container.exit is not None
    assert (container.exit.exit_code, container.exit.signal) == (137, 9)
    assert container.exit.started < container.exit.finished
    container.restart(timeout=0)
    assert container.status == "running"
    container.rename("other")
    for name in ("other", container.id, container.short_id):
        assert engine.containers.get(name) == container
    with pytest.raises(Conflict):
        container.remove()
    container.remove(force=True)
    with pytest.raises(ContainerNotFound):
        container.status  # noqa: B018 # for its error


def test_the_end_is_waited_for(engine: Client) -> None:
    """With its code; in time, or TimeoutError; the next end, and the removal."""
    with engine.run("busybox", ["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"]) as container:
        with pytest.raises(TimeoutError):
            container.wait(timeout=0.3)
        container.kill("SIGTERM")
        assert container.wait(timeout=20).exit_code == 5
    with engine.run("busybox", "sleep 0.3", auto_remove=True) as container:
        container.wait(timeout=20, condition="removed")
        with pytest.raises(ContainerNotFound):
            engine.containers.get(container.id)


def test_one_that_never_started_cannot_be_waited_for(engine: Client) -> None:
    """It would be for ever."""
    with pytest.raises(Conflict):
        engine.create("busybox", _SLEEP).wait(timeout=10)


def test_options_arrive(engine: Client, tmp_path: Path) -> None:
    """Environment, user, directory, host's name, entry point, read-only root, memory, capabilities, init, tmpfs."""
    (tmp_path / "f").write_text("from the host")
    script = (
        "echo $A; id -g; pwd; hostname; cat /host/f; touch /x 2>/dev/null || echo ro; touch /t/x && echo tmpfs; "
        "grep -c . /proc/1/comm; (touch /host/g) 2>/dev/null || echo ro"
    )
    output = engine.check_output(
        "busybox",
        [script],
        entrypoint=["sh", "-c"],
        environment={"A": "b c"},
        user="0:1000",
        working_dir="/proc",
        hostname="named",
        read_only=True,
        tmpfs={"/t": "mode=1777"},
        volumes={str(tmp_path): {"bind": "/host", "mode": "ro"}},
        mem_limit="64m",
        cap_drop=["ALL"],
        init=True,
        network="none",
    )
    assert output.decode().splitlines() == ["b c", "1000", "/proc", "named", "from the hostro", "tmpfs", "1", "ro"]
    with engine.create("busybox", _SLEEP, mem_limit="64m", cap_drop=["ALL"], restart_policy="on-failure:3") as made:
        host = made.attrs["HostConfig"]
        assert (host["Memory"], host["RestartPolicy"]["Name"]) == (64 << 20, "on-failure")
        assert [name.removeprefix("CAP_") for name in host["CapDrop"]] == ["ALL"]
        made.update(mem_limit="128m", memswap_limit="256m")
        assert made.attrs["HostConfig"]["Memory"] == 128 << 20


def test_what_cannot_be_is_refused(engine: Client) -> None:
    """By the same errors, and nothing is left."""
    with pytest.raises(ImageNotFound):
        engine.run("nosuch", pull="never")
    with pytest.raises(ExecutableNotFound):
        engine.run("busybox", "nosuch")
    with pytest.raises(InvalidArgument):
        engine.run("busybox", _SLEEP, mem_limit="1k")
    with pytest.raises(TypeError, match="did you mean"):
        engine.run("busybox", _SLEEP, volume={})  # type: ignore[call-arg] # that is what is tried
    with pytest.raises((InvalidArgument, NotFound)):
        engine.run("busybox", _SLEEP, volumes={"/no/such/path": "/data"})
    assert engine.containers.list(all=True) == []
    with engine.create("busybox", _SLEEP, name="taken") as first:
        with pytest.raises(NameInUse) as raised:
            engine.create("busybox", _SLEEP, name="taken")
        assert (raised.value.name, raised.value.container_id) == ("taken", first.id)


def test_lists_are_filtered(engine: Client) -> None:
    """Running ones alone unless all are asked for; by label, name, status; the newest first."""
    first = engine.create("busybox", _SLEEP, name="one", labels={"k": "1"})
    second = engine.run("busybox", _SLEEP, name="two", labels={"k": "2"})
    assert engine.containers.list() == [second]
    assert engine.containers.list(all=True) == [second, first]
    assert engine.containers.list(all=True, filters={"label": "k=1"}) == [first]
    assert engine.containers.list(filters={"name": "two", "status": "running"}) == [second]
    assert engine.containers.list(all=True, limit=1) == [second]
    assert engine.containers.prune() == [first.id]


def test_handles_are_pickled(engine: Client) -> None:
    """They are an id, and where the engine is."""
    with engine.run("busybox", _SLEEP) as container:
        again = pickle.loads(pickle.dumps(container))
        assert (again, again.status) == (container, "running")
        assert pickle.loads(pickle.dumps(engine)).containers.list() == [container]


# -- output ------------------------------------------------------------------------------------------------------------


def test_logs_are_whole(engine: Client) -> None:
    """Both streams in order, or one; the end of it; with times, since and until."""
    script = "for i in 1 2 3; do echo out$i; sleep 0.02; echo err$i >&2; sleep 0.02; done; printf rest"
    with engine.run("busybox", ["sh", "-c", script]) as container:
        container.wait(timeout=20)
        assert container.logs() == "out1\nerr1\nout2\nerr2\nout3\nerr3\nrest"
        assert container.logs(stderr=False) == "out1\nout2\nout3\nrest"
        assert container.logs(tail=2) == "err3\nrest"
        assert container.output(stdout=False) == b"err1\nerr2\nerr3\n"
        stamped = container.logs(timestamps=True).splitlines()
        assert [line.partition(" ")[2] for line in stamped][:2] == ["out1", "err1"]
        lines = list(container.logs(follow=True))
        assert [(line, line.stream) for line in lines[:2]] == [("out1", "stdout"), ("err1", "stderr")]
        assert lines == sorted(lines, key=lambda line: line.time)
        # A log is kept to the nanosecond, and a time as a float is not.
        middle = (lines[2].time + lines[3].time) / 2e9
        assert container.logs(since=middle) == "err2\nout3\nerr3\nrest"
        assert container.logs(until=middle) == "out1\nerr1\nout2\n"


def test_logs_are_followed_to_the_end(engine: Client) -> None:
    """Each line as it comes, also one that is long."""
    script = "for i in 1 2 3; do echo $i; sleep 0.1; done; head -c 40000 /dev/zero | tr '\\0' x; echo"
    with engine.run("busybox", ["sh", "-c", script]) as container:
        assert list(container.logs(follow=True)) == ["1", "2", "3", "x" * 40_000]


def test_a_terminal_has_one_stream(engine: Client) -> None:
    """Without frames."""
    with engine.run("busybox", ["sh", "-c", "echo out; echo err >&2"], tty=True) as container:
        container.wait(timeout=20)
        assert container.output() == b"out\r\nerr\r\n"


def test_attached_streams_go_both_ways(engine: Client) -> None:
    """From before the start; stdin to its end; the exit code."""
    container = engine.create("busybox", ["sh", "-c", "cat; echo end >&2; exit 4"], stdin_open=True)
    with container.attach() as attachment:
        container.start()
        attachment.write(b"hello\n")
        assert attachment.read(timeout=20) == ("stdout", b"hello\n")
        attachment.close_stdin()
        assert attachment.communicate(timeout=20) == (b"", b"end\n")
        assert attachment.exit_code == 4


# -- processes ---------------------------------------------------------------------------------------------------------


def test_an_exec_has_streams_and_a_code(engine: Client) -> None:
    """Apart, with input, environment, user and directory; check= raises."""
    with engine.run("busybox", _SLEEP) as container:
        done = container.exec(["sh", "-c", "cat; echo $A; id -u; pwd; echo err >&2; exit 7"], input=b"in\n")
        assert (done.exit_code, done.stdout, done.stderr) == (7, b"in\n\n0\n/\n", b"err\n")
        done = container.exec(
            ["sh", "-c", "echo $A; id -u; pwd"], environment={"A": "b"}, user=1000, working_dir="/proc"
        )
        assert done.stdout == b"b\n1000\n/proc\n"
        with pytest.raises(CommandFailed) as raised:
            container.exec(["sh", "-c", "echo no >&2; exit 2"], check=True)
        assert (raised.value.exit_code, raised.value.stderr) == (2, b"no\n")
        big = container.exec(["cat"], input=b"x" * 3_000_000)
        assert big.stdout == b"x" * 3_000_000


def test_an_exec_that_cannot_be_started(engine: Client) -> None:
    """No such program; a container that does not run, or is paused."""
    container = engine.create("busybox", _SLEEP)
    with pytest.raises(NotRunning):
        container.exec("true")
    container.start()
    with pytest.raises(ExecutableNotFound):
        container.exec("nosuch")
    container.pause()
    with pytest.raises(Conflict):
        container.exec("true")
    container.unpause()


def test_an_exec_step_by_step(engine: Client) -> None:
    """Made, looked at, started, ended."""
    with engine.run("busybox", _SLEEP) as container:
        made = container.exec_create(["sh", "-c", "stty size; read line; exit $line"], tty=True, stdin=True)
        assert (made.running, made.exit_code) == (False, None) or made.attrs["ExitCode"] is None
        with made.start() as process:
            made.resize(33, 44)
            process.write(b"9\n")
            process.communicate(timeout=20)
        assert process.exit_code == 9
        assert engine.get_exec(made.id).exit_code == 9


def test_processes_are_listed_and_measured(engine: Client) -> None:
    """top and stats."""
    with engine.run("busybox", _SLEEP) as container:
        table = container.top()
        assert table["Titles"][:2] == ["UID", "PID"]
        assert [row[-1] for row in table["Processes"]] == ["sleep 1000"]
        sample = container.stats(stream=False)
        assert (sample.pids, sample.memory_usage > 0, sample["name"]) == (1, True, f"/{container.name}")
        stream = container.stats()
        assert [next(stream).pids, next(stream).pids] == [1, 1]
        stream.close()  # type: ignore[attr-defined] # both are generators


# -- readiness -------------------------------------------------------------------------------------------------------


def test_readiness_is_waited_for(engine: Client) -> None:
    """A line, a file, a port, a command; one after the other."""
    script = "sleep 0.2; echo ready; touch /f; exec nc -l -p 8080"
    wanted = [LogLine("^ready"), File("/f"), Port(8080), Exec("test -e /f"), lambda one: one.status == "running"]
    with engine.run("busybox", ["sh", "-c", script], wait_for=wanted) as container:
        assert container.status == "running"


def test_an_end_before_readiness_is_told(engine: Client) -> None:
    """At once, with what it said."""
    with pytest.raises(NotReady, match="cannot go on"):
        engine.run("busybox", ["sh", "-c", "echo cannot go on; exit 1"], wait_for=LogLine("ready"), wait_timeout=60)
    assert engine.containers.list(all=True) == []
    with engine.run("busybox", _SLEEP) as container, pytest.raises(TimeoutError):
        container.wait_for(File("/nosuch"), timeout=0.3)


def test_health_is_waited_for(engine: Client) -> None:
    """Healthy, unhealthy, or nothing that checks."""
    check = {"test": ["CMD", "test", "-e", "/f"], "interval": 200_000_000, "retries": 1, "start_period": 0}
    with engine.run(
        "busybox", ["sh", "-c", "sleep 0.3; touch /f; sleep 1000"], healthcheck=check | {"retries": 50}
    ) as one:
        one.wait_healthy(timeout=30)
        assert one.health == "healthy"
    with engine.run("busybox", _SLEEP, healthcheck=check) as one, pytest.raises(NotHealthy):
        one.wait_healthy(timeout=30)
    with engine.run("busybox", _SLEEP) as one, pytest.raises(InvalidArgument):
        one.wait_healthy(timeout=30)


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_are_read_and_written(engine: Client) -> None:
    """By paths; running or not."""
    with engine.create("busybox", _SLEEP) as container:
        path = container.path("/etc/added")
        assert not path.exists()
        path.write_text("hello")
        assert (path.read_text(), path.is_file(), path.stat().st_size) == ("hello", True, 5)
        container.path("/a/b").mkdir(parents=True)
        assert container.path("/a").is_dir()
        assert [one.name for one in container.path("/a").iterdir()] == ["b"]
        with pytest.raises(NotFound):
            container.path("/nosuch").read_bytes()
        assert {(change.kind, change.path) for change in container.diff()} >= {
            ("added", "/etc/added"),
            ("added", "/a/b"),
        }
        assert container.size >= 5


def test_archives_go_both_ways(engine: Client) -> None:
    """As tars, and the whole file system, too."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("one")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    with engine.create("busybox", _SLEEP) as container:
        container.put_archive("/tmp", buffer.getvalue())
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive("/tmp/one")))) as archive:
            file = archive.extractfile("one")
            assert file is not None
            assert file.read() == b"abc"
        with pytest.raises(NotFound):
            list(container.get_archive("/nosuch"))
        with pytest.raises(NotFound):
            container.put_archive("/nosuch", buffer.getvalue())
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
            assert {"bin/busybox", "tmp/one"} <= {name.removeprefix("./") for name in archive.getnames()}


# -- images ------------------------------------------------------------------------------------------------------------


def test_images_are_described_tagged_and_removed(engine: Client) -> None:
    """By name and id."""
    image = engine.images.get("busybox")
    assert (image.tags, image.config.cmd, image.platform.os) == (("busybox:latest",), ("sh",), "linux")
    assert len(image.diff_ids) == 1
    assert image.size > 1_000_000
    assert [one.id for one in engine.images.list()] == [image.id]
    assert engine.images.tag("busybox", "localhost:5000/other:1").id == image.id
    assert engine.images.get("localhost:5000/other:1").id == image.id
    assert engine.images.remove("localhost:5000/other:1") == ["untagged: localhost:5000/other:1"]
    with pytest.raises(ImageNotFound):
        engine.images.get("localhost:5000/other:1")
    with engine.create("busybox", _SLEEP), pytest.raises(Conflict):
        engine.images.remove("busybox")


def test_images_are_committed_saved_loaded_and_imported(engine: Client, tmp_path: Path) -> None:
    """What a container changed becomes an image that goes away and comes back."""
    with engine.create("busybox", _SLEEP) as container:
        container.path("/added").write_text("kept")
        image = container.commit("made:1", config={"Cmd": ["cat", "/added"]}, message="why")
        root = tmp_path / "root.tar"
        root.write_bytes(b"".join(container.export()))
    assert engine.check_output("made:1") == b"kept"
    archive = tmp_path / "made.tar"
    archive.write_bytes(b"".join(engine.images.save("made:1")))
    engine.images.remove("made:1")
    assert [one.id for one in engine.images.load(archive)] == [image.id]
    assert engine.check_output("made:1") == b"kept"
    imported = engine.images.import_(root, "flat:1", config={"Cmd": ["cat", "/added"]})
    assert (imported.tags, engine.check_output("flat:1")) == (("flat:1",), b"kept")


# -- networks and volumes ----------------------------------------------------------------------------------------------


def test_networks_are_made_joined_and_left(engine: Client) -> None:
    """Names are found on them."""
    network = engine.networks.create("net", subnet="10.83.0.0/24", labels={"a": "b"})
    assert (network.name, dict(network.labels)) == ("net", {"a": "b"})
    assert network.attrs["IPAM"]["Config"][0]["Subnet"] == "10.83.0.0/24"
    assert [one.name for one in engine.networks.list(filters={"label": "a=b"})] == ["net"]
    web = engine.run("busybox", _SLEEP, name="web", network="net")
    assert web.ip.startswith("10.83.0.")
    assert engine.check_output("busybox", "ping -c 1 -w 10 web", network="net").startswith(b"PING web (10.83.0.")
    other = engine.run("busybox", _SLEEP)
    network.connect(other, aliases=["second"], ipv4_address="10.83.0.77")
    assert other.attrs["NetworkSettings"]["Networks"]["net"]["IPAddress"] == "10.83.0.77"
    assert web.exec("ping -c 1 -w 10 second").exit_code == 0
    assert {one.id for one in network.containers} == {web.id, other.id}
    network.disconnect(other)
    with pytest.raises(Conflict):
        network.remove()
    web.remove(force=True)
    network.remove()
    with pytest.raises(NetworkNotFound):
        engine.networks.get("net")


def test_several_networks_at_once(engine: Client) -> None:
    """Each with its alias, from the start."""
    for name in ("n1", "n2"):
        engine.networks.create(name)
    with engine.run("busybox", _SLEEP, networks={"n1": {"aliases": ["a1"]}, "n2": {"aliases": ["a2"]}}) as container:
        places = container.attrs["NetworkSettings"]["Networks"]
        assert sorted(places) == ["n1", "n2"]
        assert {"a1"} <= set(places["n1"]["Aliases"])
        assert {"a2"} <= set(places["n2"]["Aliases"])


def test_ports_are_published(engine: Client) -> None:
    """At a port of the host's choice."""
    with engine.run("busybox", _SLEEP, ports={80: None, "53/udp": None}) as container:
        assert 1024 < container.port(80) < 65536
        assert container.ports["53/udp"][0]["HostPort"] == str(container.port("53/udp"))
        with pytest.raises(NotFound):
            container.port(81)


def test_volumes_keep_what_is_written(engine: Client) -> None:
    """Past their containers; those without a name go with theirs."""
    volume = engine.volumes.create("kept", labels={"a": "b"})
    assert (volume.name, dict(volume.labels), volume.attrs["Driver"]) == ("kept", {"a": "b"}, "local")
    engine.check_output("busybox", ["sh", "-c", "echo data > /v/f"], volumes={"kept": "/v"})
    assert engine.check_output("busybox", "cat /v/f", volumes=["kept:/v:ro"]) == b"data\n"
    with engine.create("busybox", _SLEEP, volumes=["kept:/v", "/anonymous"]) as container:
        assert list(volume.containers) == [container.id]
        assert len(engine.volumes.list()) == 2
        with pytest.raises(VolumeInUse):
            volume.remove()
    assert engine.volumes.list() == [volume]
    assert engine.volumes.list(filters={"label": "a=c"}) == []
    volume.remove()
    with pytest.raises(VolumeNotFound):
        engine.volumes.get("kept")
    engine.volumes.create()
    assert len(engine.volumes.prune({"all": True}).names) == 1


# -- the engine --------------------------------------------------------------------------------------------------------


def test_events_tell_what_happens(engine: Client) -> None:
    """From here on, and what was, by filters; the stream can be closed from elsewhere."""
    begin = time.time() - 1
    with engine.events(filters={"type": "container", "event": ["create", "start", "die"]}) as stream:
        with engine.run("busybox", "true", name="told") as container:
            container.wait(timeout=20)
        found = [next(stream) for _ in range(3)]
        closer = threading.Timer(0.2, stream.close)
        closer.start()
        assert list(stream) == []
        closer.join()
    assert [(one["Action"], one["Actor"]["ID"]) for one in found] == [
        (action, container.id) for action in ("create", "start", "die")
    ]
    assert found[2]["Actor"]["Attributes"]["exitCode"] == "0"

    def told() -> list[str]:
        with engine.events(since=begin, filters={"container": container.id}, follow=False) as past:
            seen = [one["Action"] for one in past]
        return [] if {"create", "start", "die", "destroy"} <= set(seen) else seen or ["nothing"]

    assert settled(told) == []


def test_the_engine_tells_its_version(engine: Client) -> None:
    """Something of each."""
    version = engine.version()
    assert version["Os"] == "linux"
    assert version["Version"]
