"""Volumes on disk: records, files, and what is left when somebody is killed on the way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wherry.errors import VolumeInUse, VolumeNotFound
from wherry.filters import Filters
from wherry.volumes import COMPONENT, MIGRATIONS, VolumeStore, release
from wherry_images.database import Database
from wherry_oci.errors import Conflict, InvalidArgument, Unsupported

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    """Volumes below tmp_path."""
    database = Database(tmp_path / "wherry.db")
    database.migrate(COMPONENT, MIGRATIONS)
    return VolumeStore(database, tmp_path)


def _create(store: VolumeStore, name: str, *, holder: str = "", anonymous: bool = False) -> Path:
    with store.database.transaction() as connection:
        record = store.create(connection, name, anonymous=anonymous)
        if holder:
            store.hold(connection, record.name, holder)
    return store.path(record.name)


def _release(store: VolumeStore, holder: str, *, anonymous: bool) -> list[str]:
    with store.database.transaction() as connection:
        return release(connection, holder, anonymous=anonymous)


def _source(path: Path) -> Callable[[], int | None]:
    return lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def test_a_volume_is_made_once_and_found_again(store: VolumeStore) -> None:
    """What is in it stays when it is asked for again."""
    (_create(store, "data") / "file").write_text("kept")
    assert (_create(store, "data") / "file").read_text() == "kept"
    assert [record.name for record in store.all()] == ["data"]
    assert store.path("data").stat().st_mode & 0o777 == 0o755


def test_other_options_for_the_same_name_are_a_conflict(store: VolumeStore) -> None:
    """The volume that is there would not be what was asked for."""
    _create(store, "data")
    with store.database.transaction() as connection:
        with pytest.raises(Conflict, match="other options"):
            store.create(connection, "data", options={"type": "tmpfs"})
        with pytest.raises(Unsupported, match="nfs"):
            store.create(connection, "other", driver="nfs")
        with pytest.raises(InvalidArgument, match="size"):
            store.create(connection, "other", options={"size": "1"})
        with pytest.raises(InvalidArgument, match="first is no sign"):
            store.create(connection, "../x")


def test_a_volume_that_a_container_has_cannot_be_removed(store: VolumeStore) -> None:
    """Not even by a prune."""
    path = _create(store, "data", holder="c1")
    with pytest.raises(VolumeInUse, match="c1"):
        store.remove("data")
    assert store.prune(lambda record: True).names == ()
    assert path.is_dir()
    assert _release(store, "c1", anonymous=True) == ["data"]
    store.settle(["data"])
    assert path.is_dir()  # it has a name
    store.remove("data")
    assert not path.parent.exists()
    with pytest.raises(VolumeNotFound):
        store.remove("data")
    store.remove("data", force=True)


def test_a_volume_without_a_name_goes_with_its_last_container(store: VolumeStore) -> None:
    """And stays when the container is removed without its volumes."""
    path = _create(store, "", holder="c1", anonymous=True)
    with store.database.transaction() as connection:
        store.hold(connection, path.parent.name, "c2")
    store.settle(_release(store, "c1", anonymous=True))
    assert path.is_dir()
    store.settle(_release(store, "c2", anonymous=False))
    assert path.is_dir()
    assert store.prune(lambda record: record.anonymous).names == (path.parent.name,)
    assert not path.exists()


def test_a_removal_that_was_begun_is_finished_by_the_next(store: VolumeStore) -> None:
    """A doomed volume is gone for everybody at once, and its name is free."""
    path = _create(store, "data", anonymous=True, holder="c1")
    (path / "file").write_text("old")
    _release(store, "c1", anonymous=True)  # and killed before it settled
    assert store.all() == []
    assert list(_create(store, "data").iterdir()) == []
    other = _create(store, "other", anonymous=True, holder="c2")
    _release(store, "c2", anonymous=True)
    store.collect()
    assert not other.exists()
    assert sorted(os.listdir(store.directory)) == ["data"]


def test_the_files_of_a_maker_who_was_killed_are_nobodys(store: VolumeStore) -> None:
    """A directory without a record was made in a transaction that never was."""
    _create(store, "data")
    for name in ("ghost", "other"):
        (store.directory / name / "_data").mkdir(parents=True)
        (store.directory / name / "_data" / "file").write_text("old")
    assert list(_create(store, "ghost").iterdir()) == []
    store.collect()
    assert sorted(os.listdir(store.directory)) == ["data", "ghost"]


def test_an_empty_volume_is_filled_and_another_is_not(store: VolumeStore, tmp_path: Path) -> None:
    """With owner, mode, links and all; the volume's own mode becomes that of the source."""
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "file").write_text("text")
    (source / "link").symlink_to("/etc/passwd")
    source.chmod(0o1770)
    path = _create(store, "data", holder="c1")
    store.fill(store.get("data"), _source(source))
    assert (path / "inner" / "file").read_text() == "text"
    assert os.readlink(path / "link") == "/etc/passwd"
    assert path.stat().st_mode & 0o7777 == 0o1770
    (path / "inner" / "file").write_text("mine")
    store.fill(store.get("data"), _source(source))
    assert (path / "inner" / "file").read_text() == "mine"
    assert sorted(os.listdir(path.parent)) == ["_data"]


def test_filling_that_was_cut_off_is_begun_again_or_finished(store: VolumeStore, tmp_path: Path) -> None:
    """Before the copy was whole nothing of it counts; after that all of it comes in."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("whole")
    path = _create(store, "data", holder="c1")
    (path.parent / "_copy.new").mkdir()
    (path.parent / "_copy.new" / "half").write_text("half")
    store.fill(store.get("data"), _source(source))
    assert [entry.name for entry in path.iterdir()] == ["file"]

    other = _create(store, "other", holder="c1")
    (other / "first").write_text("moved already")
    (other.parent / "_copy").mkdir()
    (other.parent / "_copy" / "second").write_text("on its way")
    store.fill(store.get("other"), lambda: None)
    assert sorted(entry.name for entry in other.iterdir()) == ["first", "second"]


def test_filters_are_dockers() -> None:
    """Several values of one filter: one must fit, but of labels all."""
    labels = {"a": "1", "b": "2"}
    assert Filters.parse({"label": ["a", "b=2"]}, ("label",)).labels_fit(labels)
    assert not Filters.parse({"label": ["a", "b=3"]}, ("label",)).labels_fit(labels)
    assert not Filters.parse({"label!": "a=1"}, ("label!",)).labels_fit(labels)
    assert Filters.parse({"name": ["x", "at"]}, ("name",)).contains("name", "data")
    assert Filters.parse({"dangling": True}, ("dangling",)).is_so("dangling", True)
    with pytest.raises(InvalidArgument, match="neither true"):
        Filters.parse({"dangling": "perhaps"}, ("dangling",)).is_so("dangling", True)
    with pytest.raises(InvalidArgument, match="'nme'"):
        Filters.parse({"nme": "x"}, ("name",))
