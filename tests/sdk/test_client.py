"""The front door does nothing before it is asked to."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from wherry import Client

pytestmark = pytest.mark.unit


def test_making_a_client_does_nothing(tmp_path: Path) -> None:
    """No directory, no file, no connection: collecting tests never fails for it."""
    Client(root=tmp_path / "root", run=tmp_path / "run", mirrors={"docker.io": ["http://127.0.0.1:1"]})
    assert list(tmp_path.iterdir()) == []


def test_where_things_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Arguments go before the environment, a given root brings its run directory along."""
    monkeypatch.delenv("WHERRY_ROOT")
    monkeypatch.delenv("WHERRY_RUN")
    assert (Client()._root, Client()._run) == (Path("/var/lib/wherry"), Path("/run/wherry"))
    monkeypatch.setenv("WHERRY_ROOT", "/a")
    assert (Client()._root, Client()._run) == (Path("/a"), Path("/a/run"))
    monkeypatch.setenv("WHERRY_RUN", "/b")
    assert Client()._run == Path("/b")
    assert Client(root=tmp_path)._root == tmp_path


def test_a_client_can_be_pickled(tmp_path: Path) -> None:
    """It is what it remembers."""
    again = pickle.loads(pickle.dumps(Client(root=tmp_path)))
    assert again._root == tmp_path


def test_importing_wherry_brings_nothing_heavy() -> None:
    """What only a pull, a document or the command line needs stays out of an importer's start."""
    heavy = ["attrs", "cattrs", "requests", "sqlite3", "click", "rich", "zstandard", "isal", "asyncio", "ctypes"]
    code = f"import sys, wherry; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_start_path_brings_no_registry_client() -> None:
    """A container of a local image needs neither HTTP nor the converters of documents."""
    heavy = ["cattrs", "requests", "urllib3", "click", "rich", "zstandard", "isal", "asyncio", "subprocess"]
    code = f"import sys, wherry.local, wherry.container; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's images are reached by a container's namespace")
def test_images_take_no_module_of_containers(tmp_path: Path) -> None:
    """A pull has enough to import."""
    heavy = {"wherry.local", "wherry.container", "wherry.network", "wherry.options", "wherry_shim.launch"}
    code = (
        "import sys; from wherry import Client;"
        f"print(Client(root={str(tmp_path)!r}, run={str(tmp_path / 'run')!r}).images.list());"
        f"import wherry.cli.main, wherry.cli.images; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_what_wherry_does_not_have_is_an_attribute_error() -> None:
    """Lazy names are names."""
    import wherry

    assert wherry.Container.__name__ == "Container"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wherry.nothing  # noqa: B018
