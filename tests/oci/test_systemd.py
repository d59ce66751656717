"""Groups that systemd makes: what a unit is called and told; and containers beside a real systemd."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.bundles import Runtime, prepare
from support.layout import Layout
from support.systemd import Systemd, booted
from wherry_oci.runtime import systemdbus
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.systemdscope import Unit, bits_of, device_properties, properties, slice_path

_INFINITE = (1 << 64) - 1


# -- names and properties ----------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("path", "user", "unit", "cgroup"),
    [
        ("machine.slice:libpod:abc", False, "libpod-abc.scope", "/machine.slice/libpod-abc.scope"),
        ("", False, "wherry-oci-ID.scope", "/system.slice/wherry-oci-ID.scope"),
        ("", True, "wherry-oci-ID.scope", "/user.slice/wherry-oci-ID.scope"),
        (":docker:x", False, "docker-x.scope", "/system.slice/docker-x.scope"),
        ("a-b-c.slice::x", False, "x.scope", "/a.slice/a-b.slice/a-b-c.slice/x.scope"),
        ("-.slice:p:x", False, "p-x.scope", "/p-x.scope"),
    ],
)
def test_a_path_names_a_scope(path: str, user: bool, unit: str, cgroup: str) -> None:
    """As runc reads it."""
    found = Unit(path, "ID", user=user)
    assert (found.name, found.cgroup("")) == (unit, cgroup)
    assert found.cgroup("/user.slice/user@7.service") == f"/user.slice/user@7.service{cgroup}"


@pytest.mark.unit
@pytest.mark.parametrize(
    "path", ["/a/b", "a:b", "a.slice:b:", "a:b:c:d", "x:b:c", "a.slice:b:c.slice", "a.slice:../b:c"]
)
def test_another_path_is_refused(path: str) -> None:
    """With the form that is wanted, or with what is wrong."""
    with pytest.raises(RuntimeFailure, match="cgroupsPath"):
        Unit(path, "ID", user=False)
    for name in ("a--b.slice", "-a.slice", "a-.slice"):
        with pytest.raises(RuntimeFailure, match="no slice"):
            slice_path(name)


_RESOURCES: dict[str, Any] = {
    "memory": {"limit": 100, "reservation": 50, "swap": 300},
    "cpu": {"shares": 1024, "quota": 25_001, "period": 50_000, "cpus": "0-1,8", "mems": "0"},
    "pids": {"limit": 7},
    "blockIO": {"weight": 500},
}


@pytest.mark.unit
def test_limits_are_properties() -> None:
    """v2's and v1's names; no more than a version knows."""
    assert dict(properties(_RESOURCES, unified=True, version=252)) == {
        "MemoryMax": ("t", 100),
        "MemoryLow": ("t", 50),
        "MemorySwapMax": ("t", 200),
        "CPUWeight": ("t", 39),
        "CPUQuotaPeriodUSec": ("t", 50_000),
        "CPUQuotaPerSecUSec": ("t", 510_000),  # never less than what was asked for
        "AllowedCPUs": ("ay", b"\x03\x01"),
        "AllowedMemoryNodes": ("ay", b"\x01"),
        "TasksMax": ("t", 7),
        "IOWeight": ("t", 4950),
    }
    assert dict(properties(_RESOURCES, unified=False, version=252)) == {
        "MemoryLimit": ("t", 100),
        "CPUShares": ("t", 1024),
        "CPUQuotaPeriodUSec": ("t", 50_000),
        "CPUQuotaPerSecUSec": ("t", 510_000),
        "TasksMax": ("t", 7),
        "BlockIOWeight": ("t", 500),
    }
    old = dict(properties(_RESOURCES, unified=True, version=241))
    assert old.keys().isdisjoint({"CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes"})


@pytest.mark.unit
def test_what_is_not_limited_is_infinite() -> None:
    """-1 everywhere, 0 of processes; what is not given is not told."""
    free = {"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": 0}}
    assert dict(properties(free, unified=True, version=252)) == {
        "MemoryMax": ("t", _INFINITE),
        "MemorySwapMax": ("t", _INFINITE),
        "CPUQuotaPerSecUSec": ("t", _INFINITE),
        "TasksMax": ("t", _INFINITE),
    }
    assert properties({}, unified=True, version=252) == []


@pytest.mark.unit
def test_numbers_are_bits() -> None:
    """The lowest byte first."""
    assert bits_of("0") == b"\x01"
    assert bits_of("0-3, 17") == b"\x0f\x00\x02"
    for wrong in ("", "a", "1-", "-1"):
        with pytest.raises(RuntimeFailure, match="list of numbers"):
            bits_of(wrong)


@pytest.mark.unit
def test_devices_that_are_allowed_are_a_list(tmp_path: Path) -> None:
    """Nodes, drivers and kinds; what is no list of allowed ones is left to the group's own filter."""
    drivers = tmp_path / "devices"
    drivers.write_text("Character devices:\n  5 /dev/tty\n  5 console\n136 pts\n\nBlock devices:\n136 other\n")
    deny = {"allow": False, "access": "rwm"}
    rules = [
        deny,
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "c", "major": 136, "minor": -1, "access": "rwm"},
        {"allow": True, "type": "c", "major": 77, "access": "rwm"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    assert device_properties(rules, str(drivers)) == [
        ("DevicePolicy", ("s", "strict")),
        ("DeviceAllow", ("a(ss)", [("/dev/char/1:3", "rw"), ("char-pts", "rwm"), ("block-*", "m")])),
    ]
    everything = [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]
    for other in ([], [{"allow": True}], [*rules, {**rules[1], "allow": False}], [deny, {"allow": True, "type": "a"}]):
        assert device_properties(other, str(drivers)) == everything


@pytest.mark.unit
def test_where_systemd_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's on the system's bus, then by its own socket; a user's by what the session says."""
    pytest.importorskip("jeepney")
    monkeypatch.setattr(systemdbus, "is_host_root", lambda: True)
    assert list(systemdbus._addresses({})) == [("/run/dbus/system_bus_socket", True), ("/run/systemd/private", False)]
    monkeypatch.setattr(systemdbus, "is_host_root", lambda: False)
    session = {"DBUS_SESSION_BUS_ADDRESS": "tcp:host=x;unix:path=/a%20b,guid=1", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert list(systemdbus._addresses(session)) == [
        ("/a b", True),
        ("/run/user/7/bus", True),
        ("/run/user/7/systemd/private", False),
    ]
    assert list(systemdbus._addresses({})) == []


@pytest.mark.unit
def test_a_user_is_who_the_host_takes_him_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of a user namespace is not the bus's root."""
    table = tmp_path / "uid_map"
    table.write_text("         0       1000          1\n         1     100000      65536\n")
    for inside, outside in ((0, 1000), (5, 100_004), (70_000, 70_000)):
        monkeypatch.setattr(os, "geteuid", lambda uid=inside: uid)
        assert systemdbus._host_user(str(table)) == outside


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """Ours, and a bundle with busybox."""
    made = prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


# -- a real one --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """Booted once for these tests."""
    pytest.importorskip("jeepney")
    with booted(tmp_path_factory.mktemp("systemd")) as found:
        yield found


class _Beside:
    """`wherry-oci --systemd-cgroup` beside it."""

    def __init__(self, runtime: Runtime, systemd: Systemd) -> None:
        self.runtime, self.systemd = runtime, systemd
        self.unit = ""

    def configure(self, *arguments: str, path: str | None = None, **changes: Any) -> None:
        self.runtime.configure(*arguments, **changes)
        config = self.runtime.bundle / "config.json"
        document = json.loads(config.read_text())
        document["linux"]["cgroupsPath"] = path or f"tests.slice:one:{self.runtime.path.name}"
        _, prefix, name = document["linux"]["cgroupsPath"].split(":")
        self.unit = f"{prefix}-{name}.scope"
        config.write_text(json.dumps(document))

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        words = self.systemd.words("sh", "-c", 'cd "$0" && exec "$@"', str(self.runtime.bundle))
        words += self.runtime.words("--systemd-cgroup", *arguments)
        with open(os.devnull, "rb") as null, (self.runtime.path / "said").open("w+") as said:
            done = subprocess.run(words, stdin=null, stdout=said, stderr=said, timeout=60, check=False)
            said.seek(0)
            return subprocess.CompletedProcess(words, done.returncode, said.read(), "")

    def done(self, *arguments: str) -> str:
        """What it prints; it must end well."""
        finished = self(*arguments)
        assert finished.returncode == 0, finished.stdout
        return str(finished.stdout)

    def file(self, controller: str, name: str) -> str:
        """What a file of the container's group has."""
        group = self.systemd.show(self.unit, "ControlGroup")["ControlGroup"]
        top = "/sys/fs/cgroup" if _unified() else f"/sys/fs/cgroup/{controller}"
        return self.systemd("cat", f"{top}{group}/{name}")


def _unified() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.fixture
def beside(runtime: Runtime, systemd: Systemd) -> Iterator[_Beside]:
    """The runtime, which leaves no unit."""
    made = _Beside(runtime, systemd)
    yield made
    made("delete", "--force", "one")
    assert made.unit not in systemd("systemctl", "list-units", "--all", "--plain", "--no-legend")


@pytest.mark.root
def test_a_container_is_a_scope(beside: _Beside) -> None:
    """In its slice, delegated, with its process and limits, in systemd's words and in the group's files."""
    limits: dict[str, Any] = {
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 20},
        "cpu": {"quota": 50_000, "period": 100_000},
    }
    beside.configure("sleep", "1000", linux={"resources": limits})
    beside.done("run", "--detach", "one")
    shown = beside.systemd.show(
        beside.unit, "ActiveState", "Slice", "Delegate", "TasksMax", "MemoryMax", "MemoryLimit", "CPUQuotaPerSecUSec"
    )
    memory = shown["MemoryMax" if _unified() else "MemoryLimit"]
    assert (shown["ActiveState"], shown["Slice"], shown["Delegate"]) == ("active", "tests.slice", "yes")
    assert (shown["TasksMax"], memory, shown["CPUQuotaPerSecUSec"]) == ("20", str(64 << 20), "500ms")
    assert beside.file("pids", "pids.max") == "20"
    assert beside.file("memory", "memory.max" if _unified() else "memory.limit_in_bytes") == str(64 << 20)
    pid = json.loads(beside.done("state", "one"))["pid"]
    assert str(pid) in beside.file("pids", "cgroup.procs").split()
    beside.done("delete", "--force", "one")
    assert beside.systemd.show(beside.unit, "LoadState")["LoadState"] == "not-found"


@pytest.mark.root
def test_limits_change_in_both_places(beside: _Beside) -> None:
    """`update`, and a reload of systemd sets nothing back."""
    beside.configure("sleep", "1000", linux={"resources": {"pids": {"limit": 20}}})
    beside.done("run", "--detach", "one")
    beside.done("update", "--pids-limit", "30", "one")
    assert beside.systemd.show(beside.unit, "TasksMax")["TasksMax"] == "30"
    beside.systemd("systemctl", "daemon-reload")
    assert beside.file("pids", "pids.max") == "30"


@pytest.mark.root
def test_everything_else_works_in_a_scope(beside: _Beside) -> None:
    """create and start, exec, pause and resume, ps, kill, delete; devices are refused."""
    beside.configure("sleep", "1000")
    beside.done("create", "one")
    assert json.loads(beside.done("state", "one"))["status"] == "created"
    beside.done("start", "one")
    assert beside.done("exec", "one", "echo", "inside") == "inside\n"
    refused = beside("exec", "one", "sh", "-c", "mknod /dev/x b 7 0 && cat /dev/x")
    assert "ermitted" in refused.stdout
    beside.done("pause", "one")
    assert json.loads(beside.done("state", "one"))["status"] == "paused"
    beside.done("resume", "one")
    assert json.loads(beside.done("ps", "--format", "json", "one")) == [json.loads(beside.done("state", "one"))["pid"]]
    beside.done("kill", "one", "KILL")
    beside.done("delete", "--force", "one")


@pytest.mark.root
def test_one_that_ends_leaves_no_unit(beside: _Beside) -> None:
    """In the foreground, its status told; with a helper between (a time namespace)."""
    beside.configure("sh", "-c", "exit 3")
    assert beside("run", "one").returncode == 3
    if not Path("/proc/self/ns/time").exists():
        return
    beside.configure("true")
    document = json.loads((beside.runtime.bundle / "config.json").read_text())
    document["linux"]["namespaces"].append({"type": "time"})
    (beside.runtime.bundle / "config.json").write_text(json.dumps(document))
    beside.done("run", "one")


@pytest.mark.root
def test_what_cannot_be_leaves_nothing(beside: _Beside) -> None:
    """A path of another form, a program that is not there, a unit that is there already."""
    beside.configure("nosuch")
    assert "executable file not found" in beside("run", "one").stdout
    config = beside.runtime.bundle / "config.json"
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, "linux": {**document["linux"], "cgroupsPath": "/plain/path"}}))
    assert "slice:prefix:name" in beside("run", "one").stdout
    beside.configure("sleep", "1000")
    beside.done("run", "--detach", "one")
    said = beside("run", "--detach", "two").stdout
    assert beside.unit in said
    assert json.loads(beside.done("list", "--format", "json"))[0]["id"] == "one"


