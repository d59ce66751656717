"""What becomes of each field of a request for a container."""

from typing import Any

import pytest

from wherry.engineapi.containers import ContainerConfig, ContainerCreate, HostConfig
from wherry.engineapi.document import Malformed, json_names, parse
from wherry.options import Options, RunOptions
from wherry_daemon import creation
from wherry_daemon.creation import CONFIG, HOST_CONFIG, IGNORED, REFUSED
from wherry_oci.errors import InvalidArgument, Unsupported

pytestmark = pytest.mark.unit

# ContainerConfig and HostConfig of Engine API 1.51.
FIELDS = (
    "ArgsEscaped AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env ExposedPorts Healthcheck Hostname "
    "Image Labels MacAddress NetworkDisabled OnBuild OpenStdin Shell StdinOnce StopSignal StopTimeout Tty User Volumes "
    "WorkingDir"
).split()
HOST_FIELDS = (
    "Annotations AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps "
    "BlkioWeight BlkioWeightDevice CapAdd CapDrop Cgroup CgroupParent CgroupnsMode ConsoleSize ContainerIDFile "
    "CpuCount CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems "
    "DeviceCgroupRules DeviceRequests Devices Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth "
    "IOMaximumIOps Init IpcMode Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths Memory "
    "MemoryReservation MemorySwap MemorySwappiness Mounts NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode "
    "PidsLimit PortBindings Privileged PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime "
    "SecurityOpt ShmSize StorageOpt Sysctls Tmpfs UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom"
).split()


def options(body: Any) -> dict[str, Any]:
    """What the daemon makes of a request's body."""
    return creation.options(parse(body, ContainerCreate))


def test_every_field_is_known() -> None:
    """Honoured, refused, or ignored where Docker ignores it."""
    assert set(FIELDS) == set(CONFIG) == set(json_names(ContainerConfig).values())
    assert set(HOST_FIELDS) == set(HOST_CONFIG) == set(json_names(HostConfig).values())
    assert {rule for rule in (*CONFIG.values(), *HOST_CONFIG.values()) if isinstance(rule, str)} == {IGNORED, REFUSED}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Cmd": "ls"}, {"command": ["ls"]}),
        ({"Entrypoint": [""]}, {"entrypoint": []}),
        ({"Env": ["A=b", "BARE"]}, {"environment": ["A=b"]}),
        ({"Volumes": {"/v": {}}}, {"volumes": ["/v"]}),
        ({"Volumes": {"/v": {}}, "HostConfig": {"Binds": ["n:/v:ro"]}}, {"volumes": ["n:/v:ro"]}),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}, {"ports": {"80/tcp": 8080}}),
        ({"HostConfig": {"PortBindings": {"80/tcp": None}}}, {"ports": {"80/tcp": None}}),
        (
            {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "1"}, {"HostPort": ""}]}}},
            {"ports": {"80/tcp": [("127.0.0.1", 1), None]}},
        ),
        ({"HostConfig": {"Devices": [{"PathOnHost": "/dev/null"}]}}, {"devices": ["/dev/null:/dev/null:rwm"]}),
        ({"HostConfig": {"MemorySwappiness": -1, "Memory": 0, "CapAdd": None}}, {}),
        ({"HostConfig": {"CPURealtimePeriod": 5}}, {"cpu_rt_period": 5}),
        ({"HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}}}, {}),
        ({"NetworkingConfig": {"EndpointsConfig": {"n": None}}}, {"networking_config": {"n": {}}}),
        ({"Healthcheck": {"Test": ["NONE"], "Interval": 0}}, {"healthcheck": {"Test": ["NONE"]}}),
        ({"HostConfig": {"Mounts": [{"Type": "tmpfs"}]}}, {"mounts": [{"Type": "tmpfs"}]}),
        ({"Newer": 1, "HostConfig": {"Newer": {}}}, {}),
    ],
)
def test_fields_become_options(body: dict[str, Any], expected: dict[str, Any]) -> None:
    """docker-py's names and forms; what is empty is as if it were not there."""
    assert options(body) == expected


_SAMPLES = {
    "RestartPolicy": {"Name": "always"},
    "LogConfig": {"Type": "local"},
    "Healthcheck": {"Test": ["NONE"]},
}
_VALUES: tuple[Any, ...] = (True, 7, "a", ["a"], [{"PathOnHost": "/x"}], {"1/tcp": [{}]}, {"a": "b"})


def _options_of(cls: type, field: str) -> dict[str, Any]:
    """What becomes of *field* with the first value that is of its type."""
    for value in (_SAMPLES[field],) if field in _SAMPLES else _VALUES:
        try:
            return options({field: value} if cls is ContainerConfig else {"HostConfig": {field: value}})
        except Malformed:
            continue
    raise AssertionError(f"{field} takes none of the samples")


def test_what_fields_become_is_known_to_run() -> None:
    """Each option's name: none is invented here."""
    for cls, rules in ((ContainerConfig, CONFIG), (HostConfig, HOST_CONFIG)):
        for field, rule in rules.items():
            if isinstance(rule, str):
                continue
            for name in _options_of(cls, field):
                if name in ("command", "device_requests", "storage_opt", "isolation", "userns_mode"):
                    continue  # an argument of its own, or refused by name
                assert name in RunOptions.__annotations__, field


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"HostConfig": {"MaskedPaths": ["/x"]}}, Unsupported),
        ({"HostConfig": ["x"]}, InvalidArgument),
        ({"HostConfig": {"LogConfig": {"Type": "nosuch"}}}, InvalidArgument),
        ({"HostConfig": {"Devices": [{}]}}, InvalidArgument),
        ({"HostConfig": {"PortBindings": [1]}}, InvalidArgument),
    ],
)
def test_what_cannot_be_is_refused(body: dict[str, Any], error: type[Exception]) -> None:
    """By name, and never dropped."""
    with pytest.raises(error):
        options(body)


def test_device_requests_are_refused_by_the_engine() -> None:
    """GPUs: the option is passed on, and refused there."""
    with pytest.raises(Unsupported, match="device_requests"):
        Options.parse(None, options({"HostConfig": {"DeviceRequests": [{"Count": -1}]}}))


@pytest.mark.parametrize("field", sorted({*CONFIG, *HOST_CONFIG}))
def test_a_value_of_another_type_is_refused(field: str) -> None:
    """As Go's decoder does, before anything comes of it: no field of JSON's is a float."""
    body = {field: 1.5} if field in CONFIG else {"HostConfig": {field: 1.5}}
    with pytest.raises((InvalidArgument, Unsupported)):
        options(body)
