"""The fixtures that pytest's users get."""

from pathlib import Path

import pytest

from support.world import World
from wherry import Client

pytestmark = pytest.mark.e2e
pytest_plugins = ["pytester"]

_QUIET = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]


def test_containers_of_a_test_are_removed_when_it_ends(world: World, pytester: pytest.Pytester) -> None:
    """Passed or failed; the output of a failed test's containers is shown."""
    world.push("busybox")
    pytester.makepyfile(
        """
        def test_passes(run_container, wherry_client):
            container = run_container("busybox", "sleep 1000", network="none")
            assert wherry_client.containers.list() == [container]

        def test_fails(run_container, wherry_client):
            assert wherry_client.containers.list(all=True) == []
            run_container("busybox", "echo something to look at", network="none").wait()
            assert False
        """
    )
    result = pytester.runpytest_subprocess(*_QUIET)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*container *", "something to look at"])
    assert Client().containers.list(all=True) == []


def test_containers_of_failed_tests_can_be_kept(world: World, pytester: pytest.Pytester) -> None:
    """--wherry-keep-failed, to look at them."""
    world.push("busybox")
    pytester.makepyfile(
        """
        def test_fails(run_container):
            run_container("busybox", "sleep 1000", network="none", name="kept")
            assert False
        """
    )
    pytester.runpytest_subprocess(*_QUIET, "--wherry-keep-failed").assert_outcomes(failed=1)
    with Client().containers.get("kept") as kept:
        assert kept.status == "running"


def test_collecting_needs_no_root_directory(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """The fixtures make nothing before a test uses them."""
    pytester.makepyfile("def test_it(wherry_client):\n    pass")
    pytester.runpytest_subprocess(*_QUIET, f"--wherry-root={tmp_path}/root").assert_outcomes(passed=1)
    assert not (tmp_path / "root").exists()
