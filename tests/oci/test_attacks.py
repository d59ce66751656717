"""Attacks on container runtimes that worked once, tried on `wherry-oci`; those by whole containers are in tests/e2e."""

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wherry_oci
from support import bundles
from support.bundles import Runtime
from support.layout import Layout
from wherry_oci.command.information import template
from wherry_oci.runtime.cgroups import Hierarchies

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


_RACE_FOR_PROC = """
import os, subprocess, sys
from wherry_oci.runtime import rootfs as fs
from wherry_oci.linux import mount as m
root, tries = sys.argv[1], int(sys.argv[2])
top = fs.mount_root(root, [])
place = fs.Rootfs(top)
place.mount({"destination": "/proc", "type": "proc", "source": "proc"})
flipper = subprocess.Popen([sys.executable, "-c", sys.argv[3], root])
spec = {"destination": "/volume/hostname", "type": "bind", "source": "/etc/hostname", "options": ["bind"]}
made = refused = 0
try:
    while made + refused < tries:
        try:
            place.mount(spec)
            made += 1
        except fs.RuntimeFailure as failure:
            refused += "comes to /proc" in str(failure)
        while points := [point for point, _ in fs.mount_points() if point.endswith("/hostname")]:
            if "/proc/" in points[-1]:
                sys.exit(f"mounted in /proc: {points[-1]}")
            try:
                m.umount2(points[-1], m.MNT_DETACH)
            except OSError:  # it was exchanged meanwhile
                continue
finally:
    flipper.kill()
    flipper.wait()
print(made, refused)
"""


def test_a_volume_never_comes_to_proc_by_a_link_that_is_exchanged(tmp_path: Path) -> None:
    """CVE-2025-52881, CVE-2023-28642: what is mounted there would take the runtime's writes; tried a thousand times."""
    root = tmp_path / "rootfs"
    (root / "volume").mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "spare").symlink_to("/proc/sys/kernel")
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", _RACE_FOR_PROC, str(root), str(_TRIES), _FLIPPER],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made, refused = map(int, done.stdout.split())
    assert made + refused == _TRIES
    assert made > 0
    assert refused > 0


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
@pytest.mark.parametrize("destination", ["/proc", "/proc/sys", "/link"])
def test_nothing_is_mounted_in_the_place_of_proc_or_in_it(runtime: Runtime, kind: str, destination: str) -> None:
    """CVE-2019-16884, CVE-2023-27561: a volume that an image declares there would be masked and written to instead."""
    volume = runtime.path / "volume"
    (volume / "sys").mkdir(parents=True)
    (runtime.rootfs / "link").symlink_to("proc/sysvipc")
    options = ["rbind"] if kind == "bind" else []
    over = {"destination": destination, "type": kind, "source": str(volume), "options": options}
    for mounts in (_mounts(runtime, over), [over, *_mounts(runtime, without="/proc")]):
        runtime.configure("ls", "/proc", mounts=mounts)
        done = runtime("run", "one")
        if destination == "/proc" or mounts[0] is not over:
            assert (done.returncode != 0, done.stdout) == (True, "")
            assert "nothing but a procfs comes to /proc" in done.stderr


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_are_not_led_into_a_volume(runtime: Runtime, name: str) -> None:
    """CVE-2023-27561, CVE-2023-28642: a link in their place leads into a volume, where they could be exchanged."""
    volume = runtime.path / "volume"
    (volume / name).mkdir(parents=True)
    place = runtime.rootfs / name
    if place.is_dir():
        place.rmdir()
    place.symlink_to(f"/volume/{name}")
    bind = {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind"]}
    runtime.configure("cat", "/proc/sysrq-trigger", mounts=[bind, *_mounts(runtime)])
    done = runtime("run", "one")
    assert done.returncode != 0
    assert "is not a directory but a link" in done.stderr
    assert list((volume / name).iterdir()) == []


def test_what_numbers_programs_fake_may_be_mounted_in_proc(runtime: Runtime) -> None:
    """lxcfs's files, and the host's own procfs for a container that shares its processes."""
    (runtime.path / "uptime").write_text("1.00 2.00\n")
    fake = {
        "destination": "/proc/uptime",
        "type": "bind",
        "source": str(runtime.path / "uptime"),
        "options": ["bind", "ro"],
    }
    host = {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}
    runtime.configure("cat", "/proc/uptime", mounts=[host, *_mounts(runtime, fake, without="/proc")])
    assert runtime("run", "one").stdout == "1.00 2.00\n"


@pytest.mark.parametrize("namespace", ["own", "shared"])
def test_control_groups_of_the_host_are_not_written_from_a_user_namespace(runtime: Runtime, namespace: str) -> None:
    """
    CVE-2023-25809: a group that is delegated to the container's user can be written by him, but not from inside: what
    shows there is read-only, with the host's cgroup namespace, too.
    """
    groups = [Path(root) for root in Hierarchies.find().directories()]
    name = f"wherry-oci-tests/delegated-{uuid.uuid4().hex[:12]}"
    mapping = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    config = runtime.configure(
        "sh", "-c", f"for top in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $top/{name}/made && echo made; done; true"
    )
    rootless = template(rootless=True)
    config["mounts"] = rootless["mounts"]
    config["linux"]["namespaces"] = rootless["linux"]["namespaces"]
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    if namespace == "shared":
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "cgroup"]
        config["mounts"].append(
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
        )
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    subprocess.run(["chown", "-R", "100000:100000", runtime.rootfs], check=True)
    try:
        for group in groups:
            (group / name).mkdir(parents=True)
            os.chown(group / name, 100000, 100000)
        done = runtime("run", "one")
        made = [group for group in groups if (group / name / "made").exists()]
    finally:
        for group in groups:
            for path in (group / name / "made", group / name):
                if path.exists():
                    path.rmdir()
    assert (done.returncode, done.stdout, made) == (0, "", []), done.stderr


