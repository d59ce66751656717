"""
Fixtures of all tests, and the checks around them.

As root each test process works on a test host of its own (support.host), so that tests see no network but theirs and
the machine sees nothing of them. What a test leaves over fails that test; what a run leaves over fails the run.
"""

import gc
import os
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import pytest

from support import host as hosts
from support import images, leftovers, rootless, users
from support import registry as registries
from support import world as worlds
from support.host import Host
from support.layout import Layout
from support.registry import Registry
from support.users import User
from support.world import World

KINDS = ("unit", "root", "e2e")
_no_host = pytest.StashKey[str]()
_before = pytest.StashKey[dict[str, Any]]()
_left = pytest.StashKey[list[str]]()


# --- the run --------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rootless`: the tests act for an ordinary user."""
    parser.addoption("--rootless", action="store_true", help="run the e2e tests as an ordinary user")


@pytest.hookimpl(tryfirst=True)  # before the folder of tmp_path is chosen
def pytest_configure(config: pytest.Config) -> None:
    """Name the run before workers are started, and keep tests that forget their world away from the machine's."""
    leftovers.run_id()
    if config.option.basetemp is None:
        # Not pytest's folder of the user: runs would remove each other's, and what tests make can be hard to remove.
        config.option.basetemp = _temporary()
    config.stash[_left] = []
    os.environ["WHERRY_TEST_CACHE"] = str(images.cache())  # whoever this process acts for
    os.environ["WHERRY_ROOT"] = f"{leftovers.folder_prefix()}none/root"
    os.environ["WHERRY_RUN"] = f"{leftovers.folder_prefix()}none/run"
    for name in ("WHERRY_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        os.environ.pop(name, None)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Go to a test host before the first test, and remember what is there."""
    config = session.config
    if _runs_tests(config):
        try:
            hosts.enter()
            if config.getoption("rootless"):
                _become_user(config)
        except (hosts.NoHost, users.NoUser) as error:
            config.stash[_no_host] = str(error)
    config.stash[_before] = {"cgroups": leftovers.cgroups(), "here": _here(config)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each test says what it needs; what cannot be had is a reason to skip, with its name."""
    for item in items:
        if config.getoption("rootless") and (reason := rootless.reason(item.nodeid)):
            item.add_marker(pytest.mark.skip(reason=reason))
        kinds = [kind for kind in KINDS if item.get_closest_marker(kind)]
        if len(kinds) != 1:
            raise pytest.UsageError(
                f"{item.nodeid} has the markers {kinds}: it needs exactly one of {', '.join(KINDS)}"
            )
        reason = config.stash.get(_no_host, "")
        if kinds != ["unit"] and reason and not os.environ.get("CI"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _become_user(config: pytest.Config) -> None:
    """Act for an ordinary user, to whom the folders of tmp_path belong then."""
    user = users.made()
    folder = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # of no fixture yet
    os.chown(folder, user.uid, user.uid)
    os.chmod(folder.parent, os.stat(folder.parent).st_mode | 0o001)
    users.set_lowest_port(0)  # tests publish ports below 1024, and ask name servers at 53
    users.become(user)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """After the last test this process is root again, if it was not."""
    try:
        return (yield)
    finally:
        users.return_to_root()


@pytest.hookimpl(trylast=True)  # after the session's fixtures are taken down
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for what it leaves over."""
    config = session.config
    before = config.stash.get(_before, None)
    if before is None:
        return
    left = config.stash[_left]
    users.end()
    left += leftovers.settled(lambda: leftovers.new(before["here"], _here(config)))
    worker_output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if worker_output is not None:
        worker_output["left_over"] = left
        return
    left += leftovers.settled(lambda: [*_processes_of_the_run(), *_new_cgroups(before["cgroups"])])
    subprocess.run(["rm", "-rf", _temporary()], check=False)  # goes deeper than Python's recursion
    left += leftovers.folders(leftovers.folder_prefix())
    left[:] = dict.fromkeys(left)  # a worker and the run may see the same
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended: what it left over is the run's."""
    node.config.stash[_left].extend(getattr(node, "workeroutput", {}).get("left_over", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what is left over."""
    if left := config.stash[_left]:
        terminalreporter.section("left over", red=True, bold=True)
        for line in left:
            terminalreporter.write_line(line)


def _temporary() -> str:
    """Where this run's tmp_path folders are."""
    return f"{leftovers.folder_prefix()}tmp"


def _runs_tests(config: pytest.Config) -> bool:
    """Whether tests run in this process: in xdist's workers, not in the process that controls them."""
    return hasattr(config, "workerinput") or not config.getoption("numprocesses", None)


def _here(config: pytest.Config) -> list[str]:
    """What this process sees of what tests can leave over; the machine's own things belong to others too."""
    if not hosts.entered():
        return []
    with users.as_root():
        return _all_here()


def _all_here() -> list[str]:
    return [
        *leftovers.mounts(),
        *leftovers.devices(),
        *leftovers.tables(),
        *leftovers.processes(network=True),
    ]


def _processes_of_the_run() -> list[str]:
    return leftovers.processes(leftovers.folder_prefix(), tagged=True)


def _new_cgroups(before: dict[str, int]) -> list[str]:
    """
    Cgroups that are new, and empty.

    One with processes in it is theirs: a leak if they are of this run, else another run's at this very time.
    """
    new = [path for path, inode in leftovers.cgroups().items() if before.get(path) != inode]
    return [f"cgroup {path}" for path in new if leftovers.empty(path)]


# --- each test ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_left_over(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test ends with the descriptors, threads, mounts, devices and directory that it began with."""
    if request.node.get_closest_marker("unit"):
        yield
        return
    before = _cheap()
    directory, mask = os.getcwd(), _umask()
    yield
    if leftovers.new(before, _cheap()):
        gc.collect()  # an expected exception may hold what its traceback saw
    left = leftovers.settled(lambda: leftovers.new(before, _cheap()))
    assert not left, "the test left over:\n" + "\n".join(left)
    assert (os.getcwd(), _umask()) == (directory, mask), "the test changed the directory or the umask of its process"


def _cheap() -> list[str]:
    """What can be looked at around each test."""
    return [
        *(f"descriptor of {target}" for target in leftovers.descriptors().values()),
        *(f"thread {thread.name}" for thread in threading.enumerate()),
        *(leftovers.mounts() + leftovers.devices() if hosts.entered() else []),
    ]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# --- what tests ask for ---------------------------------------------------------------------------------------------


def _missing(reason: str) -> NoReturn:
    """Something that a test asks for cannot be had here: no reason to fail, but for CI, which shall have everything."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> Host:
    """The test host that this process is on; a skip where there can be none."""
    entered = hosts.entered()
    if entered is None:
        _missing(request.config.stash.get(_no_host, "not on a test host"))
    return entered


@pytest.fixture(scope="session")
def image() -> Callable[[str], Layout]:
    """Test images by name (support.images.RECIPES), built when first asked for."""

    def get(name: str) -> Layout:
        entered = hosts.entered()
        try:
            with users.as_root():
                return images.get(name, prefix=entered.machine.prefix if entered else ())
        except images.CannotBuild as error:
            _missing(str(error))

    return get


@pytest.fixture(scope="session")
def registry(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """
    One registry on loopback for all tests of this process; empty at first.

    For tests that only read what they pushed; others start their own with support.registry.running.
    """
    with ExitStack() as stack:
        try:
            with users.as_root():
                server = stack.enter_context(registries.running(tmp_path_factory.mktemp("registry")))
        except registries.NoRegistry as error:
            _missing(str(error))
        yield server


@pytest.fixture(scope="session")
def ordinary_user(host: Host) -> User:
    """An ordinary user of this process, for whom nobody acts yet; a skip where there can be none."""
    try:
        return users.made()
    except users.NoUser as error:
        _missing(str(error))


@pytest.fixture
def world(host: Host, registry: Registry, image: Callable[[str], Layout]) -> Iterator[World]:
    """
    Root and run directories of the test's own, with no images, and the registry as Docker Hub's mirror.

    WHERRY_ROOT, WHERRY_RUN and WHERRY_REGISTRY_MIRRORS are set meanwhile. What the test leaves running fails it.
    """
    with worlds.made(host, registry, image) as made:
        yield made
        _check(made)


def _check(made: World) -> None:
    left = leftovers.settled(made.left_over)
    assert not left, "the test left over:\n" + "\n".join(left)
