"""Volumes, binds and further mounts in real containers."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import images, leftovers, users
from support.images import Busybox, Files, Recipe
from support.layout import file, folder, symlink
from support.world import World
from wherry import Client, Mount
from wherry.errors import Conflict, ContainerError, InvalidArgument, StartFailed, VolumeInUse, VolumeNotFound

pytestmark = pytest.mark.e2e

_NET: Any = {"network": "none"}


@pytest.fixture
def client(client: Client) -> Iterator[Client]:
    """As the folder's, and no volume is left mounted."""
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    for volume in client.volumes.list():
        volume.remove()


@pytest.fixture
def declaring(world: World) -> str:
    """An image that declares volumes: one with files in it, one that a link leads to the host's files, one missing."""
    recipe = Recipe(
        (
            Busybox((folder("etc"), file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), file("etc/group", ""))),
            Files(
                (
                    folder("data", 0o750, 7, 8),
                    file("data/seed", "from the image\n"),
                    symlink("data/link", "seed"),
                    symlink("trap", "/../../../../../../etc"),
                )
            ),
        ),
        {
            "Env": ["PATH=/bin"],
            "Cmd": ["sh"],
            "Volumes": {"/data": {}, "/trap": {}, "/missing/deep": {}},
        },
    )
    with users.as_root():
        built = images.build(recipe, "declaring", prefix=world.host.machine.prefix)
        world.registry.push(built, "library/declaring:latest")
    return "declaring"


def test_a_named_volume_outlives_its_containers(client: Client) -> None:
    """Made at first use; in use it cannot be removed."""
    client.run(
        "busybox", ["sh", "-c", "echo kept > /data/file"], volumes=["data:/data"], auto_remove=True, **_NET
    ).wait()
    with client.run("busybox", ["sleep", "60"], volumes={"data": {"bind": "/d", "mode": "ro"}}, **_NET) as container:
        assert container.exec(["cat", "/d/file"]).stdout == b"kept\n"
        assert container.exec(["touch", "/d/x"]).exit_code == 1
        [mount] = container.attrs["Mounts"]
        assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("volume", "data", "/d", False)
        assert mount["Source"] == client.volumes.get("data").attrs["Mountpoint"]
        with pytest.raises(VolumeInUse, match=container.short_id):
            client.volumes.get("data").remove()
        assert client.volumes.prune({"all": True}).names == ()
    assert client.volumes.get("data").size > 0
    client.volumes.get("data").remove()
    with pytest.raises(VolumeNotFound):
        client.volumes.get("data")


def test_an_images_volumes_are_made_filled_and_removed_with_it(client: Client, declaring: str) -> None:
    """Content, owner and mode come from the image; with `v` they go with the container, without it they stay."""
    script = "cat /data/seed /data/link; stat -c '%a %u %g' /data"
    container = client.run(declaring, ["sh", "-c", script], **_NET)
    container.wait()
    assert container.logs() == "from the image\nfrom the image\n750 7 8\n"
    assert sorted(mount["Destination"] for mount in container.attrs["Mounts"]) == ["/data", "/missing/deep", "/trap"]
    container.remove(v=True)
    assert client.volumes.list() == []

    client.run(declaring, ["true"], **_NET).remove(force=True)
    assert len(client.volumes.list({"dangling": True})) == 3
    assert len(client.volumes.prune().names) == 3

    client.run(declaring, ["true"], auto_remove=True, **_NET).wait()
    client._engine.wait(client.run(declaring, ["true"], auto_remove=True, **_NET).id, gone=True)
    for container in client.containers.list(all=True):
        container.wait()
    assert client.containers.list(all=True) == []
    assert client.volumes.list() == []


def test_a_volume_in_the_place_of_a_link_copies_nothing_of_the_host(client: Client, declaring: str) -> None:
    """CVE-2022-23648: the image's /trap leads up and out to /etc; what is copied is the image's own."""
    container = client.create(declaring, ["true"], volumes=["trapped:/trap"], **_NET)
    found = sorted(os.listdir(client.volumes.get("trapped").path))
    assert found == ["group", "passwd"]
    assert Path(client.volumes.get("trapped").path, "passwd").read_text() == "root:x:0:0:root:/root:/bin/sh\n"
    container.remove(v=True)


def test_a_filled_volume_and_nocopy_keep_the_images_files_out(client: Client, declaring: str) -> None:
    """Only an empty volume is filled."""
    client.run("busybox", ["sh", "-c", "echo mine > /d/seed"], volumes=["data:/d"], **_NET).wait()
    assert client.check_output(declaring, ["cat", "/data/seed"], volumes=["data:/data"], **_NET) == b"mine\n"
    assert client.check_output(declaring, ["ls", "/data"], volumes=["bare:/data:nocopy"], **_NET) == b""


