"""Containers whose rootfs is a copy of their image: where that is asked for, and where no overlay can be mounted."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext

import pytest

from support import users
from support import world as worlds
from support.host import Host
from support.layout import Layout
from support.leftovers import settled
from support.registry import Registry
from support.users import User
from support.world import World
from wherry import Client
from wherry.errors import InvalidArgument, Unsupported
from wherry.snapshotters import SnapshotterWarning

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["root", "user"])
def world(
    request: pytest.FixtureRequest, host: Host, registry: Registry, image: Callable[[str], Layout], ordinary_user: User
) -> Iterator[World]:
    """Root's and a user's."""
    with ExitStack() as stack:
        if request.param == "user" and users.current() is None:
            stack.enter_context(users.being(ordinary_user))
        if request.param == "root" and users.current() is not None:
            pytest.skip("this run is an ordinary user's")
        made = stack.enter_context(worlds.made(host, registry, image))
        yield made
        left = settled(made.left_over)
        assert not left, "the test left over:\n" + "\n".join(left)


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_SNAPSHOTTER", "native")


@pytest.fixture
def on_an_overlay(world: World, ordinary_user: User) -> Iterator[None]:
    """The root directory lies on one."""
    owner = os.stat(world.path)
    below = [world.path / name for name in ("lower", "upper", "work")]
    for place in (*below, world.root):
        place.mkdir()
    options = ",".join(f"{place.name}dir={place}" for place in below)
    with users.as_root():
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, world.root], check=True)
        os.chown(world.root, owner.st_uid, owner.st_gid)
    yield
    with users.as_root():
        users.end_holder(ordinary_user.holder)  # which has the mount, too
        subprocess.run(["umount", "--lazy", world.root], check=True)


def test_each_container_has_a_copy_of_its_image(asked_for: None, client: Client) -> None:
    """What it writes is its own, told by diff, kept over restarts, committed, and read when it is stopped."""
    script = "cat /data/one 2>/dev/null; mkdir -p /data; echo 1 > /data/one; rm -f /etc/passwd; sleep 1000"
    with client.run("busybox", ["sh", "-c", script], network="none") as container:
        assert settled(lambda: ["it"] if container.exec(["ls", "/etc/passwd"]).exit_code == 0 else []) == []
        changes = {(change.kind, change.path) for change in container.diff()}
        assert {("added", "/data"), ("added", "/data/one"), ("deleted", "/etc/passwd")} <= changes
        assert not any(path.startswith("/bin") for _, path in changes)
        container.restart(timeout=0)
        assert settled(lambda: [] if container.logs() == "1\n" else [container.logs()]) == []
        assert 0 < container._engine.size(container.id) < 1 << 20  # not its image's
        container.stop(timeout=0)
        assert container.path("/data/one").read_text() == "1\n"
        container.commit("changed", pause=False)
        kept = b"".join(container.export())
        assert b"data/one" in kept
    shown = client.check_output("changed", ["sh", "-c", "cat /data/one; ls /etc"], network="none", volumes=["/data"])
    assert shown.decode().startswith("1\n")
    assert b"passwd" not in shown
    assert client.check_output("busybox", ["ls", "/"], network="none", read_only=True)


def test_on_an_overlay_it_is_a_copy_and_the_user_is_told(
    on_an_overlay: None, client: Client, request: pytest.FixtureRequest
) -> None:
    """By a warning when it is found out, and by the doctor; what cannot be kept there is an error that says so."""
    checks = {check.name: check for check in client.doctor()}
    assert "lies on an overlay" in checks["root"].found
    ours = "root" in request.node.name  # a user's worker finds it out, and warns nobody
    with pytest.warns(SnapshotterWarning, match="each container gets a copy") if ours else nullcontext():
        container = client.run("busybox", ["sh", "-c", "echo 1 > /one; rm /etc/passwd; sleep 1000"], network="none")
    with container:
        assert settled(lambda: ["it"] if container.exec(["ls", "/etc/passwd"]).exit_code == 0 else []) == []
        assert container.path("/one").read_text() == "1\n"
        assert ("deleted", "/etc/passwd") in {(change.kind, change.path) for change in container.diff()}
        with pytest.raises(Unsupported, match="keeps no whiteouts"):
            container.commit("changed", pause=False)
    shown = client.check_output("busybox", ["ls", "/"], network="none", read_only=True)  # another copy
    assert b"one" not in shown.split()


def test_a_way_that_there_is_not_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, with those that there are."""
    monkeypatch.setenv("WHERRY_SNAPSHOTTER", "zfs")
    with pytest.raises(InvalidArgument, match="overlay or native"):
        client.check_output("busybox", "true", network="none")
