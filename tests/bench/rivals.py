"""
The others, each in a private directory: own storage, own sockets, own configuration, on this process's test host.

What a rival is not installed for is a reason, not an error: its column stays empty.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import attrs

from support import host as hosts
from support.registry import Registry

T = TypeVar("T")
_UNIFIED = "/sys/fs/cgroup/unified"


class NoRival(Exception):
    """This one cannot take part; the message says why."""


@attrs.frozen
class Command:
    """A command line with what it needs in front and around it."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    thread: ThreadPoolExecutor | None = None  # to start it from, if it shall see what that thread sees

    def __call__(self, *arguments: str) -> str:
        """Run it to its end; what it prints. Raises NoRival with what it said, if it fails."""
        return self._from_thread(lambda: self._run(arguments))

    def leave(self, *arguments: str) -> None:
        """Run what leaves something running, which would keep the pipes of a usual call open. Raises NoRival."""
        command = [*self.words, *arguments]
        null = subprocess.DEVNULL
        done = self._from_thread(lambda: subprocess.run(command, stdin=null, stdout=null, stderr=null, check=False))
        if done.returncode != 0:
            raise NoRival(f"{' '.join(command)} ended with {done.returncode}")

    def _from_thread(self, call: Callable[[], T]) -> T:
        return self.thread.submit(call).result() if self.thread else call()

    def _run(self, arguments: Sequence[str]) -> str:
        command = [*self.words, *arguments]
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise NoRival(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout


def found(name: str) -> str:
    """The program's path, Debian's before others. Raises NoRival."""
    if path := shutil.which(name, path=f"/usr/bin:/usr/sbin:/bin:/sbin:{os.environ.get('PATH', '')}"):
        return path
    raise NoRival(f"{name} is not installed")


@contextmanager
def without_unified() -> Iterator[ThreadPoolExecutor | None]:
    """
    A thread from which cgroup v1 is all there is, where the machine has v1 and v2 at once: crun refuses such machines.

    The processes that a thread starts are in its mount namespace, so nothing is added to the time that they take.
    """
    if not os.path.ismount(_UNIFIED):
        yield None
        return
    with ThreadPoolExecutor(1, initializer=hosts.own_mounts_without, initargs=(_UNIFIED,)) as thread:
        yield thread


@contextmanager
def cgroups_removed() -> Iterator[None]:
    """What docker and podman keep of theirs in the cgroup hierarchies is removed on leaving, if it was not there."""
    before = set(_cgroups())
    try:
        yield
    finally:
        for top in set(_cgroups()) - before:
            for folder, _, _ in os.walk(top, topdown=False):
                os.rmdir(folder)


def _cgroups() -> Iterator[Path]:
    for pattern in ("docker", "libpod_parent", "*/docker", "*/libpod_parent"):
        yield from Path("/sys/fs/cgroup").glob(pattern)


@contextmanager
def docker(folder: Path, registry: Registry, *more: str) -> Iterator[Command]:
    """
    A dockerd of its own, with overlay2 and the options *more*; the docker command that talks to it.

    Its DOCKER_HOST is in `environment`.
    """
    folder.mkdir(parents=True)
    address = f"unix://{folder}/docker.sock"
    options = {
        "--data-root": folder / "data",
        "--exec-root": folder / "exec",
        "--pidfile": folder / "pid",
        "--config-file": _written(folder / "daemon.json", "{}"),
        "--host": address,
        "--storage-driver": "overlay2",
        "--registry-mirror": registry.url,
        "--exec-opt": "native.cgroupdriver=cgroupfs",
    }
    command = [found("dockerd"), *(str(word) for option in options.items() for word in option), *more]
    log = folder / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    client = Command((found("docker"),), {"DOCKER_HOST": address, "DOCKER_CONFIG": str(folder / "config")})
    try:
        _answering(client, daemon, log)
        client("pull", "busybox")
        yield client
    finally:
        daemon.terminate()
        daemon.wait()


def _answering(client: Command, daemon: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and daemon.poll() is None:
        try:
            client("version")
            return
        except NoRival:
            time.sleep(0.1)
    raise NoRival(f"dockerd does not answer: {log.read_text()[-800:]}")


@contextmanager
def podman(folder: Path, registry: Registry, thread: ThreadPoolExecutor | None) -> Iterator[Command]:
    """podman with its storage in *folder*."""
    folder.mkdir(parents=True)
    containers = """
[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
    registries = f"""
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{registry.address}"
insecure = true
"""
    policy = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
    environment = {
        "CONTAINERS_CONF": str(_written(folder / "containers.conf", containers)),
        "CONTAINERS_REGISTRIES_CONF": str(_written(folder / "registries.conf", registries)),
        "TMPDIR": str(folder),
    }
    options = {
        "--root": folder / "root",
        "--runroot": folder / "run",
        "--tmpdir": folder / "tmp",
        "--storage-driver": "overlay",
        "--cgroup-manager": "cgroupfs",
    }
    client = Command(
        (found("podman"), *(str(word) for option in options.items() for word in option)), environment, thread
    )
    client("pull", "--signature-policy", str(_written(folder / "policy.json", policy)), "docker.io/library/busybox")
    try:
        yield client
    finally:
        client("rm", "--all", "--force")


@attrs.frozen
class Runtime:
    """An OCI runtime's command line, and busybox for its bundles."""

    command: Command
    rootfs: Path

    def bundle(self, program: str) -> Path:
        """A bundle of the rootfs that runs *program*, as the runtime's own `spec` has it; made when first asked for."""
        folder = self.rootfs.parent / program.replace(" ", "-")
        path = folder / "config.json"
        if not path.exists():
            folder.mkdir()
            subprocess.run([self.command.words[0], "spec"], cwd=folder, check=True)
            config = json.loads(path.read_text())
            config["process"] |= {"terminal": False, "args": program.split()}
            # Raising a hard limit needs a right that a machine may not give to root.
            config["process"]["rlimits"] = []
            config["process"]["capabilities"].pop("ambient", None)  # which none of these gives, but one warns of
            config["root"]["path"] = str(self.rootfs)
            path.write_text(json.dumps(config))
        return folder


@contextmanager
def runtime(
    program: str, folder: Path, layers: Sequence[Path], thread: ThreadPoolExecutor | None = None
) -> Iterator[Runtime]:
    """An OCI runtime; the containers that are left at the end are deleted."""
    rootfs = folder / "rootfs"
    rootfs.mkdir(parents=True)
    for layer in layers:
        subprocess.run(["tar", "-xzf", layer, "-C", rootfs], check=True)
    command = Command((found(program), "--root", str(folder / "state")), thread=thread)
    try:
        yield Runtime(command, rootfs)
    finally:
        for container in command("list", "--quiet").split():
            command("delete", "--force", container)


def _written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path
