"""The processes of a container, as ps -ef shows them, read from /proc."""

import os
import pwd
import time
from typing import Any

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_DAY_S = 86_400


def of_namespace(pid: int) -> list[int]:
    """All that are in the pid namespace of process *pid*; it alone where that is this process's own."""
    wanted, ours = _namespace(pid), _namespace(os.getpid())
    if wanted is None or wanted == ours:
        return [pid] if wanted is not None else []
    return [number for number in map(int, filter(str.isdigit, os.listdir("/proc"))) if _namespace(number) == wanted]


def _namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:  # it has ended, or is not ours to see
        return None


def table(pids: list[int]) -> dict[str, Any]:
    """`Titles` and `Processes`; one that ends meanwhile is left out."""
    return {"Titles": TITLES, "Processes": [row for pid in sorted(pids) if (row := _row(pid)) is not None]}


def _row(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").replace(b"\0", b" ")
        owner = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index(b"(") + 1 : text.rindex(b")")]
    fields = text[text.rindex(b")") + 2 :].split()
    ticks = os.sysconf("SC_CLK_TCK")
    used_s = (int(fields[11]) + int(fields[12])) // ticks
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks
    started = time.localtime(time.time() - age_s)
    return [
        _user(owner),
        str(pid),
        fields[1].decode(),
        str(int(100 * used_s / age_s) if age_s >= 1 else 0),
        time.strftime("%H:%M" if age_s < _DAY_S else "%b%d", started),
        _terminal(int(fields[4])),
        f"{used_s // 3600:02d}:{used_s // 60 % 60:02d}:{used_s % 60:02d}",
        (words or b"[" + name + b"]").decode("utf-8", "replace"),
    ]


def _user(uid: int) -> str:
    """The host's name for it, as ps has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor}" if major == 136 else "?"
