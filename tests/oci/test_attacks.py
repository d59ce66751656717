"""Attacks on container runtimes that worked once, tried on `wherry-oci`; those by whole containers are in tests/e2e."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import bundles
from support.bundles import Runtime
from support.layout import Layout

pytestmark = pytest.mark.root

_TRIES = 1000


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    made = bundles.prepare(tmp_path, image("busybox"))
    yield made
    made.clean()


def _mounts(runtime: Runtime, *more: dict[str, Any], without: str = "") -> list[dict[str, Any]]:
    """Those of every container, but for the one on *without*, and *more*."""
    usual = runtime.configure("true")["mounts"]
    return [*(mount for mount in usual if mount["destination"] != without), *more]


_RACE = """
import os, subprocess, sys
from wherry_oci.runtime import rootfs as fs
from wherry_oci.linux import mount as m
root, host, kind, tries = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
flipper = subprocess.Popen([sys.executable, "-c", sys.argv[5], root])
spec = {"destination": "/volume/target", "type": "tmpfs", "source": "tmpfs"}
if kind == "file":
    spec = {"destination": "/volume/target", "type": "bind", "source": "/etc/hostname", "options": ["bind"]}
made = refused = 0
top = fs.mount_root(root, [])
try:
    while made + refused < tries:
        place = fs.Rootfs(top)
        try:
            place.mount(spec)
            made += 1
        except fs.RuntimeFailure:
            refused += 1
        while points := [point for point, _ in fs.mount_points() if point.endswith("/target")]:
            if not points[-1].startswith(root + "/"):
                sys.exit(f"mounted on the host: {points[-1]}")
            try:
                m.umount2(points[-1], m.MNT_DETACH)
            except OSError:  # it was exchanged meanwhile
                continue
        # What is made once is there: to race for its creation it has to go.
        for left in ("volume", "spare", "inner/host"):
            try:
                (os.rmdir if kind == "tmpfs" else os.unlink)(f"{root}/{left}/target")
            except OSError:
                pass
        if os.listdir(host):
            sys.exit(f"made on the host: {os.listdir(host)}")
finally:
    flipper.kill()
    flipper.wait()
print(made, refused)
"""
# Exchanges a directory for a link to the host's, as fast as it can (renameat2(2), RENAME_EXCHANGE).
_FLIPPER = """
import ctypes, sys
rename, root = ctypes.CDLL(None).renameat2, sys.argv[1].encode()
while True:
    rename(-100, root + b"/volume", -100, root + b"/spare", 2)
"""


@pytest.mark.parametrize("kind", ["tmpfs", "file"])
def test_a_target_that_is_exchanged_for_a_link_is_never_the_hosts(tmp_path: Path, kind: str) -> None:
    """CVE-2021-30465 (what is mounted) and CVE-2024-45310 (what is created), tried a thousand times against a racer."""
    root, host = tmp_path / "rootfs", tmp_path / "host"
    (root / "volume").mkdir(parents=True)
    host.mkdir()
    (root / "spare").symlink_to(host)
    # By the link's name inside there is a directory, too, so that a mount through the link can succeed there.
    (root / str(host).lstrip("/")).mkdir(parents=True)
    (root / "inner").symlink_to(str(tmp_path).lstrip("/"))
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", _RACE, str(root), str(host), kind, str(_TRIES), _FLIPPER],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) == _TRIES
    assert os.listdir(host) == []


@pytest.mark.parametrize("number", range(3, 11))
def test_the_working_directory_of_a_start_cannot_be_a_leaked_descriptor(runtime: Runtime, number: int) -> None:
    """CVE-2024-21626: no descriptor of the runtime's leads out."""
    runtime.configure("cat", "../../../etc/hostname", process={"cwd": f"/proc/self/fd/{number}"})
    done = runtime("run", "one")
    assert done.returncode != 0
    assert done.stdout == ""


def test_a_null_device_that_is_something_else_masks_nothing(runtime: Runtime) -> None:
    """CVE-2025-31133: the image's /dev/null is a link to what the attacker wants bound over masked paths."""
    (runtime.rootfs / "bait").write_text("bound\n")
    (runtime.rootfs / "dev").mkdir(exist_ok=True)
    (runtime.rootfs / "dev/null").unlink(missing_ok=True)
    (runtime.rootfs / "dev/null").symlink_to("/bait")
    runtime.configure("cat", "/proc/keys", mounts=_mounts(runtime, without="/dev"))
    done = runtime("run", "one")
    assert "bound" not in done.stdout
    assert "something else is in its place" in done.stderr


