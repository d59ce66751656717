"""
A request for a container in the Engine API's words (`POST /containers/create`), as the options of `Client.create`.

`CONFIG` and `HOST_CONFIG` name every field of API 1.51 and what becomes of it. What neither names is refused: nothing
that a client asked for is dropped silently.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from wherry_daemon.refusals import BadParameter
from wherry_oci.errors import Unsupported

IGNORED = "ignored, as Docker does"  # or only told back by inspect
REFUSED = "refused: wherry has no such thing"

Rule = str | Callable[[Any], dict[str, Any]]


def _option(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: value}


def _environment(value: list[str]) -> dict[str, Any]:
    # A name alone takes a variable away in Docker; it must not take the daemon's own.
    return {"environment": [item for item in value if "=" in item]}


def _entrypoint(value: Any) -> dict[str, Any]:
    words = [value] if isinstance(value, str) else list(value)
    return {"entrypoint": [] if words == [""] else words}


def _command(value: Any) -> dict[str, Any]:
    return {"command": [value] if isinstance(value, str) else list(value)}


def _health(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"healthcheck": dict(value)}


def _port_bindings(value: Mapping[str, Any]) -> dict[str, Any]:
    ports: dict[str, Any] = {}
    for port, bindings in value.items():
        # No binding at all is one to a port of the host's choice.
        chosen = [_binding(binding) for binding in bindings or [{}]]
        ports[port] = chosen if len(chosen) > 1 else chosen[0]
    return {"ports": ports}


def _binding(binding: Mapping[str, Any]) -> Any:
    number = str(binding.get("HostPort") or "")
    port: Any = int(number) if number.isdigit() else number or None
    port = port or None  # 0 is any
    return (binding["HostIp"], port) if binding.get("HostIp") else port


def _devices(value: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "devices": [
            f"{one['PathOnHost']}:{one.get('PathInContainer') or one['PathOnHost']}"
            f":{one.get('CgroupPermissions') or 'rwm'}"
            for one in value
        ]
    }


def _swappiness(value: int) -> dict[str, Any]:
    return {} if value == -1 else {"mem_swappiness": value}  # -1 is "as it is"


def _log_config(value: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: item for key, item in (("type", value.get("Type")), ("config", value.get("Config"))) if item}
    if given.get("type", "json-file") not in LOG_DRIVERS:
        raise BadParameter(f"logger: no log driver named '{given['type']}' is registered")
    return {"log_config": given} if given else {}


def _restart(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"restart_policy": dict(value)} if value.get("Name") or value.get("MaximumRetryCount") else {}


def _userns(value: str) -> dict[str, Any]:
    return {} if value == "host" else {"userns_mode": value}


def _exposed(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"expose": list(value)}


CONFIG: dict[str, Rule] = {
    "ArgsEscaped": IGNORED,
    "AttachStderr": IGNORED,
    "AttachStdin": IGNORED,
    "AttachStdout": IGNORED,
    "Cmd": _command,
    "Domainname": _option("domainname"),
    "Entrypoint": _entrypoint,
    "Env": _environment,
    "ExposedPorts": _exposed,
    "Healthcheck": _health,
    "Hostname": _option("hostname"),
    "Image": IGNORED,  # it is the request's own argument
    "Labels": _option("labels"),
    "MacAddress": _option("mac_address"),
    "NetworkDisabled": _option("network_disabled"),
    "OnBuild": IGNORED,
    "OpenStdin": _option("stdin_open"),
    "Runtime": IGNORED,  # HostConfig's counts
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
    "BlkioDeviceReadBps": _option("device_read_bps"),
    "BlkioDeviceReadIOps": _option("device_read_iops"),
    "BlkioDeviceWriteBps": _option("device_write_bps"),
    "BlkioDeviceWriteIOps": _option("device_write_iops"),
    "BlkioWeight": _option("blkio_weight"),
    "BlkioWeightDevice": _option("blkio_weight_device"),
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
    "DeviceRequests": _option("device_requests"),
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
    "Mounts": _option("mounts"),
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
    "Ulimits": _option("ulimits"),
    "UsernsMode": _userns,
    "VolumeDriver": _option("volume_driver"),
    "VolumesFrom": _option("volumes_from"),
}
# What JSON has in each field; Go's decoder refuses anything else, and so do we.
_TEXTS = frozenset(
    "Domainname Hostname Image MacAddress StopSignal User WorkingDir Cgroup CgroupParent CgroupnsMode ContainerIDFile "
    "CpusetCpus CpusetMems IpcMode Isolation NetworkMode PidMode Runtime UTSMode UsernsMode VolumeDriver".split()
)
_FLAGS = frozenset(
    "ArgsEscaped AttachStderr AttachStdin AttachStdout NetworkDisabled OpenStdin StdinOnce Tty AutoRemove Init "
    "OomKillDisable Privileged PublishAllPorts ReadonlyRootfs".split()
)
_NUMBERS = frozenset(
    "StopTimeout BlkioWeight CpuCount CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpuShares "
    "IOMaximumBandwidth IOMaximumIOps KernelMemory KernelMemoryTCP Memory MemoryReservation MemorySwap "
    "MemorySwappiness NanoCpus OomScoreAdj PidsLimit ShmSize".split()
)
_LISTS_OF_TEXTS = frozenset(
    "Env OnBuild Shell Binds CapAdd CapDrop DeviceCgroupRules Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links "
    "MaskedPaths ReadonlyPaths SecurityOpt VolumesFrom".split()
)
_LISTS_OF_OBJECTS = frozenset(
    "BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps BlkioWeightDevice DeviceRequests "
    "Devices Mounts Ulimits".split()
)
_OBJECTS = frozenset(
    "ExposedPorts Healthcheck Labels Volumes Annotations LogConfig PortBindings RestartPolicy StorageOpt Sysctls "
    "Tmpfs".split()
)
_OBJECTS_OF_TEXTS = frozenset("Labels Annotations StorageOpt Sysctls Tmpfs".split())
LOG_DRIVERS = ("journald", "json-file", "local", "none", "syslog")
_SUMMED = ("volumes",)  # options that two fields speak of


def options(body: Mapping[str, Any]) -> dict[str, Any]:
    """
    The options that *body* asks for.

    Fields that are empty, zero or null are as if they were not there. Raises BadParameter, Unsupported.
    """
    config = {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
    found: dict[str, Any] = {}
    for fields, rules, where in (
        (config, CONFIG, ""),
        ({} if body.get("HostConfig") is None else body["HostConfig"], HOST_CONFIG, "HostConfig."),
    ):
        if not isinstance(fields, Mapping):
            raise BadParameter(f"{where or 'the body'} is no object")
        for field, value in fields.items():
            _merge(found, _meaning(rules, where, field, value))
    if "volumes" in found:
        found["volumes"] = _once(found["volumes"], body)
    endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    if endpoints:
        found["networking_config"] = {name: dict(given or {}) for name, given in endpoints.items()}
    return found


def _once(volumes: list[str], body: Mapping[str, Any]) -> list[str]:
    """Without the anonymous volumes (`Config.Volumes`) in whose place a bind or a mount of the request is."""
    mounts = (body.get("HostConfig") or {}).get("Mounts") or []
    taken = {text.split(":")[1].rstrip("/") for text in volumes if ":" in text}
    taken |= {str(mount.get("Target", "")).rstrip("/") for mount in mounts}
    return [text for text in volumes if ":" in text or text.rstrip("/") not in taken]


def _merge(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        found[name] = [*found[name], *value] if name in _SUMMED and name in found else value


def _meaning(rules: Mapping[str, Rule], where: str, field: str, value: Any) -> dict[str, Any]:
    # The command line sends every field that it knows, most of them empty.
    empty = value in (None, "", 0, False) or (value in ([], {}) and field not in ("Entrypoint",))
    known = _canonical(field, rules)
    rule = rules.get(known)
    if value is not None and rule is not None:
        _check_type(f"{where}{field}", known, value)
    if rule is None:
        if empty:
            return {}
        raise Unsupported(f"{where}{field} is no field that wherry knows")
    if rule == IGNORED or empty:
        return {}
    if rule == REFUSED:
        raise Unsupported(f"{where}{field} is not supported")
    try:
        return rule(value)  # type: ignore[operator] # the texts are dealt with above
    except BadParameter:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadParameter(f"{where}{field}={value!r:.200} makes no sense: {error}") from None


def _check_type(shown: str, field: str, value: Any) -> None:
    """Raises BadParameter."""
    fits = True
    if field in _TEXTS:
        fits = isinstance(value, str)
    elif field in _FLAGS:
        fits = isinstance(value, bool)
    elif field in _NUMBERS:
        fits = isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63
    elif field in _LISTS_OF_TEXTS:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif field in _LISTS_OF_OBJECTS:
        fits = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    elif field in _OBJECTS:
        fits = isinstance(value, dict)
        if field in _OBJECTS_OF_TEXTS:
            fits = fits and all(isinstance(item, str) for item in value.values())
    elif field in ("Cmd", "Entrypoint"):
        fits = isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    if not fits:
        raise BadParameter(f"{shown} cannot be {json.dumps(value):.200}: it is of another type")


def _canonical(field: str, rules: Mapping[str, Rule]) -> str:
    """Go's JSON takes names in any case (docker-py sends CPURealtimePeriod)."""
    if field in rules:
        return field
    lowered = field.lower()
    return next((known for known in rules if known.lower() == lowered), field)
