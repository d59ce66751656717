"""Removing what a container has written."""

import os
import threading
from pathlib import Path

import pytest

from wherry_shim.tree import remove_tree

pytestmark = pytest.mark.unit


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """Neither a link to a directory nor one to a file takes its target along."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    doomed = tmp_path / "doomed"
    (doomed / "inner").mkdir(parents=True)
    (doomed / "inner" / "directory").symlink_to(outside)
    (doomed / "file").symlink_to(outside / "file")
    os.mkfifo(doomed / "pipe")
    remove_tree(str(doomed))
    assert not doomed.exists()
    assert (outside / "file").read_text() == "stays"


def test_a_link_in_the_place_of_the_tree_is_refused(tmp_path: Path) -> None:
    """It was to be a directory."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="link"):
        remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "outside").is_dir()


def test_depth_costs_neither_stack_nor_descriptors(tmp_path: Path) -> None:
    """20,000 directories in each other: deeper than Python's stack, a path or a process' descriptors go."""
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    directory = os.open(doomed, os.O_RDONLY)
    for _ in range(20_000):
        os.mkdir("d", dir_fd=directory)
        inner = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    remove_tree(str(doomed))
    assert not doomed.exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    """Nobody has to look first."""
    remove_tree(str(tmp_path / "nothing"))


def test_several_may_remove_the_same_tree(tmp_path: Path) -> None:
    """As a shim and a collector do."""
    for round_number in range(10):
        doomed = tmp_path / str(round_number)
        for outer in range(10):
            for inner in range(10):
                (doomed / str(outer) / str(inner)).mkdir(parents=True)
                (doomed / str(outer) / str(inner) / "file").touch()
        errors: list[BaseException] = []

        def remove(path: Path = doomed, errors: list[BaseException] = errors) -> None:
            try:
                remove_tree(str(path))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=remove) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert not doomed.exists()
