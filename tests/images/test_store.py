"""The store: names, removal, holders, collection, room, and whether it is as its records say."""

import os
import pickle
import threading
from pathlib import Path

import pytest

from images.build import directory, entry, image, layer
from images.conftest import Puller
from wherry_images import Image, ImageStore
from wherry_images.database import Database
from wherry_images.errors import ImageInUse, ImageNotFound, InvalidReference
from wherry_oci.errors import InvalidArgument, NotFound, Unsupported

pytestmark = pytest.mark.root


def pull(puller: Puller, name: str, *layers: str) -> Image:
    return puller.pull(image(*[layer(entry(one, data=one.encode() * 1000)) for one in layers]), name)


def hold(store: ImageStore, holder: str, held: Image) -> None:
    with store.database.transaction() as connection:
        store.hold(connection, holder, held)


def files(store: ImageStore, folder: str) -> list[str]:
    return sorted(os.listdir(f"{store.root}/{folder}"))


# -- looking up --------------------------------------------------------------------------------------------------------


def test_a_store_does_nothing_before_its_first_call(tmp_path: Path) -> None:
    """No directory, no file; and then only what is needed, for its owner alone."""
    root = tmp_path / "a/b/root"
    store = ImageStore(root)
    assert not root.parent.exists()
    assert store.list() == []
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root / "wherry.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ImageNotFound) as caught:
        store.get("nothing")
    assert isinstance(caught.value, NotFound)
    store.close()


def test_an_image_is_found_by_every_name_that_docker_takes(puller: Puller) -> None:
    """Reference, short name, id, beginning of an id, digest in a repository."""
    found = pull(puller, "app", "a")
    store, host = puller.store, puller.registry.host
    store.tag(found.id, "web")
    for name in (
        f"{host}/app",
        f"{host}/app:latest",
        f"{host}/app@{found.manifest}",
        "web",
        "web:latest",
        "library/web",
        "docker.io/library/web:latest",
        found.id,
        found.id.removeprefix("sha256:"),
        found.id.removeprefix("sha256:")[:12],
        found.id[:15],
    ):
        assert store.get(name).id == found.id, name
    for name in ("web:other", "other", f"web@{found.manifest}", "0" * 64, "sha256:" + "0" * 64, "f" * 5 + "0" * 8):
        with pytest.raises(ImageNotFound):
            store.get(name)
    with pytest.raises(InvalidReference):
        store.get("UPPER")
    assert store.get("web").tags == (f"{host}/app:latest", "web:latest")


def test_an_ambiguous_beginning_of_an_id_is_refused(puller: Puller) -> None:
    """Two images, one hexadecimal digit."""
    found = [pull(puller, f"app{number}", f"f{number}") for number in range(17)]
    digits = [one.id.removeprefix("sha256:")[0] for one in found]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(InvalidArgument, match="several images"):
        puller.store.get(twice)


def test_a_store_can_be_pickled_and_shared_by_threads(puller: Puller) -> None:
    """A handle is its root and how it was made."""
    pull(puller, "app", "a")
    other = pickle.loads(pickle.dumps(puller.store))
    results: list[int] = []

    def look() -> None:
        for _ in range(20):
            results.append(len(other.list()))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert results == [1] * 160


def test_a_store_survives_fork(puller: Puller) -> None:
    """A child does not use its parent's connections."""
    pull(puller, "app", "a")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            puller.store.tag(puller.name(), "from-child")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert puller.store.get("from-child").id == puller.store.get(puller.name()).id


