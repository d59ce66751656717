"""Containers through the Python face, on the real kernel."""

import os
import pickle
import time
from pathlib import Path

import pytest

from support.leftovers import settled
from support.world import World
from wherry import Client
from wherry.container import Container
from wherry.errors import (
    AlreadyExists,
    CommandFailed,
    Conflict,
    ContainerError,
    ContainerNotFound,
    InvalidArgument,
    NotRunning,
    Unsupported,
)
from wherry.local import LocalEngine
from wherry.state import State

pytestmark = pytest.mark.e2e


def test_check_output_returns_what_the_program_wrote_to_stdout(client: Client) -> None:
    """Both streams are kept apart."""
    assert client.check_output("busybox", "sh -c 'echo out; echo err >&2'", network="none") == b"out\n"


def test_check_output_of_a_failing_program_carries_everything(client: Client) -> None:
    """Exit code, both streams and the command are in the error, and the container is gone."""
    with pytest.raises(ContainerError) as caught:
        client.check_output("busybox", ["sh", "-c", "echo out; echo why >&2; exit 7"], network="none")
    error = caught.value
    assert (error.exit_code, error.stdout, error.stderr) == (7, b"out\n", b"why\n")
    assert error.command == ("sh", "-c", "echo out; echo why >&2; exit 7")
    assert "why" in str(error)
    assert client.containers.list(all=True) == []


def test_check_output_that_takes_too_long_is_ended(client: Client) -> None:
    """The container does not outlive the TimeoutError."""
    with pytest.raises(TimeoutError):
        client.check_output("busybox", "sleep 100", network="none", timeout=0.2)
    assert client.containers.list(all=True) == []


def test_a_container_has_its_whole_life_told_truly(client: Client) -> None:
    """created, running, paused, exited: each as soon as it is so."""
    container = client.create("busybox", "sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.01; done'", network="none")
    assert container.status == "created"
    container.start()
    assert container.status == "running"
    assert container.pid > 0
    container.pause()
    assert container.status == "paused"
    with pytest.raises(Conflict):
        container.exec("true")
    container.unpause()
    assert container.status == "running"
    container.stop()
    assert container.status == "exited"
    assert container.wait().exit_code == 5
    container.start()
    assert container.status == "running"
    with pytest.raises(Conflict):
        container.remove()
    container.kill()
    ended = container.wait()
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (137, 9, False)
    container.remove()
    with pytest.raises(ContainerNotFound):
        client.containers.get(container.id)


def test_a_context_manager_removes_what_it_holds(client: Client) -> None:
    """Running or not, and even if it removed itself."""
    with client.run("busybox", "sleep 100", network="none") as container:
        assert client.containers.list() == [container]
    assert client.containers.list(all=True) == []
    with client.run("busybox", "true", network="none", auto_remove=True) as container:
        container.wait()


def test_stop_kills_what_does_not_listen(client: Client) -> None:
    """Process 1 ignores signals without a handler; the timeout ends that."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        container.stop(timeout=0.1)
        assert container.wait().signal == 9


def test_init_reaps_and_passes_signals_on(client: Client) -> None:
    """With init=True a program that handles nothing ends by SIGTERM at once, and orphans are reaped."""
    script = "for i in 1 2 3; do (sleep 0 & ); done; sleep 0.2; ps; exec sleep 1000"
    with client.run("busybox", ["sh", "-c", script], network="none", init=True) as container:
        lines = container.logs(follow=True)
        seen = [next(lines) for _ in range(4)]
        lines.close()
        assert not [line for line in seen if "[sleep]" in line]
        container.stop(timeout=30)
        assert container.wait().exit_code == 143


def test_names_are_unique_until_they_are_free_again(client: Client) -> None:
    """A name in use is an error that tells by whom; a removed container's name can be used at once."""
    with client.create("busybox", "true", name="one", network="none") as first:
        with pytest.raises(AlreadyExists, match=first.short_id):
            client.create("busybox", "true", name="one", network="none")
        assert client.containers.get("one") == first
        assert client.containers.get(first.id[:5]) == first
    with client.create("busybox", "true", name="one", network="none"):
        pass


