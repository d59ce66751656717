"""Containers of root with a user namespace of their own: userns_mode."""

import os
from pathlib import Path

import pytest

from support.world import World
from wherry import Client
from wherry.errors import InvalidArgument, Unsupported
from wherry.readiness import Port

pytestmark = pytest.mark.e2e


def test_each_container_has_ids_of_its_own_and_files_lie_as_without(client: Client) -> None:
    """Root inside is nobody outside; what it writes belongs on the disk to whom it belongs inside."""
    script = "touch /mine /his /data/kept; chown 33:33 /his; rm /etc/passwd; cat /proc/self/uid_map; sleep 1000"
    options = {"userns_mode": "auto", "network": "none", "volumes": ["data:/data"]}
    one = client.run("busybox", ["sh", "-c", script], **options)  # type: ignore[arg-type] # whatever
    two = client.run("busybox", ["sh", "-c", script], **options)  # type: ignore[arg-type] # whatever
    firsts = []
    for container in (one, two):
        container.wait_for(lambda it: "65536" in it.logs())
        inside, first, size = map(int, container.logs().split())
        assert (inside, size) == (0, 65536)
        assert os.stat(f"/proc/{container.pid}").st_uid == first
        firsts.append(first)
        upper = Path(client._engine.root, "containers", container.id, "upper")
        assert os.stat(upper / "mine").st_uid == 0
        assert os.stat(upper / "his").st_uid == 33
        assert ("deleted", "/etc/passwd") in {(change.kind, change.path) for change in container.diff()}
        assert container.exec(["stat", "-c", "%u", "/his", "/data/kept"]).output.split() == ["33", "0"]
        assert container.path("/mine").read_text() == ""
        with pytest.raises(Unsupported, match="stop it first"):
            container.path("/mine").write_text("more")
    assert abs(firsts[0] - firsts[1]) >= 65536
    assert os.stat(Path(client.volumes.get("data").path, "kept")).st_uid == 0
    one.commit("mapped")
    assert client.check_output("mapped", "stat -c %u /his", network="none") == b"33\n"
    one.stop(timeout=0)
    one.path("/mine").write_text("more")
    assert one.path("/his").stat().st_uid == 33
    for container in (one, two):
        container.remove(force=True)
    client.volumes.remove("data")
    client.images.remove("mapped")


def test_networks_and_published_ports_work_in_it(client: Client, world: World) -> None:
    """Its network belongs to it: /sys is its own's, low ports are free; it starts again with the same ids."""
    world.push("nginx")
    with client.run("nginx", userns_mode="auto:size=70000", ports={80: None}) as web:
        web.wait_for(Port(80))
        before = web.exec(["cat", "/proc/self/uid_map"]).output.split()
        assert before[2] == "70000"
        assert b"nginx" in world.host.get(f"http://127.0.0.1:{web.port(80)}/")
        assert "eth0" in web.exec(["ls", "/sys/class/net"]).output
        web.restart(timeout=0)
        web.wait_for(Port(80))
        assert web.exec(["cat", "/proc/self/uid_map"]).output.split() == before


@pytest.mark.parametrize(
    "options", [{"network": "host"}, {"privileged": True}, {"pid_mode": "host"}, {"userns_mode": "auto:size=0"}]
)
def test_what_needs_the_hosts_ids_is_refused(client: Client, options: dict[str, object]) -> None:
    """As Docker refuses it."""
    with pytest.raises(InvalidArgument, match="userns_mode"):
        client.run("busybox", "true", **{"userns_mode": "auto", **options})  # type: ignore[arg-type] # whatever
