"""A world for one test: root and run directories of its own, on this process's test host, with a registry."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from support import leftovers, users
from support.host import Host
from support.layout import Layout
from support.registry import Registry
from wherry import Client

_numbers = itertools.count()
_pushed: set[tuple[str, str]] = set()  # by this process


@attrs.frozen
class World:
    """Where a test's containers live."""

    path: Path  # short, so that sockets below it fit
    host: Host
    registry: Registry
    image: Callable[[str], Layout]

    def push(self, *names: str) -> None:
        """Put these test images into the registry, as Docker Hub has them (`library/NAME:latest`)."""
        for name in names:
            if (key := (self.registry.url, name)) not in _pushed:
                with users.as_root():
                    self.registry.push(self.image(name), f"library/{name}:latest")
                _pushed.add(key)

    @property
    def root(self) -> Path:
        """WHERRY_ROOT: images, snapshots, records."""
        return self.path / "root"

    @property
    def run(self) -> Path:
        """WHERRY_RUN: live state."""
        return self.path / "run"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to be in this world."""
        return {
            "WHERRY_ROOT": str(self.root),
            "WHERRY_RUN": str(self.run),
            "WHERRY_REGISTRY_MIRRORS": self.registry.mirrors,
        }

    def python(self, script: str, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run *script* in a new interpreter of this world; a failure shows what it printed."""
        return self._command([sys.executable, "-c", script, *arguments], options)

    def wherry(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run the wherry command in this world; a failure shows what it printed."""
        return self._command([str(Path(sys.executable).with_name("wherry")), *arguments], options)

    def _command(self, command: Sequence[str], options: Any) -> "subprocess.CompletedProcess[str]":
        """subprocess.run with text, captured output and a limit of two minutes; check=False lets failures pass."""
        check = options.pop("check", True)
        settings: dict[str, Any] = {"text": True, "capture_output": True, "timeout": 120} | options
        if "input" not in settings:
            settings.setdefault("stdin", subprocess.DEVNULL)
        done: subprocess.CompletedProcess[str] = subprocess.run(command, check=False, **settings)
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
            )
        return done

    def left_over(self) -> list[str]:
        """What a test left in this world that it should have removed."""
        with users.as_root():
            return self._left_over()

    def _left_over(self) -> list[str]:
        return [
            *leftovers.processes(f"{self.path}/"),
            *(mount for mount in leftovers.mounts() if f"{self.path}/" in mount),
            *leftovers.containers(self.run),
            *leftovers.published(),
        ]

    def raze(self) -> None:
        """Take down whatever is left, by force."""
        with users.as_root():
            for line in leftovers.processes(f"{self.path}/"):
                with _gone_is_fine():
                    os.kill(int(line.split()[1].rstrip(":")), signal.SIGKILL)
            leftovers.settled(lambda: leftovers.processes(f"{self.path}/"))
        try:
            self._remove_containers()
        finally:  # whatever wherry says to what is left of it
            with users.as_root():
                self._remove_files()

    def _remove_files(self) -> None:
        for line in reversed(leftovers.mounts()):
            if f"{self.path}/" in line:
                subprocess.run(["umount", "--lazy", line.rpartition(" on ")[2]], check=False)
        subprocess.run(["rm", "-rf", self.path], check=False)  # goes deeper than Python's recursion

    def _remove_containers(self) -> None:
        if (self.root / "wherry.db").exists():
            with Client(root=self.root, run=self.run) as client:
                for container in client.containers.list(all=True):
                    container.remove(force=True)
                client.networks.prune()


@contextmanager
def made(host: Host, registry: Registry, image: Callable[[str], Layout]) -> Iterator[World]:
    """A world that is razed on leaving; the names of `environment` are set in this process meanwhile."""
    path = Path(f"{leftovers.folder_prefix()}{os.getpid()}-{next(_numbers)}")
    path.mkdir(mode=0o700)
    world = World(path, host, registry, image)
    saved = {name: os.environ.get(name) for name in world.environment}
    os.environ.update(world.environment)
    try:
        yield world
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        world.raze()


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return
