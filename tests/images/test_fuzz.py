"""A short run of each fuzz target, where atheris is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from images.build import directory, entry, hard_link, image, index, layer, symlink, tar

pytestmark = pytest.mark.root

SECONDS = int(os.environ.get("WHERRY_FUZZ_SECONDS", "5"))
TESTS = Path(__file__).parents[1]


def _corpus(folder: Path, target: str) -> None:
    """Something to begin with: what is right."""
    built = image(layer(entry("a")))
    examples = {
        "tar": [
            tar(
                directory("a"), entry("a/b", data=b"x" * 600), symlink("c", "a"), hard_link("d", "a/b"), entry(".wh.x")
            ),
            tar(
                entry(
                    "a" * 150, data=b"x", pax_headers={"mtime": "1.5", "GNU.sparse.map": "0,1", "GNU.sparse.size": "3"}
                )
            ),
        ],
        "documents": [
            b"\0" + built.manifest,
            b"\0" + built.config,
            b"\0" + index((built, {"os": "linux", "architecture": "amd64"})),
        ],
        "reference": [b"nginx", b"a.b:5000/c/d:e@sha256:" + b"0" * 64, b"localhost/x"],
    }
    for number, example in enumerate(examples[target]):
        (folder / str(number)).write_bytes(example[:6000])


@pytest.mark.parametrize("target", ["tar", "documents", "reference"])
def test_fuzzing_finds_nothing(tmp_path: Path, target: str) -> None:
    """Seconds here, as long as one likes by hand."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    _corpus(tmp_path, target)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"images.fuzz.{target}",
            f"-max_total_time={SECONDS}",
            f"-artifact_prefix={tmp_path}/",
            str(tmp_path),
        ],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
