"""
The demo: nginx from a registry, on a published port, with no daemon.

It prints what it does as a person would type it. By default all happens on a host of its own, with a registry on its
loopback in the place of Docker Hub; with `--hub` it is Docker Hub itself and this machine's network.
"""

import argparse
import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from support import host as hosts
from support import images, leftovers
from support import registry as registries
from support import world as worlds

NAME, PORT = "docker-nginx", 8080
SCRIPT = f"""\
from wherry import Client
web = Client().run("nginx", ports={{80: {PORT}}}, name="{NAME}")
print(web.status, web.port(80), web.logs())
"""


class DemoFailed(Exception):
    """Something did not show what it should; the message says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if everything showed what it should."""
    parser = argparse.ArgumentParser(prog="nox -s demo --", description=__doc__)
    parser.add_argument("--hub", action="store_true", help="pull from Docker Hub, publish on this machine's network")
    hub: bool = parser.parse_args(arguments).hub
    leftovers.run_id()
    try:
        with _place(hub) as place:
            page = place.tour()
    except (DemoFailed, hosts.NoHost, images.CannotBuild, registries.NoRegistry) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    _say("Nothing is left over. This is the page that nginx served:")
    print(page)
    return 0


@attrs.frozen
class Place:
    """Where the demo's containers live, and the machine's own address there."""

    path: Path
    environment: dict[str, str]
    address: str

    def tour(self) -> str:
        """The main job, step by step; nginx's page."""
        try:
            self._start()
            page = self._look()
            self._stop()
        finally:
            self._wherry("rm", "--force", NAME, quiet=True)
        return page

    def _start(self) -> None:
        script = self.path / "web.py"
        script.write_text(SCRIPT)
        _say("A program starts nginx, and ends:")
        print(SCRIPT, end="")
        printed = self._run([sys.executable, str(script)], f"python {script.name}")
        _expect(printed.startswith(f"running {PORT}"), f"the program printed {printed!r}")

    def _look(self) -> str:
        _say("nginx goes on, and answers on every address of this host:")
        curl = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"]
        pages = [self._run([*curl, url], f"curl {url}") for url in self._urls()]
        _expect(all("Welcome to nginx" in page for page in pages), "that is not nginx's page")
        _say("Any other process finds it:")
        _expect(NAME in self._wherry("ps"), f"{NAME} is not listed")
        _say("Its only companion is the shim:")
        state = json.loads(self._wherry("inspect", NAME, quiet=True))[0]["State"]
        tree = self._run(["pstree", "--arguments", "--show-pids", "--hide-threads", str(_parent(state["Pid"]))])
        names = [line.strip(" `|-").partition(",")[0] for line in tree.splitlines()]
        _expect(names[0] == "wherry-shim" and set(names[1:]) == {"nginx"}, "there is more than nginx and its shim")
        self._wherry("logs", NAME)
        version = self._wherry("exec", NAME, "nginx", "-v")
        _expect("nginx version" in version, f"nginx -v printed {version!r}")
        return pages[0]

    def _stop(self) -> None:
        _say("And it can be stopped and removed by anybody who may:")
        self._wherry("stop", NAME)
        self._wherry("rm", NAME)
        _expect(NAME not in self._wherry("ps", "--all"), f"{NAME} is still listed")
        left = leftovers.settled(lambda: leftovers.processes(f"{self.path}/"))
        _expect(not left, f"left over: {left}")

    def _urls(self) -> list[str]:
        return [f"http://{address}:{PORT}/" for address in ("127.0.0.1", self.address)]

    def _wherry(self, *arguments: str, quiet: bool = False) -> str:
        command = [str(Path(sys.executable).with_name("wherry")), *arguments]
        return self._run(command, shlex.join(["wherry", *arguments]), quiet=quiet)

    def _run(self, command: list[str], shown: str | None = None, *, quiet: bool = False) -> str:
        """What a command prints, both streams as a terminal shows them; printed too, unless *quiet*."""
        if not quiet:
            print(f"\n$ {shown or shlex.join(command)}", flush=True)
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        if not quiet:
            lines = done.stdout.splitlines()
            shown_lines = (
                lines if len(lines) <= 13 or done.returncode else [*lines[:12], f"… and {len(lines) - 12} more lines"]
            )
            print("\n".join(shown_lines), flush=True)
            _expect(done.returncode == 0, f"{shown or shlex.join(command)} ended with {done.returncode}")
        return done.stdout


@contextlib.contextmanager
def _place(hub: bool) -> Iterator[Place]:
    if hub:
        with tempfile.TemporaryDirectory(prefix="w-hub-", dir="/tmp") as path:
            yield _as_place(Path(path), {}, _own_address())
        return
    _say("An nginx image, made of Debian's packages:")
    image = images.get("nginx")
    layers = image.manifest["layers"]
    print(f"{image.id}, {len(layers)} layers, {sum(layer['size'] for layer in layers) / 1e6:.1f} MB compressed")
    host = hosts.enter()
    with tempfile.TemporaryDirectory(prefix="w-registry-") as storage, registries.running(Path(storage)) as registry:
        _say("A registry with that image on this host's loopback, as Docker Hub's mirror:")
        registry.push(image, "library/nginx:latest")
        print(registry.mirrors)
        with worlds.made(host, registry, images.get) as world:
            yield _as_place(world.path, world.environment, host.address)


def _as_place(path: Path, environment: dict[str, str], address: str) -> Place:
    own = {"WHERRY_ROOT": str(path / "root"), "WHERRY_RUN": str(path / "run")}
    return Place(path, os.environ | own | environment, address)


def _own_address() -> str:
    """The address that this machine has towards others; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((hosts.NEIGHBOUR, 9))
        except OSError as error:
            raise DemoFailed(f"this machine has no way to others, so Docker Hub is out of reach: {error}") from error
        address: str = probe.getsockname()[0]
        return address


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise DemoFailed(otherwise)


def _say(words: str) -> None:
    print(f"\n\033[1m{words}\033[0m" if sys.stdout.isatty() else f"\n# {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
