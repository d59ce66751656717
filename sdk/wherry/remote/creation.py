"""`run`'s options as the body of `POST /containers/create` (Engine API, "Create a container")."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from wherry import isolation
from wherry.network import EndpointRequest
from wherry.options import HealthCheck, Limit, Options
from wherry.portbinding import EVERY_ADDRESS, PortBinding
from wherry_oci.errors import InvalidArgument, Unsupported

# Read as they were given: what they name is on the engine's machine, and cannot be checked here.
_RAW = ("volumes", "mounts", "volume_driver", "security_opt", "log_config", *isolation.OPTIONS)

_ISOLATION = {
    "ipc_mode": "IpcMode",
    "pid_mode": "PidMode",
    "userns_mode": "UsernsMode",
    "uts_mode": "UTSMode",
    "cgroupns": "CgroupnsMode",
    "device_read_bps": "BlkioDeviceReadBps",
    "device_read_iops": "BlkioDeviceReadIOps",
    "device_write_bps": "BlkioDeviceWriteBps",
    "device_write_iops": "BlkioDeviceWriteIOps",
    "blkio_weight": "BlkioWeight",
    "blkio_weight_device": "BlkioWeightDevice",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "device_cgroup_rules": "DeviceCgroupRules",
    "mem_swappiness": "MemorySwappiness",
    "oom_kill_disable": "OomKillDisable",
}
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def parse(command: str | Sequence[str] | None, given: Mapping[str, Any]) -> Options:
    """
    The options that can be read without looking at a machine; `body` takes the others from *given*.

    Raises as `Options.parse`, and Unsupported for what only the engine of this process can do.
    """
    options = Options.parse(command, {name: value for name, value in given.items() if name not in _RAW})
    if options.lifetime != "detached":
        raise Unsupported("lifetime='owner' takes the engine of this process: leave host= out")
    return options


def body(image: str, options: Options, given: Mapping[str, Any]) -> dict[str, Any]:
    """The request; what nobody asked for is not in it, so that the engine's own defaults hold."""
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": None if options.command is None else list(options.command),
        "Entrypoint": None if options.entrypoint is None else list(options.entrypoint) or [""],
        "Env": list(options.environment),
        "WorkingDir": options.working_dir,
        "User": options.user,
        "Hostname": options.hostname,
        "Domainname": options.domainname,
        "Labels": dict(options.labels),
        "ExposedPorts": {port: {} for port in (*options.expose, *map(_port, options.ports))},
        "Tty": options.tty,
        "OpenStdin": options.stdin_open,
        "StdinOnce": options.stdin_open and not options.tty,  # so that the end of what is attached is the input's
        "StopSignal": options.stop_signal,
        "StopTimeout": given.get("stop_timeout"),
        "Healthcheck": _health(options.health),
    }
    anonymous, binds, mounts = _volumes(given.get("volumes"))
    config["Volumes"] = {target: {} for target in anonymous}
    host = {
        **_resources(options, given),
        **{field: given.get(name) for name, field in _ISOLATION.items()},
        "Binds": binds,
        "Mounts": [*mounts, *map(dict, given.get("mounts") or ())],
        "VolumeDriver": given.get("volume_driver"),
        "VolumesFrom": [f"{name}:{mode}" if mode else name for name, mode in options.volumes_from],
        "Tmpfs": dict(options.tmpfs),
        "PortBindings": _port_bindings(options.ports),
        "PublishAllPorts": options.publish_all_ports,
        "NetworkMode": options.network,
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_opt),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": list(options.extra_hosts),
        "Links": [f"{name}:{alias}" for place in options.endpoints[:1] for name, alias in place.links],
        "AutoRemove": options.auto_remove,
        "RestartPolicy": _restart(options),
        "LogConfig": _log(given.get("log_config")),
        "Privileged": options.privileged,
        "ReadonlyRootfs": options.read_only,
        "CapAdd": list(options.cap_add),
        "CapDrop": list(options.cap_drop),
        "GroupAdd": list(options.group_add),
        "SecurityOpt": list(given.get("security_opt") or ()),
        "Sysctls": dict(options.sysctls),
        "Init": options.init,
        "CgroupParent": given.get("cgroup_parent"),
        "Runtime": given.get("runtime"),
    }
    return {
        **_asked(config),
        "HostConfig": _asked(host),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(options.endpoints)},
    }


def _asked(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, False)}


