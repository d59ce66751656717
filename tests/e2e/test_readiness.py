"""Waiting until a container is ready, and being told at once when it never will be."""

import pytest

from wherry import Client, Exec, File, Health, Http, LogLine, Port
from wherry.container import Container
from wherry.errors import InvalidArgument, NotReady
from wherry.readiness import Strategy

pytestmark = pytest.mark.e2e

_STEPS = """
read one; echo step 1
read two; printf 'prompt> '
read three; touch /tmp/there
read four; mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www
"""


def _go_on(container: Container) -> None:
    with container.attach() as attachment:
        attachment.write(b"\n")


def test_each_of_them_becomes_true_when_it_is_true(client: Client) -> None:
    """Not before, and at whatever step it is asked for."""
    steps: list[Strategy] = [LogLine("^step [0-9]$"), LogLine("prompt> $"), File("/tmp/there"), Port(8080)]
    with client.run("busybox", ["sh", "-c", _STEPS], network="none", stdin_open=True) as container:
        for wanted in steps:
            with pytest.raises(TimeoutError, match="not ready"):
                container.wait_for(wanted, timeout=0.05)
            _go_on(container)
            container.wait_for(wanted, timeout=30)
        container.wait_for(*steps, Http(8080), Exec("test -e /tmp/there"), timeout=30)
        with pytest.raises(TimeoutError):
            container.wait_for(Http(8080, "/nothing"), timeout=0.05)
        container.wait_for(Http(8080, "/nothing", statuses=(404,)), timeout=30)
        with pytest.raises(TimeoutError):
            container.wait_for(Exec("false"), timeout=0.05)
        with pytest.raises(TimeoutError):
            container.wait_for(Exec("no-such-program"), timeout=0.05)
        with pytest.raises(TimeoutError):
            container.wait_for(LogLine("step", times=2), timeout=0.05)


def test_run_returns_when_it_is_ready(client: Client) -> None:
    """Several conditions, one of them a callable of the caller's."""
    script = "echo booting; echo up; exec httpd -f -p 80 -h /etc"
    wanted = [LogLine("up"), Port(80), lambda container: container.connect(80).close() is None]
    with client.run("busybox", ["sh", "-c", script], network="none", wait_for=wanted) as container:
        assert container.exec(["wget", "-q", "-O", "-", "http://127.0.0.1/hostname"]).exit_code == 0


def test_an_end_is_told_at_once_with_what_was_said(client: Client) -> None:
    """Whoever waits for hours does not; and nothing is left of a run that failed."""
    with pytest.raises(NotReady, match="no config") as caught:
        client.run("busybox", ["sh", "-c", "sleep 0.1; echo no config; exit 1"], wait_for=Port(1), wait_timeout=3600)
    assert caught.value.status == "exited"
    assert client.containers.list(all=True) == []


def test_health_is_one_of_them(client: Client) -> None:
    """With a check, and not without one."""
    check = {"test": "true", "interval": "10ms"}
    with client.run("busybox", "sleep 1000", network="none", healthcheck=check, wait_for=Health()) as container:
        assert container.health == "healthy"
    with pytest.raises(InvalidArgument, match="no health check"):
        client.run("busybox", "sleep 1000", network="none", wait_for=Health())


def test_a_link_leads_no_look_out_of_the_container(client: Client) -> None:
    """The host's files are not there, whatever the container links to."""
    script = "ln -s /proc/1/root/etc/hostname /one; ln -s ../../../../root/.profile /two; echo ok; sleep 1000"
    with (
        client.run("busybox", ["sh", "-c", script], network="none", wait_for=LogLine("ok")) as container,
        pytest.raises(TimeoutError),
    ):
        container.wait_for(File("/two"), timeout=0.05)


@pytest.mark.parametrize("wanted", ["ready", LogLine("("), Http(80, "no-slash"), 80])
def test_what_is_no_condition_is_refused_before_the_start(client: Client, wanted: object) -> None:
    """By its value."""
    with pytest.raises(InvalidArgument, match="wait_for"):
        client.run("busybox", "true", wait_for=wanted)
    assert client.containers.list(all=True) == []