def test_logs_are_whole_lines_of_both_streams_in_order(client: Client) -> None:
    """tail, one stream, timestamps, and follow, which ends exactly at the end."""
    script = "echo a; echo b >&2; printf c; sleep 0.05; echo d; printf e"
    container = client.run("busybox", ["sh", "-c", script], network="none")
    lines = list(container.logs(follow=True))
    assert [(line, line.stream) for line in lines] == [
        ("a", "stdout"),
        ("b", "stderr"),
        ("cd", "stdout"),
        ("e", "stdout"),
    ]
    assert container.logs() == "a\nb\ncd\ne"
    assert container.logs(tail=2) == "cd\ne"
    assert container.logs(tail=0) == ""
    assert container.logs(stdout=False) == "b\n"
    assert container.logs(timestamps=True).splitlines()[0][10:11] == "T"
    assert container.logs(since=time.time() + 10) == ""
    assert container.logs(until=1) == ""
    assert container.output(stderr=False) == b"a\ncd\ne"


def test_much_output_is_all_there(client: Client) -> None:
    """20 MB through the log, byte for byte."""
    with client.run("busybox", ["sh", "-c", "yes 0123456789 | head -c 20000000"], network="none") as container:
        container.wait(60)
        output = container.output()
    assert len(output) == 20_000_000
    assert output == (b"0123456789\n" * 1_818_182)[:20_000_000]


def test_exec_gives_exit_code_and_both_streams(client: Client) -> None:
    """With input, user, environment and directory; empty is b''."""
    with client.run("busybox", "sleep 1000", network="none", environment={"A": "1"}) as container:
        result = container.exec(
            ["sh", "-c", "cat; echo $A $B $(pwd) $(id -u) >&2; exit 3"],
            input=b"in",
            environment={"B": "2"},
            working_dir="/tmp",
            user="1000:1000",
        )
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"in", b"1 2 /tmp 1000\n")
        assert container.exec("true").stdout == b""
        with pytest.raises(CommandFailed, match="exit code 4"):
            container.exec("sh -c 'exit 4'", check=True)


def test_no_output_of_a_short_exec_is_lost(client: Client) -> None:
    """300 times: a helper's word of who it started may come after that one's own."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        for number in range(300):
            assert container.exec(["echo", str(number)]).output == f"{number}\n"


def test_exec_of_what_is_not_there_says_so(client: Client) -> None:
    """Not found, not executable, no such user: each is its own error, and the container goes on."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        with pytest.raises(Exception, match='"nope": executable file not found') as caught:
            container.exec("nope")
        assert getattr(caught.value, "exit_code", None) == 127
        with pytest.raises(Exception, match="permission denied") as caught:
            container.exec("/etc/passwd")
        assert getattr(caught.value, "exit_code", None) == 126
        with pytest.raises(Exception, match="no user 'who'"):
            container.exec("true", user="who")
        assert container.status == "running"


def test_exec_that_takes_too_long_is_killed(client: Client) -> None:
    """What it wrote until then is in the error."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        with pytest.raises(TimeoutError) as caught:
            container.exec(["sh", "-c", "echo first; exec sleep 500"], timeout=0.3)
        assert caught.value.stdout == b"first\n"  # type: ignore[attr-defined]
        assert settled(lambda: [line for line in container.exec("ps").output.splitlines() if "500" in line]) == []


def test_a_program_that_writes_as_it_reads_does_not_stall_communicate(client: Client) -> None:
    """8 MB through cat and back."""
    content = os.urandom(1 << 20) * 8
    with client.run("busybox", "sleep 1000", network="none") as container:
        assert container.exec("cat", input=content).stdout == content


def test_popen_talks_with_a_program(client: Client) -> None:
    """Write, read, end its input, wait."""
    with (
        client.run("busybox", "sleep 1000", network="none") as container,
        container.popen("sh -c 'while read x; do echo got $x; done; exit 9'", stdin=True) as process,
    ):
        process.write(b"one\n")
        assert process.read(10) == ("stdout", b"got one\n")
        with pytest.raises(TimeoutError):
            process.read(0.05)
        process.close_stdin()
        assert process.wait(10) == 9


def test_an_exec_that_ends_with_its_container_is_told_so(client: Client) -> None:
    """The end of process 1 takes all with it; nobody waits for ever."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        process = container.popen("sleep 1000")
        container.kill()
        assert process.wait(30) == 137
        process.close()
    with pytest.raises(ContainerNotFound):
        container.exec("true")


def test_what_a_container_is_told_it_has(client: Client, tmp_path: Path) -> None:
    """Hostname, user, environment, directory, binds, tmpfs, read-only root, labels."""
    (tmp_path / "given").write_text("from the host\n")
    tmp_path.chmod(0o755)
    script = (
        "hostname; id -u; id -G; echo $X; pwd; cat /bind/given; touch /scratch/x && echo scratch; touch /x || echo ro"
    )
    output = client.check_output(
        "busybox",
        ["sh", "-c", script],
        network="none",
        hostname="boat",
        user="12:34",
        group_add=["56"],
        environment=["X=y"],
        working_dir="/made/for/it",
        volumes={str(tmp_path): {"bind": "/bind", "mode": "ro"}},
        tmpfs={"/scratch": "size=1m"},
        read_only=True,
    ).decode()
    assert output.splitlines() == ["boat", "12", "34 56", "y", "/made/for/it", "from the host", "scratch", "ro"]


