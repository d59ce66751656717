"""Layers: what each kind of entry becomes, and that no entry reaches outside."""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import directory, entry, hard_link, layer, symlink, tar
from images.mounting import describe
from wherry_images import tree
from wherry_images.errors import InvalidLayer, LimitExceeded
from wherry_images.layer import Applied, Limits, NeedsLower, apply, normalize
from wherry_images.lower import Lower, LowerLayer
from wherry_images.tar_reader import TarReader

pytestmark = pytest.mark.root

Entry = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The empty directory that a layer is unpacked into, beside a file that no layer may touch."""
    (tmp_path / "secret").write_text("host")
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "layer"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _host_untouched(tmp_path: Path, target: Path) -> Iterator[None]:
    before = {path: (os.lstat(path).st_ino, os.lstat(path).st_mode) for path in ("/etc/passwd", "/etc", "/tmp")}
    yield
    assert (tmp_path / "secret").read_text() == "host"
    assert os.lstat(tmp_path / "secret").st_nlink == 1
    assert list((tmp_path / "outside").iterdir()) == []
    assert {path: (os.lstat(path).st_ino, os.lstat(path).st_mode) for path in before} == before


def unpack(target: Path, *entries: Entry, lower: Lower | None = None, limits: Limits | None = None) -> Applied:
    return unpack_tar(target, tar(*entries), lower=lower, limits=limits)


def unpack_tar(target: Path, content: bytes, *, lower: Lower | None = None, limits: Limits | None = None) -> Applied:
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return apply(TarReader([content]), descriptor, lower=lower or Lower(), limits=limits, keeps_modes=False)
    finally:
        os.close(descriptor)


def below(tmp_path: Path, *entries: Entry, name: str = "below") -> Lower:
    """The lower layer that *entries* make."""
    folder = tmp_path / name
    folder.mkdir()
    unpack(folder, *entries)
    return Lower((LowerLayer(str(folder)),))


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


# -- what entries become -----------------------------------------------------------------------------------------------


def test_every_kind_of_file_comes_with_its_mode_owner_and_time(target: Path) -> None:
    """Regular files, directories, links, devices and fifos are made as the tar says, to the nanosecond."""
    pax = {"mtime": "1600000000.123456789"}
    unpack(
        target,
        directory("d", mode=0o1777, uid=7, gid=8),
        entry("d/suid", data=b"x" * 3_000_000, mode=0o6755, uid=100, gid=200, pax_headers=pax),
        symlink("d/link", "/nowhere", uid=5),
        hard_link("d/hard", "d/suid"),
        entry("d/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        entry("d/sda", tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=300, gid=6),
        entry("d/fifo", tarfile.FIFOTYPE, mode=0o622),
    )
    found = describe(target)
    assert found["d"][:3] == ("drwxrwxrwt", 7, 8)
    assert found["d"][4] == 1_600_000_000 * 10**9
    assert found["d/suid"][:5] == ("-rwsr-sr-x", 100, 200, 3_000_000, 1_600_000_000_123_456_789)
    assert found["d/suid"][-1] == ("d/hard", "d/suid")
    assert found["d/link"][:2] == ("lrwxrwxrwx", 5)
    assert found["d/link"][6] == "/nowhere"
    assert found["d/null"][0] == "crw-rw-rw-"
    assert found["d/null"][5] == os.makedev(1, 3)
    assert found["d/sda"][5] == os.makedev(8, 300)
    assert found["d/fifo"][0] == "prw--w--w-"


def test_extended_attributes_and_file_capabilities_survive_owner_and_data(target: Path) -> None:
    """chown(2) and write(2) clear capabilities, so they are set after both."""
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    pax = {"SCHILY.xattr.security.capability": capability.decode("latin-1"), "SCHILY.xattr.user.a": "b"}
    info, data = entry("ping", data=b"elf", mode=0o755, uid=3)
    header = b"".join(_record(key.encode(), value.encode("latin-1")) for key, value in pax.items())
    extended, _ = entry("pax", b"x", data=header)
    content = extended.tobuf(tarfile.USTAR_FORMAT) + header + bytes(-len(header) % 512)
    unpack_tar(target, content + info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(509) + bytes(1024))
    assert os.getxattr(target / "ping", "security.capability") == capability
    assert os.getxattr(target / "ping", "user.a") == b"b"


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body) + 2))
    return str(length).encode() + body


def test_overlayfs_own_attributes_cannot_be_brought_along(target: Path) -> None:
    """A layer that could set trusted.overlay.redirect would show files of other layers in other places."""
    unpack(
        target,
        directory(
            "d", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/"}
        ),
    )
    assert os.listxattr(target / "d") == []


def test_modes_do_not_depend_on_the_umask(target: Path) -> None:
    """The process' umask neither changes nor shows in what is unpacked."""
    old = os.umask(0o077)
    try:
        unpack(target, directory("d", mode=0o777), entry("d/f", mode=0o666), entry("d/x", tarfile.FIFOTYPE, mode=0o666))
    finally:
        os.umask(old)
    assert [stat.S_IMODE((target / name).stat().st_mode) for name in ("d", "d/f", "d/x")] == [0o777, 0o666, 0o666]