def test_masks_bind_the_hosts_null_device_whatever_is_mounted_on_dev(runtime: Runtime) -> None:
    """CVE-2025-31133, by a volume in the place of /dev."""
    volume = runtime.path / "volume"
    volume.mkdir()
    (volume / "null").write_text("bound\n")
    (volume / "pts").mkdir()
    for name in ("shm", "mqueue"):
        (volume / name).mkdir()
    bind = {"destination": "/dev", "type": "bind", "source": str(volume), "options": ["rbind"]}
    mounts = _mounts(runtime, without="/dev")
    runtime.configure("stat", "-c", "%F %t:%T", "/proc/keys", mounts=[mounts[0], bind, *mounts[1:]])
    done = runtime("run", "one")
    assert done.stdout == "character special file 1:3\n", done.stderr
    assert (volume / "null").read_text() == "bound\n"


def test_a_console_is_the_containers_own_terminal_whatever_links_lie_in_dev(runtime: Runtime) -> None:
    """CVE-2025-52565: /dev/console and /dev/pts/0 lead to a file of procfs that writes to the host."""
    (runtime.rootfs / "dev").mkdir(exist_ok=True)
    for name, target in (("console", "/proc/sysrq-trigger"), ("pts", "/tmp")):
        place = runtime.rootfs / "dev" / name
        if place.is_dir():
            place.rmdir()
        place.unlink(missing_ok=True)
        place.symlink_to(target)
    (runtime.rootfs / "tmp").mkdir(exist_ok=True)
    (runtime.rootfs / "tmp/0").symlink_to("/proc/sysrq-trigger")
    mounts = _mounts(runtime, without="/dev")
    runtime.configure(
        "sh", "-c", "stat -L -c %t /proc/self/fd/1; tty; sleep 1000", mounts=mounts, process={"terminal": True}
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime.path / "console.sock"))
        listener.listen()
        listener.settimeout(60)
        started = runtime("run", "--detach", "--console-socket", str(runtime.path / "console.sock"), "one")
        if started.returncode != 0:
            assert "console" in started.stderr or "terminal" in started.stderr
            return
        end, _ = listener.accept()
        with end:
            _, descriptors, _, _ = socket.recv_fds(end, 100, 1)
    try:
        assert os.read(descriptors[0], 5) == b"88\r\n"  # a slave of devpts, not a file of procfs
    finally:
        os.close(descriptors[0])


def test_sysctls_are_not_written_through_what_is_mounted_in_proc(runtime: Runtime) -> None:
    """CVE-2025-52881: a link in the image leads a volume into /proc/sys, and what the runtime writes goes to a file."""
    stolen = runtime.path / "stolen"
    stolen.write_text("untouched")
    (runtime.rootfs / "volume").symlink_to("/proc/sys/net/ipv4/ip_forward")
    bind = {"destination": "/volume", "type": "bind", "source": str(stolen), "options": ["bind"]}
    runtime.configure("true", mounts=_mounts(runtime, bind), linux={"sysctl": {"net.ipv4.ip_forward": "1"}})
    done = runtime("run", "one")
    assert stolen.read_text() == "untouched"
    assert "set sysctl net.ipv4.ip_forward" in done.stderr


def test_sysctls_are_not_written_to_another_file_of_proc(runtime: Runtime) -> None:
    """CVE-2025-52881: what is bound over the sysctl is procfs as well, so that its kind tells nothing."""
    (runtime.rootfs / "volume").symlink_to("/proc/sys/net/ipv4/ip_forward")
    bind = {"destination": "/volume", "type": "bind", "source": "/proc/self/oom_score_adj", "options": ["bind"]}
    runtime.configure(
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        mounts=_mounts(runtime, bind),
        linux={"sysctl": {"net.ipv4.ip_forward": "1"}},
    )
    done = runtime("run", "one")
    assert done.stdout == ""
    assert "set sysctl net.ipv4.ip_forward" in done.stderr


def test_what_enters_is_root_of_nothing_inherited(runtime: Runtime) -> None:
    """CVE-2016-8867, CVE-2022-24769: a user that is not root has no capability, neither by start nor by exec."""
    script = "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status"
    runtime.configure("sh", "-c", f"{script}; sleep 1000", process={"user": {"uid": 1000, "gid": 1000}})
    assert runtime("run", "--detach", "one").returncode == 0
    done = runtime("exec", "one", "sh", "-c", script)
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"0" * 16}, done.stdout


def test_masked_paths_show_nothing_and_read_only_ones_take_nothing(runtime: Runtime) -> None:
    """CVE-2018-10892, CVE-2017-16539: each of the default list, tried."""
    linux = runtime.configure("true")["linux"]
    assert {"/proc/acpi", "/proc/scsi", "/proc/kcore", "/proc/keys"} <= set(linux["maskedPaths"])
    seen = " ".join(linux["maskedPaths"])
    kept = " ".join(linux["readonlyPaths"])
    runtime.configure(
        "sh",
        "-c",
        f"for path in {seen}; do [ -d $path ] && ls -A $path || head -c 1 $path 2>/dev/null; done; "
        f"for path in {kept}; do [ -e $path ] && touch $path 2>/dev/null && echo $path; done; true",
    )
    done = runtime("run", "one")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