def test_volumes_from_another_container_also_read_only(client: Client, tmp_path: Path) -> None:
    """Binds and volumes come along, and stay when the first one is gone."""
    first = client.create("busybox", volumes=["data:/data", f"{tmp_path}:/host"], name="first", **_NET)
    second = client.run("busybox", ["sleep", "60"], volumes_from=["first"], **_NET)
    assert second.exec(["touch", "/data/a", "/host/b"]).exit_code == 0
    third = client.run("busybox", ["sleep", "60"], volumes_from=["first:ro"], **_NET)
    assert third.exec(["touch", "/data/c"]).exit_code == 1
    first.remove(v=True)
    assert third.exec(["ls", "/data", "/host"]).stdout == b"/data:\na\n\n/host:\nb\n"
    assert (tmp_path / "b").exists()


def test_binds_have_all_their_options(client: Client, tmp_path: Path) -> None:
    """Twice the same path, read-only all the way down, and a file."""
    (tmp_path / "file").write_text("text")
    binds = [f"{tmp_path}:/one", f"{tmp_path}:/two:ro", f"{tmp_path}/file:/etc/motd:ro"]
    with client.run("busybox", ["sleep", "60"], volumes=binds, **_NET) as container:
        assert (
            container.exec(["sh", "-c", "cat /etc/motd; echo more > /one/more; cat /two/more"]).stdout == b"textmore\n"
        )
        assert container.exec(["sh", "-c", "echo x > /two/x"]).exit_code == 1
        assert container.exec(["sh", "-c", "echo x > /etc/motd"]).exit_code == 1
    with pytest.raises(InvalidArgument, match="does not exist"):
        client.create("busybox", volumes=[f"{tmp_path}/missing:/a"])


def test_mounts_cross_the_border_only_where_that_is_asked_for(client: Client, tmp_path: Path) -> None:
    """rslave lets the host's later mounts in, rshared the container's out; rprivate neither."""
    import subprocess

    shared = tmp_path / "shared"
    for name in ("in", "out"):
        (shared / name).mkdir(parents=True)
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    try:
        script = (
            "mount -t tmpfs out /slave/out; touch /slave/out/s; mount -t tmpfs out /shared/out; touch /shared/out/x"
        )
        binds = [f"{shared}:/private", f"{shared}:/slave:rslave", f"{shared}:/shared:rshared"]
        with client.run("busybox", ["sleep", "60"], volumes=binds, privileged=True, **_NET) as container:
            subprocess.run(["mount", "-t", "tmpfs", "in", shared / "in"], check=True)
            (shared / "in" / "file").touch()
            found = container.exec(["sh", "-c", "ls /slave/in; ls /private/in | wc -l"]).stdout
            assert found == b"file\n0\n"
            assert container.exec(["sh", "-c", script]).exit_code == 0
            assert os.listdir(shared / "out") == ["x"]
            container.exec(["umount", "/shared/out"])
    finally:
        for point in (shared / "in", shared / "out", shared):
            subprocess.run(["umount", "--recursive", "--quiet", point], check=False)


def test_tmpfs_and_image_mounts_and_a_part_of_a_volume(client: Client, declaring: str) -> None:
    """Size and mode of a tmpfs, another image read-only, and a directory below a volume's root."""
    client.run(
        "busybox",
        ["sh", "-c", "mkdir -p /v/a/b; echo deep > /v/a/b/file; ln -s /etc /v/out"],
        volumes=["data:/v"],
        **_NET,
    ).wait()
    mounts = [
        Mount("/t", type="tmpfs", tmpfs_size="1m", tmpfs_mode=0o700),
        Mount("/image", declaring, "image"),
        Mount("/part", "data", subpath="a/b"),
    ]
    with client.run("busybox", ["sleep", "60"], mounts=mounts, **_NET) as container:
        script = "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'; cat /image/data/seed /part/file; touch /image/x"
        done = container.exec(["sh", "-c", script])
        assert done.stdout == b"700\n1024\nfrom the image\ndeep\n"
        assert done.exit_code == 1
        with pytest.raises(Conflict, match="is used by"):
            client.images.remove(declaring)


def test_a_part_of_a_volume_never_leads_out_of_it(client: Client) -> None:
    """A link that a container planted is followed inside of the volume only."""
    client.run("busybox", ["sh", "-c", "ln -s /etc /v/out; ln -s ../../.. /v/up"], volumes=["data:/v"], **_NET).wait()
    with pytest.raises(StartFailed):
        client.run("busybox", ["ls", "/part"], mounts=[Mount("/part", "data", subpath="out")], **_NET)
    assert client.check_output("busybox", ["ls", "/part"], mounts=[Mount("/part", "data", subpath="up")], **_NET) == (
        b"out\nup\n"
    )


