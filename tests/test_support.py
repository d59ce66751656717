"""The tests' own ground: what every other test takes for granted about hosts, images, registry and checks."""

import functools
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from support import images, layout, leftovers
from support import registry as registries
from support.host import Host
from support.layout import Layout
from support.registry import Registry
from support.world import World

pytestmark = pytest.mark.root


def test_tests_run_in_the_main_thread_that_entered_the_host(host: Host) -> None:
    """Threads that a test starts, and its child processes, are on the same host as the test."""
    assert threading.current_thread() is threading.main_thread()
    ours = os.readlink("/proc/self/ns/net")
    child = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == ours
    assert os.fstat(host.network.fd).st_ino == os.stat("/proc/thread-self/ns/net").st_ino
    assert os.fstat(host.machine.fd).st_ino != os.fstat(host.network.fd).st_ino


def test_the_neighbour_reaches_the_host_by_its_address(host: Host) -> None:
    """A server on the host answers another machine, on IPv4 and IPv6; /sys shows the host's own devices."""
    for address, family in ((host.address, socket.AF_INET), (host.address_6, socket.AF_INET6)):
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]
            connect = functools.partial(socket.create_connection, (address, port), 10)
            with host.neighbour.call(connect) as client:
                connection, peer = server.accept()
                with connection:
                    assert peer[0] in (host.neighbour_address, host.neighbour_address_6)
                    assert client.getpeername()[1] == port
    assert sorted(os.listdir("/sys/class/net")) == sorted(name for _, name in socket.if_nameindex())


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("index", [False, True], ids=["manifest", "index"])
def test_a_pushed_image_is_served(
    registry: Registry, image: Callable[[str], Layout], docker: bool, index: bool
) -> None:
    """What was pushed is what a client gets: the tag, its media type, each blob's bytes."""
    busybox = image("busybox")
    name = f"library/pushed-{docker}-{index}".lower()
    pushed = registry.push(busybox, f"{name}:1", docker=docker, index=index)
    with registry.session() as session:
        accept = {"Accept": ", ".join(["*/*", *registries.ACCEPTED])}
        answer = session.get(f"{registry.url}/v2/{name}/manifests/1", headers=accept)
        answer.raise_for_status()
        assert answer.headers["Docker-Content-Digest"] == pushed == layout.digest(answer.content)
        assert ("docker" in answer.headers["Content-Type"]) == docker
        manifest = answer.json()
        if index:
            assert [entry["platform"]["architecture"] for entry in manifest["manifests"]] == [
                registries.ANOTHER_ARCHITECTURE,
                layout.ARCHITECTURE,
            ]
            digest = manifest["manifests"][1]["digest"]
            manifest = session.get(f"{registry.url}/v2/{name}/manifests/{digest}", headers=accept).json()
        for descriptor in [manifest["config"], *manifest["layers"]]:
            blob = session.get(f"{registry.url}/v2/{name}/blobs/{descriptor['digest']}").content
            assert layout.digest(blob) == descriptor["digest"]


def test_a_registry_can_ask_for_a_password_over_tls(host: Host, tmp_path: Path) -> None:
    """With TLS and a password nobody gets in without them."""
    with (
        registries.running(tmp_path / "registry", tls=True, user="me", password="secret") as server,
        server.session() as session,
        requests.Session() as stranger,
    ):
        assert session.get(f"{server.url}/v2/").status_code == 200
        session.auth = ("me", "wrong")
        assert session.get(f"{server.url}/v2/").status_code == 401
        stranger.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            stranger.get(f"{server.url}/v2/")


@pytest.mark.parametrize("name", ["busybox", "many-layers"])
def test_images_are_layouts_with_true_digests(image: Callable[[str], Layout], name: str) -> None:
    """Every blob of a test image is what its name says, and its config has the run-time defaults."""
    found = image(name)
    for blob in (found.path / "blobs" / "sha256").iterdir():
        assert layout.digest(blob.read_bytes()) == f"sha256:{blob.name}"
    assert found.config["config"]["Cmd"] == ["sh"]
    assert len(found.diff_ids) == len(found.manifest["layers"])


