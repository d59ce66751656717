"""The attacks of layers, while somebody exchanges a directory on the way for a link to the host's."""

import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from images.build import directory, entry, hard_link, symlink, tar
from wherry_images import tree
from wherry_images.layer import apply
from wherry_images.lower import Lower
from wherry_images.tar_reader import TarReader
from wherry_oci.errors import Error

pytestmark = pytest.mark.root

TRIES = 1000

_RACER = """
import os, sys
folder, host = sys.argv[1:]
a, aside, trap = folder + "/a", folder + "/aside", folder + "/trap"
exchanged = 0
print(flush=True)
while os.getppid() == int(os.environ["PARENT"]) and not os.path.exists(folder + "/../stop"):
    try:
        os.symlink(host, trap)
        os.rename(a, aside)
        os.rename(trap, a)
        exchanged += 1
        os.unlink(a)
        os.rename(aside, a)
    except OSError:
        for name in (trap, a):
            try:
                os.unlink(name)
            except OSError:
                pass
print(exchanged)
"""

LAYERS: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "a file in it": [entry("a/secret", data=b"evil", mode=0o6777), entry("a/new")],
    "a whiteout in it": [entry("a/.wh.secret"), entry("a/.wh.outside")],
    "an opaque whiteout": [entry("a/.wh..wh..opq"), entry("a/x"), entry("a/.wh..wh..opq")],
    "a hard link to the host's": [entry("a/secret"), hard_link("h", "a/secret"), entry("h", data=b"evil", mode=0o777)],
    "a hard link from it": [entry("f"), hard_link("a/new", "f")],
    "a directory in the place of the host's": [directory("a/outside", mode=0o777, uid=7), entry("a/outside/x")],
    "a file in the place of a directory": [entry("a/outside", data=b"evil"), directory("a/secret", mode=0o777)],
    "links": [symlink("a/secret", "/etc/passwd"), symlink("a/new", "/etc"), entry("a/new/x")],
    "devices and fifos": [
        entry("a/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        entry("a/secret", tarfile.FIFOTYPE, mode=0o777),
    ],
    "itself again, with another mode": [directory("a", mode=0o777, uid=7), entry("a/new"), directory("a", mode=0o711)],
}


def _state(path: Path) -> tuple[int, int, int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_nlink if stat.S_ISREG(found.st_mode) else 0


@contextmanager
def _racing(target: Path, host: Path) -> Iterator[list[int]]:
    """Somebody exchanges *target*/a for a link to *host* as fast as can be; how often is in the list at the end."""
    environment = os.environ | {"PARENT": str(os.getpid())}
    command = [sys.executable, "-S", "-c", _RACER, str(target), str(host)]
    exchanged: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as racer:
        assert racer.stdout is not None
        racer.stdout.readline()
        try:
            yield exchanged
        finally:
            (target.parent / "stop").touch()
            exchanged.append(int(racer.stdout.read()))


@pytest.mark.parametrize("entries", LAYERS.values(), ids=list(LAYERS))
def test_no_race_leads_an_entry_out(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """A thousand times: it lands inside or is refused, and the host's files are as they were."""
    host = tmp_path / "host"
    (host / "outside").mkdir(parents=True)
    (host / "secret").write_text("host")
    target = tmp_path / "store" / "layer"
    target.mkdir(parents=True)
    before = {path: _state(path) for path in (host, host / "outside", host / "secret")}
    content = tar(directory("a"), *entries)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    whole = 0
    try:
        with _racing(target, host) as exchanged:
            for _ in range(TRIES):
                with suppress(Error):
                    apply(TarReader([content]), descriptor, lower=Lower(), keeps_modes=False)
                    whole += 1
                for name in os.listdir(target):
                    with suppress(OSError):
                        tree.remove(descriptor, os.fsencode(name))
    finally:
        os.close(descriptor)
    assert {path: _state(path) for path in before} == before
    assert (sorted(os.listdir(host)), os.listdir(host / "outside")) == (["outside", "secret"], [])
    assert (host / "secret").read_text() == "host"
    assert exchanged[0] > TRIES / 10
    assert whole  # it is no layer that is refused for itself
