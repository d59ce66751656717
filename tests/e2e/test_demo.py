"""The main job as the README's first command shows it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.host import Host
from support.layout import Layout

pytestmark = pytest.mark.e2e


def test_the_demo_ends_with_the_page_that_nginx_served(host: Host, image: Callable[[str], Layout]) -> None:
    """Started, found, looked into, stopped and removed by one process after the other; nothing is left over."""
    image("nginx")  # the demo's own host has no way to Debian from here
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "support.demo"],
        env=os.environ | {"PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Welcome to nginx!") >= 4
    assert done.stdout.rstrip().endswith("</html>")
