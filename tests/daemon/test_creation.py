"""What becomes of each field of a request for a container."""

from typing import Any

import pytest

from wherry.options import Options, RunOptions
from wherry_daemon.creation import CONFIG, HOST_CONFIG, IGNORED, REFUSED, options
from wherry_daemon.refusals import BadParameter
from wherry_oci.errors import Unsupported

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


def test_every_field_is_known() -> None:
    """Honoured, refused, or ignored where Docker ignores it."""
    assert set(FIELDS) <= set(CONFIG)
    assert set(HOST_FIELDS) == set(HOST_CONFIG)
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
    ],
)
def test_fields_become_options(body: dict[str, Any], expected: dict[str, Any]) -> None:
    """docker-py's names and forms; what is empty is as if it were not there."""
    assert options(body) == expected


def test_what_fields_become_is_known_to_run() -> None:
    """Each option's name: none is invented here."""
    samples: dict[str, Any] = {"Devices": [{"PathOnHost": "/x"}], "PortBindings": {"1/tcp": [{}]}}
    for rules in (CONFIG, HOST_CONFIG):
        for field, rule in rules.items():
            if isinstance(rule, str):
                continue
            value = samples.get(
                field, {"Name": "always", "Type": "local"} if field in ("RestartPolicy", "LogConfig") else ["a"]
            )
            for name in rule(value) if field not in ("Healthcheck", "PortBindings") else rule({}):
                if name in ("command", "device_requests", "storage_opt", "isolation", "userns_mode"):
                    continue  # an argument of its own, or refused by name
                assert name in RunOptions.__annotations__, field


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"Nosuch": 1}, Unsupported),
        ({"HostConfig": {"MaskedPaths": ["/x"]}}, Unsupported),
        ({"HostConfig": ["x"]}, BadParameter),
        ({"HostConfig": {"LogConfig": {"Type": "nosuch"}}}, BadParameter),
        ({"HostConfig": {"Devices": [{}]}}, BadParameter),
        ({"HostConfig": {"PortBindings": [1]}}, BadParameter),
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


@pytest.mark.parametrize("field", sorted({*CONFIG, *HOST_CONFIG} - {"ConsoleSize"}))
def test_a_value_of_another_type_is_refused(field: str) -> None:
    """As Go's decoder does, before anything comes of it: no field of JSON's is a float."""
    body = {field: 1.5} if field in CONFIG else {"HostConfig": {field: 1.5}}
    with pytest.raises((BadParameter, Unsupported)):
        options(body)
