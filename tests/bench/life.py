"""What a running container is asked for: execs, samples, lists, output."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure import Case

if TYPE_CHECKING:
    from bench.cases import Field

_LISTED = 100
_LOGGED = 100_000_000  # bytes
_WRITER = ["sh", "-c", f"yes 'a line of a log, as long as they are' | head -c {_LOGGED}"]


def cases(field: "Field") -> dict[str, Callable[[], Case]]:
    """By the names that `--case` takes."""
    return {
        "exec": lambda: _execs(field),
        "pool": _pool,
        "stats": _stats,
        "list": lambda: _lists(field),
        "logs": lambda: _logs(field),
        "burst": _burst,
    }


def docker_py(field: "Field") -> Any:
    """docker-py's client of the dockerd that takes part, or None."""
    if field.docker is None:
        return None
    import docker

    return docker.DockerClient(base_url=field.docker.environment["DOCKER_HOST"])


def _execs(field: "Field") -> Case:
    from wherry import Client

    container = Client().run("busybox", "sleep 1000", network="none", lifetime="owner")

    def ours() -> None:
        assert container.exec("true").exit_code == 0

    contenders: dict[str, Callable[[], None]] = {"wherry": ours}
    if (theirs := docker_py(field)) is not None:
        other = theirs.containers.run("busybox", "sleep 1000", network_mode="none", detach=True)

        def run() -> None:
            other.exec_run("true")

        contenders["docker"] = run
    return Case(name="`container.exec('true')`, warm", contenders=contenders, limit=0.25)


def _pool() -> Case:
    """From the call until a container that waited has run its first instruction, and a word of it has come here."""
    from wherry import Client

    folder = Path(os.environ["WHERRY_ROOT"]).with_name("pool")
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    pipe = os.open(folder / "pipe", os.O_RDWR | os.O_CLOEXEC)  # both ends: nobody waits for the other one
    client = Client()

    def ours() -> float:
        with client.pool("busybox", size=1, network="none", volumes=[f"{folder}:/from"]) as pool:
            begin = time.perf_counter()
            with pool.run(["sh", "-c", "echo > /from/pipe; exec sleep 1000"]):
                os.read(pipe, 1)
                return (time.perf_counter() - begin) * 1000

    return Case(name="`pool.run(…)`, to its first word", contenders={"wherry": ours}, rival="", limit=15)


def _stats() -> Case:
    from wherry import Client

    container = Client().run("busybox", "sleep 1000", network="none", lifetime="owner")

    def ours() -> None:
        container.stats(stream=False)

    return Case(name="one sample of `container.stats()`", contenders={"wherry": ours}, rival="", limit=10)


def _lists(field: "Field") -> Case:
    """Of containers that do not run: what is compared is the list, not the machine's memory."""
    from wherry import Client

    client = Client()
    for _ in range(_LISTED):
        client.create("busybox", "true", network="none")

    def ours() -> None:
        assert len(client.containers.list(all=True)) >= _LISTED

    contenders: dict[str, Callable[[], None]] = {"wherry": ours}
    if (theirs := docker_py(field)) is not None:
        for _ in range(_LISTED):
            theirs.containers.create("busybox", "true", network_mode="none")

        def run() -> None:
            theirs.containers.list(all=True)

        contenders["docker"] = run
    return Case(name=f"`client.containers.list()` of {_LISTED}", contenders=contenders, limit=0.5)


_BURST = 1_000_000_000  # bytes
_LINE = "a line of a log, as long as they are"


def _burst() -> Case:
    """As fast as the lines come, to the disk; every byte must be there, and every line whole."""
    from wherry import Client

    client = Client()
    count = _BURST // (len(_LINE) + 1)
    script = ["sh", "-c", f"yes '{_LINE}' | head -n {count}"]
    options = {"Type": "local", "Config": {"max-size": "-1"}}

    def ours() -> float:
        begin = time.perf_counter()
        with client.run("busybox", script, network="none", log_config=options) as container:
            ended = container.wait()
            elapsed = (time.perf_counter() - begin) * 1000
            assert (ended.exit_code, ended.log_lost) == (0, 0)
            assert container.output() == f"{_LINE}\n".encode() * count
        return elapsed

    return Case(name="1 GB of output, logged, and read back whole", contenders={"wherry": ours}, rival="")


def _logs(field: "Field") -> Case:
    """A container that only writes, from its start to its end: dockerd's json-file beside wherry's local."""
    from wherry import Client

    client = Client()

    def ours() -> None:
        with client.run("busybox", _WRITER, network="none") as container:
            assert container.wait().exit_code == 0

    contenders: dict[str, Callable[[], None]] = {"wherry": ours}
    if (theirs := docker_py(field)) is not None:

        def run() -> None:
            container = theirs.containers.run("busybox", _WRITER, network_mode="none", detach=True)
            container.wait()
            container.remove()

        contenders["docker"] = run
    return Case(name=f"{_LOGGED // 10**6} MB of output, logged", contenders=contenders, limit=1 / 3)