def _resources(options: Options, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Memory": options.memory,
        "MemoryReservation": options.memory_reservation,
        "MemorySwap": options.memory_swap,
        "NanoCpus": options.nano_cpus,
        "CpuShares": options.cpu_shares,
        "CpuPeriod": options.cpu_period,
        "CpuQuota": options.cpu_quota,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "PidsLimit": options.pids_limit,
        "OomScoreAdj": options.oom_score_adj,
        "ShmSize": options.shm_size if "shm_size" in given else None,
        "Ulimits": [_limit(limit) for limit in options.ulimits],
        "Devices": [
            {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": rights}
            for host, inside, rights in options.devices
        ],
    }


def _restart(options: Options) -> dict[str, Any] | None:
    policy = options.restart
    return None if policy.name == "no" else {"Name": policy.name, "MaximumRetryCount": policy.maximum}


def _limit(limit: Limit) -> dict[str, Any]:
    return {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}


def _port(binding: PortBinding) -> str:
    return f"{binding.container_port}/{binding.protocol}"


def _port_bindings(ports: Sequence[PortBinding]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for binding in ports:
        address = "" if binding.host_ip == EVERY_ADDRESS and not binding.ipv4_only else binding.host_ip
        port = (
            f"{binding.host_port}-{binding.last_host_port}" if binding.last_host_port else str(binding.host_port or "")
        )
        found.setdefault(_port(binding), []).append({"HostIp": address, "HostPort": port})
    return found


def _health(check: HealthCheck) -> dict[str, Any] | None:
    fields = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {name: value for name, value in fields.items() if value} or None


def _log(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    found = {str(key).lower(): value for key, value in given.items()}
    options = {str(key): str(value) for key, value in (found.get("config") or {}).items()}
    return _asked({"Type": found.get("type"), "Config": options})


def _endpoints(places: Sequence[EndpointRequest]) -> dict[str, Any]:
    # The first one is the network mode already, and need not be told of twice.
    return {
        place.network: config for position, place in enumerate(places) if (config := endpoint_config(place)) or position
    }


def endpoint_config(place: EndpointRequest) -> dict[str, Any]:
    """The API's EndpointConfig, {} when nothing is asked of the place."""
    return _asked(
        {
            "Aliases": list(place.aliases),
            "Links": [f"{name}:{alias}" for name, alias in place.links],
            "MacAddress": place.mac,
            "IPAMConfig": _asked({"IPv4Address": place.ipv4, "IPv6Address": place.ipv6}),
        }
    )


# -- volumes ---------------------------------------------------------------------------------------------------------


def _volumes(given: Mapping[str, Any] | Sequence[str] | None) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """
    Anonymous volumes, binds as texts, and mounts.

    A path of the host becomes a mount, for which a path that is missing is an error, as it is without `host=`.
    """
    anonymous: list[str] = []
    binds: list[str] = []
    mounts: list[dict[str, Any]] = []
    for source, target, options in _parts(given):
        if not source:
            anonymous.append(target)
            continue
        path = _host_path(source)
        propagation = next((option for option in options if option in _PROPAGATIONS), "")
        others = [option for option in options if option not in ("ro", "readonly", "rw", "", propagation)]
        if path is None or others:
            binds.append(":".join([path or source, target, *([",".join(options)] if options else [])]))
            continue
        mount: dict[str, Any] = {"Type": "bind", "Source": path, "Target": target}
        if "ro" in options or "readonly" in options:
            mount["ReadOnly"] = True
        if propagation:
            mount["BindOptions"] = {"Propagation": propagation}
        mounts.append(mount)
    return anonymous, binds, mounts


def _parts(given: Mapping[str, Any] | Sequence[str] | None) -> list[tuple[str, str, list[str]]]:
    """Source, target and options of each; docker-py's mapping, or the command line's texts."""
    if isinstance(given, str):
        raise InvalidArgument(f"volumes={given!r}: give a list, as [{given!r}], or a mapping")
    found = []
    if isinstance(given, Mapping):
        for source, item in given.items():
            one = {"bind": item} if isinstance(item, str) else item
            if not one.get("bind"):
                raise InvalidArgument(f"volumes: {source!r} needs a path in the container: {{'bind': '/path'}}")
            options = [text for text in (one.get("mode"), one.get("propagation")) if text]
            found.append((os.fspath(source), os.fspath(one["bind"]), ",".join(options).split(",") if options else []))
        return found
    for item in given or ():
        parts = os.fspath(item).split(":")
        if len(parts) > 3:
            raise InvalidArgument(f"volumes: {item!r} is not source:target[:options]")
        if len(parts) == 1:
            found.append(("", parts[0], []))
        else:
            found.append((parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else []))
    return found


def _host_path(source: str) -> str | None:
    if source.startswith(("./", "../", "~")) or source in (".", ".."):
        return os.path.abspath(os.path.expanduser(source))
    return source if source.startswith("/") else None