def test_a_bind_may_be_written_and_a_read_only_one_may_not(client: Client, tmp_path: Path) -> None:
    """The same source twice, once to be written."""
    script = "echo there > /rw/file; echo no > /ro/file || echo refused"
    binds = [f"{tmp_path}:/rw", f"{tmp_path}:/ro:ro"]
    assert client.check_output("busybox", ["sh", "-c", script], network="none", volumes=binds) == b"refused\n"
    assert (tmp_path / "file").read_text() == "there\n"


def test_limits_hold(client: Client) -> None:
    """Memory kills, pids refuse, and the exit record tells of the first."""
    with client.run("busybox", "sh -c 'x=a; while :; do x=$x$x; done'", network="none", mem_limit="16m") as hungry:
        ended = hungry.wait(60)
        assert (ended.exit_code, ended.oom_killed) == (137, True)
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all"
    with client.run("busybox", ["sh", "-c", script], network="none", pids_limit=4) as crowd:
        assert crowd.wait(60).exit_code != 0
        assert "can't fork" in crowd.logs()


def test_a_limit_of_one_process_is_one_process(client: Client) -> None:
    """The shim does not count."""
    assert client.check_output("busybox", "echo alone", network="none", pids_limit=1) == b"alone\n"


def test_capabilities_are_dockers_and_can_be_changed(client: Client) -> None:
    """The default set, with one dropped, one added, none, and all that there are."""

    def effective(**options: object) -> int:
        text = client.check_output("busybox", "cat /proc/self/status", network="none", **options)  # type: ignore[arg-type]
        fields = dict(line.split(":\t") for line in text.decode().splitlines())
        assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
        return int(fields["CapEff"], 16)

    default = 0x00000000A80425FB
    assert effective() == default
    assert effective(cap_drop=["chown"], cap_add=["SYS_PTRACE"]) == (default & ~1) | 1 << 19
    assert effective(cap_drop=["ALL"]) == 0
    assert effective(privileged=True) == int(_own("CapBnd"), 16)
    assert effective(user="1000") == 0


def _own(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split(":\t")[1] for line in lines if line.startswith(field))


def test_the_kernel_interfaces_of_the_host_are_out_of_reach(client: Client) -> None:
    """Masked files are empty or absent, /proc/sys and /sys are read-only, the default filter forbids."""
    script = (
        "cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic || echo sys;"
        "mkdir /sys/fs/cgroup/x || echo cgroup; ls /sys/firmware | wc -l; unshare -n true || echo unshare"
    )
    output = client.check_output("busybox", ["sh", "-c", script], network="none").decode().split()
    assert output == ["0", "sys", "cgroup", "0", "unshare"]


def test_a_terminal_is_one(client: Client) -> None:
    """tty=True: a terminal on all three streams and /dev/console, with its lines' endings."""
    output = client.check_output(
        "busybox", ["sh", "-c", "tty; test -t 2 && echo yes; ls -l /dev/console; echo $TERM"], network="none", tty=True
    )
    lines = output.split(b"\r\n")
    assert lines[:2] == [b"/dev/pts/0", b"yes"]
    assert lines[2].startswith(b"crw--w----")
    assert lines[3] == b"xterm"


def test_two_containers_reach_each_other_and_the_host_on_the_bridge(client: Client) -> None:
    """The default network has addresses, a gateway and a route."""
    with client.run("busybox", "sh -c 'while :; do echo hello | nc -l -p 7000; done'") as server:
        address = server.attrs["NetworkSettings"]["IPAddress"]
        assert client.check_output("busybox", ["sh", "-c", f"nc -w 5 {address} 7000 < /dev/null"]) == b"hello\n"
        route = client.check_output("busybox", ["ip", "route"]).decode()
        assert f"default via {server.attrs['NetworkSettings']['Gateway']} dev eth0" in route


