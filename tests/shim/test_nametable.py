"""Who is called what in a network, as files."""

import os
from pathlib import Path

import pytest

from wherry_shim import nametable
from wherry_shim.nametable import NameTable
from wherry_shim.naming import identity

pytestmark = pytest.mark.unit


def _record(*names: str, **changed: object) -> dict[str, object]:
    return {"names": list(names), "network": "Front", "addresses": ["10.0.0.2"], **identity(0), **changed}


def test_names_are_found_as_soon_as_they_are_written_and_never_after(tmp_path: Path) -> None:
    """By themselves, or with the network's name behind, in lower case."""
    run, table = str(tmp_path), NameTable(str(tmp_path), "net")
    assert table.find("web") == []
    for round_ in range(20):
        nametable.write(run, "net", "c1", _record("Web", f"w{round_}"))
        assert len(table.find("web")) == len(table.find("web.front")) == len(table.find(f"w{round_}")) == 1
        assert table.at("10.0.0.2") is not None
        nametable.remove(run, "net", "c1")
        assert table.find("web") == []
        assert table.at("10.0.0.2") is None


def test_what_a_dead_process_left_counts_for_nothing(tmp_path: Path) -> None:
    """Neither its shim nor its first process is there; a number that is used again is told apart."""
    table = NameTable(str(tmp_path), "net")
    nametable.write(str(tmp_path), "net", "c1", _record("web", shim_start=1))
    assert table.find("web") == []
    own = identity(os.getpid())
    nametable.write(str(tmp_path), "net", "c1", _record("web", shim=0, pid=own["pid"], pid_start=own["pid_start"]))
    assert len(table.find("web")) == 1


def test_files_of_nobody_are_passed_over(tmp_path: Path) -> None:
    """Half a file, another's, a directory."""
    nametable.write(str(tmp_path), "net", "c1", _record("web"))
    folder = tmp_path / "names" / "net"
    (folder / "half").write_text('{"names": ["we')
    (folder / "foreign").write_text("[]")
    (folder / "folder").mkdir()
    assert len(NameTable(str(tmp_path), "net").find("web")) == 1
    nametable.forget_container(str(tmp_path), "c1")
    assert NameTable(str(tmp_path), "net").find("web") == []
    nametable.forget_network(str(tmp_path), "net")
    assert not (tmp_path / "names").exists()
