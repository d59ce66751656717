"""The trees that wherry unpacks are those that umoci and dockerd unpack from the same image."""

import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from images.build import BuiltImage, directory, entry, hard_link, image, layer, symlink, write_layout
from images.conftest import IMPATIENT
from images.mounting import describe, mounted
from support.layout import Layout
from wherry_images import ImageStore
from wherry_oci.spec.mount import Mount

pytestmark = pytest.mark.root

# Layers in which engines have differed. None has a file whose directory no layer brings along: dockerd makes such a
# directory with mode 0700 and the present time, which nobody wants to have.
ODD: dict[str, BuiltImage] = {
    "kinds": image(
        layer(
            directory("./", mode=0o755),
            directory("d", mode=0o1777, uid=5, gid=6),
            entry("d/suid", data=b"x", mode=0o6755, uid=100, gid=200),
            entry("d/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
            entry("d/disk", tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=17, gid=6),
            entry("d/fifo", tarfile.FIFOTYPE, mode=0o622),
            symlink("d/dangling", "/nowhere", uid=7, gid=8),
            hard_link("d/hard", "d/suid", mode=0o6755, uid=100, gid=200),  # dockerd takes these of the link
            entry("d/times", pax_headers={"mtime": "1234567890.123456789"}),
            entry("d/old", mtime=-1_000_000),
            entry("d/future", mtime=2**32 + 5),
            entry("d/owner", uid=2**31 + 1, gid=2**32 - 2),
        )
    ),
    "removals": image(
        layer(
            directory("a"), entry("a/x"), entry("a/y"), directory("a/z"), entry("a/z/1"), entry("b"), symlink("c", "b")
        ),
        layer(directory("a"), entry("a/.wh.x"), entry("a/.wh.z"), entry(".wh.c")),
        layer(directory("a"), entry("a/x", data=b"again"), directory("c"), entry("c/in")),
    ),
    "opaque": image(
        layer(directory("a"), entry("a/x"), directory("a/z"), entry("a/z/1"), directory("b", mode=0o700), entry("b/x")),
        layer(
            directory("a"),
            entry("a/.wh..wh..opq"),
            entry("a/new"),
            directory("b"),
            entry("b/y"),
            entry("b/.wh..wh..opq"),
        ),
    ),
    "changes of type": image(
        layer(directory("a"), entry("a/x"), entry("b"), symlink("c", "a"), directory("d"), entry("d/deep")),
        layer(
            entry("a", data=b"file"), directory("b"), entry("b/in"), directory("c"), entry("c/in"), symlink("d", "b")
        ),
    ),
    "modes change": image(
        layer(directory("a", mode=0o700, uid=1), entry("a/x", mode=0o600)),
        layer(directory("a", mode=0o711, gid=2)),
        layer(directory("a", mode=0o755), entry("a/x", mode=0o4711, data=b"1")),
    ),
    "hard links": image(
        layer(
            directory("a"),
            entry("a/x", data=b"1"),
            hard_link("a/y", "a/x"),
            hard_link("z", "a/y"),
            symlink("s", "a/x"),
            hard_link("t", "s"),
        )
    ),
    "names": image(
        layer(
            directory("ü"),
            entry("ü/\n"),
            entry("ü/" + "n" * 255),
            directory("p" * 100),
            entry(f"{'p' * 100}/{'q' * 200}"),
        ),
    ),
    "capabilities": image(
        layer(entry("ping", data=b"elf", mode=0o755, pax_headers={"SCHILY.xattr.user.note": "ü"})),
    ),
    "twice": image(
        layer(
            entry("x", data=b"1"),
            entry("x", data=b"2", mode=0o600),
            directory("d", mode=0o700),
            directory("d", mode=0o711),
        ),
    ),
    "dots": image(layer(directory("./a/"), entry("./a/./x"), directory("/b"), entry("/b//y"), entry("b/../z"))),
}


def _pulled(built: BuiltImage | None, tmp_path: Path, layout: Layout | None = None) -> tuple[ImageStore, list[Mount]]:
    """*built*, or the image of *layout*, by way of an archive, and its mounts."""
    path = layout.path if layout is not None else write_layout(tmp_path / "layout", _known(built))
    archive = tmp_path / "archive.tar"
    subprocess.run(["tar", "-cf", str(archive), "-C", str(path), "."], check=True)
    store = ImageStore(tmp_path / "root", registries=IMPATIENT)
    (found,) = store.load(archive)
    archive.unlink()
    return store, store.mounts(found, tmp_path / "container")


def _known(built: BuiltImage | None) -> BuiltImage:
    assert built is not None
    return built


def _tree(root: Path) -> dict[str, tuple[object, ...]]:
    found = describe(root)
    found.pop(".")  # no image says what time its root has
    return found


# -- umoci -------------------------------------------------------------------------------------------------------------


def _umoci(layout: Path, tmp_path: Path, name: str) -> Path:
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{name}", str(bundle)], check=True, capture_output=True)
    return bundle / "rootfs"


@pytest.mark.parametrize("name", sorted(ODD))
def test_odd_layers_are_as_umoci_unpacks_them(tmp_path: Path, name: str) -> None:
    """File by file: type, mode, owner, size, time, attributes, link, other names."""
    store, mounts = _pulled(ODD[name], tmp_path)
    rootfs = _umoci(tmp_path / "layout", tmp_path, "latest")
    with mounted(mounts, tmp_path / "m") as root:
        assert _tree(root) == _tree(rootfs)
    store.close()


@pytest.mark.parametrize("name", ["busybox", "nginx", "redis"])
def test_real_images_are_as_umoci_unpacks_them(tmp_path: Path, name: str, image: Callable[[str], Layout]) -> None:
    """The test images, made of Debian's packages."""
    layout = image(name)
    store, mounts = _pulled(None, tmp_path, layout)
    named = tmp_path / "layout"
    shutil.copytree(layout.path, named)
    index = json.loads((named / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (named / "index.json").unlink()
    (named / "index.json").write_text(json.dumps(index))
    rootfs = _umoci(named, tmp_path, "x")
    with mounted(mounts, tmp_path / "m") as root:
        assert _tree(root) == _tree(rootfs)
    store.close()


# -- dockerd -----------------------------------------------------------------------------------------------------------


@contextmanager
def _daemon(folder: Path) -> Iterator[list[str]]:
    """A docker daemon of the test's own, without a network; the command that speaks to it."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    # a socket's path may have 108 bytes
    socket = Path("/tmp") / f"wherry-{os.getpid()}-{os.urandom(4).hex()}.sock"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                "--data-root",
                str(folder / "data"),
                "--exec-root",
                str(folder / "exec"),
                "--host",
                f"unix://{socket}",
                "--pidfile",
                str(folder / "pid"),
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--storage-driver=overlay2",
            ],
            stdout=log,
            stderr=log,
        )
        command = ["docker", "--host", f"unix://{socket}"]
        try:
            deadline = time.monotonic() + 60
            while subprocess.run([*command, "info"], capture_output=True, check=False).returncode:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(f"dockerd does not start: {(folder / 'log').read_text()[-500:]}")
                time.sleep(0.05)
            yield command
        finally:
            process.terminate()
            process.wait()
            socket.unlink(missing_ok=True)
            subprocess.run(["umount", str(folder / "data")], capture_output=True, check=False)


def _docker_mounts(command: list[str], name: str, folder: Path) -> list[Mount]:
    """The layers of an image as dockerd has them."""
    done = subprocess.run([*command, "image", "inspect", name], capture_output=True, check=True)
    data = json.loads(done.stdout)[0]["GraphDriver"]["Data"]
    lower = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
    for part in ("upper", "work"):
        (folder / part).mkdir(parents=True)
    # dockerd keeps the root's mode in each layer; the topmost one's is seen
    status = os.stat(lower[0])
    os.chmod(folder / "upper", stat.S_IMODE(status.st_mode))
    options = [*(f"lowerdir={path}" for path in lower), f"upperdir={folder}/upper", f"workdir={folder}/work"]
    return [Mount(type="overlay", source="overlay", options=tuple(options))]


def _as_docker(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """
    Without what dockerd does not keep: times before 1970, and the time of a directory that a layer has files for but
    no entry of its own.
    """
    return {
        name: (*facts[:4], None if str(facts[0]).startswith("d") else max(0, int(str(facts[4]))), *facts[5:])
        for name, facts in tree.items()
    }


def test_trees_are_as_dockerd_unpacks_them(tmp_path: Path, image: Callable[[str], Layout]) -> None:
    """Odd layers and real images, loaded from archives that wherry wrote."""
    folder = tmp_path / "docker"
    folder.mkdir()
    sources: list[tuple[str, BuiltImage | None, Layout | None]] = [
        (name, one, None) for name, one in ODD.items() if name != "twice"
    ]  # which dockerd refuses
    sources += [(name, None, image(name)) for name in ("busybox", "nginx")]
    differing = {}
    with _daemon(folder) as command:
        for number, (name, built, layout) in enumerate(sources):
            place = tmp_path / str(number)
            place.mkdir()
            store, mounts = _pulled(built, place, layout)
            (found,) = store.list()
            archive = place / "saved.tar"
            store.tag(found.id, f"compare:{number}")
            archive.write_bytes(b"".join(store.save([f"compare:{number}"])))
            done = subprocess.run([*command, "load", "-q", "-i", str(archive)], capture_output=True, check=False)
            assert done.returncode == 0, (name, done.stderr)
            archive.unlink()
            theirs = _docker_mounts(command, f"compare:{number}", place / "docker")
            with mounted(mounts, tmp_path / "m1") as mine, mounted(theirs, tmp_path / "m2") as other:
                one, two = _as_docker(_tree(mine)), _as_docker(_tree(other))
            difference = {
                key: (one.get(key), two.get(key)) for key in one.keys() | two.keys() if one.get(key) != two.get(key)
            }
            if difference:
                differing[name] = difference
            subprocess.run([*command, "rmi", "-f", f"compare:{number}"], check=True, capture_output=True)
            store.close()
    assert not differing, "\n".join(
        f"{name}: {key}: {mine} here, {other} there"
        for name, difference in differing.items()
        for key, (mine, other) in difference.items()
    )