def test_looking_up_costs_no_heavy_imports(puller: Puller) -> None:
    """A container's start reads SQLite and nothing else."""
    import subprocess
    import sys

    pull(puller, "app", "a")
    code = (
        "import sys; from wherry_images import ImageStore; s = ImageStore(sys.argv[1]); "
        "s.mounts(s.get(sys.argv[2]), sys.argv[1] + '/c'); s.close(); "
        "print(sorted({'cattrs', 'requests', 'urllib3', 'isal', 'zstandard', 'ssl', 'logging', 'subprocess', 'shutil',"
        " 'tempfile', 'asyncio', 'hashlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, puller.store.root, puller.name()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# -- names and removal -------------------------------------------------------------------------------------------------


def test_removing_a_name_and_then_the_last_one(puller: Puller) -> None:
    """As docker rmi tells it; with the image go its blobs and layers."""
    found = pull(puller, "app", "a", "b")
    store = puller.store
    store.tag(found.id, "other")
    assert store.remove("other") == ["untagged: docker.io/library/other:latest"]
    done = store.remove(puller.name())
    assert done[0] == f"untagged: {puller.name()}"
    assert f"deleted: {found.id}" in done
    assert {f"deleted: {one}" for one in found.diff_ids} <= set(done)
    assert store.list() == []
    assert files(store, "snapshots") == files(store, "content/blobs/sha256") == []
    with pytest.raises(ImageNotFound):
        store.remove(puller.name())
    assert store.check() == []


def test_removing_by_id(puller: Puller) -> None:
    """All names of one repository go; names in several want force."""
    found = pull(puller, "app", "a")
    store = puller.store
    store.tag(found.id, puller.name(tag="second"))
    store.tag(found.id, "elsewhere")
    with pytest.raises(ImageInUse, match="several repositories"):
        store.remove(found.id)
    done = store.remove(found.id, force=True)
    assert len([line for line in done if line.startswith("untagged: ")]) == 4
    assert store.list() == []


def test_removing_by_digest(puller: Puller) -> None:
    """An image that was pulled by digest alone has no other name."""
    found = pull(puller, "app", "a")
    store = puller.store
    name = f"{puller.registry.host}/app@{found.manifest}"
    assert store.remove(name) == [f"untagged: {name}"]
    assert store.get(puller.name()).digests == ()


def test_an_image_that_a_container_has_stays(puller: Puller) -> None:
    """Without force nothing happens, with force the names go; release and prune do the rest."""
    found = pull(puller, "app", "a")
    store = puller.store
    hold(store, "container-1", found)
    hold(store, "container-1", found)
    with pytest.raises(ImageInUse) as caught:
        store.remove(puller.name())
    assert caught.value.holders == ("container-1",)
    assert store.get(puller.name()) == found
    done = store.remove(puller.name(), force=True)
    assert not any("deleted" in line for line in done)
    assert store.get(found.id).names == ()
    assert store.prune(all=True).removed == ()
    with store.database.transaction() as connection:
        store.release(connection, "container-1")
    assert f"deleted: {found.id}" in store.prune().removed
    assert store.list() == []
    with pytest.raises(ImageNotFound):
        hold(store, "container-2", found)


def test_a_hold_is_part_of_the_callers_transaction(puller: Puller) -> None:
    """What is rolled back was never held."""
    found = pull(puller, "app", "a")

    def hold_and_fail() -> None:
        with puller.store.database.transaction() as connection:
            puller.store.hold(connection, "x", found)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hold_and_fail()
    puller.store.remove(puller.name())


def test_a_name_that_moves_leaves_a_dangling_image(puller: Puller) -> None:
    """Which prune removes, and nothing else; shared layers stay."""
    old = pull(puller, "app", "shared", "old")
    new = pull(puller, "app", "shared", "new")
    store = puller.store
    assert store.get(old.id).names == ()
    pruned = store.prune()
    assert f"deleted: {old.id}" in pruned.removed
    assert pruned.size > 0
    assert [one.id for one in store.list()] == [new.id]
    assert len(files(store, "snapshots")) == 2
    assert store.check(content=True) == []


def test_prune_by_label_and_age(puller: Puller) -> None:
    """Filters spare what they do not name."""
    for name, labels, created in (
        ("keep", {}, "2020-01-01T00:00:00Z"),
        ("old", {"ci": "1"}, "2020-01-01T00:00:00Z"),
        ("young", {"ci": "1"}, "2030-01-01T00:00:00Z"),
    ):
        puller.pull(image(layer(entry(name)), config={"Labels": labels}, created=created), name)
    puller.store.prune(all=True, labels={"ci": "1"}, until="2025-01-01T00:00:00Z")
    assert sorted(one.names[0].rpartition("/")[2] for one in puller.store.list()) == ["keep:latest", "young:latest"]
    puller.store.prune(all=True)
    assert puller.store.list() == []


def test_collection_removes_what_the_killed_left(puller: Puller) -> None:
    """Directories, blobs and leases without records; but nothing that an operation has leased."""
    from wherry_images import records

    found = pull(puller, "app", "a")
    store = puller.store
    root = Path(store.root)
    (root / "snapshots/12345678/deep/er").mkdir(parents=True)
    orphan = "sha256-" + "1" * 64
    (root / "content/blobs/sha256" / ("2" * 64)).write_bytes(b"x")
    (root / "ingest" / f"{orphan}.partial").write_bytes(b"x")
    with store.database.transaction() as connection:
        connection.execute("INSERT INTO lease VALUES ('dead')")
        connection.execute("INSERT INTO lease_item VALUES ('dead', '12345678')")
    (root / "snapshots/87654321").mkdir()
    for left in ("content/index.json.0123.new", "content/blobs/sha256/x.0123.new", "ingest/x.lock", "leases/x.lock"):
        (root / left).touch()
    assert {problem.kind for problem in store.check()} == {"orphan"}
    with records.leased(store._layout, store.database) as lease:
        lease.add("87654321", "sha256:" + "1" * 64)
        store.prune()
        assert "87654321" in files(store, "snapshots")
        assert "12345678" not in files(store, "snapshots")
        assert files(store, "ingest") == [f"{orphan}.partial"]
    store.prune()
    assert len(files(store, "snapshots")) == 1
    assert files(store, "ingest") == files(store, "leases") == []
    assert files(store, "content") == ["blobs", "index.json", "oci-layout"]
    assert len(files(store, "content/blobs/sha256")) == 3
    assert store.get(found.id) == found
    assert store.check(content=True) == []


# -- room and health ---------------------------------------------------------------------------------------------------


def test_usage_tells_shared_from_unique(puller: Puller) -> None:
    """Bytes of unpacked files, and of blobs."""
    one, other = pull(puller, "one", "shared", "one"), pull(puller, "other", "shared", "other-one")
    store = puller.store
    hold(store, "c", one)
    usage = store.usage()
    by_id = {image.id: image for image in usage.images}
    assert (by_id[one.id].size, by_id[one.id].shared, by_id[one.id].unique) == (9000, 6000, 3000)
    assert (by_id[other.id].shared, by_id[other.id].unique) == (6000, 9000)
    assert usage.layers == 18000
    assert by_id[one.id].holders == 1
    assert by_id[one.id].names == (puller.name("one"),)
    blobs = sum(path.stat().st_size for path in Path(store.root, "content/blobs/sha256").iterdir())
    assert usage.blobs == blobs
    before = usage.reclaimable
    assert store.prune(all=True).size == before


def test_check_finds_what_is_wrong(puller: Puller) -> None:
    """Missing and damaged blobs, missing layers, an index that lags."""
    found = pull(puller, "app", "a", "b")
    store, root = puller.store, Path(puller.store.root)
    blobs = [root / "content/blobs/sha256" / name for name in files(store, "content/blobs/sha256")]
    assert len(blobs) == 4
    first, second = blobs[:2]
    content = first.read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    second.unlink()
    (root / "snapshots" / files(store, "snapshots")[0]).rename(root / "elsewhere")
    (root / "content/index.json").write_text('{"manifests": []}')
    assert sorted(problem.kind for problem in store.check()) == ["blob missing", "index", "layer missing"]
    kinds = sorted(problem.kind for problem in store.check(content=True))
    assert kinds == ["blob damaged", "blob missing", "index", "layer missing"]
    assert found


def test_a_newer_wherrys_tables_are_not_touched(tmp_path: Path) -> None:
    """An error that says so, and the file as it was."""
    store = ImageStore(tmp_path / "root")
    store.list()
    with store.database.transaction() as connection:
        connection.execute("UPDATE component SET version = 99 WHERE name = 'images'")
    store.close()
    with pytest.raises(Unsupported, match="newer wherry"):
        ImageStore(tmp_path / "root").list()


def test_a_store_made_by_an_older_wherry_opens(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step more is one script more: what was there is kept."""
    from wherry_images import records

    found = pull(puller, "app", "a")
    more = (*records.MIGRATIONS, "ALTER TABLE image ADD COLUMN later TEXT NOT NULL DEFAULT 'x'; CREATE TABLE extra(a);")
    monkeypatch.setattr(records, "MIGRATIONS", more)
    newer = ImageStore(puller.store.root)
    assert newer.get(puller.name()) == found
    with newer.database.read() as connection:
        assert connection.execute("SELECT later FROM image").fetchone() == ("x",)
    newer.close()


# -- mounts ------------------------------------------------------------------------------------------------------------


def test_the_upper_directory_is_as_the_images_root(puller: Puller, tmp_path: Path) -> None:
    """Its mode and owner are those of "/" in the container."""
    found = puller.pull(
        image(layer(directory("./", mode=0o750, uid=3, gid=4, mtime=99)), layer(entry("f")), layer(entry("g")))
    )
    (mount,) = puller.store.mounts(found, tmp_path / "c")
    status = (tmp_path / "c/upper").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o750, 3, 4, 99)
    assert mount.options[-2:] == (f"upperdir={tmp_path}/c/upper", f"workdir={tmp_path}/c/work")
    assert puller.store.mounts(found, tmp_path / "c") == [mount]


def test_paths_of_layers_are_short(puller: Puller, tmp_path: Path) -> None:
    """500 of them, taken from one place, fit the page that the classic mount has."""
    found = pull(puller, "app", "a")
    (mount,) = puller.store.mounts(found, tmp_path / "c")
    name = mount.options[0].rpartition("/")[2]
    assert 500 * len(name) < 5000


def test_mounts_of_an_image_that_is_gone(puller: Puller, tmp_path: Path) -> None:
    """NotFound, rather than a rootfs with holes."""
    found = pull(puller, "app", "a")
    puller.store.remove(puller.name())
    with pytest.raises(ImageNotFound):
        puller.store.mounts(found, tmp_path / "c")


def test_directories_are_for_their_owner_alone(puller: Puller) -> None:
    """CVE-2021-41091, CVE-2021-41103: setuid files of images are out of other users' reach, whatever the umask."""
    old = os.umask(0)
    try:
        pull(puller, "app", "a")
    finally:
        os.umask(old)
    root = Path(puller.store.root)
    for folder in (root, *(root / name for name in ("content", "snapshots", "ingest", "leases"))):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert all(path.stat().st_mode & 0o077 == 0 for path in (root / "content/blobs/sha256").iterdir())


# -- the database ------------------------------------------------------------------------------------------------------


def test_transactions_roll_back_and_names_conflict(tmp_path: Path) -> None:
    """An exception leaves nothing; what SQLite refuses is a Conflict."""
    from wherry_oci.errors import Conflict

    database = Database(tmp_path / "x.db")
    database.migrate("test", ["CREATE TABLE t(a TEXT PRIMARY KEY);"])
    database.migrate("test", ["CREATE TABLE t(a TEXT PRIMARY KEY);"])

    def insert_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES ('1')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with database.transaction(durable=False) as connection:
        connection.execute("INSERT INTO t VALUES ('1')")
    with pytest.raises(Conflict), database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES ('1')")
    database.close()


def test_many_threads_make_one_database(tmp_path: Path) -> None:
    """Each with a handle of its own, all at once, from nothing."""
    failures: list[Exception] = []

    def work(number: int) -> None:
        database = Database(tmp_path / "x.db")
        try:
            database.migrate("test", ["CREATE TABLE t(a INTEGER);", "CREATE TABLE u(a INTEGER);"])
            for _ in range(10):
                with database.transaction(durable=False) as connection:
                    connection.execute("INSERT INTO t VALUES (?)", (number,))
        except Exception as error:
            failures.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    database = Database(tmp_path / "x.db")
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (80,)
    database.close()
