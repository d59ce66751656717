"""An OCI runtime by its command: what it is called with, and what is made of what it says."""

import os
from pathlib import Path

import pytest

from wherry_oci.runtime.failure import RuntimeFailure
from wherry_shim.runtimecommand import RuntimeCommand

pytestmark = pytest.mark.unit

# A runtime that keeps its command line, logs $LOGGED, prints $PRINTED, and ends with $STATUS.
_FAKE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
test -z "$LOGGED" || printf '%s\\n' "$LOGGED" >> "$4"
echo "$PRINTED" >&2
exit "${STATUS:-0}"
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeCommand:
    """The fake one, which does as the environment says."""
    for name in ("LOGGED", "PRINTED", "STATUS"):
        monkeypatch.delenv(name, raising=False)
    program = tmp_path / "fakerun"
    program.write_text(_FAKE)
    program.chmod(0o755)
    return RuntimeCommand(str(program), str(tmp_path), "ID")


def _calls(tmp_path: Path) -> list[str]:
    common = f"--root {tmp_path}/state --log {tmp_path}/log --log-format json "
    lines = (tmp_path / "calls").read_text().splitlines()
    assert all(line.startswith(common) for line in lines)
    return [line.removeprefix(common) for line in lines]


def test_operations_are_the_commands_of_runc(runtime: RuntimeCommand, tmp_path: Path) -> None:
    """With documents by files."""
    runtime.kill(15)
    runtime.pause()
    runtime.resume()
    runtime.update({"pids": {"limit": 5}})
    runtime.delete()
    assert _calls(tmp_path) == [
        "kill ID 15",
        "pause ID",
        "resume ID",
        f"update --resources {tmp_path}/resources.json ID",
        "delete --force ID",
    ]
    assert (tmp_path / "resources.json").read_text() == '{"pids":{"limit":5}}'


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('runc create failed: exec: "no": executable file not found in $PATH', "not_found"),
        ('runc create failed: exec: "/no": stat /no: no such file or directory', "not_found"),
        ("executable file `no` not found in $PATH: No such file or directory", "not_found"),
        ('exec: "/etc/passwd": permission denied', "not_executable"),
        ("open executable: Permission denied", "not_executable"),
        ("open executable: Operation not permitted", "not_executable"),
        ("error mounting /x: no such file or directory", "system"),
        ("container not running", "gone"),
        ("container ID does not exist", "gone"),
    ],
)
def test_a_failure_is_told_by_its_words(
    runtime: RuntimeCommand, monkeypatch: pytest.MonkeyPatch, said: str, kind: str
) -> None:
    """The last error in the log counts, not a warning after it, nor what is printed."""
    lines = [f'{{"level":"{level}","msg":{text}}}' for level, text in (("error", '"first"'), ("error", _json(said)))]
    monkeypatch.setenv("LOGGED", "\n".join(["cut off", *lines, '{"level":"warning","msg":"later"}']))
    monkeypatch.setenv("PRINTED", "printed")
    monkeypatch.setenv("STATUS", "1")
    with pytest.raises(RuntimeFailure) as raised:
        runtime.pause()
    assert (raised.value.kind, raised.value.step, raised.value.message) == (kind, "fakerun pause", said)


def _json(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def test_without_a_log_what_is_printed_counts(runtime: RuntimeCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without that, the exit status."""
    monkeypatch.setenv("STATUS", "3")
    with pytest.raises(RuntimeFailure, match="exit status 3"):
        runtime.pause()
    monkeypatch.setenv("PRINTED", "what is wrong")
    with pytest.raises(RuntimeFailure, match="fakerun resume: what is wrong"):
        runtime.resume()


def test_one_that_has_ended_takes_no_signal(runtime: RuntimeCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kill(2) says it; deleting it is fine."""
    monkeypatch.setenv("STATUS", "1")
    monkeypatch.setenv("PRINTED", "container not running")
    with pytest.raises(ProcessLookupError):
        runtime.kill(9)
    runtime.delete()


def test_a_runtime_that_sends_no_terminal_is_told(
    runtime: RuntimeCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody waits for ever, and the socket is gone."""
    monkeypatch.setattr("wherry_shim.runtimecommand._CONSOLE_WAIT_S", 0.05)
    (tmp_path / "init.pid").write_text("1")
    with pytest.raises(RuntimeFailure, match="no terminal"):
        runtime.create(str(tmp_path), None)
    assert not (tmp_path / "console").exists()


def test_a_runtime_that_is_gone_is_named(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(RuntimeFailure, match=f"{tmp_path}/none: no such file"):
        RuntimeCommand(f"{tmp_path}/none", str(tmp_path), "ID").pause()


def test_it_runs_with_the_umask_of_a_system(runtime: RuntimeCommand, tmp_path: Path) -> None:
    """What it makes in a rootfs others may enter; the caller's own stays."""
    before = os.umask(0o077)
    try:
        runtime.pause()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert (tmp_path / "calls").stat().st_mode & 0o777 == 0o644