# A tracer in the container, with the rights that all have there: it tries each process that appears.
_TRACER = """
import ctypes, os, sys
ptrace = ctypes.CDLL(None).ptrace
SEIZE, WALL = 0x4206, 0x40000000
print("looking", flush=True)
tried = 0
while True:
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid in (1, os.getpid()):
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if int(fd) > 2 and (found := os.readlink(f"/proc/{pid}/fd/{fd}")).startswith("/"):
                    print(f"descriptor {fd} of the one who enters: {found}", flush=True)
        except OSError:
            pass
        if ptrace(SEIZE, pid, 0, 0) == 0:
            try:
                program = os.readlink(f"/proc/{pid}/exe")
                if "busybox" not in program:
                    print(f"traced {program}", flush=True)
            except OSError:
                pass
        tried += 1
        if tried % 1000 == 0:
            print("tried", flush=True)
    try:
        while os.waitpid(-1, os.WNOHANG | WALL)[0]:  # the program's end is the tracer's to take note of
            pass
    except ChildProcessError:
        pass
"""
_ENTERER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from wherry_oci.runtime import lifecycle
from wherry_oci.runtime.lifecycle import Options
root, bundle, tries = sys.argv[2], sys.argv[3], int(sys.argv[4])
process = {**lifecycle.load_config(bundle)["process"], "args": ["/bin/busybox", "true"]}
for _ in range(tries):
    made, _record = lifecycle.execute(root, "one", process, Options(gated=False))
    made.start()
    assert os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1]) == 0
