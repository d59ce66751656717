"""Namespaces that containers share with the host."""

import os

import pytest

from wherry import Client

pytestmark = pytest.mark.e2e


def test_the_hosts_namespaces_are_shared_when_asked_for(client: Client) -> None:
    """And only then."""
    look = ["sh", "-c", "for kind in ipc pid uts cgroup; do readlink /proc/self/ns/$kind; done; hostname"]
    kinds = ("ipc", "pid", "uts", "cgroup")
    hosts = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    shared = client.check_output("busybox", look, ipc_mode="host", pid_mode="host", uts_mode="host", cgroupns="host")
    assert shared.decode().split() == [*hosts, os.uname().nodename]
    assert not set(client.check_output("busybox", look).decode().split()) & set(hosts)


def test_device_rules_let_a_device_be_used(client: Client) -> None:
    """Made inside by mknod, which everybody may, and opened, which the rule lets."""
    use = ["sh", "-c", "mknod /k c 1 11 && dd if=/dev/zero of=/k bs=1 count=0"]
    with client.run("busybox", use, device_cgroup_rules=["c 1:11 w"]) as container:
        assert container.wait().exit_code == 0
    with client.run("busybox", use) as container:
        assert container.wait().exit_code != 0


def test_exposed_ports_are_shown_and_published_with_all(client: Client) -> None:
    """Beside those of the image."""
    with client.run("busybox", "sleep 100", expose=[80], publish_all_ports=True) as container:
        assert container.port(80) > 0
    with client.run("busybox", "sleep 100", expose=["81/udp"]) as container:
        assert container.ports == {"81/udp": None}
