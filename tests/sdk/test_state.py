"""A container's state, read from its files."""

from pathlib import Path

import pytest

from wherry import state
from wherry_shim import records

pytestmark = pytest.mark.unit


def test_how_one_ended_is_known_when_all_of_it_is_gone(tmp_path: Path) -> None:
    """One that removed itself: whoever waited does not know when it was started, and must not take it for a new one."""
    run = tmp_path / "run" / "c1"
    run.mkdir(parents=True)
    records.write(str(run), records.EXIT, {"exit_code": 3})
    records.keep_ended(str(run))
    (run / records.EXIT).unlink()
    run.rmdir()
    found = state.read(tmp_path / "c1", run, None)
    assert found.exit is not None
    assert (found.status, found.exit.exit_code) == ("exited", 3)


def test_one_that_was_never_started_is_created(tmp_path: Path) -> None:
    """Nothing is there of it yet."""
    assert state.read(tmp_path / "c1", tmp_path / "run" / "c1", 0).status == "created"
