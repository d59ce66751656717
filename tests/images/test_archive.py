"""Archives: docker's and OCI's, out and in again; root file systems; and what containers changed."""

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from images.build import BuiltImage, digest_of, directory, entry, hard_link, image, layer, symlink, tar
from images.conftest import Puller
from images.mounting import describe, mounted
from wherry_images import ImageStore
from wherry_images.diff import Change
from wherry_images.errors import DigestMismatch, InvalidImage, InvalidLayer
from wherry_images.tar_reader import TarReader
from wherry_images.tar_writer import Member, header

pytestmark = pytest.mark.root

BUILT = image(
    layer(directory("./", mode=0o751), directory("d", mode=0o750), entry("d/a", data=b"a"), entry("d/b", data=b"b")),
    layer(directory("d"), entry("d/.wh.a"), symlink("l", "d/b"), hard_link("h", "d/b"), compression="zstd"),
    config={"Env": ["A=b"]},
)


def saved(store: ImageStore, *names: str, format: str = "docker") -> bytes:
    return b"".join(store.save(names, format=format))  # type: ignore[arg-type] # one of the two


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {info.name: file.read() if (file := opened.extractfile(info)) else b"" for info in opened.getmembers()}


# -- save and load -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["docker", "oci"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_saved_images_load_the_same(
    puller: Puller, make_store: Callable[..., ImageStore], format: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Id, manifest, names and files, compressed or not."""
    pulled = puller.pull(BUILT)
    puller.store.tag(pulled.id, "mine:v1")
    archive = pack(saved(puller.store, pulled.id, format=format))
    other = make_store("other")
    (loaded,) = other.load(io.BytesIO(archive))
    assert (loaded.id, loaded.manifest) == (pulled.id, pulled.manifest)
    assert loaded.names == (puller.name(), "docker.io/library/mine:v1")
    trees: list[dict[str, tuple[object, ...]]] = []
    for store, found in ((puller.store, pulled), (other, loaded)):
        with mounted(store.mounts(found, tmp_path / f"c{len(trees)}"), tmp_path / "m") as root:
            trees.append(describe(root))
    assert trees[0] == trees[1]
    assert other.check(content=True) == []
    path = tmp_path / "archive.tar"
    path.write_bytes(archive)
    assert other.load(path)[0].id == pulled.id


def test_an_archive_has_the_names_that_were_asked_for(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """docker save NAME saves that name, docker save ID all of them; shared blobs once."""
    one = puller.pull(BUILT, "one")
    two = puller.pull(image(*BUILT.layers, layer(entry("more"))), "two")
    puller.store.tag(one.id, "extra")
    archive = saved(puller.store, puller.name("one"), two.id)
    content = json.loads(members(archive)["manifest.json"])
    assert [item["RepoTags"] for item in content] == [[puller.name("one")], [puller.name("two")]]
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        names = opened.getnames()
    assert len(names) == len(set(names))
    loaded = make_store("other").load(io.BytesIO(archive))
    assert [found.id for found in loaded] == [one.id, two.id]


def docker_archive(built: BuiltImage, *, legacy: bool = False) -> bytes:
    """What docker save wrote before version 25: uncompressed layers in folders, equal ones as links."""
    config = f"{built.id.removeprefix('sha256:')}.json"
    entries = [entry(config, data=built.config)]
    names: list[str] = []
    seen: dict[bytes, str] = {}
    for number, one in enumerate(built.layers):
        folder = f"{number:064x}"
        name = f"{folder}/layer.tar"
        entries += [directory(folder), entry(f"{folder}/VERSION", data=b"1.0"), entry(f"{folder}/json", data=b"{}")]
        if one.tar in seen and legacy:
            entries.append(symlink(name, f"../{seen[one.tar]}"))
        else:
            entries.append(entry(name, data=one.tar))
        seen.setdefault(one.tar, name)
        names.append(name)
    manifest = [{"Config": config, "RepoTags": ["old/app:v1"], "Layers": names}]
    entries += [entry("manifest.json", data=json.dumps(manifest).encode()), entry("repositories", data=b"{}")]
    return tar(*entries)


def test_archives_of_older_dockers_load(store: ImageStore) -> None:
    """With symbolic links between equal layers; the id is docker's."""
    built = image(*BUILT.layers, layer(entry("x")), BUILT.layers[0])
    (loaded,) = store.load(io.BytesIO(docker_archive(built, legacy=True)))
    assert loaded.id == built.id
    assert loaded.names == ("docker.io/old/app:v1",)
    assert store.check(content=True) == []


