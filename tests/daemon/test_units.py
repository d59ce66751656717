"""The unit files that are shipped."""

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

import wherry_daemon
from wherry_daemon.command import DEFAULT_HOST

pytestmark = pytest.mark.unit

_UNITS = Path(wherry_daemon.__file__).with_name("systemd")


def _unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    parser.read(_UNITS / name)
    return parser


def test_socket_and_service_fit_together() -> None:
    """The daemon takes the socket that systemd has opened where clients look for it; its end is not the containers'."""
    socket, service = _unit("wherry.socket"), _unit("wherry.service")
    assert f"unix://{socket['Socket']['ListenStream']}" == DEFAULT_HOST
    assert socket["Socket"]["SocketMode"] == "0660"
    assert service["Service"]["ExecStart"].endswith("wherry daemon -H fd://")
    assert (service["Service"]["Type"], service["Service"]["KillMode"]) == ("notify", "process")


def test_systemd_understands_them(tmp_path: Path) -> None:
    """Its own check finds nothing to say."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in _UNITS.iterdir():
        shutil.copy(unit, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "wherry.service")], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if "wherry." in line]
    assert said == []
