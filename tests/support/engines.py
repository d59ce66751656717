"""Engines that others made, each with its own roots on a network and mounts of its own, to call a runtime of ours."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from support import leftovers
from wherry_oci.runtime.cgroups import Hierarchies

# What is fixed in engines, such as /run/containerd, is theirs alone there; it ends with its standard input.
_ISLAND = "mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec cat"
_PATIENCE_S = 60


@attrs.frozen
class Engine:
    """The command line of an engine that runs."""

    words: tuple[str, ...]
    cgroup_parent: str

    def __call__(self, *arguments: str, input: str = "") -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        return subprocess.run(
            [*self.words, *arguments], input=input, capture_output=True, text=True, timeout=60, check=False
        )

    def output(self, *arguments: str, input: str = "") -> str:
        """What it prints; a failure shows what it said."""
        done = self(*arguments, input=input)
        assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        return done.stdout


def our_runtime() -> str:
    """The command that engines call."""
    return str(Path(sys.executable).with_name("wherry-oci"))


def runc() -> str:
    """The command that is compared with; a skip where it is not installed."""
    needed("runc")
    return str(shutil.which("runc"))


def runtime(name: str) -> str:
    """The runtime *name*'s command; a skip where it is not installed, or cannot work on this machine."""
    if name == "wherry-oci":
        return our_runtime()
    needed(name)
    if name == "crun" and _is_hybrid():
        pytest.skip("crun refuses a host with controllers on cgroup v1 beside a v2 hierarchy")
    return name


def _is_hybrid() -> bool:
    found = Hierarchies.find()
    return found.has_v1_controllers and found.unified is not None


def needed(*programs: str) -> None:
    """Skip the test where one of *programs* is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@contextmanager
def _island(*, own_network: bool = True) -> Iterator[tuple[str, ...]]:
    """What to put before a command that shall run there; without a network of its own it is in the caller's."""
    network = ["--net"] if own_network else []
    command = ["unshare", "--mount", *network, "--propagation", "private", "sh", "-c", _ISLAND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield ("nsenter", f"--target={holder.pid}", "--mount", "--net", "--")


@contextmanager
def _cgroup_parent() -> Iterator[str]:
    name = f"engine-{uuid.uuid4().hex[:8]}"
    try:
        yield f"/{name}"
    finally:
        left = leftovers.settled(lambda: _not_removed(name))
        assert left == [], f"control groups stay: {left}"


def _not_removed(name: str) -> list[str]:
    """Remove the groups of that name; those that an engine's last processes are still in."""
    left = []
    for top in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                left.append(folder)
    return left


@contextmanager
def _running(command: Sequence[str], log: Path, client: Engine) -> Iterator[None]:
    """A daemon, from when it answers `version`."""
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while client("version").returncode:
            answering = daemon.poll() is None and time.monotonic() < deadline
            assert answering, log.read_text()[-2000:]
            time.sleep(0.05)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


@contextmanager
def docker(folder: Path, *, own_network: bool = True) -> Iterator[Engine]:
    """dockerd, which knows `runc` and `wherry`; its docker command. Its network is its own, or the caller's."""
    needed("dockerd", "docker", "runc")
    (folder / "daemon.json").write_text("{}")
    with _cgroup_parent() as parent, _island(own_network=own_network) as prefix:
        options = {
            "--data-root": folder / "data",
            "--exec-root": folder / "exec",
            "--pidfile": folder / "pid",
            "--config-file": folder / "daemon.json",
            "--host": f"unix://{folder}/docker.sock",
            "--storage-driver": "overlay2",
            "--exec-opt": "native.cgroupdriver=cgroupfs",
            "--cgroup-parent": parent,
            "--add-runtime": f"wherry={our_runtime()}",
        }
        client = Engine((*prefix, "docker", "--host", f"unix://{folder}/docker.sock"), parent)
        command = [*prefix, "dockerd", *(str(word) for option in options.items() for word in option)]
        with _running(command, folder / "log", client):
            yield client


@contextmanager
def containerd(folder: Path) -> Iterator[Engine]:
    """containerd; its ctr command, which names a runtime at each run."""
    needed("containerd", "ctr", "runc")
    socket, configuration = folder / "containerd.sock", folder / "config.toml"
    configuration.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n[grpc]\naddress = "{socket}"\n'
        '[ttrpc]\naddress = ""\n'
    )
    with _cgroup_parent() as parent, _island() as prefix:
        client = Engine((*prefix, "ctr", "--address", str(socket)), parent)
        with _running([*prefix, "containerd", "--config", str(configuration)], folder / "log", client):
            yield client


@contextmanager
def podman(folder: Path) -> Iterator[Engine]:
    """podman, which names a runtime at each call."""
    needed("podman", "conmon", "runc")
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = []\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    (folder / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    options = {
        "--root": folder / "root",
        "--runroot": "/run/podman",  # at most 50 characters
        "--tmpdir": "/run/tmp",
        "--storage-driver": "overlay",
        "--cgroup-manager": "cgroupfs",
    }
    environment = ("env", f"CONTAINERS_CONF={folder}/containers.conf", f"TMPDIR={folder}")
    with _cgroup_parent() as parent, _island() as prefix:
        words = (str(word) for option in options.items() for word in option)
        yield Engine((*prefix, *environment, "podman", *words), parent)
