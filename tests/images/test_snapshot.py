"""Snapshotters: one contract, which each of them keeps."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images.build import directory, entry, hard_link, image, layer, symlink
from images.conftest import Puller
from images.mounting import describe, mounted
from wherry_images import Image, ImageStore
from wherry_images.snapshot import LayerPath, Snapshotter, snapshotter, visible_layers
from wherry_oci.errors import InvalidArgument

pytestmark = pytest.mark.root

BUILT = image(
    layer(
        directory("./", mode=0o751, uid=3, mtime=1234),
        directory("d", mode=0o1770, gid=4),
        entry("d/f", data=b"f" * 10_000, mode=0o4755, uid=9, pax_headers={"SCHILY.xattr.user.k": "v"}),
        hard_link("d/h", "d/f"),
        entry("gone"),
        directory("hidden"),
        entry("hidden/x"),
    ),
    layer(
        entry(".wh.gone"),
        directory("hidden", mode=0o700),
        entry("hidden/.wh..wh..opq"),
        entry("hidden/y"),
        symlink("l", "d/f"),
        entry("d2/implied"),
    ),
)


class SnapshotterContract:
    """What holds for every way to make a rootfs."""

    name: str

    @pytest.fixture
    def made(self, puller: Puller, make_store: Callable[..., ImageStore]) -> tuple[ImageStore, Image]:
        """A store with this snapshotter, and an image in it."""
        pulled = puller.pull(BUILT)
        return make_store(snapshotter=self.name), pulled

    @pytest.fixture
    def rootfs(self, made: tuple[ImageStore, Image], tmp_path: Path) -> Iterator[Path]:
        store, pulled = made
        with mounted(store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
            yield root

    def test_it_shows_the_layers_together(self, rootfs: Path) -> None:
        """Files, removals, opaque directories, modes, owners, times, attributes, links."""
        tree = describe(rootfs)
        assert sorted(tree) == [".", "d", "d/f", "d/h", "d2", "d2/implied", "hidden", "hidden/y", "l"]
        assert tree["."][:5] == ("drwxr-x--x", 3, 0, None, 1234 * 10**9)
        assert tree["d"][:3] == ("drwxrwx--T", 0, 4)
        assert tree["d/f"] == (
            "-rwsr-xr-x",
            9,
            0,
            10_000,
            1_600_000_000 * 10**9,
            0,
            None,
            (("user.k", b"v"),),
            ("d/f", "d/h"),
        )
        assert tree["hidden"][0] == "drwx------"

    def test_what_is_written_stays_in_the_containers_directory(
        self, made: tuple[ImageStore, Image], tmp_path: Path
    ) -> None:
        """The layers are as before, another container does not see it, and the same one does again."""
        store, pulled = made
        before = describe(Path(store.root, "snapshots"))
        with mounted(store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
            (root / "d/f").write_bytes(b"changed")
            (root / "hidden/y").unlink()
            (root / "new").touch()
        assert describe(Path(store.root, "snapshots")) == before
        with mounted(store.mounts(pulled, tmp_path / "other"), tmp_path / "m") as root:
            assert (root / "d/f").stat().st_size == 10_000
        with mounted(store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
            assert (root / "d/f").read_bytes() == b"changed"
            assert not (root / "hidden/y").exists()
        kinds = {change.path: change.kind for change in store.changes(pulled, tmp_path / "c")}
        assert {path: kinds[path] for path in ("/d/f", "/hidden/y", "/new")} == {
            "/d/f": "modified",
            "/hidden/y": "deleted",
            "/new": "added",
        }

    def test_a_read_only_rootfs_cannot_be_written(self, made: tuple[ImageStore, Image], tmp_path: Path) -> None:
        """Also by root."""
        store, pulled = made
        mounts = store.mounts(pulled, tmp_path / "c", read_only=True)
        if mounts[0].type == "bind":
            assert "ro" in mounts[0].options  # a bind mount takes it in a second step, which is the shim's
            return
        with mounted(mounts, tmp_path / "m") as root, pytest.raises(OSError, match="Read-only"):
            (root / "x").touch()

    def test_nothing_is_mounted_and_all_is_removable(self, made: tuple[ImageStore, Image], tmp_path: Path) -> None:
        """The directory is the caller's: rm -r is enough."""
        store, pulled = made
        store.mounts(pulled, tmp_path / "c")
        assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
        subprocess.run(["rm", "-r", str(tmp_path / "c")], check=True)

    def test_a_rootfs_of_no_layers(self, tmp_path: Path) -> None:
        """An empty, writable directory with the usual mode."""
        (tmp_path / "c").mkdir()
        maker: Snapshotter = snapshotter(self.name)
        with mounted(maker.prepare([], str(tmp_path / "c")), tmp_path / "m") as root:
            assert os.listdir(root) == []
            assert stat.S_IMODE(root.stat().st_mode) == 0o755
            (root / "x").touch()


