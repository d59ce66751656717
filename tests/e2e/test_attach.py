"""A container's own streams, and execs step by step, by whoever knows the id."""

import pytest

from support.leftovers import settled
from wherry import Client
from wherry.errors import Conflict, ExecNotFound, NotRunning

pytestmark = pytest.mark.e2e


def test_one_who_attaches_before_the_start_misses_nothing(client: Client) -> None:
    """Not even of what ends at once and removes itself; several may do so, and one who left is no trouble."""
    made = client.create("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"], network="none", auto_remove=True)
    with made.attach() as one, made.attach() as other, made.attach() as gone:
        gone.close()
        with pytest.raises(TimeoutError):
            one.read(timeout=0.01)
        made.start()
        for attachment in (one, other):
            assert attachment.communicate(timeout=30) == (b"out\n", b"err\n")
            assert attachment.exit_code == 3
    client._engine.wait(made.id, gone=True)


def test_input_goes_in_and_leaving_lets_it_go_on(client: Client) -> None:
    """Attached while it runs, with what was written before."""
    with client.run("busybox", ["sh", "-c", "echo first; cat"], network="none", stdin_open=True) as container:
        assert settled(lambda: [] if "first" in container.logs() else ["early"]) == []
        with container.attach(logs=True) as attachment:
            attachment.write(b"hello\n")
            got = b""
            while got != b"first\nhello\n":
                piece = attachment.read(30)
                assert piece is not None
                got += piece[1]
        assert container.status == "running"
        with container.attach() as attachment:
            attachment.close_stdin()
            assert attachment.wait(30) == 0
        assert container.wait(30).exit_code == 0


def test_an_exec_goes_step_by_step(client: Client) -> None:
    """Made, looked at, started once, looked at, ended, looked at; its container tells of those that run."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        made = container.exec_create(["sh", "-c", "read line; exit 7"], stdin=True, user="1000")
        attrs = client.get_exec(made.id).attrs
        assert (attrs["Running"], attrs["ExitCode"], attrs["Pid"]) == (False, None, 0)
        assert attrs["ProcessConfig"] == {
            "tty": False,
            "entrypoint": "sh",
            "arguments": ["-c", "read line; exit 7"],
            "privileged": False,
            "user": "1000",
        }
        assert attrs["ContainerID"] == container.id
        with client.get_exec(made.id).start() as process:
            attrs = made.attrs
            assert (attrs["Running"], attrs["ExitCode"], attrs["Pid"]) == (True, None, process.pid)
            assert container.attrs["ExecIDs"] == [made.id]
            with pytest.raises(Conflict, match="started before"):
                made.start()
            process.write(b"line\n")
            assert process.wait(30) == 7
        assert (made.running, made.exit_code) == (False, 7)
        assert container.attrs["ExecIDs"] is None
        with pytest.raises(Conflict, match="does not run"):
            made.resize(10, 20)


def test_an_exec_that_nobody_watches_goes_on_to_its_end(client: Client) -> None:
    """Started and let go of."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        made = container.exec_create(["sh", "-c", "echo much; exit 9"])
        made.start().close()
        assert settled(lambda: [] if made.exit_code == 9 else ["it runs"]) == []


def test_an_exec_has_a_terminal_of_a_given_size(client: Client) -> None:
    """Resized by its id alone."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        made = container.exec_create(["sh", "-c", "read go; stty size"], tty=True, stdin=True)
        with made.start() as process:
            made.resize(33, 99)
            process.write(b"\n")
            out, _ = process.communicate(timeout=30)
        assert b"33 99" in out


def test_an_exec_is_made_only_in_what_runs_and_ends_with_it(client: Client) -> None:
    """Paused, stopped, started again: the id is nobody's then."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        made = container.exec_create("true")
        container.pause()
        with pytest.raises(Conflict, match="paused"):
            container.exec_create("true")
        container.unpause()
        container.stop(timeout=0)
        with pytest.raises(NotRunning):
            container.exec_create("true")
        with pytest.raises(ExecNotFound):
            _ = made.attrs
        container.start()
        with pytest.raises(ExecNotFound):
            made.start()
    with pytest.raises(ExecNotFound):
        client.get_exec("../../x")


def test_inspect_tells_all_that_docker_tells(client: Client) -> None:
    """The fields of Engine API 1.51, whether it runs or not."""
    check = {"test": ["CMD", "true"], "interval": "30s"}
    with client.run("busybox", "sleep 1000", volumes=["/data"], healthcheck=check, mem_limit="64m") as container:
        attrs = container.attrs
        assert attrs["GraphDriver"]["Data"]["UpperDir"].endswith("/upper")
        assert attrs["GraphDriver"]["Data"]["LowerDir"]
        assert attrs["Config"]["Healthcheck"]["Test"] == ["CMD", "true"]
        assert attrs["Config"]["Volumes"] == {"/data": {}}
        assert attrs["HostConfig"]["MemorySwap"] == 128 << 20
        assert attrs["HostConfig"]["MaskedPaths"]
        assert attrs["NetworkSettings"]["SandboxKey"] == f"/proc/{container.pid}/ns/net"
        container.stop(timeout=0)
        stopped = container.attrs
    assert {key for key in attrs if key not in stopped} == set()
    assert attrs.keys() >= set(
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver "
        "Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config "
        "NetworkSettings".split()
    )