def test_a_volume_can_be_a_tmpfs_or_a_path_elsewhere(client: Client, tmp_path: Path) -> None:
    """Driver local's options: what containers share is mounted once, and unmounted with the last of them."""
    (tmp_path / "file").write_text("text")
    client.volumes.create("memory", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7"})
    client.volumes.create("elsewhere", driver_opts={"type": "none", "o": "bind,ro", "device": str(tmp_path)})
    volumes = ["memory:/m", "elsewhere:/e"]
    with client.run("busybox", ["sleep", "60"], volumes=volumes, **_NET) as first:
        with client.run("busybox", ["sleep", "60"], volumes=volumes, **_NET) as second:
            first.exec(["touch", "/m/shared"])
            assert second.exec(["sh", "-c", "ls /m; stat -c %u /m; cat /e/file"]).stdout == b"shared\n7\ntext"
            assert second.exec(["touch", "/e/x"]).exit_code == 1
        assert any(str(client.volumes.get("memory").path) in mount for mount in leftovers.mounts())
    assert not any(str(client.volumes.get("memory").path) in mount for mount in leftovers.mounts())
    client.volumes.create("broken", driver_opts={"type": "ext4", "device": "/nowhere"})
    with pytest.raises(Exception, match="cannot mount '/nowhere'"):
        client.run("busybox", ["true"], volumes=["broken:/b"], **_NET)
    assert client.containers.list(all=True) == []


def test_a_create_that_fails_leaves_no_volume_without_a_name(client: Client, declaring: str) -> None:
    """Named ones stay, as with docker."""
    with pytest.raises(StartFailed):
        client.run(declaring, ["/no/such"], volumes=["kept:/kept"], **_NET)
    assert [volume.name for volume in client.volumes.list()] == ["kept"]


def test_whoever_is_killed_while_a_volume_is_filled_leaves_it_whole_or_empty(world: World, client: Client) -> None:
    """kill -9 in the middle of a copy: the next container gets all of it."""
    world.push("many-files")
    client.images.pull("many-files")
    script = """
import os, signal, sys, threading
from wherry import Client
from wherry import volumes

def copy(source, target, copy=volumes._copy):
    os.mkdir(f"{target}/0")
    os.kill(os.getpid(), signal.SIGKILL)

volumes._copy = copy
Client().create("many-files", volumes=["data:/files"], network="none")
"""
    done = world.python(script, check=False)
    assert done.returncode == -9
    assert os.listdir(client.volumes.get("data").path) == []
    assert client.check_output("many-files", ["sh", "-c", "ls /files | wc -l"], volumes=["data:/files"], **_NET) == (
        b"200\n"
    )
    assert client.containers.list(all=True) == []


def test_the_commands_are_dockers(world: World, client: Client) -> None:
    """volume create, ls, inspect, rm, prune; -v, --mount, --volumes-from; rm -v; system df."""
    assert world.wherry("volume", "create", "--label", "a=b", "data").stdout == "data\n"
    assert world.wherry("volume", "ls", "--filter", "label=a").stdout.splitlines() == [
        "DRIVER   VOLUME NAME",
        "local    data",
    ]
    [document] = json.loads(world.wherry("volume", "inspect", "data").stdout)
    assert (document["Name"], document["Labels"], document["Scope"]) == ("data", {"a": "b"}, "local")
    run = ["run", "--network", "none"]
    world.wherry(*run, "--name", "one", "-v", "data:/d", "-v", "/anonymous", "busybox", "touch", "/d/file")
    mount = ["--mount", "type=volume,src=data,dst=/d,readonly"]
    assert world.wherry(*run, "--rm", *mount, "busybox", "ls", "/d").stdout == "file\n"
    assert world.wherry(*run, "--rm", "--volumes-from", "one", "busybox", "ls", "/d").stdout == "file\n"
    failed = world.wherry("volume", "rm", "data", check=False)
    assert failed.returncode == 1
    assert "is in use by" in failed.stderr
    assert world.wherry("system", "df").stdout.splitlines()[3].split()[:4] == ["Local", "Volumes", "2", "2"]
    world.wherry("rm", "-v", "one")
    assert world.wherry("volume", "ls", "-q").stdout == "data\n"
    assert world.wherry("volume", "prune", "--force").stdout == "Total reclaimed space: 0B\n"
    assert world.wherry("volume", "prune", "--force", "--all").stdout.splitlines()[0] == "data"


def test_a_containers_error_is_its_own_not_its_volumes(client: Client) -> None:
    """check_output's container is removed with its volumes, whatever it ended with."""
    with pytest.raises(ContainerError):
        client.check_output("busybox", ["false"], volumes=["/scratch"], **_NET)
    assert [volume.name for volume in client.volumes.list({"dangling": True})] == []
