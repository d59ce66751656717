"""Log drivers, from the option to what is read."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.host import Host, cover, uncover
from support.world import World
from wherry import Client
from wherry.errors import InvalidArgument, StartFailed, Unsupported

pytestmark = pytest.mark.e2e


def test_json_file_is_dockers_file(client: Client) -> None:
    """At LogPath, an object a line; logs() and follow read it, over rotations."""
    config = {"Type": "json-file", "Config": {"max-size": "3k", "max-file": "4"}}
    script = "for n in $(seq 60); do echo $n; done; echo err >&2"
    with client.run("busybox", ["sh", "-c", script], network="none", log_config=config) as container:
        followed = list(container.logs(follow=True))
        container.wait(30)
        attrs = container.attrs
        assert attrs["HostConfig"]["LogConfig"] == config
        path = Path(attrs["LogPath"])
        assert path.name == f"{container.id}-json.log"
        assert json.loads(path.read_text().splitlines()[-1]).keys() == {"log", "stream", "time"}
        assert path.with_name(f"{path.name}.1").exists()
        assert sorted(followed) == sorted([*map(str, range(1, 61)), "err"])
        assert container.logs(stdout=False) == "err\n"
        assert container.logs(stderr=False, tail=2) == "59\n60\n"


def test_local_keeps_the_last_files_of_a_size(client: Client) -> None:
    """The end of much output is there, and no more than was asked for on the disk."""
    config = {"Type": "local", "Config": {"max-size": "100k", "max-file": "3"}}
    with client.run("busybox", "seq 200000", network="none", log_config=config) as container:
        container.wait(60)
        lines = container.logs().splitlines()
        assert lines[1:] == [str(number) for number in range(200_000 - len(lines) + 2, 200_001)]
        assert container.logs(tail=1000).splitlines() == [str(number) for number in range(199_001, 200_001)]
        taken = sum(path.stat().st_size for path in Path(container.attrs["LogPath"]).iterdir())
        assert 0 < taken <= 300_000


def test_without_a_log_there_is_still_an_attachment(client: Client, world: World) -> None:
    """Driver none: logs says why there are none, `wherry run` shows the output all the same."""
    with client.create("busybox", "echo heard", network="none", log_config={"Type": "none"}) as container:
        with container.attach() as attachment:
            container.start()
            assert attachment.communicate(timeout=30)[0] == b"heard\n"
        with pytest.raises(Unsupported, match="keeps no log"):
            container.logs()
    done = world.wherry("run", "--rm", "--network", "none", "--log-driver", "none", "busybox", "echo", "shown")
    assert done.stdout == "shown\n"


def test_syslog_gets_the_lines_and_nothing_is_kept_here(client: Client, world: World) -> None:
    """By its own address, facility and tag; logs says that it cannot, `wherry run` shows the output all the same."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(world.path / "syslog"))
        syslog.settimeout(30)
        options = {
            "syslog-address": f"unixgram://{world.path}/syslog",
            "syslog-facility": "local3",
            "tag": "{{.ImageName}}/{{.Name}}",
        }
        log = {"Type": "syslog", "Config": options}
        with client.run("busybox", "echo hello", name="one", network="none", log_config=log) as container:
            assert re.fullmatch(rb"<158>\w{3} [ \d]\d [\d:]{8} busybox/one\[\d+\]: hello\n", syslog.recv(1000))
            container.wait(30)
            assert container.attrs["HostConfig"]["LogConfig"] == log
            with pytest.raises(Unsupported, match="configured logging driver does not support reading"):
                container.logs()
        flags = [word for name, value in options.items() for word in ("--log-opt", f"{name}={value}")]
        done = world.wherry(
            *("run", "--rm", "--network", "none", "--log-driver", "syslog", *flags, "busybox", "echo", "shown")
        )
        assert done.stdout == "shown\n"
        assert syslog.recv(1000).endswith(b": shown\n")


