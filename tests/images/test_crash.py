"""Whatever is killed whenever, and after a power cut: the store opens, is consistent, and goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from images.build import BuiltImage, directory, entry, image, layer
from images.conftest import IMPATIENT, Puller
from images.mounting import describe
from wherry_images import ImageStore

pytestmark = pytest.mark.root

_BYTES = random.Random(7).randbytes

BUILT = image(
    layer(directory("a"), *[entry(f"a/{number}", data=_BYTES(3000)) for number in range(100)]),
    layer(*[entry(f"a/b{number}", data=_BYTES(3000)) for number in range(100)], compression="zstd"),
    layer(entry("big", data=_BYTES(2_000_000))),
)

_PULL = """
import sys
from wherry_images import ImageStore, RegistryConfig
store = ImageStore(sys.argv[1], registries=RegistryConfig(certificates=()))
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[2:]:
    store.pull(name)
    store.remove(name)
    store.pull(name)
print("done", flush=True)
"""


@contextmanager
def pulling(root: str, *names: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that is about to pull *names*; it begins when it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PULL, root, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def begin(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_pull_that_is_killed_at_any_moment(puller: Puller) -> None:
    """kill -9 after a while that grows: what is there is consistent, and the next pull completes it."""
    puller.registry.push("app", "latest", BUILT)
    name, store = puller.name(), puller.store
    reference: dict[str, tuple[object, ...]] | None = None
    for step in range(14):
        with pulling(store.root, name) as process:
            begin(process)
            deadline = time.monotonic() + 0.03 * step
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
        problems = [problem for problem in store.check(content=True) if problem.kind not in ("orphan", "index")]
        assert problems == [], f"after {step} steps"
        pulled = store.pull(name)
        assert store.check(content=True) == [] or {one.kind for one in store.check()} == {"orphan"}
        trees = [describe(path) for path in _layers(store, pulled.id)]
        merged = {key: value for tree in trees for key, value in tree.items() if key != "."}
        reference = reference or merged
        assert merged == reference
        store.prune()
        assert store.check(content=True) == []
        assert len(os.listdir(f"{store.root}/snapshots")) == 3
        assert os.listdir(f"{store.root}/ingest") == os.listdir(f"{store.root}/leases") == []
        if step % 3 == 0:
            store.remove(name)
    assert reference is not None


def _layers(store: ImageStore, image_id: str) -> list[str]:
    from wherry_images import records

    with store.database.read() as connection:
        return [f"{store.root}/snapshots/{one.directory}" for one in records.image_snapshots(connection, image_id)]


def test_a_removal_that_is_killed(puller: Puller) -> None:
    """The image is there or it is not; what is left of it is collected."""
    puller.registry.push("app", "latest", BUILT)
    code = (
        "import sys; from wherry_images import ImageStore; s = ImageStore(sys.argv[1]);"
        " print('ready', flush=True); s.remove(sys.argv[2])"
    )
    for step in range(6):
        puller.store.pull(puller.name())
        process = subprocess.Popen(
            [sys.executable, "-c", code, puller.store.root, puller.name()], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 0.008 * step
        while time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert [one for one in puller.store.check(content=True) if one.kind not in ("orphan", "index")] == []
        puller.store.prune()
        assert [one for one in puller.store.check(content=True) if one.kind != "index"] == []


# -- power cuts --------------------------------------------------------------------------------------------------------


@contextmanager
def disk(image_file: Path, mount: Path, *options: str) -> Iterator[Path]:
    """The ext4 in *image_file*, mounted at *mount*."""
    mount.mkdir(exist_ok=True)
    command = ["mount", "-o", ",".join(("loop", *options)), str(image_file), str(mount)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.decode()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def _stop(process: "subprocess.Popen[str]") -> None:
    """Stop all its threads, also those that wait for the disk: then nothing is written any more."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            states = {
                Path(f"/proc/{process.pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
                for thread in os.listdir(f"/proc/{process.pid}/task")
            }
        except FileNotFoundError:
            continue
        if states == {"T"}:
            return
        time.sleep(0.001)


def test_after_a_power_cut_the_store_is_consistent(puller: Puller, tmp_path: Path) -> None:
    """
    The file system's image is copied while pulls run: the copy has what was synced, and of the rest a part by chance.

    Each copy is mounted as after a reboot: all that the records name is there, byte for byte, and pulls go on.
    """
    puller.registry.push("app", "latest", BUILT)
    others: list[BuiltImage] = [image(layer(entry(f"o{number}", data=_BYTES(400_000)))) for number in range(4)]
    for number, one in enumerate(others):
        puller.registry.push(f"o{number}", "latest", one)
    names = [puller.name(), *(puller.name(f"o{number}") for number in range(4))]
    file = tmp_path / "disk"
    subprocess.run(["truncate", "-s", "200M", str(file)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0", str(file)], check=True)
    copies: list[Path] = []
    with disk(file, tmp_path / "mounted", "commit=300") as mounted:
        # long write-back: what is not synced on purpose stays in memory
        root = mounted / "root"
        with pulling(str(root), *names) as process:
            begin(process)
            while process.poll() is None and len(copies) < 8:
                copy = tmp_path / f"copy{len(copies)}"
                _stop(process)
                # the loop device writes to the file through its own cache: what is in the file is what was flushed
                subprocess.run(["cp", "--sparse=always", str(file), str(copy)], check=True)
                copies.append(copy)
                process.send_signal(signal.SIGCONT)
                deadline = time.monotonic() + 0.15
                while time.monotonic() < deadline and process.poll() is None:
                    time.sleep(0.005)
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            subprocess.run(["cp", "--sparse=always", str(file), str(tmp_path / "last")], check=True)
            copies.append(tmp_path / "last")
    seen = set()
    for number, copy in enumerate(copies):
        with disk(copy, tmp_path / f"again{number}") as again:
            store = ImageStore(again / "root", registries=IMPATIENT)
            problems = [one for one in store.check(content=True) if one.kind not in ("orphan", "index")]
            assert problems == [], f"copy {number}"
            for found in store.list():
                seen.add(found.id)
                trees = [describe(path) for path in _layers(store, found.id)]
                files = sum(int(str(facts[3])) for tree in trees for facts in tree.values() if str(facts[0])[0] == "-")
                assert files == found.size
                for path in _layers(store, found.id):
                    _check_bytes(Path(path))
            store.pull(names[0])
            store.prune()
            assert store.check(content=True) == []
            store.close()
        copy.unlink()
    # what had returned before the power went is there
    assert seen >= {BUILT.id, *(one.id for one in others)}


def _check_bytes(folder: Path) -> None:
    """No file of a layer is empty or full of zeros, as files are whose data did not reach the disk."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert content.strip(b"\0"), path
