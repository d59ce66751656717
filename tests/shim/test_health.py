"""Health checks in a shim, as far as they need no container."""

import time

import pytest

from wherry_shim import health
from wherry_shim.health import HealthMonitor, Probe
from wherry_shim.loop import Loop

pytestmark = pytest.mark.unit

_HOUR_NS = 3600 * 10**9


@pytest.mark.parametrize("jump", [_HOUR_NS, -_HOUR_NS])
def test_a_change_of_the_clock_ends_no_start_period(monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """Failures in it do not count, whatever the time of day is said to be; and the checks go on."""
    loop, checks, told = Loop(), list[list[str]](), list[str]()

    class Ended:
        def kill(self, signal: int) -> None:
            raise AssertionError("it has ended by itself")

    def run(command: list[str], probe: Probe) -> Ended:
        checks.append(command)
        now = time.time_ns()
        monkeypatch.setattr(health, "time_ns", lambda: now + jump)
        probe.ended(1)
        return Ended()

    config = {
        "test": ["CMD", "check"],
        "interval": 10**6,
        "start_interval": 10**6,
        "start_period": _HOUR_NS,
        "retries": 1,
    }
    monitor = HealthMonitor(loop, config, run, lambda: told.append(monitor.status))  # type: ignore[arg-type] # enough
    while len(checks) < 3:
        loop.step()
    assert told == ["starting"] * 3
    assert monitor.record()["failing_streak"] == 0