@pytest.fixture
def journal(host: Host) -> Iterator[socket.socket]:
    """A socket of ours where the journal's would be."""
    cover("/run")
    try:
        Path("/run/systemd/journal").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.bind("/run/systemd/journal/socket")
            made.settimeout(30)
            yield made
    finally:
        uncover("/run")


def test_the_journal_gets_the_lines_with_who_wrote_them(client: Client, journal: socket.socket) -> None:
    """Docker's fields, which journalctl CONTAINER_NAME=one looks for."""
    log = {"Type": "journald", "Config": {"tag": "{{.Name}}!"}}
    with client.run("busybox", ["sh", "-c", "echo bad >&2"], name="one", network="none", log_config=log) as container:
        fields = dict(line.partition("=")[::2] for line in journal.recv(1 << 16).decode().splitlines())
        del fields["SYSLOG_TIMESTAMP"]
        assert fields == {
            "MESSAGE": "bad",
            "PRIORITY": "3",
            "CONTAINER_ID": container.short_id,
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": "one",
            "CONTAINER_TAG": "one!",
            "IMAGE_NAME": "busybox",
            "SYSLOG_IDENTIFIER": "one!",
        }
        container.wait(30)


def test_a_log_that_nobody_takes_is_refused(client: Client, world: World) -> None:
    """When it is started, with the place; and what the drivers do not know, when it is made."""
    nowhere = {"Type": "syslog", "Config": {"syslog-address": f"unixgram://{world.path}/nobody"}}
    with pytest.raises(StartFailed, match=r"the log driver syslog finds nobody at unixgram://.*/nobody: no such file"):
        client.run("busybox", "true", network="none", log_config=nowhere)
    assert client.containers.list(all=True) == []
    for options, said in (
        ({"syslog-address": "tcp+tls://a:1"}, "by tcp.tls is not supported"),
        ({"syslog-address": "a:1"}, "syslog-address='a:1'"),
        ({"syslog-facility": "mine"}, "syslog-facility='mine' is none of kern, user"),
        ({"syslog-format": "mine"}, "syslog-format='mine'"),
        ({"tag": "{{.Nmae}}"}, "no field 'Nmae'"),
        ({"max-size": "1k"}, "the option 'max-size' of syslog is not supported"),
    ):
        with pytest.raises((InvalidArgument, Unsupported), match=said):
            client.create("busybox", "true", log_config={"Type": "syslog", "Config": options})


def test_on_a_full_disk_the_container_goes_on_and_the_loss_is_told(client: Client) -> None:
    """What there was room for is there, the rest is counted."""
    script = ["sh", "-c", "seq 100000; exit 7"]
    log = {"Type": "local", "Config": {"max-size": "-1"}}
    with client.create("busybox", script, network="none", log_config=log) as container:
        place = container.attrs["LogPath"]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
        try:
            container.start()
            ended = container.wait(30)
            assert ended.exit_code == 7
            whole = sum(len(f"{number}\n") for number in range(1, 100_001))
            assert 0 < ended.log_lost < whole
            assert len(container.output()) + ended.log_lost == whole
        finally:
            subprocess.run(["umount", place], check=True)


def test_all_of_much_output_is_returned(client: Client) -> None:
    """check_output keeps everything, whatever the usual limits are."""
    got = client.check_output("busybox", ["sh", "-c", "head -c 120000000 /dev/zero"], network="none", timeout=100)
    assert len(got) == 120_000_000


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"Type": "fluentd"}, Unsupported),
        ({"Type": "local", "Config": {"max-size": "big"}}, InvalidArgument),
        ({"Type": "local", "Config": {"max-file": "0"}}, InvalidArgument),
        ({"Type": "local", "Config": {"labels": "x"}}, Unsupported),
        ({"Type": "none", "Config": {"max-size": "1m"}}, Unsupported),
        ({"Type": "json-file", "Config": {"compress": "true"}}, Unsupported),
    ],
)
def test_what_no_driver_does_is_refused(client: Client, config: dict[str, object], error: type[Exception]) -> None:
    """Before anything is made."""
    with pytest.raises(error, match="log_config"):
        client.create("busybox", "true", log_config=config)