def test_files_in_a_setgid_directory_keep_the_group_of_the_layer(target: Path) -> None:
    """The kernel gives such files the directory's group; the tar says another one."""
    unpack(target, directory("d", mode=0o2775, gid=50), entry("d/f"), directory("d/sub"), entry("d/sub/f"))
    found = describe(target)
    assert found["d"][0] == "drwxrwsr-x"
    assert (found["d/f"][2], found["d/sub"][0], found["d/sub"][2], found["d/sub/f"][2]) == (0, "drwxr-xr-x", 0, 0)


def test_large_ids_and_odd_times(target: Path) -> None:
    """Ids beyond 2^31, times before 1970 and far beyond 2038 are kept as far as the file system can."""
    info, data = entry("f", uid=2**32 - 2, gid=2**31 + 5, mtime=-1_000_000_000)
    unpack(target, (info, data), entry("g", mtime=2**33), entry("h", pax_headers={"mtime": "-1.5"}))
    assert ((target / "f").stat().st_uid, (target / "f").stat().st_gid) == (2**32 - 2, 2**31 + 5)
    assert (target / "f").stat().st_mtime == -1_000_000_000
    assert (target / "g").stat().st_mtime == 2**33
    assert (target / "h").stat().st_mtime_ns == -1_500_000_000


def test_the_later_of_two_entries_wins(target: Path) -> None:
    """A file where a directory was, a directory where a file was, a file over a link that leads out."""
    unpack(
        target,
        directory("a"),
        entry("a/inner", data=b"1"),
        entry("b", data=b"2"),
        symlink("c", "../secret"),
        entry("a", data=b"3"),
        directory("b"),
        entry("c", data=b"4"),
        entry("c", data=b"5"),
    )
    assert (target / "a").read_bytes() == b"3"
    assert (target / "b").is_dir()
    assert (target / "c").read_bytes() == b"5"
    assert not (target / "c").is_symlink()


def test_times_of_directories_are_right_after_their_files_came(target: Path) -> None:
    """Also of one that was replaced, and of one whose parent is a link now."""
    unpack(
        target,
        directory("d", mtime=1_000),
        directory("d/e", mtime=2_000),
        entry("d/e/f"),
        directory("gone", mtime=1_234),
        directory("gone/in", mtime=4_321),
        symlink("gone", "d", mtime=5_000),
    )
    assert [(target / name).lstat().st_mtime for name in ("d", "d/e", "gone")] == [1_000, 2_000, 5_000]


def test_the_root_entry_sets_the_root(target: Path) -> None:
    """An entry "./" is the root's own."""
    applied = unpack(target, directory("./", mode=0o711, uid=9, mtime=77), entry("./f"))
    status = target.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime, applied.has_root) == (0o711, 9, 77, True)


# -- whiteouts ---------------------------------------------------------------------------------------------------------


