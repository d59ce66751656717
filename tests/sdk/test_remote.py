"""Engines elsewhere: their addresses, what they are asked for, and that nothing of the SDK is missing there."""

import inspect
import json
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import pytest

from wherry.client import ContainerCollection
from wherry.container import Container
from wherry.engineapi.document import asked
from wherry.errors import (
    ContainerNotFound,
    ExecutableNotFound,
    InvalidArgument,
    NameInUse,
    NotFound,
    NotRunning,
    PortInUse,
    Unsupported,
)
from wherry.images import ImageCollection
from wherry.networkcollection import Network, NetworkCollection
from wherry.options import Options, RunOptions
from wherry.remote import creation
from wherry.remote.address import Address, Tls, context, find, parse
from wherry.remote.api import Api, filters, refused
from wherry.remote.connection import EngineUnreachable
from wherry.remote.containers import RemoteContainer, RemoteContainerCollection
from wherry.remote.images import RemoteImageCollection
from wherry.remote.networks import RemoteNetwork, RemoteNetworkCollection
from wherry.remote.process import Frames
from wherry.remote.volumes import RemoteVolume, RemoteVolumeCollection
from wherry.volumecollection import Volume, VolumeCollection
from wherry_images.errors import AuthRequired, ImageInUse, ImageNotFound, ManifestUnknown

pytestmark = pytest.mark.unit


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:///run/x.sock", Address(scheme="unix", path="/run/x.sock")),
        ("tcp://10.0.0.1:2375", Address(scheme="tcp", host="10.0.0.1", port=2375)),
        ("tcp://host", Address(scheme="tcp", host="host", port=2375)),
        ("tcp://[::1]:99", Address(scheme="tcp", host="::1", port=99)),
        ("ssh://me@host:2222", Address(scheme="ssh", destination="me@host", port=2222)),
        ("ssh://host", Address(scheme="ssh", destination="host")),
    ],
)
def test_addresses_are_read(text: str, expected: Address) -> None:
    """In each scheme, with docker's ports."""
    assert parse(text) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/run/x.sock",
        "unix://x.sock",
        "ftp://x",
        "tcp://x:99999",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://h/path",
    ],
)
def test_bad_addresses_are_refused(text: str) -> None:
    """Also one that ssh would take for an option."""
    with pytest.raises(InvalidArgument):
        parse(text)


