"""What the doctor finds on a good host, and on hosts that lack something."""

import shutil
from pathlib import Path

import pytest

from support.host import Host
from support.namespace import output
from wherry import Client, doctor, nettable
from wherry.doctor import MISSING, OK, WARNING, Check

pytestmark = pytest.mark.root


def _found(root: Path) -> dict[str, Check]:
    with Client(root=root) as client:
        return {check.name: check for check in client.doctor()}


def test_a_host_that_runs_the_tests_has_all_that_is_needed(host: Host, tmp_path: Path) -> None:
    """Nothing is missing, every lack has a remedy, and nothing is made."""
    found = _found(tmp_path / "root")
    assert {"user", "kernel", "namespaces", "cgroups", "overlay", "nf_tables", "ipv6", "seccomp", "root"} <= set(found)
    assert [check for check in found.values() if check.status == MISSING] == []
    assert all(check.remedy for check in found.values() if check.status != OK)
    assert not (tmp_path / "root").exists()


def test_a_kernel_without_nf_tables_is_told(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what works all the same."""
    monkeypatch.setattr(nettable, "available", lambda: False)
    check = _found(tmp_path)["nf_tables"]
    assert (check.status, "proxy" in check.found, "modprobe" in check.remedy) == (WARNING, True, True)


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft(8), of Debian's package nftables")
def test_a_firewall_that_drops_what_is_forwarded_is_told(host: Host, tmp_path: Path) -> None:
    """As dockerd's, whose chain for users' own rules is where to mend it; the remedy can be run as it stands."""
    output("nft", "add table ip filter")
    try:
        output("nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
        output("nft", "add chain ip filter DOCKER-USER")
        check = _found(tmp_path)["firewall"]
        assert check.status == WARNING
        for command in check.remedy.split("; "):
            output("sh", "-c", command.replace("'", '\\"'))
        assert output("nft", "list chain ip filter DOCKER-USER").count("wherry") == 3
    finally:
        output("nft", "delete table ip filter")
    assert "firewall" not in _found(tmp_path)


@pytest.mark.parametrize(("release", "status"), [("5.11.9", MISSING), ("5.12.0-rc1", OK), ("6.18.1+deb", OK)])
def test_an_old_kernel_is_told(monkeypatch: pytest.MonkeyPatch, release: str, status: str) -> None:
    """Whatever a distribution puts behind the number."""

    class Names:
        def __init__(self) -> None:
            self.release = release

    monkeypatch.setattr("os.uname", Names)
    [check] = doctor._kernel()
    assert check.status == status
