"""Files in containers: paths, archives, cp; and that nothing a container does leads them to the host."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from support.world import World
from wherry import Client, Mount
from wherry.container import Container
from wherry.errors import AlreadyExists, Conflict, NotFound, WherryError

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["running", "stopped"])
def container(client: Client, request: pytest.FixtureRequest) -> Container:
    """One that runs, and one that never did."""
    if request.param == "running":
        return client.run("busybox", "sleep 1000", network="none")
    return client.create("busybox", "sleep 1000", network="none")


def test_paths_are_read_and_written(container: Container) -> None:
    """As with pathlib; a container that runs sees it at once."""
    place = container.path("/made/for/it")
    with pytest.raises(NotFound):
        place.mkdir()
    place.mkdir(parents=True)
    with pytest.raises(AlreadyExists):
        place.mkdir()
    file = place / "file"
    assert not file.exists()
    file.write_text("hello\n")
    assert file.read_text() == "hello\n"
    assert (file.is_file(), place.is_dir(), str(file.parent), file.name) == (True, True, "/made/for/it", "file")
    assert [str(path) for path in place.iterdir()] == ["/made/for/it/file"]
    if container.status == "running":
        assert container.exec(["cat", str(file)]).output == "hello\n"
    file.unlink()
    with pytest.raises(NotFound):
        file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(NotFound, match="/made/for/it/file in the container"):
        file.read_text()
    with pytest.raises(Conflict):
        place.read_bytes()


def test_what_is_written_into_a_stopped_container_is_there_when_it_runs(client: Client) -> None:
    """And is part of what it wrote."""
    with client.create("busybox", ["cat", "/etc/greeting"], network="none") as container:
        container.path("/etc/greeting").write_text("good morning\n")
        assert [change.path for change in container.diff()] == ["/etc", "/etc/greeting"]
        container.start()
        container.wait()
        assert container.logs() == "good morning\n"


def test_volumes_of_a_stopped_container_are_seen(client: Client, tmp_path: Path) -> None:
    """Named, anonymous, parts of them, and paths of the host; one that is read-only stays so."""
    (tmp_path / "f").write_text("host")
    volume = client.volumes.create("seen")
    (Path(volume.path) / "part").mkdir()
    (Path(volume.path) / "part/inner").write_text("part")
    mounts = [Mount("/part", "seen", type="volume", subpath="part")]
    with client.create(
        "busybox",
        "cat /v/written /anonymous/written",
        volumes=["seen:/v", "/anonymous", f"{tmp_path}:/host:ro"],
        mounts=mounts,
    ) as container:
        container.path("/v/written").write_text("volume ")
        container.path("/anonymous/written").write_text("anonymous")
        assert (Path(volume.path) / "written").read_text() == "volume "
        assert container.path("/host/f").read_text() == "host"
        assert container.path("/part/inner").read_text() == "part"
        with pytest.raises(WherryError, match="read-only"):
            container.path("/host/g").write_text("no")
        container.start()
        container.wait(timeout=20)
        assert container.logs() == "volume anonymous"
    assert os.listdir(tmp_path) == ["f"]


def test_archives_go_in_and_out(container: Container) -> None:
    """Modes, owners, links and times as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, extra in (
            ("d", tarfile.DIRTYPE, {"mode": 0o751}),
            ("d/file", tarfile.REGTYPE, {"size": 5, "mode": 0o4755, "uid": 7, "gid": 8, "mtime": 1_000_000_000}),
            ("d/link", tarfile.SYMTYPE, {"linkname": "file"}),
            ("d/hard", tarfile.LNKTYPE, {"linkname": "d/file"}),
            ("d/pipe", tarfile.FIFOTYPE, {}),
        ):
            member = tarfile.TarInfo(name)
            member.type = kind
            for key, value in extra.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(b"hello") if kind == tarfile.REGTYPE else None)
    container.put_archive("/tmp", buffer.getvalue())
    with pytest.raises(NotFound):
        container.put_archive("/not/there", buffer.getvalue())
    status = container.path("/tmp/d/file").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_nlink) == (0o4755, 7, 8, 2)
    content = b"".join(container.get_archive("/tmp/d"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {member.name: member for member in tar.getmembers()}
        assert sorted(found) == ["d", "d/file", "d/hard", "d/link", "d/pipe"]
        assert (found["d"].mode, found["d/file"].mode, found["d/file"].mtime) == (0o751, 0o4755, 1_000_000_000)
        assert (found["d/link"].linkname, found["d/pipe"].type) == ("file", tarfile.FIFOTYPE)
        extracted = tar.extractfile("d/file")
        assert extracted is not None
        assert extracted.read() == b"hello"


def test_links_lead_nowhere_but_inside(container: Container, tmp_path: Path) -> None:
    """CVE-2018-15664: absolute links, links upwards, /proc's own; the host's files are neither read nor written."""
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (("abs", str(tmp_path)), ("up", "../" * 20 + str(tmp_path)), ("self", "/proc/self/root")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    container.put_archive("/tmp", buffer.getvalue())
    for link in ("abs", "up", "self"):
        with pytest.raises((NotFound, Conflict)):
            container.path(f"/tmp/{link}/secret").read_text()
        with pytest.raises((NotFound, Conflict)):
            container.path(f"/tmp/{link}/planted").write_text("x")
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        member = tarfile.TarInfo("abs/planted")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    container.put_archive("/tmp", evil.getvalue())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]
    assert secret.read_text() == "the host's"


def test_a_link_that_is_exchanged_while_files_are_copied_leads_nowhere(client: Client, tmp_path: Path) -> None:
    """The race of CVE-2018-15664, 1,000 times each way."""
    (tmp_path / "file").write_text("the host's")
    script = f"mkdir -p /w/d; echo mine > /w/d/file; cd /w; while :; do mv d e; ln -s {tmp_path} d; rm d; mv e d; done"
    seen: set[bytes] = set()
    with (
        client.run("busybox", ["sh", "-c", script], network="none") as attacker,
        attacker._engine.rootfs(attacker.id) as root,
    ):
        attacker.exec(["sh", "-c", "until [ -e /w/d/file ]; do :; done"], timeout=30)
        for number in range(50_000):
            if number >= 1000 and seen:
                break
            try:
                seen.add(root.read("/w/d/file"))
                root.write("/w/d/planted", b"x")
            except (NotFound, Conflict):
                continue
    assert b"mine\n" in seen
    assert b"the host's" not in seen
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_cp_copies_as_docker_does(client: Client, world: World, tmp_path: Path) -> None:
    """Into a directory that exists, to a name that does not, the content of a directory, and tars by pipes."""
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_text("one\n")
    with client.run("busybox", "sleep 1000", network="none", name="box") as box:
        world.wherry("cp", str(tree), "box:/tmp")
        assert box.path("/tmp/tree/inner/file").read_text() == "one\n"
        world.wherry("cp", str(tree), "box:/tmp/renamed")
        assert box.path("/tmp/renamed/inner/file").stat().st_uid == 0
        world.wherry("cp", f"{tree}/.", "box:/var")
        assert box.path("/var/inner/file").exists()
        world.wherry("cp", "box:/tmp/tree/inner/file", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == "one\n"
        world.wherry("cp", "box:/tmp/tree", str(tmp_path / "copy"))
        assert (tmp_path / "copy" / "inner" / "file").read_text() == "one\n"
        (tmp_path / "there").mkdir()
        world.wherry("cp", "box:/tmp/tree", str(tmp_path / "there"))
        assert (tmp_path / "there" / "tree" / "inner" / "file").exists()
        world.wherry("cp", "box:/tmp/tree/.", str(tmp_path / "there"))
        assert (tmp_path / "there" / "inner" / "file").exists()
        missing = world.wherry("cp", "box:/nothing", str(tmp_path), check=False)
        assert (missing.returncode, "/nothing in the container: no such file" in missing.stderr) == (1, True)


def test_what_is_copied_out_cannot_lead_out_of_its_target(client: Client, world: World, tmp_path: Path) -> None:
    """The container makes the archive: a link and then a file below it stays inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    script = f"mkdir /d; ln -s {outside} /d/a; exec sleep 1000"
    with client.run("busybox", ["sh", "-c", script], network="none", name="box"):
        world.wherry("exec", "box", "sh", "-c", "until [ -L /d/a ]; do :; done")
        world.wherry("cp", "box:/d", str(target))
    assert os.readlink(target / "d" / "a") == str(outside)
    assert list(outside.iterdir()) == []
