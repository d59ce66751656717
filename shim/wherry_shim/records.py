"""
The small files by which a shim tells the world about its container, each replaced whole by rename.

`run/ID/state.json`
    `status` ("starting", "running", "paused" or "restarting"), `shim` and `shim_start` (process and its start time in
    clock ticks since boot: a number used again is told apart), the same as `pid` and `pid_start` for the container's
    first process, `started` (nanoseconds since 1970), `restarts`, `health` (health.py) or null, `ports` as bound,
    `table` of nftables that publishes them.
`exit.json`, in `run/ID` and beside the container's configuration; of one that removes itself at its end `run/ended/ID`
    `exit_code`, `signal` (or null), `oom_killed`, `started`, `finished`, `restarts`, `log_lost` (bytes
    that no disk took), `stopped` (somebody asked it to end). Beside that one, `run/ended/ID.log` has its last words.
`run/ID/attach/`, `run/ID/execs/`
    What clients leave for the shim: sockets to call before the start (client.Appointment), and execs by their ids.
"""

import os

from wherry_oci.runtime import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE = "state.json"
EXIT = "exit.json"
SOCKET = "shim.sock"
_ENDED = "ended"


def write(directory: str, name: str, record: "dict[str, Any]") -> None:
    """Put *record* in the place of *directory*/*name*, on disk before it is seen. Raises OSError."""
    temporary = f"{directory}/.{name}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, quickjson.dumps(record).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, f"{directory}/{name}")


def keep_ended(run_directory: str) -> None:
    """Have the exit record in a place of its own, too, for who asks when *run_directory* is gone."""
    run, _, container = run_directory.rpartition("/")
    try:
        os.mkdir(f"{run}/{_ENDED}", 0o700)
    except FileExistsError:
        pass
    os.link(f"{run_directory}/{EXIT}", f"{run}/{_ENDED}/{container}")


def read_ended(run_directory: str) -> "dict[str, Any] | None":
    """What `keep_ended` kept, if it is still there."""
    run, _, container = run_directory.rpartition("/")
    return read(f"{run}/{_ENDED}", container)


def ended_log(run_directory: str) -> str:
    """Where the end of an auto-removed container's log is kept, in the form of the driver "local"."""
    run, _, container = run_directory.rpartition("/")
    return f"{run}/{_ENDED}/{container}.log"


def forget_ended(run: str, older_than_s: float) -> None:
    """Remove what has been kept for longer."""
    from time import time

    from wherry_shim.tree import remove_tree

    try:
        with os.scandir(f"{run}/{_ENDED}") as entries:
            old = [entry.path for entry in entries if time() - entry.stat().st_mtime > older_than_s]
    except FileNotFoundError:
        return
    for path in old:
        try:
            os.unlink(path)
        except IsADirectoryError:
            remove_tree(path)
        except FileNotFoundError:
            continue


def read(directory: str, name: str) -> "dict[str, Any] | None":
    """The record, or None where there is none. Raises OSError for other reasons."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        parts = []
        while chunk := os.read(fd, 1 << 16):
            parts.append(chunk)
    finally:
        os.close(fd)
    record: dict[str, Any] = quickjson.loads(b"".join(parts))
    return record


def start_time(pid: int) -> int | None:
    """When process *pid* began, in clock ticks since boot (proc_pid_stat(5), field 22); None when there is none."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):  # gone, or just going
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
