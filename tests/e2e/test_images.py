"""Images through the client and the command: what a container wrote, archives, registries, the check."""

import io
import json
import tarfile
from pathlib import Path

import attrs
import pytest

from support.world import World
from wherry import Client
from wherry.errors import NameInUse
from wherry.local import LocalEngine

pytestmark = pytest.mark.e2e


def test_what_a_container_wrote_is_told_and_can_be_made_an_image(client: Client) -> None:
    """diff, commit with another command, and a container of the result."""
    script = "echo new > /new; echo more >> /etc/passwd; rm /etc/group; mkdir /d; exec sleep 1000"
    with client.run("busybox", ["sh", "-c", script], network="none", environment={"KEPT": "yes"}) as container:
        container.exec(["sh", "-c", "until [ -d /d ]; do :; done"], timeout=30)
        changes = {change.path: change.kind for change in container.diff()}
        assert changes["/new"] == "added"
        assert changes["/etc/passwd"] == "modified"
        assert changes["/etc/group"] == "deleted"
        image = container.commit("made:1", config={"Cmd": ["cat", "/new"]}, message="for a test")
        assert container.status == "running"
    assert image.tags == ("made:1",)
    assert client.check_output("made:1", network="none") == b"new\n"
    assert (
        client.check_output("made:1", "sh -c 'echo $KEPT; ls /etc/group || echo gone'", network="none")
        == b"yes\ngone\n"
    )
    assert image.history[-1].comment == "for a test"
    assert client.check(content=True) == []


def test_a_container_that_ends_just_then_is_committed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ran when it was looked at, and cannot be paused any more."""
    with client.run("busybox", "touch /made", network="none") as container:
        container.wait()
        look = LocalEngine.state
        monkeypatch.setattr(
            LocalEngine, "state", lambda engine, record: attrs.evolve(look(engine, record), status="running")
        )
        container.commit("made:2")
        monkeypatch.undo()
    assert client.check_output("made:2", "ls /made", network="none") == b"/made\n"


def test_export_is_the_whole_root_file_system(client: Client) -> None:
    """The image's files with the container's on top; import makes an image of it again."""
    with client.create("busybox", "true", network="none") as container:
        container.start()
        container.wait()
        content = b"".join(container.export())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
    assert "bin/busybox" in [name.lstrip("./") for name in names]
    image = client.images.import_(io.BytesIO(content), "again", config={"Cmd": ["echo", "hello"]})
    assert client.check_output(image.id, network="none") == b"hello\n"


def test_an_archive_carries_an_image_to_another_root(client: Client, world: World, tmp_path: Path) -> None:
    """save, then load elsewhere, by the command."""
    world.wherry("pull", "-q", "busybox")
    world.wherry("save", "-o", str(tmp_path / "image.tar"), "busybox")
    elsewhere = Client(root=world.path / "other")
    [image] = elsewhere.images.load(tmp_path / "image.tar")
    assert image.tags == ("busybox:latest",)
    assert elsewhere.images.get("busybox").id == client.images.get("busybox").id
    elsewhere.close()


def test_images_are_tagged_pushed_and_pulled_again(world: World) -> None:
    """By the command, through the registry."""
    world.push("busybox")
    world.wherry("pull", "-q", "busybox")
    name = f"{world.registry.address}/mine/busybox:2"
    world.wherry("tag", "busybox", name)
    assert "digest: sha256:" in world.wherry("push", name).stdout
    world.wherry("rmi", name)
    world.wherry("pull", "-q", name)
    [document] = json.loads(world.wherry("image", "inspect", name).stdout)
    assert name in document["RepoTags"]
    assert world.wherry("history", name).stdout.startswith("CREATED")


def test_system_commands_tell_and_clean_up(world: World) -> None:
    """df, check, and prune, which leaves what is used."""
    world.push("busybox")
    world.wherry("run", "--network", "none", "--name", "ended", "busybox", "true")
    world.wherry("run", "-d", "--network", "none", "--name", "lives", "busybox", "sleep", "1000")
    lines = world.wherry("system", "df").stdout.splitlines()
    assert lines[1].split()[:3] == ["Images", "1", "1"]
    assert lines[2].split()[:3] == ["Containers", "2", "1"]
    assert world.wherry("system", "check", "--content").stdout == ""
    assert "deleted container" in world.wherry("system", "prune", "--all", "--force").stdout
    assert world.wherry("container", "ls", "-aq").stdout.count("\n") == 1
    assert world.wherry("images", "-q").stdout.count("\n") == 1
    world.wherry("rm", "-f", "lives")
    assert "Total reclaimed space" in world.wherry("image", "prune", "-af").stdout
    assert world.wherry("images", "-q").stdout == ""


def test_the_check_tells_of_what_somebody_damaged(client: Client, world: World) -> None:
    """A blob whose bytes are others, and a container whose directory is gone from under its record."""
    client.images.pull("busybox")
    blob = next(
        path for path in (world.root / "content" / "blobs" / "sha256").iterdir() if path.stat().st_size > 100_000
    )
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[100] ^= 1
    blob.write_bytes(content)
    assert client.check() == []
    [problem] = client.check(content=True)
    assert blob.name in problem
    assert world.wherry("system", "check", "--content", check=False).returncode == 1


def test_a_container_can_be_renamed(client: Client) -> None:
    """Its old name is free, its new one is unique."""
    with (
        client.create("busybox", "true", name="one", network="none") as one,
        client.create("busybox", "true", name="two", network="none") as two,
    ):
        one.rename("three")
        assert (one.name, client.containers.get("three")) == ("three", one)
        with pytest.raises(NameInUse):
            two.rename("three")
        two.rename("one")
