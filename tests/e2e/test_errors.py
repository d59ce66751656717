"""What goes wrong is told exactly, and leaves nothing."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import layout, leftovers
from support.host import free_port
from support.world import World
from wherry import Client
from wherry.errors import (
    ExecutableNotFound,
    ExecutableNotRunnable,
    NameInUse,
    PortInUse,
    UserNotFound,
)
from wherry_images.errors import DigestMismatch, ManifestUnknown, NoSpace, RegistryUnreachable

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _leaves_nothing(world: World) -> Iterator[None]:
    """After each error: no container, no directory, no process, no published port."""
    yield
    assert Client().containers.list(all=True) == []
    assert list((world.root / "containers").glob("*")) == []
    assert leftovers.settled(lambda: leftovers.containers(world.run)) == []


def test_an_unknown_image_names_itself_and_its_registry(client: Client, world: World) -> None:
    """The registry was asked, and does not have it; a mirror that does not have it is named beside the registry."""
    with pytest.raises(ManifestUnknown, match=f"{world.registry.address}.*no-such-image"):
        client.run(f"{world.registry.address}/no-such-image")
    with pytest.raises(RegistryUnreachable, match=rf"(?s)docker\.io.*no-such-image.*{world.registry.address}.*unknown"):
        client.run("no-such-image")


def test_an_unreachable_registry_names_its_address(client: Client) -> None:
    """Nobody listens there."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(RegistryUnreachable, match=address):
        client.run(f"{address}/busybox")


def test_a_layer_with_other_bytes_than_promised_is_never_seen(client: Client, world: World) -> None:
    """The registry's storage is damaged: both digests are named, and no image appears."""
    made = layout.write(world.path / "odd", [[layout.file("a", b"a" * 5000)]], {"Cmd": ["a"]})
    world.registry.push(made, "library/odd:latest")
    digest = made.manifest["layers"][0]["digest"].partition(":")[2]
    [blob] = world.registry.storage.rglob(f"{digest}/data")
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DigestMismatch, match=digest):
        client.run("odd")
    assert [image.tags for image in client.images.list()] == []


def test_a_program_that_is_not_there(client: Client) -> None:
    """As a shell would say 127; by PATH, by path, and in the entry point."""
    with pytest.raises(ExecutableNotFound, match=r'exec: "nope": executable file not found in \$PATH') as caught:
        client.run("busybox", "nope")
    assert caught.value.path == "nope"
    with pytest.raises(ExecutableNotFound, match='exec: "/bin/nope": no such file or directory'):
        client.run("busybox", "/bin/nope")
    with pytest.raises(ExecutableNotFound):
        client.run("busybox", entrypoint=["nope"])


def test_a_program_that_cannot_be_executed(client: Client, tmp_path: Path) -> None:
    """No right to, a directory, not a program at all: 126."""
    with pytest.raises(ExecutableNotRunnable, match="permission denied"):
        client.run("busybox", "/etc/passwd")
    with pytest.raises(ExecutableNotRunnable, match="is a directory"):
        client.run("busybox", "/etc")
    junk = tmp_path / "junk"
    junk.write_bytes(b"\1\2\3")
    junk.chmod(0o755)
    with pytest.raises(ExecutableNotRunnable, match="exec format error"):
        client.run("busybox", "/junk", volumes=[f"{junk}:/junk"])


def test_a_name_in_use_tells_by_whom(client: Client) -> None:
    """And the second one leaves the first alone."""
    with client.run("busybox", "sleep 1000", name="one", network="none") as first:
        with pytest.raises(NameInUse, match=first.short_id) as caught:
            client.run("busybox", "sleep 1000", name="one", network="none")
        assert caught.value.container_id == first.id
        assert first.status == "running"


def test_a_port_in_use_tells_by_whom(client: Client) -> None:
    """By another container, and by a program on the host."""
    with client.run("busybox", "sleep 1000", ports={80: 8080}):
        with pytest.raises(PortInUse, match="8080") as caught:
            client.run("busybox", "sleep 1000", ports={80: 8080})
        assert (caught.value.port, caught.value.protocol) == (8080, "tcp")
        assert caught.value.holder is not None
        assert "shim" in caught.value.holder
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(PortInUse, match=str(os.getpid())):
            client.run("busybox", "sleep 1000", ports={80: taken.getsockname()[1]})


def test_a_user_that_the_image_does_not_know(client: Client) -> None:
    """By name; and a group."""
    with pytest.raises(UserNotFound, match=r"no user 'who' in the image's /etc/passwd"):
        client.run("busybox", "true", user="who")
    with pytest.raises(UserNotFound, match=r"no group 'crew' in the image's /etc/group"):
        client.run("busybox", "true", user="0:crew")


def test_a_user_without_rights_is_told_what_to_do(world: World) -> None:
    """In a root of somebody else's nothing is made."""
    script = """
import os
import wherry.rootless.engine  # by root: the sources may lie where others cannot read them
from wherry import Client
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
Client().run("busybox")
"""
    done = world.python(script, check=False)
    assert f"PermissionDenied: user 65534 cannot make {world.root}: give a root of its own" in done.stderr
    assert not world.root.exists()


def test_a_full_disk_during_a_pull_is_told_and_leaves_nothing(world: World) -> None:
    """A root of 3 MB, an image of more; what was fetched is taken away again, and the disk has room."""
    world.push("nginx")
    world.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(world.root)], check=True)
    try:
        with Client() as client:
            before = _used(world.root)
            with pytest.raises(NoSpace, match=f"no space left.* in {world.root}"):
                client.run("nginx")
            assert client.images.list() == []
            assert _used(world.root) < before + (2 << 20)
    finally:
        subprocess.run(["umount", str(world.root)], check=True)


def _used(directory: Path) -> int:
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
