"""Attacks that worked on the systems before: each is tried, and the host looked at afterwards."""

import gzip
import os
import socket
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support import layout
from support.layout import Entry
from support.world import World
from wherry import Client
from wherry.errors import StartFailed, UserNotFound
from wherry_shim import launch
from wherry_shim.client import connect

pytestmark = pytest.mark.e2e


def _image(world: World, *entries: Entry, name: str = "odd", below: str = "busybox", **config: object) -> str:
    """The test image *below* with *entries* on top, in the registry."""
    base = world.image(below)
    layers = [gzip.decompress(base.blob(layer["digest"]).read_bytes()) for layer in base.manifest["layers"]]
    made = layout.write(world.path / name, [*layers, list(entries)], {"Cmd": ["sh"], **config})
    world.registry.push(made, f"library/{name}:latest")
    return name


def test_the_interpreter_cannot_be_written_through_proc(client: Client, tmp_path: Path) -> None:
    """
    CVE-2019-5736: the entry point is /proc/self/exe, and the container writes to the image of whoever enters it.

    Both ways are tried: from inside at the process that execs, and with all rights at the very mount that is executed.
    """
    interpreter = Path(os.path.realpath(sys.executable))
    before = (interpreter.stat().st_mtime_ns, interpreter.read_bytes())
    script = (
        "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || "
        "( : >>$p/exe && echo opened $p ) 2>/dev/null; done; done"
    )
    with client.run(
        "busybox", ["sh", "-c", script], network="none", cap_add=["SYS_PTRACE", "DAC_OVERRIDE"]
    ) as attacker:
        for _ in range(30):
            attacker.exec("true")
        assert "opened" not in attacker.logs()
    with pytest.raises(StartFailed):
        client.run("busybox", ["/proc/self/exe", "-c", "print(1)"], network="none")
    copy = tmp_path / "interpreter"  # which nobody executes: its being busy does not protect it
    copy.write_bytes(interpreter.read_bytes())
    image = launch._read_only_image(str(copy))
    assert image is not None
    try:
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(f"/proc/self/fd/{image}", os.O_WRONLY)
    finally:
        os.close(image)
    assert (interpreter.stat().st_mtime_ns, interpreter.read_bytes()) == before


def test_nothing_but_its_own_streams_is_open_in_a_container(client: Client) -> None:
    """CVE-2024-21626 and CVE-2016-9962: no descriptor of the host leaks, into the first process or an exec."""
    listing = ["sh", "-c", "ls -l /proc/self/fd | grep -v /proc/ | grep -c -e '->'"]
    with client.run("busybox", ["sh", "-c", "ls -l /proc/self/fd; exec sleep 1000"], network="none") as container:
        assert container.exec(listing).stdout.strip() == b"3"
        shown = [line for line in container.logs().splitlines() if "->" in line and "/proc/" not in line]
        assert len(shown) == 3


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 12, 15])
def test_the_working_directory_cannot_be_a_leaked_descriptor(client: Client, number: int) -> None:
    """CVE-2024-21626, for run and exec: the place does not exist, or is refused."""
    with pytest.raises(StartFailed):
        client.run("busybox", "ls", working_dir=f"/proc/self/fd/{number}", network="none")
    with (
        client.run("busybox", "sleep 1000", network="none") as container,
        pytest.raises(StartFailed),
    ):
        container.exec("ls", working_dir=f"/proc/self/fd/{number}/../../..")


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_a_link_in_the_place_of_proc_or_sys_is_refused(client: Client, world: World, place: str) -> None:
    """CVE-2019-16884, CVE-2019-19921: masks would miss."""
    image = _image(world, layout.folder("elsewhere"), layout.symlink(place, "elsewhere"), name=f"link-{place}")
    with pytest.raises(StartFailed, match=f"/{place} in the image is not a directory"):
        client.run(image, "true", network="none")


def test_mount_targets_that_lead_outside_stay_inside(client: Client, world: World, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: links to the host's root in the image make nothing on the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    image = _image(
        world,
        layout.symlink("up", "/../../../../../../../.." + str(tmp_path)),
        layout.symlink("etc/hosts", str(outside / "hosts")),
        name="links",
    )
    script = "mount | grep -c /made; cat /up/made/file"
    (tmp_path / "file").write_text("bound\n")
    tmp_path.chmod(0o755)
    output = client.check_output(image, ["sh", "-c", script], network="none", volumes=[f"{tmp_path}:/up/made"])
    assert output == b"1\nbound\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "outside"]
    assert list(outside.iterdir()) == []


def test_a_target_that_is_exchanged_while_it_is_mounted_stays_inside(client: Client, tmp_path: Path) -> None:
    """The race of CVE-2021-30465: one container swaps a directory for a link in a volume that the other mounts into."""
    victim = tmp_path / "victim"
    victim.mkdir()
    shared = tmp_path / "shared"
    (shared / "a").mkdir(parents=True)
    script = "cd /shared; while :; do mv a b; ln -s /victim-path a; rm a; mv b a; done".replace(
        "/victim-path", str(victim)
    )
    with client.run("busybox", ["sh", "-c", script], network="none", volumes=[f"{shared}:/shared"]):
        for _ in range(60):
            try:
                client.check_output(
                    "busybox",
                    "true",
                    network="none",
                    volumes=[f"{shared}:/shared"],
                    tmpfs={"/shared/a/inner": "size=64k"},
                )
            except StartFailed:  # it was gone at that moment
                continue
    assert list(victim.iterdir()) == []
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(victim) in line]


