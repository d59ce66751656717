"""`run`'s options as the body of `POST /containers/create` (Engine API, "Create a container")."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wherry import isolation
from wherry.engineapi.configs import HealthConfig
from wherry.engineapi.containers import (
    BindOptions,
    ContainerCreate,
    DeviceMapping,
    HostConfig,
    LogConfig,
    Mount,
    NetworkingConfig,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from wherry.engineapi.document import Words, parse
from wherry.engineapi.networks import EndpointIPAMConfig, EndpointSettings
from wherry.network import EndpointRequest
from wherry.options import HealthCheck, Options
from wherry.portbinding import EVERY_ADDRESS
from wherry.portbinding import PortBinding as PublishedPort
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


def parse_options(command: str | Sequence[str] | None, given: Mapping[str, Any]) -> Options:
    """
    The options that can be read without looking at a machine; `request` takes the others from *given*.

    Raises as `Options.parse`, and Unsupported for what only the engine of this process can do.
    """
    options = Options.parse(command, {name: value for name, value in given.items() if name not in _RAW})
    if options.lifetime != "detached":
        raise Unsupported("lifetime='owner' takes the engine of this process: leave host= out")
    return options


def request(image: str, options: Options, given: Mapping[str, Any]) -> ContainerCreate:
    """What nobody asked for has its zero value, so that the engine's own defaults hold."""
    anonymous, binds, mounts = _volumes(given.get("volumes"))
    entrypoint = None if options.entrypoint is None else list(options.entrypoint) or [""]
    return ContainerCreate(
        image=image,
        cmd=None if options.command is None else Words(list(options.command)),
        entrypoint=None if entrypoint is None else Words(entrypoint),
        env=list(options.environment) or None,
        working_dir=options.working_dir or "",
        user=options.user or "",
        hostname=options.hostname or "",
        domainname=options.domainname or "",
        labels=dict(options.labels) or None,
        exposed_ports={port: {} for port in (*options.expose, *map(_port, options.ports))} or None,
        volumes={target: {} for target in anonymous} or None,
        tty=options.tty,
        open_stdin=options.stdin_open,
        stdin_once=options.stdin_open and not options.tty,  # so that the end of what is attached is the input's
        stop_signal=options.stop_signal or "",
        stop_timeout=given.get("stop_timeout"),
        healthcheck=_health(options.health),
        host_config=_host(options, given, binds, mounts),
        networking_config=NetworkingConfig(endpoints_config=_endpoints(options.endpoints) or None),
    )


def _host(options: Options, given: Mapping[str, Any], binds: list[str], mounts: list[Mount]) -> HostConfig:
    asked_for = {"Mounts": list(given.get("mounts") or ()), **{_ISOLATION[k]: given.get(k) for k in _ISOLATION}}
    isolated = parse(asked_for, HostConfig, "options")
    return attrs.evolve(
        isolated,
        binds=binds or None,
        mounts=[*mounts, *(isolated.mounts or ())] or None,
        volume_driver=given.get("volume_driver") or "",
        volumes_from=[f"{name}:{mode}" if mode else name for name, mode in options.volumes_from] or None,
        tmpfs=dict(options.tmpfs) or None,
        port_bindings=_port_bindings(options.ports) or None,
        publish_all_ports=options.publish_all_ports,
        network_mode=options.network or "",
        dns=list(options.dns) or None,
        dns_options=list(options.dns_opt) or None,
        dns_search=list(options.dns_search) or None,
        extra_hosts=list(options.extra_hosts) or None,
        links=[f"{name}:{alias}" for place in options.endpoints[:1] for name, alias in place.links] or None,
        auto_remove=options.auto_remove,
        restart_policy=restart_policy(options),
        log_config=_log(given.get("log_config")),
        privileged=options.privileged,
        readonly_rootfs=options.read_only,
        cap_add=list(options.cap_add) or None,
        cap_drop=list(options.cap_drop) or None,
        group_add=list(options.group_add) or None,
        security_opt=list(given.get("security_opt") or ()) or None,
        sysctls=dict(options.sysctls) or None,
        init=options.init or None,
        cgroup_parent=given.get("cgroup_parent") or "",
        runtime=given.get("runtime") or "",
        memory=options.memory or 0,
        memory_reservation=options.memory_reservation or 0,
        memory_swap=options.memory_swap or 0,
        nano_cpus=options.nano_cpus or 0,
        cpu_shares=options.cpu_shares or 0,
        cpu_period=options.cpu_period or 0,
        cpu_quota=options.cpu_quota or 0,
        cpuset_cpus=options.cpuset_cpus or "",
        cpuset_mems=options.cpuset_mems or "",
        pids_limit=options.pids_limit,
        oom_score_adj=options.oom_score_adj or 0,
        shm_size=options.shm_size if "shm_size" in given else 0,
        ulimits=[Ulimit(name=one.name, soft=one.soft, hard=one.hard) for one in options.ulimits] or None,
        devices=[
            DeviceMapping(path_on_host=host, path_in_container=inside, cgroup_permissions=rights)
            for host, inside, rights in options.devices
        ]
        or None,
    )