def test_whiteouts_become_devices_and_opaque_attributes(target: Path) -> None:
    """As overlayfs wants them, wherever in the tar they come."""
    unpack(
        target,
        directory("d"),
        entry("d/.wh.x"),
        directory("first"),
        entry("first/.wh..wh..opq"),
        entry("first/f"),
        directory("last"),
        entry("last/f"),
        entry("last/.wh..wh..opq"),
        entry(".wh.top"),
    )
    assert is_whiteout(target / "d/x")
    assert is_whiteout(target / "top")
    assert os.getxattr(target / "first", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(target / "last", "trusted.overlay.opaque") == b"y"
    assert (target / "first/f").exists()


def test_an_opaque_root_hides_all_layers_below(target: Path) -> None:
    """overlayfs ignores the attribute at the root, so the layer says it."""
    assert unpack(target, entry(".wh..wh..opq"), entry("f")).opaque


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_whiteout_hides_nothing_of_its_own_layer(target: Path, order: str) -> None:
    """The file beside its whiteout stays; a directory beside it hides what is below."""
    pair = [entry(".wh.f"), entry("f", data=b"x")]
    folder = [entry(".wh.d"), directory("d"), entry("d/in")]
    if order == "after":
        pair, folder = pair[::-1], [*folder[1:], folder[0]]
    unpack(target, *pair, *folder)
    assert (target / "f").read_bytes() == b"x"
    assert (target / "d/in").exists()
    if order == "after":
        assert os.getxattr(target / "d", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", "d/.wh..", ".wh...", "d/.wh..."])
def test_whiteouts_of_nothing_are_refused(target: Path, name: str) -> None:
    """The root, the directory itself and its parent are no names that a whiteout can hide."""
    with pytest.raises(InvalidLayer, match="whiteout of nothing"):
        unpack(target, directory("d"), entry(name))


def test_aufs_bookkeeping_is_skipped(target: Path) -> None:
    """Old layers have .wh..wh.plnk and the like."""
    unpack(target, directory(".wh..wh.plnk"), entry(".wh..wh.aufs"), entry("f"))
    assert sorted(os.listdir(target)) == ["f"]


@pytest.mark.parametrize("name", ["../.wh.secret", "/../.wh.secret", "a/../../.wh.secret"])
def test_a_whiteout_cannot_reach_outside_the_rootfs(target: Path, name: str) -> None:
    """Neither can its removal."""
    with pytest.raises(InvalidLayer, match="climbs out"):
        unpack(target, entry(name))


def test_something_inside_of_what_a_whiteout_hides_begins_anew(target: Path, tmp_path: Path) -> None:
    """A file below a whiteout'ed directory does not bring the old directory back."""
    lower = below(tmp_path, directory("d"), entry("d/old"))
    unpack(target, entry(".wh.d"), entry("d/new"), lower=lower)
    assert os.getxattr(target / "d", "trusted.overlay.opaque") == b"y"
    assert os.listdir(target / "d") == ["new"]


# -- layers that need what lies below ----------------------------------------------------------------------------------


def test_a_missing_parent_is_as_the_layers_below_have_it(target: Path, tmp_path: Path) -> None:
    """Mode, owner, attributes and time of a directory that the layer does not bring along."""
    lower = below(
        tmp_path, directory("srv", mode=0o750, uid=33, gid=34, mtime=5_000, pax_headers={"SCHILY.xattr.user.k": "v"})
    )
    applied = unpack(target, entry("srv/f"), lower=lower)
    assert describe(target)["srv"][:5] == ("drwxr-x---", 33, 34, None, 5_000 * 10**9)
    assert os.getxattr(target / "srv", "user.k") == b"v"
    assert not applied.self_contained


def test_a_layer_that_stands_alone_says_so(target: Path) -> None:
    """Such layers unpack in parallel and are shared whatever they lie on."""
    assert unpack(target, directory("a"), entry("a/f"), hard_link("a/g", "a/f"), entry("a/.wh.x")).self_contained


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry("a/f")], id="no parent"),
        pytest.param([directory("a"), hard_link("a/f", "etc/passwd")], id="hard link below"),
        pytest.param([symlink("a", "b"), entry("a/f")], id="through a link"),
        pytest.param([entry("a/.wh.f")], id="whiteout without a parent"),
    ],
)
def test_layers_that_need_lower_ones_say_so_before_anything_wrong_is_made(target: Path, entries: list[Entry]) -> None:
    """Without the layers below at hand they end with NeedsLower."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(NeedsLower):
            apply(TarReader([tar(*entries)]), descriptor, lower=None, keeps_modes=False)
    finally:
        os.close(descriptor)


def test_a_hard_link_to_a_lower_layer_brings_a_copy(target: Path, tmp_path: Path) -> None:
    """With mode, owner, time and capabilities; through links on the way, too."""
    lower = below(
        tmp_path,
        directory("usr"),
        directory("usr/bin"),
        entry("usr/bin/su", data=b"elf", mode=0o4755),
        symlink("bin", "usr/bin"),
    )
    unpack(target, hard_link("su2", "bin/su"), hard_link("su3", "usr/bin/su"), lower=lower)
    found = describe(target)
    assert found["su2"][0] == "-rwsr-xr-x"
    assert found["su2"][-1] == ("su2", "su3", "usr/bin/su")
    assert (target / "su2").read_bytes() == b"elf"


def test_a_file_goes_through_a_lower_layers_link(target: Path, tmp_path: Path) -> None:
    """lib is a link to usr/lib below: lib/f lands there, and lib stays a link."""
    lower = below(tmp_path, directory("usr"), directory("usr/lib", mode=0o711), symlink("lib", "usr/lib"))
    unpack(target, entry("lib/f"), lower=lower)
    assert sorted(os.listdir(target)) == ["usr"]
    assert (target / "usr/lib/f").exists()
    assert stat.S_IMODE((target / "usr/lib").stat().st_mode) == 0o711


def test_what_an_upper_layer_hid_is_not_found_below(target: Path, tmp_path: Path) -> None:
    """The stack is looked through as overlayfs would: whiteouts and opaque directories count."""
    base = below(
        tmp_path,
        directory("d", mode=0o700),
        entry("f", data=b"x"),
        directory("o", mode=0o700),
        directory("o/p", mode=0o700),
    )
    upper = tmp_path / "upper"
    upper.mkdir()
    unpack(upper, entry(".wh.d"), entry(".wh.f"), directory("o"), entry("o/.wh..wh..opq"), lower=base)
    stack = Lower((LowerLayer(str(upper)), *base.layers))
    unpack(target, entry("d/f"), entry("o/p/f"), lower=stack)
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "o/p").stat().st_mode) == 0o755
    with pytest.raises(InvalidLayer, match="not there"):
        unpack(target, hard_link("g", "f"), lower=stack)


# -- attacks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "..", "../", "a/../..", "/../../secret", "./../secret"]
)
def test_names_that_climb_are_refused(target: Path, name: str) -> None:
    """CVE-2014-6407: nothing above the root can be named."""
    with pytest.raises(InvalidLayer, match="climbs out"):
        unpack(target, entry(name, data=b"evil"))


def test_an_absolute_name_is_below_the_root(target: Path) -> None:
    """As docker has it."""
    unpack(target, directory("/etc"), entry("/etc/passwd", data=b"evil"), entry("//x", data=b"1"), entry("etc/./../y"))
    assert (target / "etc/passwd").read_bytes() == b"evil"
    assert (target / "x").read_bytes() == b"1"
    assert (target / "y").exists()


@pytest.mark.parametrize(
    "goal", ["/etc", "../outside", "../../../../../../../../etc", "/proc/self/cwd", "/proc/self/root/etc", "."]
)
def test_links_do_not_lead_out(target: Path, goal: str) -> None:
    """CVE-2014-9356, CVE-2021-29136: a → goal, then a/x: it lands inside, as it would for the container."""
    goal = str(target.parent / "outside") if goal == "../outside" else goal
    unpack(target, symlink("a", goal), entry("a/x", data=b"evil"), entry("a/deep/y"), entry("a/.wh.z"))
    assert not os.path.lexists("/etc/x")
    assert (target / "a").is_symlink()
    inside = [path for path in target.rglob("x") if path.is_file()]
    assert [path.read_bytes() for path in inside] == [b"evil"]


def test_chains_of_links_end(target: Path) -> None:
    """a → b → a, and a link whose target grows without end."""
    with pytest.raises(InvalidLayer, match="too many symbolic links"):
        unpack(target, symlink("a", "b"), symlink("b", "a"), entry("a/x"))
    with pytest.raises(InvalidLayer, match="too"):
        unpack(target, symlink("c", "c/" * 100 + "c"), entry("c/x"))


def test_a_link_in_the_place_of_the_root_is_refused(target: Path) -> None:
    """CVE-2021-29136: the root itself as a link."""
    with pytest.raises(InvalidLayer, match="root itself is no directory"):
        unpack(target, symlink("./", "/etc"), entry("x"))


@pytest.mark.parametrize("goal", ["../../secret", "../secret", "/../secret", "a/../../secret"])
def test_hard_links_to_host_files_are_refused(target: Path, goal: str) -> None:
    """CVE-2014-9357: a hard link could give the host's file away, and a later entry write into it."""
    with pytest.raises(InvalidLayer):
        unpack(target, hard_link("x", goal), entry("x", data=b"evil"))