def test_an_archive_that_ends_too_early_leaves_nothing(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """An error, and a store as before after the next collection."""
    puller.pull(BUILT)
    archive = saved(puller.store, puller.name())
    other = make_store("other")
    for cut in (700, len(archive) // 2, len(archive) - 3000):
        with pytest.raises(InvalidImage):
            other.load(io.BytesIO(archive[:cut]))
        assert other.list() == []
    assert os.listdir(f"{other.root}/content/blobs/sha256") == []
    assert other.check(content=True) == []


def test_archives_that_lie(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """Blobs under other digests, layers that are missing, documents that are none, names that climb."""
    store = make_store("other")
    blob = BUILT.layers[0].blob
    wrong = tar(entry(f"blobs/sha256/{'0' * 64}", data=blob), entry("manifest.json", data=b"[]"))
    with pytest.raises(DigestMismatch):
        store.load(io.BytesIO(wrong))
    config = entry("config.json", data=BUILT.config)
    contents: tuple[object, ...] = (
        [{"Config": "config.json", "Layers": ["missing/layer.tar", "x"]}],
        [{"Config": "config.json", "Layers": ["../../../etc/passwd", "x"]}],
        [{"Config": "missing.json", "Layers": []}],
        [{"Config": "config.json", "Layers": []}],
        [{"Config": 7}],
        [7],
        {},
        7,
    )
    for content in contents:
        with pytest.raises(InvalidImage):
            store.load(io.BytesIO(tar(config, entry("manifest.json", data=json.dumps(content).encode()))))
    for archive in (b"", bytes(1024), b"nonsense", tar(entry("x")), tar(entry("../x")), tar(entry("index.json"))):
        with pytest.raises(InvalidImage):
            store.load(io.BytesIO(archive))
    assert store.list() == []


def test_a_layer_that_is_not_its_diff_id(store: ImageStore) -> None:
    """docker load checks it, and so does this."""
    built = image(BUILT.layers[0], diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(DigestMismatch):
        store.load(io.BytesIO(docker_archive(built)))


# -- import, export ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_root_file_system_becomes_an_image(store: ImageStore, tmp_path: Path, compression: str) -> None:
    """And comes out as the same files."""
    made = layer(directory("etc"), entry("etc/f", data=b"x", mode=0o4755), compression=compression)
    found = store.import_(
        io.BytesIO(made.blob), "imported:v1", config={"Cmd": ["/etc/f"]}, message="from tar", platform="linux/arm64"
    )
    assert found.names == ("docker.io/library/imported:v1",)
    assert (found.config.cmd, str(found.platform), found.history[0].comment) == (("/etc/f",), "linux/arm64", "from tar")
    assert found.diff_ids == (made.diff_id,)
    exported = b"".join(store.export(found))
    assert members(exported) == {"etc": b"", "etc/f": b"x"}
    with pytest.raises(InvalidLayer):
        store.import_(io.BytesIO(tar(entry("../x"))))
    assert store.check(content=True) == []


def written(root: Path) -> None:
    """What a container does to BUILT's files."""
    (root / "d/b").write_bytes(b"changed")
    (root / "new").mkdir(mode=0o1777)
    (root / "new/file").write_bytes(b"n" * 70_000)
    os.chown(root / "new/file", 1000, 2_500_000)
    os.utime(root / "new/file", ns=(0, 1_234_567_890_123_456_789))
    os.link(root / "new/file", root / "new/again")
    os.symlink("file", root / "new/link")
    os.mkfifo(root / "new/fifo")
    os.mknod(root / "new/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(root / "new/file", "user.k", b"\0v")
    with open(root / "new/sparse", "wb") as file:
        file.write(b"s" * 4096)
        file.seek(1 << 20)
        file.write(b"e" * 4096)
    (root / "l").unlink()
    (root / ("long" * 50)).write_bytes(b"1")


@pytest.mark.parametrize("snapshotter", ["overlay", "native"])
def test_what_a_container_changed_becomes_a_layer(
    puller: Puller, make_store: Callable[..., ImageStore], tmp_path: Path, snapshotter: str
) -> None:
    """Changes, commit, export: the new image shows what the container showed."""
    parent = puller.pull(BUILT)
    store = make_store(snapshotter=snapshotter)
    with mounted(store.mounts(parent, tmp_path / "c"), tmp_path / "m") as root:
        before = describe(root)
        assert store.changes(parent, tmp_path / "c") == []
        written(root)
        os.chmod(root, 0o711)
        after = describe(root)
    changes = store.changes(parent, tmp_path / "c")
    assert Change(kind="added", path="/new/file") in changes
    assert Change(kind="modified", path="/d/b") in changes
    assert Change(kind="deleted", path="/l") in changes
    assert {change.path for change in changes if change.kind == "deleted"} == {"/l"}
    child = store.commit(
        parent, tmp_path / "c", "child", config={"Cmd": ["/new"]}, author="me", message="why", created_by="sh"
    )
    assert child.diff_ids[:2] == parent.diff_ids
    assert (child.config.cmd, child.config.env, child.author) == (("/new",), (), "me")
    assert (child.history[-1].comment, child.history[-1].created_by) == ("why", "sh")
    with mounted(store.mounts(child, tmp_path / "c2"), tmp_path / "m") as root:
        again = describe(root)
        assert (root / "new/sparse").stat().st_blocks * 512 < 1 << 20
    if snapshotter == "native":
        # a changed root is not told apart from one that only got new entries
        again["."] = after["."]
    assert _without_directory_times(again) == _without_directory_times(after)
    assert before != after
    exported = b"".join(store.export(parent, tmp_path / "c"))
    target = tmp_path / "exported"
    target.mkdir()
    subprocess.run(["tar", "-xpf", "-", "--numeric-owner", "--xattrs", "-C", str(target)], input=exported, check=True)
    out = describe(target)
    out["."] = after["."]
    assert _without_directory_times(out) == _without_directory_times(after)
    assert store.check(content=True) == []


def _without_directory_times(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {name: facts if str(facts[0])[0] != "d" else (*facts[:4], *facts[5:]) for name, facts in tree.items()}


def test_removals_of_directories_and_opaque_ones(puller: Puller, tmp_path: Path) -> None:
    """A directory that was removed and made again hides what was in it, in the committed layer too."""
    parent = puller.pull(BUILT)
    store = puller.store
    with mounted(store.mounts(parent, tmp_path / "c"), tmp_path / "m") as root:
        subprocess.run(["rm", "-r", str(root / "d")], check=True)
        (root / "d").mkdir()
        (root / "d/fresh").touch()
    child = store.commit(parent, tmp_path / "c")
    with mounted(store.mounts(child, tmp_path / "c2"), tmp_path / "m") as root:
        assert os.listdir(root / "d") == ["fresh"]
    assert Change(kind="modified", path="/d") in store.changes(parent, tmp_path / "c")


def test_a_commit_of_nothing_below(store: ImageStore, tmp_path: Path) -> None:
    """A rootfs without an image becomes one."""
    (tmp_path / "c/upper").mkdir(parents=True)
    (tmp_path / "c/upper/f").write_bytes(b"1")
    found = store.commit(None, tmp_path / "c", "scratch")
    assert members(b"".join(store.export(found))) == {"f": b"1"}


# -- the writer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"a" * 100, b"a" * 101, b"d/" * 80 + b"f", b"x" * 90 + b"/" + b"y" * 120, b"\xff\n"])
def test_long_and_odd_names_are_read_back(name: bytes) -> None:
    """By wherry's reader and by Python's."""
    archive = header(Member(name=name)) + bytes(1024)
    one = TarReader([archive]).next()
    assert one is not None
    assert one.name == name
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as opened:
        assert os.fsencode(opened.getmembers()[0].name) == name


def test_large_numbers_are_read_back() -> None:
    """Ids beyond octal, sizes beyond 8 GiB, times before 1970 and with ns."""
    member = Member(name=b"f", uid=2**32 - 2, gid=2**31, size=1 << 40, mtime=-1_500_000_001)
    one = TarReader([header(member)]).next()
    assert one is not None
    assert (one.uid, one.gid, one.size, one.mtime) == (2**32 - 2, 2**31, 1 << 40, -1_500_000_001)


def test_skopeo_and_umoci_read_the_content_in_place(puller: Puller, tmp_path: Path) -> None:
    """root/content is an OCI image layout."""
    pulled = puller.pull(image(BUILT.layers[0], config={"Env": ["A=b"]}))
    puller.store.tag(pulled.id, "plain:v1")
    content = f"{puller.store.root}/content"
    source = f"oci:{content}:docker.io/library/plain:v1"
    copy = ["skopeo", "copy", "-q", "--insecure-policy", source]
    if shutil.which("skopeo"):
        done = subprocess.run(["skopeo", "inspect", "--raw", source], capture_output=True, check=True)
        assert digest_of(done.stdout) == pulled.manifest
        target = tmp_path / "copied"
        subprocess.run([*copy, f"oci:{target}:x"], check=True)
        archive = tmp_path / "docker.tar"
        subprocess.run([*copy, f"docker-archive:{archive}:a:b"], check=True)
        assert puller.store.load(archive)[0].diff_ids == pulled.diff_ids
        path = tmp_path / "ours.tar"
        path.write_bytes(saved(puller.store, "plain:v1"))
        for transport in ("docker-archive", "oci-archive"):
            done = subprocess.run(
                ["skopeo", "inspect", "--config", f"{transport}:{path}"], capture_output=True, check=True
            )
            assert json.loads(done.stdout)["config"]["Env"] == ["A=b"]
    if shutil.which("umoci"):
        gzipped = puller.pull(image(layer(directory("d"), entry("d/f", data=b"1"))), "gz")
        puller.store.tag(gzipped.id, "gzipped:v1")
        out = subprocess.run(["umoci", "list", "--layout", content], capture_output=True, text=True, check=True).stdout
        assert "docker.io/library/gzipped:v1" in out
