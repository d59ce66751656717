"""Docker's restart policies and their back-off."""

import pytest

from wherry_shim.restart import RestartPolicy

pytestmark = pytest.mark.unit


def test_no_policy_starts_nothing_again() -> None:
    """Whatever the exit code."""
    assert RestartPolicy().next_wait(1, 100, stopped=False) is None


def test_on_failure_counts_its_tries() -> None:
    """Success ends it, and so does the last try."""
    policy = RestartPolicy("on-failure", 2)
    assert policy.next_wait(0, 1, stopped=False) is None
    assert [policy.next_wait(3, 1, stopped=False) is not None for _ in range(3)] == [True, True, False]
    assert policy.count == 2


@pytest.mark.parametrize("name", ["always", "unless-stopped"])
def test_what_was_stopped_stays_so(name: str) -> None:
    """By hand, nobody starts it again."""
    assert RestartPolicy(name).next_wait(0, 1, stopped=True) is None
    assert RestartPolicy(name).next_wait(0, 1, stopped=False) == 0.1


def test_the_wait_doubles_to_a_minute_and_begins_anew_after_a_long_run() -> None:
    """100 ms, 200 ms, …, 60 s; ten seconds of running count as success."""
    policy = RestartPolicy("always")
    waits = [policy.next_wait(1, 0.5, stopped=False) for _ in range(12)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 60
    assert policy.next_wait(1, 10.0, stopped=False) == 0.1