def test_a_hard_link_through_a_link_stays_inside(target: Path) -> None:
    """a → the host's directory, then a hard link to a/secret: not there."""
    with pytest.raises(InvalidLayer, match="not there"):
        unpack(target, symlink("a", str(target.parent)), hard_link("x", "a/secret"))


def test_a_hard_link_to_a_link_is_one_to_the_link(target: Path) -> None:
    """Not to what it names; writing the name anew replaces it."""
    unpack(target, symlink("a", str(target.parent / "secret")), hard_link("b", "a"), entry("b", data=b"evil"))
    assert (target / "a").is_symlink()
    assert (target / "b").read_bytes() == b"evil"


def test_a_hard_link_to_nothing_is_refused(target: Path) -> None:
    """Also to itself, to a directory, to the root and to a whiteout."""
    for entries in (
        [hard_link("x", "missing")],
        [hard_link("x", "x")],
        [directory("d"), hard_link("x", "d")],
        [hard_link("x", "./")],
        [entry(".wh.w"), hard_link("x", "w")],
    ):
        with pytest.raises(InvalidLayer):
            unpack(target, *entries)


def test_a_hard_link_to_itself_changes_nothing(target: Path) -> None:
    """Some archivers write it for a file with several names."""
    unpack(target, entry("x", data=b"1"), hard_link("x", "x"), hard_link("x", "./x"))
    assert (target / "x").read_bytes() == b"1"


