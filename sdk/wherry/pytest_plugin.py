"""
Fixtures that start containers for tests: installed with wherry, found by pytest by itself.

`wherry_client` is one Client for the session; `docker_host` is an Engine API for docker-py and testcontainers;
`run_container` starts containers that are removed when the test ends;
each of xdist's workers has its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import pytest

if TYPE_CHECKING:
    from wherry.client import Client
    from wherry.container import Container
    from wherry.options import RunOptions


class RunContainer(Protocol):
    """What the fixture `run_container` is: `Client.run`, with the removal seen to."""

    def __call__(
        self, image: str, command: str | Sequence[str] | None = None, **options: "Unpack[RunOptions]"
    ) -> "Container": ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where containers live, when not where WHERRY_ROOT says."""
    group = parser.getgroup("wherry", "containers for tests")
    group.addoption("--wherry-root", metavar="DIR", help="root directory of wherry_client [WHERRY_ROOT]")
    group.addoption("--wherry-keep-failed", action="store_true", help="leave the containers of failed tests running")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember whether the test failed, and show the output of its containers if it did."""
    report: Any = yield
    if call.when == "call":
        item.stash[_failed] = report.failed
        if report.failed:
            for name, output in _outputs(item):
                report.sections.append((f"container {name}", output))
    return report  # type: ignore[no-any-return] # a wrapper hook's result; pytest's stubs do not know it


_failed = pytest.StashKey[bool]()
_containers = pytest.StashKey["list[Container]"]()


def _outputs(item: pytest.Item) -> Iterator[tuple[str, str]]:
    from wherry.errors import WherryError

    for container in item.stash.get(_containers, []):
        try:
            yield container.name, container.logs(tail=50)
        except (WherryError, OSError):  # it removed itself: there is nothing to show
            continue


@pytest.fixture(scope="session")
def wherry_client(request: pytest.FixtureRequest) -> "Iterator[Client]":
    """A Client for the whole session. It connects to nothing and makes nothing before its first use."""
    from wherry.client import Client

    with Client(root=request.config.getoption("--wherry-root")) as client:
        yield client


@pytest.fixture(scope="session")
def docker_host(wherry_client: "Client") -> Iterator[str]:
    """
    Docker's Engine API on `wherry_client`, with no daemon installed; DOCKER_HOST names it for the session.

    docker-py and testcontainers find it by that. Its address is the fixture's value.
    """
    from wherry.dockerhost import docker_host as serving

    with serving(wherry_client) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        yield address


@pytest.fixture
def run_container(request: pytest.FixtureRequest, wherry_client: "Client") -> Iterator[RunContainer]:
    """
    `run_container(image, command, **options)`, as `Client.run`: a started container, removed when the test ends.

    The output of a failed test's containers is shown with the failure.
    """
    started: list[Container] = []
    request.node.stash[_containers] = started
    with ExitStack() as ending:
        yield _starter(wherry_client, started, ending)
        if request.config.getoption("--wherry-keep-failed") and request.node.stash.get(_failed, False):
            ending.pop_all()


def _starter(client: "Client", started: "list[Container]", ending: ExitStack) -> RunContainer:
    def run(image: str, command: str | Sequence[str] | None = None, **options: "Unpack[RunOptions]") -> "Container":
        container = client.run(image, command, **options)
        started.append(ending.enter_context(container))
        return container

    return run


__all__ = ["RunContainer", "run_container", "wherry_client"]