"""


@pytest.mark.skipif("User Mode Linux" in Path("/proc/cpuinfo").read_text(), reason="too slow on such a machine")
def test_who_enters_cannot_be_traced_and_shows_no_descriptor(runtime: Runtime) -> None:
    """CVE-2016-9962: a thousand execs into a container in which a tracer waits for them."""
    bind = [
        {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
        for path in dict.fromkeys(("/usr", "/lib", "/lib64", sys.base_prefix))
        if os.path.isdir(path)
    ]
    if os.path.islink(runtime.rootfs / "bin"):
        pytest.skip("busybox would lie below the host's /usr")
    runtime.configure(
        os.path.realpath(sys.executable), "-I", "-S", "-c", _TRACER, mounts=_mounts(runtime, *bind), process={"env": []}
    )
    assert runtime("run", "--detach", "one").returncode == 0
    seen, errors = (runtime.path / "out").open(), (runtime.path / "err").open()
    try:
        until = time.monotonic() + 30
        while "looking" not in seen.read() and time.monotonic() < until:
            time.sleep(0.02)
        source = str(Path(wherry_oci.__file__).parent.parent)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _ENTERER, source, runtime.root, runtime.bundle, str(_TRIES)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert set(seen.read().split("\n")) <= {"", "tried"}
        assert errors.read() == ""
        assert runtime.state("one")["status"] == "running"
    finally:
        seen.close()
        errors.close()


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
        assert os.read(descriptors[0], 4) == b"88\r\n"  # a slave of devpts, not a file of procfs
    finally:
        os.close(descriptors[0])


_allowed_over = pytest.mark.skipif(
    not Path("/proc/sys/kernel/ns_last_pid").exists(), reason="this kernel has no file in /proc/sys to mount over"
)


@_allowed_over
def test_sysctls_are_not_written_through_what_is_mounted_in_proc(runtime: Runtime) -> None:
    """CVE-2025-52881: a link in the image leads a volume into /proc/sys, and what the runtime writes goes to a file."""
    stolen = runtime.path / "stolen"
    stolen.write_text("untouched")
    (runtime.rootfs / "volume").symlink_to("/proc/sys/kernel/ns_last_pid")
    bind = {"destination": "/volume", "type": "bind", "source": str(stolen), "options": ["bind"]}
    runtime.configure("true", mounts=_mounts(runtime, bind), linux={"sysctl": {"kernel.ns_last_pid": "1"}})
    done = runtime("run", "one")
    assert stolen.read_text() == "untouched"
    assert "set sysctl kernel.ns_last_pid" in done.stderr


@_allowed_over
def test_sysctls_are_not_written_to_another_file_of_proc(runtime: Runtime) -> None:
    """CVE-2025-52881: what is bound over the sysctl is procfs as well, so that its kind tells nothing."""
    (runtime.rootfs / "volume").symlink_to("/proc/sys/kernel/ns_last_pid")
    bind = {"destination": "/volume", "type": "bind", "source": "/proc/self/oom_score_adj", "options": ["bind"]}
    runtime.configure(
        "cat",
        "/proc/sys/kernel/ns_last_pid",
        mounts=_mounts(runtime, bind),
        linux={"sysctl": {"kernel.ns_last_pid": "1"}},
    )
    done = runtime("run", "one")
    assert done.stdout == ""
    assert "set sysctl kernel.ns_last_pid" in done.stderr


def test_what_enters_is_root_of_nothing_inherited(runtime: Runtime) -> None:
    """CVE-2016-8867, CVE-2022-24769: a user that is not root has no capability, neither by start nor by exec."""
    script = "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status"
    runtime.configure("sh", "-c", f"{script}; sleep 1000", process={"user": {"uid": 1000, "gid": 1000}})
    assert runtime("run", "--detach", "one").returncode == 0
    done = runtime("exec", "one", "sh", "-c", script)
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"0" * 16}, done.stdout
    added = runtime("exec", "--cap", "CAP_KILL", "--user", "0", "one", "grep", "CapInh", "/proc/self/status")
    assert added.stdout.split() == ["CapInh:", "0" * 16]


def test_a_group_that_is_denied_stays_denied(runtime: Runtime) -> None:
    """CVE-2023-25173: who is in a group has what the group may, which can be less than others; by start and exec."""
    secret = runtime.rootfs / "secret"
    secret.write_text("read\n")
    os.chown(secret, 0, 4321)
    secret.chmod(0o604)
    user = {"uid": 1000, "gid": 1000, "additionalGids": [4321]}
    runtime.configure("sh", "-c", "cat /secret; id -G; exec sleep 1000", process={"user": user})
    mine = os.getgroups()
    try:
        os.setgroups([24, 27])
        assert runtime("run", "--detach", "one").returncode == 0
        done = runtime("exec", "one", "sh", "-c", "cat /secret; id -G")
        other = runtime("exec", "--user", "1001:1001", "one", "sh", "-c", "id -G")
    finally:
        os.setgroups(mine)
    assert done.stdout.split() == ["1000", "4321"]
    assert other.stdout.split() == ["1001", "4321"]


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