def test_an_entry_below_a_file_is_refused(target: Path) -> None:
    """A file on the way is no directory."""
    with pytest.raises(InvalidLayer, match="no directory"):
        unpack(target, entry("f"), entry("f/x"))


@pytest.mark.parametrize("length", [255, 256])
def test_names_as_long_as_linux_takes(target: Path, length: int) -> None:
    """255 bytes are a name, 256 are none."""
    if length == 255:
        unpack(target, entry("n" * length))
        assert (target / ("n" * length)).exists()
    else:
        with pytest.raises(InvalidLayer, match="too long"):
            unpack(target, entry("n" * length))


def test_paths_as_long_as_linux_takes(target: Path) -> None:
    """4,095 bytes can be named, 4,096 cannot; what was made can be removed again."""
    long = "/".join(["d" * 200] * 20)
    unpack(target, entry(f"{long}/{'f' * (4095 - len(long) - 1)}"), lower=Lower())
    with pytest.raises(InvalidLayer, match="more than Linux takes"):
        unpack(target, entry(f"{long}/{'f' * (4096 - len(long) - 1)}"), lower=Lower())


@pytest.mark.parametrize("name", [b"\xff\xfe", b"line\nbreak", "ümläut".encode(), b"\x01\x7f", b"back\\slash", b" "])
def test_names_are_bytes(target: Path, name: bytes) -> None:
    """Whatever they are, but for NUL and slash."""
    unpack(target, entry(os.fsdecode(name), data=b"1"))
    assert os.listdir(os.fsencode(target)) == [name]


