"""The runtimes alone, on one bundle: whole lives, and further processes in a container."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import wherry_oci
from bench.measure import Case
from bench.rivals import NoRival, Runtime

if TYPE_CHECKING:
    from bench.cases import Field

_ids = itertools.count()
_CONTAINER = "bench-exec"

# What a shim is: an interpreter without `site`, with the runtime in it. It does one thing for each line that it reads,
# and answers with the milliseconds that it took.
_SHIM = """
import sys
source, root, bundle, what = sys.argv[1:]
sys.path.insert(0, source)
import os
from time import perf_counter
from wherry_oci.runtime import lifecycle
from wherry_oci.runtime.lifecycle import Options
ends = []
def make(id):
    directory, process = lifecycle.create(root, id, bundle, Options(gated=False))
    process.start()
    directory.unlock()
    return process.pid
def live(number):
    id = f"bench-{number}"
    os.waitpid(make(id), 0)
    lifecycle.delete(root, id, force=False, warn=ends.append)
def execute(number):
    made, _ = lifecycle.execute(root, "bench-shim", process, Options(gated=False))
    made.start()
    assert os.waitpid(made.pid, 0)[1] == 0
if what == "exec":
    first = make("bench-shim")
    process = {**lifecycle.load_config(bundle)["process"], "args": ["true"]}
for number, _ in enumerate(sys.stdin):
    start = perf_counter()
    (execute if what == "exec" else live)(number)
    print((perf_counter() - start) * 1000, flush=True)
if what == "exec":
    lifecycle.delete(root, "bench-shim", force=True, warn=ends.append)
"""


def cases(field: "Field") -> dict[str, Callable[[], Case]]:
    """By the names that `--case` takes."""
    return {
        "runtime": lambda: _commands(field),
        "runtime-shim": lambda: _lives(field),
        "runtime-exec": lambda: _execs(field),
    }


def _others(field: "Field", once: Callable[[Runtime], Callable[[], None]]) -> dict[str, Callable[[], float | None]]:
    named = {"runc": field.runc, "crun": field.crun}
    return {name: once(runtime) for name, runtime in named.items() if runtime is not None}


def _run(runtime: Runtime) -> Callable[[], None]:
    def run() -> None:
        runtime.command("run", "--bundle", str(runtime.bundle("true")), f"bench-{next(_ids)}")

    return run


def _commands(field: "Field") -> Case:
    contenders = {"wherry": _run(field.oci), **_others(field, _run)}
    return Case(name="`wherry-oci run` of a bundle, `true`", contenders=contenders, rival="runc", limit=3.0)


def _lives(field: "Field") -> Case:
    return Case(
        name="the same life in a shim's process",
        contenders={"wherry": _shim(field.oci, "true", "live"), **_others(field, _run)},
        rival="runc",
        limit=1.0,
    )


def _execs(field: "Field") -> Case:
    def once(runtime: Runtime) -> Callable[[], None]:
        runtime.command.leave("run", "--detach", "--bundle", str(runtime.bundle("sleep 1000")), _CONTAINER)

        def run() -> None:
            runtime.command("exec", _CONTAINER, "true")

        return run

    return Case(
        name="`exec true`, in a shim's process",
        contenders={"wherry": _shim(field.oci, "sleep 1000", "exec"), **_others(field, once)},
        rival="runc",
        limit=1.0,
    )


def _shim(runtime: Runtime, program: str, what: str) -> Callable[[], float]:
    """It ends with this process, whose end of its standard input is the last one."""
    root, source = runtime.command.words[-1], str(Path(wherry_oci.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-c", _SHIM, source, root, str(runtime.bundle(program)), what]
    shim = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def once() -> float:
        assert shim.stdin is not None
        assert shim.stdout is not None
        shim.stdin.write("\n")
        shim.stdin.flush()
        answer = shim.stdout.readline()
        if not answer:
            raise NoRival("the shim's process has ended")
        return float(answer)

    return once
