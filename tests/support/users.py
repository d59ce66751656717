"""
An ordinary user for a test process: one with no rights, with files of its own and ids to map, that nobody else has.

The machine's /etc/passwd and its kin are left as they are: the user is in copies that this process's own mounts show.
So are ways to the interpreter and the sources that lead through folders of root's.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from support import host as hosts
from support import images, leftovers
from wherry_oci.linux.process import set_dumpable
from wherry_shim import records

_FIRST_UID, _FIRST_SUBID, _SUBIDS = 200_000, 1 << 26, 65_536
_TABLES = ("passwd", "group", "subuid", "subgid")
_SOURCES = ("oci", "images", "shim", "sdk", "daemon")


class NoUser(Exception):
    """There can be no such user here; the message says what is missing."""


@attrs.frozen
class User:
    """An ordinary user of this test process."""

    name: str
    uid: int  # and its group's
    first: int  # of the ids that it may map
    home: Path

    @property
    def holder(self) -> Path:
        """Where wherry records the holder of the user's namespaces."""
        return self.home / "run" / "wherry"

    @property
    def environment(self) -> dict[str, str]:
        """What a login would set."""
        return {"HOME": str(self.home), "USER": self.name, "XDG_RUNTIME_DIR": str(self.home / "run")}

    def set_mapped(self, mapped: bool) -> None:
        """Whether /etc/subuid and /etc/subgid have ids for the user, from now on."""
        for table in ("subuid", "subgid"):
            Path("/etc", table).write_text(f"{self.name}:{self.first}:{_SUBIDS}\n" if mapped else "")


_made: list[User] = []
_shown: list[str] = []  # where something is mounted


def _show(source: str, path: str) -> None:
    hosts.show(source, path)
    _shown.append(path)


def made() -> User:
    """The user of this process, which is root and on a host of its own; the second call returns the same."""
    if not _made:
        for program in ("newuidmap", "newgidmap"):
            if shutil.which(program) is None:
                raise NoUser(f"{program} is missing: apt-get install uidmap")
        number = os.getpid() % 20_000
        home = Path(f"{leftovers.folder_prefix()}u{os.getpid()}")
        user = User(f"wherry{number}", _FIRST_UID + number, _FIRST_SUBID + number * _SUBIDS, home)
        for place in (home, home / "run", home / "etc"):
            place.mkdir(mode=0o700)
            os.chown(place, user.uid, user.uid)
        _add_to_tables(user)
        _open_tunnels(user)
        images.cache().mkdir(parents=True, exist_ok=True)
        for way in {sys.base_prefix, sys.prefix, str(Path(__file__).parents[2]), str(images.cache())}:
            _open_way(way)
        _made.append(user)
    return _made[0]


def _add_to_tables(user: User) -> None:
    entries = {
        "passwd": f"{user.name}:x:{user.uid}:{user.uid}::{user.home}:/bin/sh\n",
        "group": f"{user.name}:x:{user.uid}:\n",
        "subuid": f"{user.name}:{user.first}:{_SUBIDS}\n",
        "subgid": f"{user.name}:{user.first}:{_SUBIDS}\n",
    }
    for table in _TABLES:
        there = Path("/etc", table)
        text = there.read_text() if there.exists() and table in ("passwd", "group") else ""
        there.touch()
        copy = user.home / "etc" / table
        copy.write_text(text + entries[table])
        copy.chmod(0o644)
        _show(str(copy), str(there))


def _open_tunnels(user: User) -> None:
    """/dev/net/tun for everybody, as udev makes it."""
    node = user.home / "tun"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 200))
    node.chmod(0o666)
    _show(str(node), "/dev/net/tun")


def _open_way(path: str) -> None:
    """Let everybody pass each folder on the way to *path*, by others in their places that have the same in them."""
    for folder in reversed(Path(path).resolve().parents):
        if folder.stat().st_mode & 0o001:
            continue
        inside = os.open(folder, os.O_PATH)
        names = os.listdir(folder)
        hosts.cover(str(folder))
        _shown.append(str(folder))
        folder.chmod(0o711)
        for name in names:
            source = f"/proc/self/fd/{inside}/{name}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), folder / name)
                continue
            if os.path.isdir(source):
                (folder / name).mkdir()
            else:
                (folder / name).touch()
            hosts.show(source, str(folder / name))
        os.close(inside)


def set_lowest_port(number: int) -> None:
    """From which port on everybody may have it, on this process's host."""
    with as_root():
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text(str(number))


def current() -> User | None:
    """Whom this process acts for at the moment; None for root."""
    return _made[0] if _made and os.geteuid() == _made[0].uid else None


def become(user: User) -> None:
    """Act for *user* from now on; `as_root` is the way back."""
    os.setgroups([user.uid])
    os.setresgid(user.uid, user.uid, 0)
    os.setresuid(user.uid, user.uid, 0)
    set_dumpable(True)  # as any program of the user's is
    os.environ.update(user.environment)


@contextmanager
def being(user: User) -> Iterator[None]:
    """Act for *user* meanwhile."""
    saved = {name: os.environ.get(name) for name in user.environment}
    groups = os.getgroups()
    become(user)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def as_root() -> Iterator[None]:
    """Be root meanwhile, if this process acts for a user at all."""
    user = current()
    if user is None:
        yield
        return
    return_to_root()
    try:
        yield
    finally:
        become(user)


def return_to_root() -> None:
    """Be root from now on, if this process acts for a user."""
    if current() is not None:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


def end() -> None:
    """End the user's holder, and remove its files and mounts; as root."""
    while _shown:
        hosts.uncover(_shown.pop())
    for user in _made:
        end_holder(user.holder)
        subprocess.run(["rm", "-rf", user.home], check=False)


def end_holder(directory: Path) -> None:
    """Kill the holder that is recorded in *directory*, and see it gone."""
    record = records.read(str(directory), "holder")
    if record is None or records.start_time(record["pid"]) != record["start"]:
        return
    os.kill(record["pid"], signal.SIGKILL)
    leftovers.settled(lambda: ["it"] if records.start_time(record["pid"]) == record["start"] else [])
