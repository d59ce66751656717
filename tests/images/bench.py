"""
How fast images come and go: `python -m images.bench` in tests/, as root.

One registry on this machine serves everybody; each engine gets an empty store for each pull, on the same file system,
and the page cache is as warm for one as for the other. docker and podman take part if they are installed: dockerd
with a data root and socket of its own. Beside the times stands the floor that this machine has: hashing both streams,
inflating and writing the files, on two cores.
"""

import argparse
import hashlib
import io
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
from isal import igzip_lib, isal_zlib

from images.build import BuiltImage, Layer, image
from support import registry as registries
from wherry_images import ImageStore, RegistryConfig
from wherry_images.tree import remove

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


@attrs.frozen
class Result:
    engine: str
    what: str
    seconds: float
    peak_mib: float | None = None


def layers_of(count: int, size: int, files: int) -> list[Layer]:
    """*count* layers, together of *size* bytes in *files* files: pieces of this machine's own, of files' sizes."""
    corpus = _corpus()
    chance = random.Random(size)
    return [_layer(corpus, chance, size // count, files // count, f"opt/{position}") for position in range(count)]


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


def _layer(corpus: bytes, chance: random.Random, size: int, count: int, prefix: str) -> Layer:
    weights = [chance.lognormvariate(0, 1.8) for _ in range(count)]
    scale = size / sum(weights)
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
    return Layer(content, isal_zlib.compress(content, 3, 31), GZIP)


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def floor(built: BuiltImage, folder: Path) -> float:
    """Seconds that two cores need at least: SHA-256 twice, inflating, and the files, each step at its own best."""
    work = 0.0
    for one in built.layers:
        start = time.perf_counter()
        hashlib.sha256(one.blob).digest()
        hashlib.sha256(one.tar).digest()
        igzip_lib.decompress(one.blob, igzip_lib.DECOMP_GZIP)
        work += time.perf_counter() - start
    start = time.perf_counter()
    for position, one in enumerate(built.layers):
        _write_files(one.tar, folder / str(position))
    return (work + time.perf_counter() - start) / 2


def _write_files(content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True)
    view = memoryview(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(info.name, info.isdir(), info.offset_data, info.size) for info in archive]
    root = os.open(folder, os.O_RDONLY)
    for name, is_directory, offset, size in members:
        if is_directory:
            os.mkdir(name, dir_fd=root)
        else:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root)
            os.write(file, view[offset : offset + size])
            os.close(file)
    os.close(root)


def measured(what: Callable[[Path], None], times: int, folder: Path) -> float:
    """The median of *times* runs, each in an empty directory, with nothing dirty before it."""
    seconds = []
    for number in range(times):
        place = folder / f"run{number}"
        place.mkdir()
        os.sync()
        start = time.perf_counter()
        what(place)
        seconds.append(time.perf_counter() - start)
        clean(place)
    return statistics.median(seconds)


def clean(place: Path) -> None:
    parent = os.open(place.parent, os.O_RDONLY)
    remove(parent, place.name)
    os.close(parent)


_WHERRY = """
import sys
from wherry_images import ImageStore, RegistryConfig
ImageStore(sys.argv[1], registries=RegistryConfig(certificates=())).pull(sys.argv[2])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def wherry_pull(name: str, peaks: list[int]) -> Callable[[Path], None]:
    """As a program does it: a new interpreter, imports included."""

    def pull(place: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", _WHERRY, str(place / "root"), name], check=True, capture_output=True, text=True
        )
        peaks.append(int(done.stdout))

    return pull


def podman_pull(name: str) -> Callable[[Path], None]:
    def pull(place: Path) -> None:
        subprocess.run(
            [
                "podman",
                "--root",
                str(place / "root"),
                "--runroot",
                str(place / "run"),
                "--storage-driver",
                "overlay",
                "pull",
                "-q",
                "--tls-verify=false",
                name,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    return pull


@contextmanager
def dockerd(folder: Path) -> Iterator[Sequence[str]]:
    """A docker daemon of our own; the command that speaks to it."""
    folder.mkdir()
    socket = folder / "docker.sock"
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            "dockerd",
            "--data-root",
            str(folder / "data"),
            "--exec-root",
            str(folder / "exec"),
            "-H",
            f"unix://{socket}",
            "-p",
            str(folder / "pid"),
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--storage-driver=overlay2",
        ],
        stdout=log,
        stderr=log,
    )
    command = ["docker", "-H", f"unix://{socket}"]
    try:
        for _ in range(300):
            if subprocess.run([*command, "info"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        yield command
    finally:
        process.terminate()
        process.wait()
        log.close()


def docker_pull(command: Sequence[str], name: str, times: int) -> float:
    seconds = []
    for _ in range(times):
        os.sync()
        start = time.perf_counter()
        subprocess.run([*command, "pull", "-q", name], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
        subprocess.run([*command, "rmi", "-f", name], check=True, stdout=subprocess.DEVNULL)
    return statistics.median(seconds)


def pulls(built: BuiltImage, what: str, times: int, folder: Path, name: str) -> list[Result]:
    peaks: list[int] = []
    results = [Result("wherry", what, measured(wherry_pull(name, peaks), times, folder))]
    results = [attrs.evolve(results[0], peak_mib=max(peaks) / 1024)]
    if shutil.which("podman"):
        results.append(Result("podman", what, measured(podman_pull(name), times, folder)))
    if shutil.which("dockerd"):
        with dockerd(folder / "dockerd") as command:
            results.append(Result("docker", what, docker_pull(command, name, times)))
        clean(folder / "dockerd")
    results.append(Result("floor", what, floor(built, folder / "floor")))
    clean(folder / "floor")
    return results


def archives(name: str, times: int, folder: Path) -> list[Result]:
    """Saving, loading, and pushing what is there to registries that have nothing of it."""
    store = ImageStore(folder / "store", registries=RegistryConfig(certificates=()))
    store.pull(name)
    archive = folder / "archive.tar"

    def save(place: Path) -> None:
        with archive.open("wb") as file:
            for piece in store.save([name]):
                file.write(piece)

    def load(place: Path) -> None:
        other = ImageStore(place / "root")
        other.load(archive)
        other.close()

    def push(place: Path) -> None:
        with registries.running(place / "registry") as empty:
            store.tag(name, f"{empty.address}/bench:x")
            start = time.perf_counter()
            store.push(f"{empty.address}/bench:x")
            pushes.append(time.perf_counter() - start)

    pushes: list[float] = []
    results = [
        Result("wherry", "save", measured(save, times, folder)),
        Result("wherry", "load", measured(load, times, folder)),
    ]
    measured(push, times, folder)
    results.append(Result("wherry", "push", statistics.median(pushes)))
    store.close()
    clean(folder / "store")
    if shutil.which("dockerd"):
        with dockerd(folder / "dockerd") as command:
            results += _docker_archives(command, name, times, archive, folder)
        clean(folder / "dockerd")
    archive.unlink()
    return results


def _docker_archives(command: Sequence[str], name: str, times: int, archive: Path, folder: Path) -> list[Result]:
    subprocess.run([*command, "pull", "-q", name], check=True, stdout=subprocess.DEVNULL)
    seconds: dict[str, list[float]] = {"save": [], "load": [], "push": []}

    def timed(what: str, *arguments: str) -> None:
        os.sync()
        start = time.perf_counter()
        subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds[what].append(time.perf_counter() - start)

    for number in range(times):
        timed("save", "save", "-o", str(archive), name)
        subprocess.run([*command, "rmi", "-f", name], check=True, stdout=subprocess.DEVNULL)
        timed("load", "load", "-q", "-i", str(archive))
        with registries.running(folder / f"registry{number}") as empty:
            target = f"{empty.address}/bench:x"
            subprocess.run([*command, "tag", name, target], check=True)
            timed("push", "push", "-q", target)
            subprocess.run([*command, "rmi", target], check=True, stdout=subprocess.DEVNULL)
        clean(folder / f"registry{number}")
    return [Result("docker", what, statistics.median(found)) for what, found in seconds.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", default="/var/tmp")
    parser.add_argument("--only", choices=["one", "four", "archives"])
    given = parser.parse_args(arguments)
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder, prefix="bench")))
        server = stack.enter_context(registries.running(folder / "registry"))
        for what, count, size, files in (("one", 1, 211 << 20, 4_000), ("four", 4, 905 << 20, 50_000)):
            if given.only not in (None, what) and not (given.only == "archives" and what == "one"):
                continue
            built = image(*layers_of(count, size, files))
            blobs = sum(len(one.blob) for one in built.layers)
            tars = sum(len(one.tar) for one in built.layers)
            print(f"{what}: {count} layers, {blobs >> 20} MiB as blobs, {tars >> 20} MiB as files", flush=True)
            name = f"{server.address}/bench/{what}:1"
            _seed(built, name)
            if given.only != "archives":
                results += pulls(built, what, given.times, folder, name)
            if what == "one":
                results += archives(name, given.times, folder)
            del built
    _print(results)
    return 0


def _seed(built: BuiltImage, name: str) -> None:
    """Push *built*, as the tests' registry gets everything."""
    import requests

    host, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    base = f"http://{host}/v2/{repository}"
    with requests.Session() as session:
        for digest, content in built.blobs.items():
            location = session.post(f"{base}/blobs/uploads/").headers["Location"]
            session.put(f"{location}&digest={digest}", data=content).raise_for_status()
        session.put(
            f"{base}/manifests/{tag}", data=built.manifest, headers={"Content-Type": built.media_type}
        ).raise_for_status()


def _print(results: list[Result]) -> None:
    base = {(one.what, one.engine): one.seconds for one in results}
    for one in results:
        docker, podman = base.get((one.what, "docker")), base.get((one.what, "podman"))
        lowest = base.get((one.what, "floor"))
        columns = [f"{one.what:8} {one.engine:8} {one.seconds:7.2f} s"]
        if one.engine == "wherry":
            columns += [
                f"{one.seconds / value:5.2f} x {other}"
                for other, value in (("docker", docker), ("podman", podman), ("floor", lowest))
                if value
            ]
            if one.peak_mib is not None:
                columns.append(f"peak {one.peak_mib:.0f} MiB")
        print("  ".join(columns))
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    sys.exit(main())
