"""
A request for a container (`POST /containers/create`), as the options of `Client.create`.

`CONFIG` and `HOST_CONFIG` say of every field of API 1.51 what becomes of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wherry.engineapi.containers import (
    ContainerCreate,
    DeviceMapping,
    HostConfig,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
)
from wherry.engineapi.document import Words, asked, json_names, told
from wherry.logdrivers import DRIVERS
from wherry_daemon.refusals import BadParameter
from wherry_oci.errors import Unsupported

IGNORED = "ignored, as Docker does"  # or only told back by inspect
REFUSED = "refused: wherry has no such thing"

Rule = str | Callable[[Any], dict[str, Any]]


def _option(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: value}


def _documents(name: str) -> Callable[[list[Any]], dict[str, Any]]:
    """Of documents that the option takes in Docker's words."""
    return lambda value: {name: [told(one) for one in value]}


def _environment(value: list[str]) -> dict[str, Any]:
    # A name alone takes a variable away in Docker; it must not take the daemon's own.
    return {"environment": [item for item in value if "=" in item]}


def _entrypoint(value: Words) -> dict[str, Any]:
    return {"entrypoint": [] if value == [""] else list(value)}


def _mounts(value: list[Mount]) -> dict[str, Any]:
    return {"mounts": [asked(one) for one in value]}


def _port_bindings(value: Mapping[str, list[PortBinding] | None]) -> dict[str, Any]:
    ports: dict[str, Any] = {}
    for port, bindings in value.items():
        # No binding at all is one to a port of the host's choice.
        chosen = [_binding(binding) for binding in bindings or [PortBinding()]]
        ports[port] = chosen if len(chosen) > 1 else chosen[0]
    return {"ports": ports}


def _binding(binding: PortBinding) -> Any:
    number = binding.host_port
    port: Any = int(number) if number.isdecimal() else number or None
    port = port or None  # 0 is any
    return (binding.host_ip, port) if binding.host_ip else port


def _devices(value: list[DeviceMapping]) -> dict[str, Any]:
    if not all(one.path_on_host for one in value):
        raise BadParameter("HostConfig.Devices: PathOnHost is missing")
    return {
        "devices": [
            f"{one.path_on_host}:{one.path_in_container or one.path_on_host}:{one.cgroup_permissions or 'rwm'}"
            for one in value
        ]
    }


def _swappiness(value: int) -> dict[str, Any]:
    return {} if value == -1 else {"mem_swappiness": value}  # -1 is "as it is"


def _log_config(value: LogConfig) -> dict[str, Any]:
    if value.type and value.type not in DRIVERS:
        raise BadParameter(f"logger: no log driver named '{value.type}' is registered")
    given = {key: item for key, item in (("type", value.type), ("config", value.config)) if item}
    return {"log_config": given} if given else {}


def _restart(value: RestartPolicy) -> dict[str, Any]:
    return {"restart_policy": told(value)} if value.name or value.maximum_retry_count else {}


def _userns(value: str) -> dict[str, Any]:
    return {} if value == "host" else {"userns_mode": value}


