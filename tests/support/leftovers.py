"""
The check that nothing is left over: what a run made on the machine must be gone when it ends.

A run has a name in its environment, its folders begin with it, and each test process is on a host of its own; so what
belongs to the run is told from what others do on the same machine at the same time.
"""

import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

TAG = "WHERRY_TEST_RUN"
PATIENCE_S = float(os.environ.get("WHERRY_TEST_PATIENCE_S", "10"))  # how long what is ending may take to be gone

# A container engine keeps these for the next container: the folder of its cgroups, its bridge, its table. They hold
# nothing when no container is there.
STANDING_DEVICES = frozenset({"wherry0"})
STANDING_TABLES = re.compile(r"^table (ip|ip6|inet|bridge|netdev) wherry$")
STANDING_CGROUPS = frozenset({"wherry", "wherry/shims"})


def run_id() -> str:
    """Name of this test run, from the environment or made now; processes that are started later have it too."""
    return os.environ.setdefault(TAG, secrets.token_hex(2))


def folder_prefix() -> str:
    """
    What the paths of this run's folders begin with.

    Short: a socket's path has at most 107 bytes.
    """
    return f"/tmp/w-{run_id()}-"


def descriptors() -> dict[int, str]:
    """Open file descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed
            continue
    return found


def mounts() -> list[str]:
    """Mounts that this process sees: file system and mount point, in order."""
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    return [f"mount {line.partition(' - ')[2].split()[0]} on {line.split()[4]}" for line in lines]


def devices() -> list[str]:
    """Network devices of this process's network."""
    return [f"network device {name}" for _, name in socket.if_nameindex() if name not in STANDING_DEVICES]


def tables() -> list[str]:
    """nftables tables of this process's network."""
    listed = _nft("list", "tables").splitlines()
    return [f"nftables {line}" for line in listed if not STANDING_TABLES.match(line)]


def published() -> list[str]:
    """Elements of nftables maps of this process's network: published ports."""
    maps = re.findall(r"elements = \{(.*?)\}", _nft("list", "maps"), re.DOTALL)
    return [f"nftables map element {' '.join(element.split())}" for found in maps for element in found.split(",")]


def _nft(*arguments: str) -> str:
    nft = shutil.which("nft")
    if not nft or os.geteuid() != 0:
        return ""
    return subprocess.run([nft, *arguments], capture_output=True, text=True, check=False).stdout


def cgroups() -> dict[str, int]:
    """Wherry's cgroups in every hierarchy: their paths and inode numbers."""
    found = {}
    for mount in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        if mount.partition(" - ")[2].split()[0] in ("cgroup", "cgroup2"):
            found.update(_cgroups_below(mount.split()[4]))
    return found


def empty(cgroup: str) -> bool:
    """Whether no process is in a cgroup or below it."""
    try:
        return not any(Path(folder, "cgroup.procs").read_text() for folder, _, _ in os.walk(cgroup))
    except OSError:  # it is being removed
        return False


def _cgroups_below(top: str) -> dict[str, int]:
    found = {}
    for folder, children, _ in os.walk(top):
        inside = folder[len(top) :].strip("/")
        if not inside:
            continue
        if inside.split("/")[0].startswith("wherry"):
            if inside not in STANDING_CGROUPS:
                found[folder] = _inode(folder)
        elif inside.count("/") >= 3:
            children.clear()  # others' deep trees
    return {path: inode for path, inode in found.items() if inode}


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def processes(prefix: str | None = None, *, tagged: bool = False, network: bool = False) -> list[str]:
    """
    Processes of this run, but for this one and those that it descends from.

    One belongs to the run if its command line, mounts or working directory name *prefix*, or if it is *tagged* by its
    environment, or if it shares this process's *network* (a test host's is nobody else's).
    """
    ours = _namespace(os.getpid(), "net") if network else None
    marks = [prefix.encode()] if prefix else []
    tag = f"{TAG}={run_id()}".encode() if tagged else None
    found: list[str] = []
    lineage, here = _lineage(), _namespace(os.getpid(), "mnt")
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid in lineage:
            continue
        if not (command := _read(pid, "cmdline")):  # ended, or the kernel's own
            continue
        belongs = (
            (ours is not None and _namespace(pid, "net") == ours)
            or (tag is not None and tag in _read(pid, "environ").split(b"\0"))
            or any(mark in command or mark in _working(pid) for mark in marks)
            # What is mounted in our own namespace, everybody in it sees.
            or (_namespace(pid, "mnt") != here and any(mark in _read(pid, "mountinfo") for mark in marks))
        )
        if belongs:
            found.append(f"process {pid}: {command.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return found


def _lineage() -> set[int]:
    pids: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        pids.add(pid)
        parent = re.search(rb"^PPid:\s*(\d+)", _read(pid, "status"), re.MULTILINE)
        pid = int(parent[1]) if parent else 0
    return pids


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or is not ours to read
        return b""


def _namespace(pid: int, kind: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def _working(pid: int) -> bytes:
    try:
        return os.readlink(f"/proc/{pid}/cwd").encode()
    except OSError:
        return b""


def folders(prefix: str) -> list[str]:
    """Folders and files whose path begins with *prefix*."""
    parent, _, start = prefix.rpartition("/")
    return [f"file {parent}/{name}" for name in os.listdir(parent) if name.startswith(start)]


def containers(run: Path) -> list[str]:
    """What containers left in the run directory *run*: all but lock files, exit records, and how rootfs are made."""
    if not run.is_dir():
        return []
    return [
        f"file {path}"
        for path in sorted(run.iterdir())
        if not _lock(path) and path.name not in ("ended", "snapshotter")
    ]


def _lock(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size == 0 and path.name.endswith("lock")


def settled(look: Callable[[], list[str]], patience_s: float = PATIENCE_S) -> list[str]:
    """What *look* still finds when all that is ending had time to end."""
    deadline = time.monotonic() + patience_s
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def new(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """What is in *after* more often than in *before*."""
    return sorted((Counter(after) - Counter(before)).elements())
