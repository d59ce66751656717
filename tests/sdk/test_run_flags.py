"""docker run's flags on wherry's command line: each is there, or named here with the reason why not."""

from pathlib import Path

import click
import pytest

from wherry.cli.run import _asked, run_command
from wherry.options import Options

pytestmark = pytest.mark.unit

# Of `docker run --help`, release 28.
_DOCKER = """
add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile
cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys
device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add
health-cmd health-interval health-retries health-start-interval health-start-period health-timeout help
hostname init interactive ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver
log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias
no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull
quiet read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl
tmpfs tty ulimit use-api-socket user userns uts volume volume-driver volumes-from workdir
""".split()
_WITHOUT = {
    "annotation": "nothing here reads them",
    "attach": "both streams are shown; 2>/dev/null does the rest",
    "disable-content-trust": "there is no content trust",
    "gpus": "no GPU runtime",
    "isolation": "of Windows",
    "kernel-memory": "gone from kernels",
    "link-local-ip": "refused by the engine, too",
    "quiet": "a pull is quiet without a terminal",
    "sig-proxy": "signals always go on",
    "storage-opt": "overlay has no quota",
    "use-api-socket": "there is no daemon's socket to give",
}


def _flags() -> dict[str, click.Parameter]:
    return {
        name.removeprefix("--"): parameter
        for parameter in run_command.params
        for name in parameter.opts
        if name.startswith("--")
    }


def test_each_flag_of_dockers_is_there_or_has_a_reason() -> None:
    """What is new here takes its reason away."""
    missing = set(_DOCKER) - set(_flags())
    assert missing <= set(_WITHOUT), missing - set(_WITHOUT)


def test_flags_reach_the_options(tmp_path: Path) -> None:
    """Those that are not plain."""
    labels = tmp_path / "labels"
    labels.write_text("# comment\na=1\nb=2\n")
    arguments = [
        "--ipc",
        "host",
        "--uts=host",
        "--pid",
        "host",
        "--cgroupns",
        "host",
        "--expose",
        "81",
        "--label-file",
        str(labels),
    ]
    arguments += ["--blkio-weight", "300", "--memory-swappiness", "5", "--device-cgroup-rule", "c 1:3 rwm", "-l", "b=3"]
    with run_command.make_context("run", [*arguments, "--device-read-bps", "/dev/null:1mb", "image"]) as context:
        given = dict(context.params)
    for name in ("image", "command", "detach", "cidfile", "detach_keys", "sig_proxy"):
        given.pop(name, None)
    with pytest.raises(Exception, match="block device"):
        Options.parse(None, _asked(dict(given)))
    options = Options.parse(None, _asked({**given, "device_read_bps": ()}))
    assert options.isolation.shared == ("ipc", "pid", "uts", "cgroup")
    assert (dict(options.labels), options.expose) == ({"a": "1", "b": "3"}, ("81/tcp",))
    assert (options.isolation.swappiness, dict(options.isolation.block_io)["weight"]) == (5, 300)