@pytest.mark.root
def test_the_bus_is_as_good(beside: _Beside, systemd: Systemd) -> None:
    """A dbus-daemon stands between, as on most hosts."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    systemd("systemctl", "start", "dbus.socket", "dbus.service")
    try:
        ping = ("busctl", "call", "org.freedesktop.systemd1", "/", "org.freedesktop.DBus.Peer", "Ping")
        waiting = f"for i in $(seq 200); do {' '.join(ping)} 2>/dev/null && exit 0; sleep 0.05; done; exit 1"
        systemd("sh", "-c", waiting)
        beside.configure("sleep", "1000")
        beside.done("run", "--detach", "one")
        assert beside.systemd.show(beside.unit, "ActiveState")["ActiveState"] == "active"
        beside.done("delete", "--force", "one")
    finally:
        systemd("systemctl", "stop", "dbus.service", "dbus.socket")


@pytest.mark.root
def test_without_systemd_it_is_told(runtime: Runtime) -> None:
    """With what was tried, and nothing is made."""
    pytest.importorskip("jeepney")
    config = runtime.configure("true")
    del config["linux"]["cgroupsPath"]
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    if Path("/run/systemd/private").exists():
        pytest.skip("a systemd runs here")
    refused = runtime("--systemd-cgroup", "run", "one")
    assert refused.returncode == 1
    assert "no systemd can be reached" in refused.stderr
    assert "/run/systemd/private" in refused.stderr
    assert os.listdir(runtime.root) == []