CONFIG: dict[str, Rule] = {
    "ArgsEscaped": IGNORED,
    "AttachStderr": IGNORED,
    "AttachStdin": IGNORED,
    "AttachStdout": IGNORED,
    "Cmd": lambda value: {"command": list(value)},
    "Domainname": _option("domainname"),
    "Entrypoint": _entrypoint,
    "Env": _environment,
    "ExposedPorts": lambda value: {"expose": list(value)},
    "Healthcheck": lambda value: {"healthcheck": asked(value)},
    "Hostname": _option("hostname"),
    "Image": IGNORED,  # it is the request's own argument
    "Labels": _option("labels"),
    "MacAddress": _option("mac_address"),
    "NetworkDisabled": _option("network_disabled"),
    "OnBuild": IGNORED,
    "OpenStdin": _option("stdin_open"),
    "Shell": IGNORED,
    "StdinOnce": IGNORED,  # attach looks at it
    "StopSignal": _option("stop_signal"),
    "StopTimeout": _option("stop_timeout"),
    "Tty": _option("tty"),
    "User": _option("user"),
    "Volumes": lambda value: {"volumes": list(value)},
    "WorkingDir": _option("working_dir"),
}
HOST_CONFIG: dict[str, Rule] = {
    "Annotations": IGNORED,
    "AutoRemove": _option("auto_remove"),
    "Binds": lambda value: {"volumes": list(value)},
    "BlkioDeviceReadBps": _documents("device_read_bps"),
    "BlkioDeviceReadIOps": _documents("device_read_iops"),
    "BlkioDeviceWriteBps": _documents("device_write_bps"),
    "BlkioDeviceWriteIOps": _documents("device_write_iops"),
    "BlkioWeight": _option("blkio_weight"),
    "BlkioWeightDevice": _documents("blkio_weight_device"),
    "CapAdd": _option("cap_add"),
    "CapDrop": _option("cap_drop"),
    "Cgroup": IGNORED,
    "CgroupParent": _option("cgroup_parent"),
    "CgroupnsMode": _option("cgroupns"),
    "ConsoleSize": IGNORED,  # the client resizes once it is attached
    "ContainerIDFile": IGNORED,
    "CpuCount": IGNORED,  # Windows
    "CpuPercent": IGNORED,  # Windows
    "CpuPeriod": _option("cpu_period"),
    "CpuQuota": _option("cpu_quota"),
    "CpuRealtimePeriod": _option("cpu_rt_period"),
    "CpuRealtimeRuntime": _option("cpu_rt_runtime"),
    "CpuShares": _option("cpu_shares"),
    "CpusetCpus": _option("cpuset_cpus"),
    "CpusetMems": _option("cpuset_mems"),
    "DeviceCgroupRules": _option("device_cgroup_rules"),
    "DeviceRequests": _documents("device_requests"),
    "Devices": _devices,
    "Dns": _option("dns"),
    "DnsOptions": _option("dns_opt"),
    "DnsSearch": _option("dns_search"),
    "ExtraHosts": _option("extra_hosts"),
    "GroupAdd": _option("group_add"),
    "IOMaximumBandwidth": IGNORED,  # Windows
    "IOMaximumIOps": IGNORED,  # Windows
    "Init": _option("init"),
    "IpcMode": _option("ipc_mode"),
    "Isolation": lambda value: {} if value == "default" else {"isolation": value},
    "KernelMemory": IGNORED,  # since API 1.42
    "KernelMemoryTCP": REFUSED,
    "Links": _option("links"),
    "LogConfig": _log_config,
    "MaskedPaths": REFUSED,
    "Memory": _option("mem_limit"),
    "MemoryReservation": _option("mem_reservation"),
    "MemorySwap": _option("memswap_limit"),
    "MemorySwappiness": _swappiness,
    "Mounts": _mounts,
    "NanoCpus": _option("nano_cpus"),
    "NetworkMode": _option("network_mode"),
    "OomKillDisable": _option("oom_kill_disable"),
    "OomScoreAdj": _option("oom_score_adj"),
    "PidMode": _option("pid_mode"),
    "PidsLimit": _option("pids_limit"),
    "PortBindings": _port_bindings,
    "Privileged": _option("privileged"),
    "PublishAllPorts": _option("publish_all_ports"),
    "ReadonlyPaths": REFUSED,
    "ReadonlyRootfs": _option("read_only"),
    "RestartPolicy": _restart,
    "Runtime": _option("runtime"),
    "SecurityOpt": _option("security_opt"),
    "ShmSize": _option("shm_size"),
    "StorageOpt": _option("storage_opt"),
    "Sysctls": _option("sysctls"),
    "Tmpfs": _option("tmpfs"),
    "UTSMode": _option("uts_mode"),
    "Ulimits": _documents("ulimits"),
    "UsernsMode": _userns,
    "VolumeDriver": _option("volume_driver"),
    "VolumesFrom": _option("volumes_from"),
}
_SUMMED = ("volumes",)  # options that two fields speak of


def options(request: ContainerCreate) -> dict[str, Any]:
    """
    The options that *request* asks for.

    Fields that are empty, zero or null are as if they were not there. Raises BadParameter, Unsupported.
    """
    found: dict[str, Any] = {}
    for more in (*_meanings(request, CONFIG, ""), *_meanings(request.host_config, HOST_CONFIG, "HostConfig.")):
        for name, value in more.items():
            found[name] = [*found[name], *value] if name in _SUMMED and name in found else value
    if "volumes" in found:
        found["volumes"] = _once(found["volumes"], request.host_config.mounts or ())
    if endpoints := request.networking_config.endpoints_config:
        found["networking_config"] = {name: asked(given) if given else {} for name, given in endpoints.items()}
    return found


def changes(request: HostConfig) -> dict[str, Any]:
    """The options of `Container.update` that *request* asks for. Raises BadParameter, Unsupported."""
    found: dict[str, Any] = {}
    for more in _meanings(request, HOST_CONFIG, ""):
        found |= more
    return found


def _once(volumes: list[str], mounts: Sequence[Mount]) -> list[str]:
    """Without the anonymous volumes (`Config.Volumes`) in whose place a bind or a mount of the request is."""
    taken = {text.split(":")[1].rstrip("/") for text in volumes if ":" in text}
    taken |= {mount.target.rstrip("/") for mount in mounts}
    return [text for text in volumes if ":" in text or text.rstrip("/") not in taken]


def _meanings(part: ContainerCreate | HostConfig, rules: Mapping[str, Rule], where: str) -> Iterator[dict[str, Any]]:
    cls: type = type(part)
    for name, field in json_names(cls).items():
        rule = rules.get(field, IGNORED)  # the parts that are documents themselves have rules of their own
        value = getattr(part, name)
        # The command line sends every field that it knows, most of them empty.
        if rule == IGNORED or value in (None, "", 0, False) or (value in ([], {}) and field != "Entrypoint"):
            continue
        if isinstance(rule, str):
            raise Unsupported(f"{where}{field} is not supported")
        yield rule(value)