def test_100000_nested_directories_end_at_a_limit(target: Path) -> None:
    """The path is longer than anybody could name."""

    def entries() -> Iterator[bytes]:
        for depth in range(1, 100_000, 50):
            yield directory("d/" * depth)[0].tobuf(tarfile.PAX_FORMAT)

    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(InvalidLayer, match="more than"):
            apply(TarReader(entries()), descriptor, lower=Lower(), keeps_modes=False)
        tree.remove(descriptor, "d")  # what was made is deeper than shutil.rmtree can go
    finally:
        os.close(descriptor)
    assert os.listdir(target) == []


def test_a_bomb_of_zeros_ends_at_the_limit(target: Path) -> None:
    """The limit is the user's; what was written till then is the caller's to remove."""
    info, _ = entry("zeros")
    info.size = 100 << 30

    def zeros() -> Iterator[bytes]:
        yield info.tobuf(tarfile.PAX_FORMAT)
        while True:
            yield bytes(1 << 20)

    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(LimitExceeded) as caught:
            apply(TarReader(zeros()), descriptor, lower=Lower(), limits=Limits(size=10 << 20), keeps_modes=False)
    finally:
        os.close(descriptor)
    assert (caught.value.limit, caught.value.value, caught.value.entry) == ("bytes", 10 << 20, "zeros")


def test_a_million_entries_end_at_the_limit(target: Path) -> None:
    """Counted, not kept."""
    with pytest.raises(LimitExceeded, match="entries"):
        unpack(target, *[entry(f"f{number}") for number in range(30)], limits=Limits(entries=20))


def test_a_sparse_file_of_8_eib_is_refused(target: Path) -> None:
    """By the limit of one file, and without one by the file system."""
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"}
    huge = {**sparse, "GNU.sparse.realsize": str(2**63 - 1)}
    data = b"0\n".ljust(512, b"\0")
    with pytest.raises(LimitExceeded, match="in one file"):
        unpack(target, entry("s", data=data, pax_headers=huge))
    with pytest.raises(InvalidLayer, match="file too large"):
        unpack(target, entry("s", data=data, pax_headers=huge), limits=Limits(file_size=2**64))


def test_devices_that_linux_does_not_have_are_refused(target: Path) -> None:
    """Numbers beyond what mknod(2) takes."""
    with pytest.raises(InvalidLayer, match="does not have"):
        unpack(target, entry("x", tarfile.CHRTYPE, devmajor=2**20, devminor=0))


def test_unknown_types_are_refused(target: Path) -> None:
    """Nothing is left out silently."""
    with pytest.raises(InvalidLayer, match="unknown type"):
        unpack(target, entry("x", b"Q"))


def test_errors_name_the_entry(target: Path) -> None:
    """As a user can find it in the layer."""
    with pytest.raises(InvalidLayer) as caught:
        unpack(target, entry("fine"), entry("n" * 300))
    assert caught.value.entry == "n" * 300


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a", b"a"),
        (b"./a", b"a"),
        (b"a/", b"a"),
        (b"/a//b/./c", b"a/b/c"),
        (b"a/../b", b"b"),
        (b"./", b""),
        (b".a", b".a"),
    ],
)
def test_names_are_cleaned(name: bytes, expected: bytes) -> None:
    """As docker does it, lexically."""
    assert normalize(name) == expected


def test_layer_helper_matches_its_descriptor() -> None:
    """The tests' own builder gives sizes and digests of what it made."""
    made = layer(entry("f"))
    assert made.descriptor["size"] == len(made.blob)