def test_a_container_is_reached_without_any_published_port(client: Client) -> None:
    """By a socket of its own network, with none, too; refused when nobody listens."""
    script = "while :; do echo hello | nc -l -p 7000; done"
    for network in ("none", "bridge"):
        with client.run("busybox", ["sh", "-c", script], network=network) as server:
            assert settled(lambda server=server: _refused(server, 7000)) == []  # type: ignore[misc] # one at a time
            with pytest.raises(ConnectionRefusedError):
                server.connect(7001)
            assert bool(server.ip) == (network == "bridge")
    with client.create("busybox", "true", network="none") as created, pytest.raises(NotRunning):
        created.connect(80)


def _refused(server: Container, port: int) -> list[str]:
    """Nothing once the server has said hello."""
    try:
        with server.connect(port, timeout=10) as connection:
            return [] if connection.recv(100) == b"hello\n" else ["something else"]
    except ConnectionRefusedError:
        return ["not yet"]


def test_top_shows_the_processes_with_the_hosts_numbers(client: Client) -> None:
    """The first one, and what it started."""
    with client.run("busybox", ["sh", "-c", "sleep 1001 & exec sleep 1002"], network="none") as container:
        # Its child is a copy of the shell until it has executed its program.
        expected = ["sleep 1001", "sleep 1002"]
        assert (
            settled(lambda: [] if sorted(row[-1] for row in container.top()["Processes"]) == expected else ["no"]) == []
        )
        shown = container.top()
        rows = [dict(zip(shown["Titles"], row, strict=True)) for row in shown["Processes"]]
        assert str(container.pid) in [row["PID"] for row in rows]
        assert sorted(row["CMD"] for row in rows) == expected


def test_networks_none_and_host(client: Client, world: World) -> None:
    """none has loopback alone; host is the caller's own namespace, with its name."""
    devices = client.check_output("busybox", ["ls", "/sys/class/net"], network="none")
    assert devices.split() == [b"lo"]
    output = client.check_output("busybox", ["sh", "-c", "ip addr; hostname"], network="host").decode()
    assert world.host.address in output
    assert output.splitlines()[-1] == os.uname().nodename


def test_a_random_port_is_told_once_it_is_sure(client: Client) -> None:
    """ports={…: None}: run returns with the number that is bound."""
    with client.run("busybox", "sleep 1000", ports={80: None, "53/udp": None}) as container:
        assert container.port(80) > 0
        assert container.port("53/udp") > 0
        assert container.ports["80/tcp"][0]["HostPort"] == str(container.port(80))


def test_handles_survive_pickling_and_find_the_same_container(client: Client) -> None:
    """Handles and clients are small values."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        again = pickle.loads(pickle.dumps(container))
        assert again == container
        assert again.status == "running"
        assert pickle.loads(pickle.dumps(client)).containers.list() == [container]


def test_the_exit_code_of_an_auto_removed_container_is_not_lost(client: Client) -> None:
    """20 times `exit 3`, asked for at the end and long after."""
    for _ in range(20):
        container = client.run("busybox", "sh -c 'exit 3'", network="none", auto_remove=True)
        assert container.wait().exit_code == 3
        assert settled(lambda: [c.id for c in client.containers.list(all=True)]) == []
        assert container.wait().exit_code == 3


def test_what_makes_no_sense_is_refused_before_anything_is_made(client: Client) -> None:
    """Each error names the option."""
    with pytest.raises(TypeError, match="did you mean 'environment'"):
        client.run("busybox", enviroment={})  # type: ignore[call-arg]
    with pytest.raises(Unsupported, match="storage_opt"):
        client.run("busybox", storage_opt={"size": "1g"})  # type: ignore[call-arg]
    with pytest.raises(InvalidArgument, match="mem_limit"):
        client.run("busybox", mem_limit="a lot")
    with pytest.raises(InvalidArgument, match="does not exist on the host"):
        client.run("busybox", volumes=["/not/there:/x"])
    assert client.containers.list(all=True) == []


def test_what_does_not_run_cannot_be_killed(client: Client) -> None:
    """NotRunning, with the state; stop is content."""
    with client.create("busybox", "true", network="none") as container:
        with pytest.raises(NotRunning, match="created"):
            container.kill()
        container.stop()
        with pytest.raises(Conflict, match="was not started"):
            container.wait(1)


def test_one_that_comes_to_life_while_it_is_removed_is_removed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shim was starting it at the first look, for a client that was killed."""
    container = client.run("busybox", "sleep 1000", network="none")
    looks = [State(status="created")]
    look = LocalEngine.state
    monkeypatch.setattr(LocalEngine, "state", lambda self, record: looks.pop() if looks else look(self, record))
    container.remove(force=True)
    assert looks == []
    assert client.containers.list(all=True) == []
