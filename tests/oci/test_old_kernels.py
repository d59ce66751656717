"""Containers where the kernel lacks what came after Linux 5.4: a filter in front of the runtime says ENOSYS."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import bundles
from support.bundles import Runtime
from support.layout import Layout
from wherry_oci.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    _Walk,
)

pytestmark = pytest.mark.root

_NEWER = ["openat2", "mount_setattr", "close_range", "pidfd_getfd", "clone3", "faccessat2", "epoll_pwait2"]
_WITHOUT = """
import os, sys
from wherry_oci.linux import process
from wherry_oci.seccomp import compile_filter
rule = {"names": sys.argv[1].split(","), "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
process.set_seccomp_filter(compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class _Old(Runtime):
    """A runtime on such a kernel."""

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _WITHOUT, ",".join(_NEWER), *super().words(*arguments)]


@pytest.fixture
def runtime(tmp_path: Path, image: Callable[[str], Layout]) -> Iterator[Runtime]:
    """A runtime with a bundle; what a test leaves is deleted."""
    tmp_path.chmod(0o755)
    bundles.prepare(tmp_path, image("busybox"))
    made = _Old(tmp_path)
    yield made
    made.clean()


def test_a_container_lives_as_elsewhere(runtime: Runtime) -> None:
    """create, start, exec, kill, delete."""
    runtime.configure("sleep", "1000", process={"cwd": "/tmp"})
    assert runtime("create", "one").returncode == 0
    assert runtime("start", "one").returncode == 0
    done = runtime("exec", "--user", "5:6", "one", "sh", "-c", "id -u; ls -d /proc/self/fd/[3-9]")
    assert done.stdout.split() == ["5"]
    assert runtime("kill", "one", "KILL").returncode == 0
    assert runtime("delete", "--force", "one").returncode == 0
    assert os.listdir(runtime.root) == []


def test_what_is_to_be_read_only_or_masked_is(runtime: Runtime) -> None:
    """The root, binds, binds with all below, read-only paths; nosuid and others beside."""
    volume = runtime.path / "volume"
    (volume / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume / "below"], check=True)
    try:
        script = (
            "for d in / /ro /ro/below /rro /rro/below /proc/sys /sys; do touch $d/x 2>/dev/null && echo $d; done; "
            "cat /proc/keys; grep -c ' /rro.* ro,nosuid' /proc/mounts"
        )
        config = runtime.configure("sh", "-c", script)
        for name, options in (("ro", ["rbind", "ro"]), ("rro", ["rbind", "rro", "rnosuid", "noatime"])):
            config["mounts"].append(
                {"destination": f"/{name}", "type": "bind", "source": str(volume), "options": options}
            )
        (runtime.bundle / "config.json").write_text(json.dumps(config))
        done = runtime("run", "one")
        assert done.stdout.split() == ["/ro/below", "2"], done.stderr
    finally:
        subprocess.run(["umount", volume / "below"], check=True)


def test_a_user_namespace_gets_its_binds(runtime: Runtime) -> None:
    """And what is id-mapped is an error, for such a kernel cannot."""
    mapping = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    (runtime.path / "file").write_text("bound\n")
    config = runtime.configure("sh", "-c", "cat /file; touch /file 2>/dev/null || echo read-only")
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    bind = {"destination": "/file", "type": "bind", "source": str(runtime.path / "file"), "options": ["bind", "ro"]}
    config["mounts"].append(bind)
    subprocess.run(["chown", "-R", "100000:100000", runtime.rootfs], check=True)
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    done = runtime("run", "one")
    assert done.stdout.split() == ["bound", "read-only"], done.stderr
    bind["options"] = ["bind", "idmap"]
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    assert "function not implemented" in runtime("run", "two").stderr


def test_links_in_the_image_lead_nowhere_else(runtime: Runtime) -> None:
    """Targets of mounts, absolute and upwards, and a link in the place of /proc."""
    outside = runtime.path / "outside"
    outside.mkdir()
    (runtime.rootfs / "link").symlink_to(f"/../../..{outside}")
    config = runtime.configure("sh", "-c", "mount | grep -c ' on /tmp.*/made'; true")
    config["mounts"].append({"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"})
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    done = runtime("run", "one")
    assert done.stdout == "1\n", done.stderr
    assert list(outside.iterdir()) == []
    (runtime.rootfs / "proc").rmdir()
    (runtime.rootfs / "proc").symlink_to("tmp")
    runtime.configure("true")
    assert "is not a directory but a link" in runtime("run", "two").stderr


def _walked(top: Path, path: str, flags: int = os.O_PATH, resolve: int = RESOLVE_IN_ROOT) -> str:
    root = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        found = _Walk(root, path, resolve).open(flags | os.O_CLOEXEC, 0o600)
    finally:
        os.close(root)
    try:
        return os.readlink(f"/proc/self/fd/{found}").removeprefix(str(top))
    finally:
        os.close(found)


def test_a_walk_finds_what_the_call_finds(tmp_path: Path) -> None:
    """Inside, whatever links say; and what it refuses."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_text("x")
    for name, target in {"abs": "/a/b", "up": "../../../../a/file", "loop": "loop", "out": "/etc/passwd"}.items():
        (tmp_path / name).symlink_to(target)
    expected = {
        ".": "", "/": "", "a/b": "/a/b", "abs": "/a/b", "abs/../file": "/a/file", "up": "/a/file", "../../a": "/a",
        "a/b/": "/a/b", "a/./b/..": "/a",
    }  # fmt: skip
    assert {path: _walked(tmp_path, path) for path in expected} == expected
    assert _walked(tmp_path, "a/new", os.O_CREAT | os.O_WRONLY) == "/a/new"
    assert _walked(tmp_path, "abs", os.O_PATH | os.O_NOFOLLOW) == "/abs"
    for path, flags, resolve in (
        ("out", os.O_PATH, RESOLVE_IN_ROOT),
        ("loop", os.O_PATH, RESOLVE_IN_ROOT),
        ("a/file/", os.O_PATH, RESOLVE_IN_ROOT),
        ("a/file", os.O_PATH | os.O_DIRECTORY, RESOLVE_IN_ROOT),
        ("abs", os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS),
        ("abs", os.O_PATH, RESOLVE_BENEATH),
        ("../a", os.O_PATH, RESOLVE_BENEATH),
        ("nosuch/x", os.O_PATH, RESOLVE_IN_ROOT),
    ):
        with pytest.raises(OSError, match=r"\[Errno"):
            _walked(tmp_path, path, flags, resolve)
    root = Path("/")
    with pytest.raises(OSError, match="cross-device"):
        _walked(root, "proc/uptime", resolve=RESOLVE_IN_ROOT | RESOLVE_NO_XDEV)
