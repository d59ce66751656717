"""Log drivers, from the option to what is read."""

import json
from pathlib import Path

import pytest

from support.world import World
from wherry import Client
from wherry.errors import InvalidArgument, Unsupported

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