def test_equal_recipes_have_one_place_in_the_cache() -> None:
    """An image is built again only when its recipe changes."""
    assert images.busybox().key() == images.busybox().key()
    assert images.many_layers(3).key() != images.many_layers(4).key()


def test_a_world_sees_what_is_left_in_it(world: World) -> None:
    """A process, a mount and a container's folder that a test leaves in its world are found, and can be razed."""
    assert world.left_over() == []
    (world.run / "abc").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "left", world.run / "abc"], check=True)
    process = subprocess.Popen(
        ["sh", "-c", "echo; read line"], cwd=world.run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        process.stdout.readline()
        found = world.left_over()
        assert {line.split()[0] for line in found} == {"process", "mount", "file"}
        assert any(line.startswith(f"process {process.pid}:") for line in found)
    finally:
        world.raze()
        process.communicate()
    assert world.left_over() == []
    world.path.mkdir()


LEAKS = """
import os, pathlib, subprocess, pytest
from support import leftovers

def test_a_process(host):
    subprocess.Popen(["setsid", "--fork", "sleep", "600"]).wait()

def test_a_daemon_elsewhere(host):
    subprocess.Popen([*host.machine.prefix, "setsid", "--fork", "sleep", "601"]).wait()

def test_a_device(host):
    subprocess.run(["ip", "link", "add", "leak0", "type", "bridge"], check=True)

def test_a_table(host):
    subprocess.run(["nft", "add", "table", "ip", "leak"], check=True)

def test_a_mount(host, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "leak", "/mnt"], check=True)

def test_a_descriptor():
    os.open("/dev/zero", os.O_RDONLY)

def test_a_folder():
    pathlib.Path(leftovers.folder_prefix() + "leak").mkdir()

def test_a_cgroup():
    for top in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup"):
        if os.path.exists(top + "/cgroup.procs"):
            os.makedirs(top + "/wherry/leak-" + leftovers.run_id())
            break

def test_nothing(host):
    pass
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_tests_leave_over_fails_them_and_the_run(host: Host, tmp_path: Path, workers: str) -> None:
    """Each kind of thing that can be left is named: with the guilty test where a look is cheap, else for the run."""
    tests = tmp_path / "test_leaks.py"
    tests.write_text(LEAKS.replace("import os", "pytestmark = __import__('pytest').mark.root\nimport os", 1))
    here, run_id = Path(__file__).parent, secrets.token_hex(2)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        here.parent / "pyproject.toml",
        "--rootdir",
        tmp_path,
    ]
    command += ["-p", "no:cacheprovider", "-p", "conftest", "-n", workers, tests]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "WHERRY_"))}
    environment |= {
        "PYTHONPATH": str(here),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "xdist,pytest_timeout",
        "WHERRY_TEST_PATIENCE_S": "1",
        leftovers.TAG: run_id,
    }
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    summary = run.stdout.partition("= left over =")[2]
    try:
        assert run.returncode == 1, run.stdout
        for guilty in ("device", "mount", "descriptor"):
            assert f"ERROR {tests.name}::test_a_{guilty}" in run.stdout, run.stdout
        for left in (
            "sleep 600",
            "sleep 601",
            "table ip leak",
            "network device leak0",
            "tmpfs on /mnt",
            f"w-{run_id}-leak",
            f"/wherry/leak-{run_id}",
        ):
            assert left in summary, run.stdout
        assert "9 passed, 3 errors" in run.stdout, run.stdout
    finally:
        for line in summary.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "process":
                os.kill(int(rest.partition(":")[0]), signal.SIGKILL)
            elif kind in ("file", "cgroup") and run_id in rest:  # another run may leak beside us
                os.rmdir(rest)