def test_device_nodes_of_the_host_cannot_be_used(client: Client) -> None:
    """A container may make any node, and use none but its own."""
    disk = os.stat("/").st_dev
    script = (
        f"mknod /disk b {os.major(disk)} {os.minor(disk)} && dd if=/disk of=/out bs=512 count=1 || echo refused;"
        "mknod /mem c 1 1 && dd if=/mem of=/out bs=1 count=1 || echo refused; "
        "mknod /n c 1 3 && echo x > /n && echo null"
    )
    output = client.check_output("busybox", ["sh", "-c", script], network="none")
    assert output.split() == [b"refused", b"refused", b"null"]


def test_a_numeric_name_in_passwd_does_not_make_root(client: Client, world: World) -> None:
    """CVE-2016-3697: a line `1000:x:0:0` in the image."""
    image = _image(
        world, layout.file("etc/passwd", "1000:x:0:0:::/bin/sh\nroot:x:0:0:::/bin/sh\n"), name="numeric", User="1000"
    )
    assert client.check_output(image, "id -u", network="none") == b"1000\n"


def test_passwd_may_be_anything(client: Client, world: World) -> None:
    """A link to the host's, a fifo, a device: none is followed out, none stops the start for ever."""
    shadow = _image(world, layout.symlink("etc/passwd", "/../../../etc/shadow"), name="shadow")
    with pytest.raises(UserNotFound):
        client.run(shadow, "true", user="root", network="none")
    fifo = _image(world, Entry(path="etc/passwd", kind=tarfile.FIFOTYPE), name="fifo")
    with pytest.raises(UserNotFound):
        client.run(fifo, "true", user="root", network="none")


def test_a_container_with_the_hosts_network_reaches_no_shim(client: Client) -> None:
    """CVE-2020-15257: shims listen on files alone, no abstract socket."""
    output = client.check_output("busybox", ["cat", "/proc/net/unix"], network="host").decode()
    assert not [line for line in output.splitlines() if "@" in line and "shim" in line]


def test_nobody_else_speaks_to_a_shim(client: Client) -> None:
    """The socket's mode keeps other users out, and what gets through is asked who it is."""
    with client.run("busybox", "sleep 1000", network="none") as container:
        run = container._engine.store.run_directory(container.id)
        mode = (run / "shim.sock").stat().st_mode
        assert stat.S_IMODE(mode) & 0o077 == 0
        end = connect(str(run))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = _speak_as_nobody(run)
            finally:
                os._exit(status)
        end.close()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert container.status == "running"


def _speak_as_nobody(run: Path) -> int:
    """0 if a connection that nobody's process makes, over a directory handle it was lent, is refused."""
    directory = os.open(run, os.O_PATH)
    os.chmod(run / "shim.sock", 0o777)
    os.setresuid(65534, 65534, 65534)
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(f"/proc/self/fd/{directory}/shim.sock")
            end.sendall(b'{"op":"kill","signal":9}\n')
            return 0 if b'"permission_denied"' in end.recv(1000) else 2
        except PermissionError:
            return 0


def test_directories_below_the_root_are_closed_to_others(client: Client, world: World) -> None:
    """CVE-2021-41091: other users reach neither setuid files of images nor sockets."""
    with client.run("busybox", "sleep 1000", network="none"):
        for directory in (world.root, world.run, *world.root.iterdir(), *world.run.iterdir()):
            if directory.is_dir():
                assert stat.S_IMODE(directory.stat().st_mode) & 0o077 == 0, directory


def test_an_exec_cannot_be_traced_from_inside_before_it_is_inside(client: Client) -> None:
    """CVE-2016-9962: whoever enters is not dumpable: its memory and descriptors are closed to the container's root."""
    script = (
        "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || "
        "case $(cat $p/cmdline 2>/dev/null) in *pyth[o]n*) "
        "for f in $p/fd/[3-9]*; do readlink $f >/dev/null && echo read $f; done;; esac; done; done"
    )
    with client.run("busybox", ["sh", "-c", script], network="none", cap_drop=["ALL"]) as attacker:
        for _ in range(60):
            attacker.exec("true")
        assert "read" not in attacker.logs()


def test_no_new_privileges_takes_setuid_its_meaning(client: Client, world: World) -> None:
    """A setuid program gains root without the option, and nothing with it."""
    cat = Path("/bin/cat").read_bytes()
    image = _image(world, layout.file("setuid/cat", cat, mode=0o4755), name="setuid", below="nginx")
    command = ["/setuid/cat", "/proc/self/status"]

    def effective_user(*security: str) -> bytes:
        status = client.check_output(image, command, user="1000", network="none", security_opt=security)
        return next(line.split()[2] for line in status.splitlines() if line.startswith(b"Uid"))

    assert effective_user() == b"0"
    assert effective_user("no-new-privileges") == b"1000"


def test_no_set_of_capabilities_is_inherited(client: Client) -> None:
    """CVE-2022-24769, CVE-2022-29162: inheritable and ambient are empty, for start and exec."""
    read = "grep -E 'Cap(Inh|Amb)' /proc/self/status"
    with client.run("busybox", ["sh", "-c", f"{read}; exec sleep 1000"], network="none") as container:
        for text in (container.logs(), container.exec(["sh", "-c", read]).output):
            values = [int(line.split()[1], 16) for line in text.splitlines()]
            assert values in ([0, 0], [])
        assert container.exec(["sh", "-c", read]).output.count("Cap") == 2


def test_supplementary_groups_of_the_starter_are_not_taken_along(world: World) -> None:
    """CVE-2023-25173: setgroups runs always."""
    world.push("busybox")
    script = (
        "import os; os.setgroups([4, 24, 27])\n"
        "from wherry import Client\n"
        "print(Client().check_output('busybox', 'id -G', network='none').decode())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