def test_the_environment_names_the_engine(tmp_path: Path) -> None:
    """DOCKER_HOST with TLS, before DOCKER_CONTEXT, before the context in use, before docker's own socket."""
    config = {"DOCKER_CONFIG": str(tmp_path)}
    assert str(find(config)) == "unix:///var/run/docker.sock"
    key = sha256(b"far").hexdigest()
    meta, tls = tmp_path / "contexts/meta" / key, tmp_path / "contexts/tls" / key / "docker"
    meta.mkdir(parents=True)
    tls.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "tcp://far:2376"}}}))
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tls / name).write_text("")
    files = Tls(ca=str(tls / "ca.pem"), certificate=str(tls / "cert.pem"), key=str(tls / "key.pem"))
    far = Address(scheme="tcp", host="far", port=2376, tls=files)
    assert find({**config, "DOCKER_CONTEXT": "far"}) == far
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far"}))
    assert find(config) == far
    assert str(find({**config, "DOCKER_CONTEXT": "default"})) == "unix:///var/run/docker.sock"
    (tmp_path / "ca.pem").write_text("")
    given = find({"DOCKER_HOST": "tcp://near:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)})
    assert (given.host, given.tls) == ("near", Tls(ca=str(tmp_path / "ca.pem")))
    with pytest.raises(NotFound, match="nosuch"):
        context("nosuch", tmp_path)


def test_nobody_there_is_an_error_that_says_where(tmp_path: Path) -> None:
    """And a program that is no engine is none."""
    with pytest.raises(EngineUnreachable, match=str(tmp_path)):
        Api(parse(f"unix://{tmp_path}/nosuch.sock")).get("/info")


# -- what is asked for -------------------------------------------------------------------------------------------------

# For each option a value, and where the request has it.
_EVERYTHING: dict[str, tuple[Any, str, Any]] = {
    "auto_remove": (True, "HostConfig.AutoRemove", True),
    "blkio_weight": (300, "HostConfig.BlkioWeight", 300),
    "blkio_weight_device": ([{"Path": "/dev/x", "Weight": 3}], "HostConfig.BlkioWeightDevice.0.Weight", 3),
    "cap_add": (["net_admin"], "HostConfig.CapAdd", ["CAP_NET_ADMIN"]),
    "cap_drop": (["ALL"], "HostConfig.CapDrop", ["ALL"]),
    "cgroup_parent": ("/x", "HostConfig.CgroupParent", "/x"),
    "cgroupns": ("host", "HostConfig.CgroupnsMode", "host"),
    "cpu_period": (1000, "HostConfig.CpuPeriod", 1000),
    "cpu_quota": (2000, "HostConfig.CpuQuota", 2000),
    "cpu_rt_period": (1000, "HostConfig.CpuRealtimePeriod", 1000),
    "cpu_rt_runtime": (900, "HostConfig.CpuRealtimeRuntime", 900),
    "cpu_shares": (7, "HostConfig.CpuShares", 7),
    "cpus": (1.5, "HostConfig.NanoCpus", 1_500_000_000),
    "cpuset_cpus": ("0", "HostConfig.CpusetCpus", "0"),
    "cpuset_mems": ("0", "HostConfig.CpusetMems", "0"),
    "device_cgroup_rules": (["c 1:3 rwm"], "HostConfig.DeviceCgroupRules", ["c 1:3 rwm"]),
    "device_read_bps": ([{"Path": "/dev/x", "Rate": 3}], "HostConfig.BlkioDeviceReadBps.0.Rate", 3),
    "device_read_iops": ([{"Path": "/dev/x", "Rate": 3}], "HostConfig.BlkioDeviceReadIOps.0.Rate", 3),
    "device_write_bps": ([{"Path": "/dev/x", "Rate": 3}], "HostConfig.BlkioDeviceWriteBps.0.Rate", 3),
    "device_write_iops": ([{"Path": "/dev/x", "Rate": 3}], "HostConfig.BlkioDeviceWriteIOps.0.Rate", 3),
    "devices": (["/dev/null:/dev/n:r"], "HostConfig.Devices.0.CgroupPermissions", "r"),
    "dns": (["10.0.0.1"], "HostConfig.Dns", ["10.0.0.1"]),
    "dns_opt": (["ndots:1"], "HostConfig.DnsOptions", ["ndots:1"]),
    "dns_search": (["x"], "HostConfig.DnsSearch", ["x"]),
    "domainname": ("d", "Domainname", "d"),
    "entrypoint": ("", "Entrypoint", [""]),
    "environment": ({"A": "b"}, "Env", ["A=b"]),
    "expose": ([81], "ExposedPorts", {"81/tcp": {}}),
    "extra_hosts": ({"a": "10.0.0.1"}, "HostConfig.ExtraHosts", ["a:10.0.0.1"]),
    "group_add": ([7], "HostConfig.GroupAdd", ["7"]),
    "healthcheck": ({"test": "true", "interval": "1s"}, "Healthcheck.Interval", 1_000_000_000),
    "hostname": ("h", "Hostname", "h"),
    "init": (True, "HostConfig.Init", True),
    "ipc_mode": ("container:x", "HostConfig.IpcMode", "container:x"),
    "labels": (["a=b"], "Labels", {"a": "b"}),
    "links": ({"x": "y"}, "HostConfig.Links", ["x:y"]),
    "log_config": ({"type": "syslog", "config": {"tag": "t"}}, "HostConfig.LogConfig.Config", {"tag": "t"}),
    "mac_address": ("02:42:ac:11:00:02", "NetworkingConfig.EndpointsConfig.bridge.MacAddress", "02:42:ac:11:00:02"),
    "mem_limit": ("64m", "HostConfig.Memory", 64 << 20),
    "mem_reservation": ("32m", "HostConfig.MemoryReservation", 32 << 20),
    "mem_swappiness": (5, "HostConfig.MemorySwappiness", 5),
    "memswap_limit": (-1, "HostConfig.MemorySwap", -1),
    "mounts": ([{"Type": "tmpfs", "Target": "/t"}], "HostConfig.Mounts.0.Type", "tmpfs"),
    "nano_cpus": (5, "HostConfig.NanoCpus", 5),
    "network": ("n", "HostConfig.NetworkMode", "n"),
    "network_disabled": (True, "HostConfig.NetworkMode", "none"),
    "network_mode": ("host", "HostConfig.NetworkMode", "host"),
    "networking_config": ({"n": {"Aliases": ["a"]}}, "NetworkingConfig.EndpointsConfig.n.Aliases", ["a"]),
    "networks": (
        {"n": {"ipv4_address": "10.0.0.2"}},
        "NetworkingConfig.EndpointsConfig.n.IPAMConfig.IPv4Address",
        "10.0.0.2",
    ),
    "oom_kill_disable": (True, "HostConfig.OomKillDisable", True),
    "oom_score_adj": (5, "HostConfig.OomScoreAdj", 5),
    "pid_mode": ("host", "HostConfig.PidMode", "host"),
    "pids_limit": (9, "HostConfig.PidsLimit", 9),
    "ports": (
        {80: ("127.0.0.1", 8080)},
        "HostConfig.PortBindings",
        {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
    ),
    "privileged": (True, "HostConfig.Privileged", True),
    "publish_all_ports": (True, "HostConfig.PublishAllPorts", True),
    "read_only": (True, "HostConfig.ReadonlyRootfs", True),
    "remove": (True, "HostConfig.AutoRemove", True),
    "restart_policy": ("on-failure:3", "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
    "runtime": ("runc", "HostConfig.Runtime", "runc"),
    "security_opt": (["label=disable"], "HostConfig.SecurityOpt", ["label=disable"]),
    "shm_size": ("1m", "HostConfig.ShmSize", 1 << 20),
    "stdin_open": (True, "OpenStdin", True),
    "stop_signal": ("SIGINT", "StopSignal", "SIGINT"),
    "stop_timeout": (3, "StopTimeout", 3),
    "sysctls": ({"a.b": "1"}, "HostConfig.Sysctls", {"a.b": "1"}),
    "tmpfs": (["/t:size=1m"], "HostConfig.Tmpfs", {"/t": "size=1m"}),
    "tty": (True, "Tty", True),
    "ulimits": (["nofile=1:2"], "HostConfig.Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 2}]),
    "user": (5, "User", "5"),
    "userns_mode": ("host", "HostConfig.UsernsMode", "host"),
    "uts_mode": ("host", "HostConfig.UTSMode", "host"),
    "volume_driver": ("d", "HostConfig.VolumeDriver", "d"),
    "volumes": (["/anonymous"], "Volumes", {"/anonymous": {}}),
    "volumes_from": (["x:ro"], "HostConfig.VolumesFrom", ["x:ro"]),
    "working_dir": ("/w", "WorkingDir", "/w"),
}
# They say how it is made, or are no part of the request.
_ELSEWHERE = {"lifetime", "name", "platform", "pull", "wait_for", "wait_timeout"}


def _body(image: str, options: Options, given: dict[str, Any]) -> dict[str, Any]:
    return asked(creation.request(image, options, given))


def test_every_option_is_in_the_table() -> None:
    """A new one is not forgotten here."""
    assert set(_EVERYTHING) | _ELSEWHERE == set(RunOptions.__annotations__)


@pytest.mark.parametrize("name", sorted(_EVERYTHING))
def test_each_option_is_in_the_request(name: str) -> None:
    """Where the Engine API has it."""
    value, place, expected = _EVERYTHING[name]
    given = {name: value, **({"mem_limit": "64m"} if name == "memswap_limit" else {})}
    found: Any = _body("image", creation.parse_options(None, given), given)
    for part in place.split("."):
        found = found[int(part)] if part.isdigit() and isinstance(found, list) else found[part]
    assert found == expected


def test_what_nobody_asked_for_is_not_in_the_request() -> None:
    """The engine's own defaults hold."""
    body = _body("image", creation.parse_options("a 'b c'", {}), {})
    assert body == {
        "Image": "image",
        "Cmd": ["a", "b c"],
        "HostConfig": {"NetworkMode": "bridge"},
    }


def test_volumes_become_mounts_where_a_missing_path_is_to_be_an_error() -> None:
    """Names and what only a bind can say stay binds."""
    given = {"volumes": ["/host:/a:ro,rslave", "name:/b:nocopy", "/host:/c:z", "/d"]}
    body = _body("image", creation.parse_options(None, given), given)
    assert body["HostConfig"]["Mounts"] == [
        {
            "Type": "bind",
            "Source": "/host",
            "Target": "/a",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave"},
        }
    ]
    assert body["HostConfig"]["Binds"] == ["name:/b:nocopy", "/host:/c:z"]
    assert body["Volumes"] == {"/d": {}}


def test_an_owner_is_on_this_machine() -> None:
    """No engine elsewhere can see whether its process lives."""
    with pytest.raises(Unsupported):
        creation.parse_options(None, {"lifetime": "owner"})


def test_filters_are_lists_of_texts() -> None:
    """As the API wants them."""
    assert filters({"label": ["a", "b"], "dangling": True, "exited": 0}) == {
        "label": ["a", "b"],
        "dangling": ["true"],
        "exited": ["0"],
    }
    assert filters({}) is None


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "about", "expected"),
    [
        (404, "No such container: x", {"container": "x"}, ContainerNotFound),
        (409, "Container x is not running", {"container": "x"}, NotRunning),
        (
            409,
            'Conflict. The container name "/x" is already in use by container "abc". You have to',
            {"container": "x", "image": "i"},
            NameInUse,
        ),
        (
            400,
            'OCI runtime create failed: exec: "nosuch": executable file not found in $PATH: unknown',
            {"container": "x"},
            ExecutableNotFound,
        ),
        (500, "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", {"container": "x"}, PortInUse),
        (404, "No such image: x:latest", {"image": "x"}, ImageNotFound),
        (409, "conflict: unable to delete abc (must be forced)", {"image": "x"}, ImageInUse),
        (404, "manifest for x:1 not found: manifest unknown", {"pull": "x:1"}, ManifestUnknown),
        (500, "pull access denied for x, repository does not exist", {"pull": "x"}, AuthRequired),
        (400, "bad parameter", {}, InvalidArgument),
        (501, "no swarm", {}, Unsupported),
    ],
)
def test_refusals_have_their_classes(
    status: int, message: str, about: dict[str, str], expected: type[Exception]
) -> None:
    """The same as the engine here raises."""
    assert type(refused(status, message, about)) is expected


def test_port_and_name_are_found_in_the_words() -> None:
    """So that a program can do something about it."""
    taken = refused(500, "Bind for 127.0.0.1:8080 failed: port is already allocated", {"container": "x"})
    assert isinstance(taken, PortInUse)
    assert (taken.address, taken.port) == ("127.0.0.1", 8080)


def test_frames_are_put_together_from_any_pieces() -> None:
    """Byte by byte, too."""
    stream = b"\1\0\0\0\0\0\0\3abc\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\2de"
    frames, found = Frames(raw=False), []
    for number in stream:
        frames.feed(bytes((number,)))
        while (piece := frames.next()) is not None:
            found.append(piece)
    assert found == [("stdout", b"abc"), ("stderr", b"de")]


# -- the same methods --------------------------------------------------------------------------------------------------

_SAME = [
    (Container, RemoteContainer, {"exec", "exec_create", "popen"}),  # those of Container, with another way to start
    (ContainerCollection, RemoteContainerCollection, set()),
    (ImageCollection, RemoteImageCollection, {"check", "usage", "in_registry"}),
    (Network, RemoteNetwork, set()),
    (NetworkCollection, RemoteNetworkCollection, set()),
    (Volume, RemoteVolume, set()),
    (VolumeCollection, RemoteVolumeCollection, set()),
]
_GENERIC = {"id", "short_id"}  # they need no engine


@pytest.mark.parametrize(("here", "there", "without"), _SAME, ids=[here.__name__ for here, _, _ in _SAME])
def test_nothing_is_missing_there(here: type, there: type, without: set[str]) -> None:
    """Each public name is there, its own, with the same parameters; some need the store of this machine."""
    names = {name for name in vars(here) if not name.startswith("_")} - without - _GENERIC - {"name"}
    assert names <= set(vars(there)), names - set(vars(there))
    for name in names:
        ours, theirs = inspect.getattr_static(here, name), inspect.getattr_static(there, name)
        if isinstance(ours, Callable):  # type: ignore[arg-type] # it is a class
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name


def test_handles_know_their_engine() -> None:
    """After pickling, too."""
    container = RemoteContainer("x" * 64, Api(parse("unix:///x.sock")))
    again = pickle.loads(pickle.dumps(container))
    assert again == container
    assert again._api.address == container._api.address


def test_every_field_of_a_request_is_used() -> None:
    """What `Options` has more than is asked for by name here would be dropped silently."""
    source = inspect.getsource(creation)
    unused = {field.name for field in attrs.fields(Options) if f"options.{field.name}" not in source}
    # Read from what was given, or seen to by the client.
    assert unused == {
        "isolation",
        "log",
        "mounts",
        "name",
        "no_new_privileges",
        "platform",
        "pull",
        "seccomp_unconfined",
        "stop_timeout",
        "user_ids",
        "cgroup_parent",
        "runtime",
        "wait_for",
        "wait_timeout",
    }
