"""The command behind `nox -s bench`: sets the field up, measures, prints the table."""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from bench import machine, measure, rivals, table, transfers
from bench.cases import Field, all_cases
from bench.rivals import Command, NoRival, Runtime
from support import host as hosts
from support import images, leftovers
from support import registry as registries
from support import world as worlds
from support.layout import Layout

# In the order in which they are run: those who count shims before one that keeps spares, and those that start a further
# dockerd, which takes the first one's bridge away, at the end.
_NAMES = (
    "idle-shim",
    "idle",
    "cli-none",
    "cli-bridge",
    "sdk-none",
    "sdk-bridge",
    "throughput",
    "throughput-loopback",
    "exec",
    "pool",
    "stats",
    "list",
    "logs",
    "burst",
    "daemon-run",
    "daemon-list",
    "daemon-memory",
    "runtime",
    "runtime-shim",
    "runtime-exec",
    "shim",
    "shim-pss",
    "import",
    "pull",
    "pull-large",
    "pull-memory",
    "push",
    "save",
    "load",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; with `--check`, 1 if a limit is not kept or could not be judged."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description="Measure wherry beside others.")
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each contender (%(default)s)")
    parser.add_argument("--case", action="append", choices=_NAMES, help="this one only; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail if a limit is not kept")
    options = parser.parse_args(arguments)
    leftovers.run_id()
    names = [name for name in _NAMES if name in (options.case or _NAMES)]
    # Built before the host is entered, which sees no network but its own.
    image = images.get("busybox")
    if set(names) & set(transfers.OF_NGINX):
        transfers.nginx()
    with _field(hosts.enter(), image) as (field, versions, absent):
        cases = all_cases(field)
        results = [measure.run(cases[name](), options.rounds) for name in names]
    print(file=sys.stderr)
    print(f"{versions}.\nOn {machine.description()}.")
    print(f"Medians of {options.rounds} rounds, in each of which all take turns; {measure.WARM_UP} more to warm up.\n")
    print(table.markdown(results))
    for line in [*absent, *table.footnotes(results)]:
        print(f"\n- {line}")
    bounded = [result for result in results if result.case.limit is not None]
    return int(options.check and not all(result.kept for result in bounded))


@contextlib.contextmanager
def _field(host: hosts.Host, image: Layout) -> Iterator[tuple[Field, str, list[str]]]:
    """All who can take part, their versions, and why the others cannot."""
    layers = [image.blob(layer["digest"]) for layer in image.manifest["layers"]]
    # Sockets and state that the others keep in fixed places are this process's alone.
    hosts.cover("/run")
    with ExitStack() as stack:
        stack.enter_context(rivals.cgroups_removed())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="w-bench-", dir="/var/tmp")))
        registry = stack.enter_context(registries.running(folder / "registry"))
        world = stack.enter_context(worlds.made(host, registry, images.get))
        world.push("busybox")
        wherry = Command((_beside("wherry"),))
        wherry("pull", "busybox")
        thread = stack.enter_context(rivals.without_unified())
        oci = stack.enter_context(rivals.runtime(_beside("wherry-oci"), folder / "oci", layers))
        makers: dict[str, Callable[[], AbstractContextManager[Command | Runtime]]] = {
            "docker": lambda: rivals.docker(folder / "docker", registry),
            "podman": lambda: rivals.podman(folder / "podman", registry, thread),
            "runc": lambda: rivals.runtime("runc", folder / "runc", layers),
            "crun": lambda: rivals.runtime("crun", folder / "crun", layers, thread),
        }
        present: dict[str, Any] = {}
        absent = []
        for name, make in makers.items():
            try:
                present[name] = stack.enter_context(make())
            except NoRival as reason:
                absent.append(f"{name} does not take part: {reason}")
        versions = ", ".join([_version("wherry", wherry), *(_version(name, made) for name, made in present.items())])
        yield Field(folder=folder, registry=registry, ending=stack, wherry=wherry, oci=oci, **present), versions, absent


def _beside(name: str) -> str:
    """The command of that name that is installed with this interpreter."""
    return str(Path(sys.executable).with_name(name))


def _version(name: str, made: Command | Runtime) -> str:
    """The first line that says it; every one of these prints it differently."""
    command = made.command if isinstance(made, Runtime) else made
    program = Command(command.words[:1], command.environment)
    lines = program("version" if name == "wherry" else "--version").splitlines()
    said = " ".join((lines or ["?"])[0].split())
    return said if name in said.lower() else f"{name} {said}"


if __name__ == "__main__":
    os.environ.setdefault("TMPDIR", "/tmp")
    sys.exit(main())