class TestOverlay(SnapshotterContract):
    name = "overlay"


class TestNative(SnapshotterContract):
    name = "native"

    def test_a_copy_that_was_broken_off_is_made_anew(self, made: tuple[ImageStore, Image], tmp_path: Path) -> None:
        """Whoever was killed while it copied left a directory that is not taken for the rootfs."""
        store, pulled = made
        (tmp_path / "c/tree.new/half").mkdir(parents=True)
        with mounted(store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
            assert not (root / "half").exists()


def test_there_is_no_other_snapshotter() -> None:
    """A wrong name is told at once."""
    with pytest.raises(InvalidArgument, match="overlay or native"):
        snapshotter("zfs")


def test_layers_that_show_nothing_are_left_out() -> None:
    """Those below an opaque one, and all but the topmost of equal ones."""
    a, b, c = LayerPath("/a"), LayerPath("/b"), LayerPath("/c", opaque=True)
    assert visible_layers([a, b, c, a]) == [c, a]
    assert visible_layers([a, b, a]) == [b, a]
    assert visible_layers([]) == []


_AS_NOBODY = """
import logging, os, sys
from wherry_images import ImageStore, RegistryConfig
logging.basicConfig(stream=sys.stdout)
warm = ImageStore(sys.argv[1] + "-warm", registries=RegistryConfig(certificates=()))
warm.mounts(warm.pull(sys.argv[2]), sys.argv[1] + "-warm/c")  # all is imported while it can be read
warm.close()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = ImageStore(sys.argv[1], registries=RegistryConfig(certificates=()))
image = store.pull(sys.argv[2])
print(store.mounts(image, sys.argv[1] + "/c")[0].options)
store.close()
"""


def test_without_root_files_are_ones_own(puller: Puller, tmp_path: Path) -> None:
    """Owners and devices are left out, with a warning; whiteouts and opaque directories work by user attributes."""
    import tarfile
    import tempfile

    built = image(
        layer(
            directory("./", mode=0o555),
            directory("locked", mode=0o555, uid=7),
            entry("locked/f", data=b"1", mode=0o4711, uid=8),
            directory("locked/deep", mode=0o500),
            entry("locked/deep/f"),
            entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        ),
        layer(entry("locked/.wh.f"), directory("locked/deep"), entry("locked/deep/.wh..wh..opq")),
    )
    puller.registry.push("app", "latest", built)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, f"{folder}/root", puller.name()],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "is without the device null" in done.stdout
        assert "userxattr" in done.stdout
        trees = [
            describe(one)
            for one in sorted(Path(folder, "root/snapshots").iterdir(), key=lambda one: len(describe(one)))
        ]
        upper, base = trees
        assert base["."][0] == "dr-xr-xr-x"
        assert base["locked"][:3] == ("dr-xr-xr-x", 65534, 65534)
        assert base["locked/deep"][0] == "dr-x------"
        assert base["locked/f"][:3] == ("-rws--x--x", 65534, 65534)
        assert upper["locked/f"][0] == "c---------"
        assert ("user.overlay.opaque", b"y") in upper["locked/deep"][7]  # type: ignore[operator] # a tuple of pairs
