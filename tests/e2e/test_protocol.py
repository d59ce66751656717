"""A shim lives as long as its container: clients that are newer than it, and older ones, talk to it."""

import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from support.leftovers import settled
from wherry import Client, Port
from wherry.errors import Conflict, Unsupported
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies
from wherry_oci.runtime.container import execute
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.init import Entry
from wherry_shim import client as shims
from wherry_shim import launch

pytestmark = pytest.mark.e2e

_UNKNOWN_THEN = ("exec-inspect", "exec-resize", "names", "ready", "rename", "update")


@pytest.fixture
def older_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shims that are started meanwhile are of a version that knew less."""
    own, *others = launch._roots()
    copy = tmp_path / "shim"
    shutil.copytree(own, copy)
    connection, service = copy / "wherry_shim" / "connection.py", copy / "wherry_shim" / "service.py"
    connection.write_text(re.sub(r"^VERSION = \d+$", "VERSION = 0", connection.read_text(), flags=re.MULTILINE))
    text, count = re.subn(rf'^ +"(?:{"|".join(_UNKNOWN_THEN)})": self.*\n', "", service.read_text(), flags=re.MULTILINE)
    assert count == len(_UNKNOWN_THEN)
    service.write_text(text)
    monkeypatch.setattr(launch, "_roots", lambda: [str(copy), *others])


@pytest.mark.usefixtures("older_shim")
def test_a_newer_client_does_with_an_older_shim_what_that_can_do(client: Client) -> None:
    """Run, exec, pause, logs, rename, stop; what it cannot do is an error that says so, and changes nothing."""
    script = "echo hello; exec sleep 1000"
    with client.run("busybox", ["sh", "-c", script], name="old", network="none", mem_limit="32m") as container:
        run = str(client._engine.store.run_directory(container.id))
        assert shims.call(run, "ping")["version"] == 0
        assert container.exec("cat", input=b"x").stdout == b"x"
        container.pause()
        container.unpause()
        container.rename("renamed")
        assert client.containers.get("renamed") == container
        with pytest.raises(Unsupported, match="version 0"):
            container.update(mem_limit="64m")
        assert container.attrs["HostConfig"]["Memory"] == 32 << 20
        with pytest.raises(Unsupported, match="version 0"):
            container.wait_for(Port(80))
        assert settled(lambda: [] if container.logs() == "hello\n" else [container.logs()]) == []
        container.stop(timeout=0)
        assert container.wait().exit_code == 137


def test_a_shim_overlooks_what_it_does_not_know_yet(client: Client) -> None:
    """Further fields in a request, and a request of a later version."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        run = str(client._engine.store.run_directory(container.id))
        answer = shims.call(run, "ping", future={"field": [1, 2]})
        assert answer["version"] >= 1
        with pytest.raises(Unsupported, match="'travel'"):
            shims.call(run, "travel", where="home")


def test_a_cgroup_that_somebody_else_froze_does_not_hold_up_the_shim(client: Client) -> None:
    """An exec is refused at once, the shim answers, and after the thaw all goes on."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        cgroup = Cgroup(f"/wherry/{container.id}", Hierarchies.find())
        cgroup.freeze_and_wait(True)
        try:
            with pytest.raises(Conflict, match="frozen"):
                container.exec("true", timeout=30)
            run = str(client._engine.store.run_directory(container.id))
            assert shims.call(run, "ping", 30)["ok"]
        finally:
            cgroup.freeze_and_wait(False)
        assert container.exec("true").exit_code == 0


def test_a_freeze_in_the_middle_of_an_exec_does_not_hold_up_the_shim(client: Client) -> None:
    """Whenever it comes the shim answers, the exec runs or is refused, and nothing of it is left but what runs."""
    refused = 0
    with client.run("busybox", "sleep 1000", network="none") as container:
        cgroup = Cgroup(f"/wherry/{container.id}", Hierarchies.find())
        run = str(client._engine.store.run_directory(container.id))
        for number in range(10):
            with ThreadPoolExecutor(1) as pool:
                result = pool.submit(container.exec, "true", timeout=60)
                until = monotonic() + number * 0.001
                while monotonic() < until:  # each time a little later in its preparation
                    pass
                cgroup.freeze(True)
                try:
                    assert shims.call(run, "ping", 30)["ok"]
                finally:
                    cgroup.freeze_and_wait(False)
                error = result.exception(60)
                assert error is None or (isinstance(error, Conflict) and "frozen" in str(error)), error
                refused += error is not None
        assert settled(lambda: [] if len(cgroup.pids()) == 1 else [str(cgroup.pids())]) == []
        assert container.exec("true").exit_code == 0
    print(f"{refused} refused")


def test_an_exec_that_stops_half_way_is_given_up(client: Client) -> None:
    """Its first process joins a group that is frozen just then; when it thaws it is gone without having run."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        cgroup = _FrozenOnJoin(f"/wherry/{container.id}", Hierarchies.find())
        entry = Entry(
            {"args": ["true"], "cwd": "/"},
            user=None,
            added_groups=[],
            seccomp=None,
            seccomp_flags=0,
            stdio=(0, 1, 2),
            reap=False,
        )
        config = {"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}}
        try:
            with pytest.raises(RuntimeFailure, match="frozen the container's cgroup meanwhile"):
                execute(container.pid, config, entry, cgroup=cgroup)
        finally:
            cgroup.freeze_and_wait(False)
        assert os.waitstatus_to_exitcode(os.waitpid(cgroup.joined, 0)[1]) == -signal.SIGKILL
        assert cgroup.pids() == [container.pid]


class _FrozenOnJoin(Cgroup):
    """Somebody freezes it when a process has just come in."""

    joined = 0

    def add(self, pid: int) -> None:
        super().add(pid)
        self.joined = pid
        self.freeze(True)
