"""
How fast images come and go: pull, push, save and load, each into a store that has nothing of the image yet.

One registry on this machine serves everybody. Each measurement has a file system that was just made: ext4 goes slowly
about inodes that were deleted a minute ago, and would let the second pay for what the first has removed. Beside the
pulls stands the floor that this machine has: hashing both streams, inflating one and writing the files, each step at
its own best and perfectly spread over two cores.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from isal import igzip_lib, isal_zlib

from bench import rivals
from bench.measure import Case
from bench.rivals import Command
from images.build import BuiltImage, Layer, image
from support import registry as registries

if TYPE_CHECKING:
    from bench.cases import Field

_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_LAYERS, _SIZE, _FILES = 4, 700 << 20, 40_000
_DISK = 8 << 30  # bytes, of which only what is written takes room
OF_NGINX = ("pull", "push", "save", "load")  # the cases that call `nginx`


def cases(field: "Field") -> dict[str, Callable[[], Case]]:
    """By the names that `--case` takes."""
    return {
        "pull": lambda: _pulls(field, "bench/nginx", nginx, "Debian with nginx, one layer"),
        "pull-large": lambda: _pulls(
            field, "bench/large", large, f"{_SIZE >> 20} MiB, {_FILES} files, {_LAYERS} layers"
        ),
        "pull-memory": lambda: _memory(field),
        "push": lambda: _pushes(field),
        "save": lambda: _archives(field, "save"),
        "load": lambda: _archives(field, "load"),
    }


@functools.cache
def nginx() -> BuiltImage:
    """Debian's nginx in one layer, about as large as its namesake on Docker Hub; the first call takes a network."""
    with tempfile.TemporaryDirectory(prefix="w-bench-") as folder:
        archive = Path(folder) / "rootfs.tar"
        command = ["mmdebstrap", "--quiet", "--variant=apt", "--include=nginx", "bookworm", str(archive)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        content = archive.read_bytes()
    return image(Layer(content, gzip.compress(content, 6, mtime=0), _GZIP))


def large() -> BuiltImage:
    """Layers of this machine's own files, cut to sizes that are spread as files' sizes are."""
    corpus, chance = _corpus(), random.Random(_SIZE)
    return image(*(_layer(corpus, chance, f"opt/{position}") for position in range(_LAYERS)))


def _corpus() -> bytes:
    found = bytearray()
    for folder, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.path.isfile(path) and os.path.getsize(path) < 4 << 20:
                found += Path(path).read_bytes()
        if len(found) > 256 << 20:
            break
    return bytes(found)


def _layer(corpus: bytes, chance: random.Random, prefix: str) -> Layer:
    weights = [chance.lognormvariate(0, 1.8) for _ in range(_FILES // _LAYERS)]
    scale = _SIZE / _LAYERS / sum(weights)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for parent in ("opt", prefix):
            archive.addfile(_folder(parent))
        for number, weight in enumerate(weights):
            folder = f"{prefix}/{number // 20}"
            if number % 20 == 0:
                archive.addfile(_folder(folder))
            info = tarfile.TarInfo(f"{folder}/{number}")
            info.size, info.mtime = int(weight * scale), 1_600_000_000 + number
            start = chance.randrange(max(1, len(corpus) - info.size))
            archive.addfile(info, io.BytesIO(corpus[start : start + info.size]))
    content = buffer.getvalue()
    return Layer(content, isal_zlib.compress(content, 3, 31), _GZIP)


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


# -- where each measurement happens -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _fresh(field: "Field") -> Iterator[Path]:
    """A new, empty file system, gone on leaving."""
    disk, place = field.folder / "disk", field.folder / "fresh"
    with disk.open("wb") as file:
        file.truncate(_DISK)
    place.mkdir()
    made = "lazy_itable_init=0,lazy_journal_init=0"  # nothing is left to be done while others are measured
    subprocess.run(["mkfs.ext4", "-q", "-N", "200000", "-E", made, disk], check=True)
    attach = ["losetup", "--find", "--show", "--direct-io=on", str(disk)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", device, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "--recursive", place], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        place.rmdir()
        disk.unlink()


Opened = AbstractContextManager[tuple[Command, Path]]  # an engine whose store is empty, and a place for files


def _engines(field: "Field") -> dict[str, Callable[[], Opened]]:
    def wherry() -> Opened:
        return _placed(field, lambda place: (*field.wherry.words, "--root", str(place / "root")), field.wherry)

    found = {"wherry": wherry}
    if field.docker:
        found["docker"] = lambda: _docker(field)
    if (podman := field.podman) is not None:
        options = ("root", "runroot", "tmpdir")
        found["podman"] = lambda: _placed(
            field, lambda place: (*podman.words, *(f"--{name}={place / name}" for name in options)), podman
        )
    return found


@contextlib.contextmanager
def _placed(field: "Field", words: Callable[[Path], tuple[str, ...]], like: Command) -> Iterator[tuple[Command, Path]]:
    with _fresh(field) as place:
        yield Command(words(place), like.environment), place  # not from its thread, which would not see the place


@contextlib.contextmanager
def _docker(field: "Field") -> Iterator[tuple[Command, Path]]:
    # Beside the daemon that the other cases ask: this one has no networks.
    apart = ("--bridge=none", "--iptables=false", "--ip6tables=false")
    with _fresh(field) as place, rivals.docker(place / "docker", field.registry, *apart) as command:
        yield command, place


def _timed(what: Callable[[], object]) -> float:
    """Milliseconds, from a moment at which nothing waits to be written."""
    os.sync()
    start = time.perf_counter()
    what()
    return (time.perf_counter() - start) * 1000


def _pulled(command: Command, name: str) -> None:
    command("pull", "--quiet", *_plainly(command), name)


def _plainly(command: Command) -> list[str]:
    """What podman has to be told of a registry on loopback."""
    return ["--tls-verify=false"] if command.words[0].endswith("podman") else []


# -- pull --------------------------------------------------------------------------------------------------------------


def _pulls(field: "Field", repository: str, made: Callable[[], BuiltImage], what: str) -> Case:
    built = made()
    name = _served(field, built, repository)

    def pulling(opened: Callable[[], Opened]) -> Callable[[], float]:
        def pull() -> float:
            with opened() as (command, _):
                return _timed(lambda: _pulled(command, name))

        return pull

    contenders = {engine: pulling(opened) for engine, opened in _engines(field).items()}
    contenders["the floor"] = lambda: _floor(field, built)
    return Case(name=f"pull: {what}", contenders=contenders, limit=0.5, others={"podman": 0.4})


def _served(field: "Field", built: BuiltImage, repository: str) -> str:
    """*built* in the registry; the name that all engines pull it by."""
    registry = field.registry
    with registry.session() as session:
        for digest, content in built.blobs.items():
            location = session.post(f"{registry.url}/v2/{repository}/blobs/uploads/").headers["Location"]
            session.put(location, params={"digest": digest}, data=content).raise_for_status()
        session.put(
            f"{registry.url}/v2/{repository}/manifests/latest",
            data=built.manifest,
            headers={"Content-Type": built.media_type},
        ).raise_for_status()
    return f"{registry.address}/{repository}:latest"


def _floor(field: "Field", built: BuiltImage) -> float:
    begin = time.perf_counter()
    for one in built.layers:
        hashlib.sha256(one.blob).digest()
        hashlib.sha256(one.tar).digest()
        igzip_lib.decompress(one.blob, igzip_lib.DECOMP_GZIP)
    work = time.perf_counter() - begin
    with _fresh(field) as place:
        os.sync()
        for position, one in enumerate(built.layers):
            work += _write_files(one.tar, place / str(position))
    return work / 2 * 1000


def _write_files(content: bytes, folder: Path) -> float:
    """Seconds for the files' contents and names, of which everything is known before."""
    folder.mkdir(parents=True)
    view = memoryview(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [
            (info.name, info.isdir(), info.offset_data, info.size) for info in archive if info.isdir() or info.isreg()
        ]
    root = os.open(folder, os.O_RDONLY)
    start = time.perf_counter()
    for name, is_directory, offset, size in members:
        if is_directory:
            with contextlib.suppress(FileExistsError):  # "./"
                os.mkdir(name, dir_fd=root)
        else:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root)
            os.write(file, view[offset : offset + size])
            os.close(file)
    elapsed = time.perf_counter() - start
    os.close(root)
    return elapsed


_PEAK = """
import sys
from wherry_images import ImageStore, RegistryConfig
ImageStore(sys.argv[1], registries=RegistryConfig(certificates=())).pull(sys.argv[2])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def _memory(field: "Field") -> Case:
    name = _served(field, large(), "bench/large")

    def ours() -> float:
        with _fresh(field) as place:
            command = [sys.executable, "-c", _PEAK, str(place / "root"), name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        return int(done.stdout) * 1024 / 1e6

    return Case(name="the large pull's memory at its peak", contenders={"wherry": ours}, unit="MB", rival="", limit=150)


# -- push, save, load --------------------------------------------------------------------------------------------------


def _pushes(field: "Field") -> Case:
    name = _served(field, nginx(), "bench/nginx")

    def pushing(opened: Callable[[], Opened]) -> Callable[[], float]:
        def push() -> float:
            with opened() as (command, place), registries.running(place / "registry") as empty:
                target = f"{empty.address}/bench:latest"
                _pulled(command, name)
                command("tag", name, target)
                return _timed(lambda: command("push", "--quiet", *_plainly(command), target))

        return push

    contenders = {engine: pushing(opened) for engine, opened in _engines(field).items()}
    return Case(name="push of the nginx image", contenders=contenders, limit=1.0)


def _archives(field: "Field", verb: str) -> Case:
    name = _served(field, nginx(), "bench/nginx")

    def archiving(opened: Callable[[], Opened]) -> Callable[[], float]:
        def run() -> float:
            with opened() as (command, place):
                _pulled(command, name)
                archive = str(place / "archive.tar")
                saved = _timed(lambda: command("save", "--output", archive, name))
                if verb == "save":
                    return saved
                command("rmi", "--force", name)
                return _timed(lambda: command("load", "--quiet", "--input", archive))

        return run

    contenders = {engine: archiving(opened) for engine, opened in _engines(field).items()}
    return Case(name=f"{verb} of the nginx image", contenders=contenders, limit=1.0)