def restart_policy(options: Options) -> RestartPolicy | None:
    """None for one that is never started again."""
    policy = options.restart
    return None if policy.name == "no" else RestartPolicy(name=policy.name, maximum_retry_count=policy.maximum)


def _port(binding: PublishedPort) -> str:
    return f"{binding.container_port}/{binding.protocol}"


def _port_bindings(ports: Sequence[PublishedPort]) -> dict[str, list[PortBinding] | None]:
    found: dict[str, list[PortBinding] | None] = {}
    for binding in ports:
        address = "" if binding.host_ip == EVERY_ADDRESS and not binding.ipv4_only else binding.host_ip
        port = (
            f"{binding.host_port}-{binding.last_host_port}" if binding.last_host_port else str(binding.host_port or "")
        )
        bound = PortBinding(host_ip=address, host_port=port)
        found[_port(binding)] = [*(found.get(_port(binding)) or ()), bound]
    return found


def _health(check: HealthCheck) -> HealthConfig | None:
    found = HealthConfig(
        test=list(check.test) or None,
        interval=check.interval or 0,
        timeout=check.timeout or 0,
        start_period=check.start_period or 0,
        start_interval=check.start_interval or 0,
        retries=check.retries or 0,
    )
    return None if found == HealthConfig() else found


def _log(given: Mapping[str, Any] | None) -> LogConfig | None:
    if given is None:
        return None
    found = {str(key).lower(): value for key, value in given.items()}
    options = {str(key): str(value) for key, value in (found.get("config") or {}).items()}
    return LogConfig(type=found.get("type") or "", config=options)


def _endpoints(places: Sequence[EndpointRequest]) -> dict[str, EndpointSettings | None]:
    # The first one is the network mode already, and need not be told of twice.
    return {
        place.network: asked
        for position, place in enumerate(places)
        if (asked := endpoint(place)) != EndpointSettings() or position
    }


def endpoint(place: EndpointRequest) -> EndpointSettings:
    """A place in a network, as it is asked for."""
    addresses = EndpointIPAMConfig(ipv4_address=place.ipv4 or "", ipv6_address=place.ipv6 or "")
    return EndpointSettings(
        aliases=list(place.aliases) or None,
        links=[f"{name}:{alias}" for name, alias in place.links] or None,
        mac_address=place.mac or "",
        ipam_config=None if addresses == EndpointIPAMConfig() else addresses,
    )


# -- volumes ---------------------------------------------------------------------------------------------------------


def _volumes(given: Mapping[str, Any] | Sequence[str] | None) -> tuple[list[str], list[str], list[Mount]]:
    """
    Anonymous volumes, binds as texts, and mounts.

    A path of the host becomes a mount, for which a path that is missing is an error, as it is without `host=`.
    """
    anonymous: list[str] = []
    binds: list[str] = []
    mounts: list[Mount] = []
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
        mounts.append(
            Mount(
                type="bind",
                source=path,
                target=target,
                read_only="ro" in options or "readonly" in options,
                bind_options=BindOptions(propagation=propagation) if propagation else None,
            )
        )
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
