"""What `docker inspect` and `docker ps` tell, in Docker's words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry import defaults, execs
from wherry.container import timestamp
from wherry.engineapi.configs import GraphDriverData, HealthConfig
from wherry.engineapi.containerlist import MountPoint
from wherry.engineapi.containers import (
    ContainerConfig,
    ContainerInspect,
    ContainerState,
    DeviceMapping,
    Health,
    HealthcheckResult,
    HostConfig,
    LogConfig,
    NetworkSettings,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from wherry.engineapi.document import Words
from wherry.engineapi.images import ImageConfig, ImageInspect, ImageMetadata, ImageSummary, RootFS
from wherry.engineapi.networks import EndpointSettings
from wherry.mounts import BIND, IMAGE, VOLUME
from wherry.options import OWN_RUNTIME
from wherry.portbinding import port_map

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine
    from wherry.membership import Places
    from wherry.state import State
    from wherry_images import Image

_NEVER = "0001-01-01T00:00:00Z"


def container_document(
    engine: "LocalEngine", record: "Record", state: "State", *, sizes: bool = False
) -> ContainerInspect:
    """One container, as `GET /containers/{id}/json` describes it (Engine API 1.51), with *sizes* how large it is."""
    settings = record.settings
    order = _order(engine, record)
    arguments = [*settings["entrypoint"], *settings["command"]]
    directory = engine.store.directory(record.id)
    written = engine.size(record.id) if sizes else None
    return ContainerInspect(
        id=record.id,
        created=timestamp(record.created),
        path=arguments[0],
        args=arguments[1:],
        state=_state(state),
        image=record.image_id,
        resolv_conf_path=str(directory / "resolv.conf"),
        hostname_path=str(directory / "hostname"),
        hosts_path=str(directory / "hosts"),
        log_path=_log_path(directory, record),
        name=f"/{record.name}",
        restart_count=state.restarts,
        driver="overlay",
        platform="linux",
        exec_ids=execs.running(engine, record) or None if state.pid else None,
        graph_driver=GraphDriverData(name="overlay", data=_layers(directory, order)),
        config=_config(record, settings, order),
        host_config=_host_config(settings),
        mounts=mounts_document(settings),
        network_settings=network_settings(engine, record, state),
        size_rw=written,
        size_root_fs=None if written is None else written + engine.images.get(record.image_id).size,
    )


def mounts_document(settings: Mapping[str, Any]) -> list[MountPoint]:
    """What is mounted in a container of these *settings*."""
    return [
        MountPoint(
            type=point["kind"],
            name=point["name"] if point["kind"] in (VOLUME, IMAGE) else "",
            source=point["source"],
            destination=point["target"],
            driver=point["driver"] if point["kind"] == VOLUME else "",
            mode=point["mode"],
            rw=not point["read_only"],
            propagation=point["propagation"],
        )
        for point in settings["mount_points"]
    ]


def _log_path(directory: Path, record: "Record") -> str:
    driver = record.settings["log"]["driver"]
    names = {"local": "log", "json-file": f"{record.id}-json.log"}
    return str(directory / names[driver]) if driver in names else ""


def _order(engine: "LocalEngine", record: "Record") -> Mapping[str, Any]:
    """What its shim is told at a start; empty when it is removed just now."""
    try:
        order: Mapping[str, Any] = json.loads((engine.store.directory(record.id) / "shim.json").read_bytes())
    except FileNotFoundError:
        return {}
    return order


def _layers(directory: Path, order: Mapping[str, Any]) -> dict[str, str]:
    """The directories of its overlay, in the words of Docker's overlay2 driver."""
    options = [option for mount in order.get("rootfs", ()) for option in mount["options"]]
    found = dict(option.partition("=")[::2] for option in options if "=" in option)
    lower = [value for name, _, value in (option.partition("=") for option in options) if name.startswith("lowerdir")]
    return {
        "LowerDir": ":".join(lower),
        "MergedDir": str(directory / "rootfs"),
        "UpperDir": found.get("upperdir", ""),
        "WorkDir": found.get("workdir", ""),
    }


def _state(state: "State") -> ContainerState:
    ended = state.exit
    return ContainerState(
        status=state.status,
        running=state.alive,
        paused=state.status == "paused",
        restarting=state.status == "restarting",
        oom_killed=ended.oom_killed if ended is not None else False,
        pid=state.pid,
        exit_code=ended.exit_code if ended is not None else 0,
        error="" if ended is None or ended.known else "its shim was killed: how it ended is unknown",
        started_at=timestamp(state.started) if state.started else _NEVER,
        finished_at=timestamp(ended.finished) if ended is not None and ended.finished else _NEVER,
        health=None if state.health is None else _health(state.health),
    )


def _health(told: Mapping[str, Any]) -> Health:
    return Health(
        status=told["status"],
        failing_streak=told["failing_streak"],
        log=[
            HealthcheckResult(
                start=timestamp(result["start"]),
                end=timestamp(result["end"]),
                exit_code=result["exit_code"],
                output=result["output"],
            )
            for result in told["log"]
        ],
    )


def _config(record: "Record", settings: Mapping[str, Any], order: Mapping[str, Any]) -> ContainerConfig:
    health = order.get("health")
    return ContainerConfig(
        hostname=settings["hostname"],
        domainname=settings["domainname"],
        user=settings["user"],
        tty=settings["tty"],
        open_stdin=settings["stdin_open"],
        env=list(settings["environment"]),
        cmd=Words(list(settings["command"])) or None,
        image=record.image,
        working_dir=settings["working_dir"],
        entrypoint=Words(list(settings["entrypoint"])) or None,
        exposed_ports={port: {} for port in settings["exposed_ports"]},
        volumes={point["target"]: {} for point in settings["mount_points"] if point["kind"] == VOLUME} or None,
        labels=dict(record.labels),
        stop_signal=settings["stop_signal"],
        stop_timeout=settings["stop_timeout"],
        healthcheck=None
        if health is None
        else HealthConfig(
            test=list(health["test"]),
            interval=health["interval"],
            timeout=health["timeout"],
            start_period=health["start_period"],
            start_interval=health["start_interval"],
            retries=health["retries"],
        ),
    )


def _host_config(settings: Mapping[str, Any]) -> HostConfig:
    memory = settings["memory"] or 0
    return HostConfig(
        binds=[_bind_text(mount) for mount in settings["mounts"] if mount["kind"] in (BIND, VOLUME)] or None,
        volumes_from=[":".join(filter(None, pair)) for pair in settings["volumes_from"]] or None,
        network_mode=settings["network"],
        port_bindings=_port_bindings(settings["ports"]),
        auto_remove=settings["auto_remove"],
        cap_add=list(settings["cap_add"]) or None,
        cap_drop=list(settings["cap_drop"]) or None,
        group_add=list(settings["group_add"]) or None,
        privileged=settings["privileged"],
        readonly_rootfs=settings["read_only"],
        init=settings["init"],
        shm_size=settings["shm_size"],
        tmpfs=dict(settings["tmpfs"]),
        sysctls=dict(settings["sysctls"]),
        memory=memory,
        memory_reservation=settings["memory_reservation"] or 0,
        memory_swap=settings["memory_swap"] or 2 * max(memory, 0),
        nano_cpus=settings["nano_cpus"] or 0,
        cpu_shares=settings["cpu_shares"] or 0,
        cpu_period=settings["cpu_period"] or 0,
        cpu_quota=settings["cpu_quota"] or 0,
        cpuset_cpus=settings["cpuset_cpus"],
        cpuset_mems=settings["cpuset_mems"],
        pids_limit=settings["pids_limit"],
        cgroup_parent=settings["cgroup_parent"],
        log_config=LogConfig(type=settings["log"]["driver"], config=dict(settings["log"]["options"])),
        restart_policy=RestartPolicy(
            name=settings["restart"]["name"], maximum_retry_count=settings["restart"]["maximum"]
        ),
        publish_all_ports=settings["publish_all_ports"],
        dns=list(settings["dns"]),
        dns_options=list(settings["dns_opt"]),
        dns_search=list(settings["dns_search"]),
        extra_hosts=list(settings["extra_hosts"]) or None,
        oom_score_adj=settings["oom_score_adj"] or 0,
        security_opt=_security_options(settings) or None,
        devices=[
            DeviceMapping(path_on_host=source, path_in_container=target, cgroup_permissions=rights)
            for source, target, rights in settings["devices"]
        ],
        ulimits=[Ulimit(name=one["name"], soft=one["soft"], hard=one["hard"]) for one in settings["ulimits"]],
        masked_paths=None if settings["privileged"] else list(defaults.MASKED_PATHS),
        readonly_paths=None if settings["privileged"] else list(defaults.READ_ONLY_PATHS),
        runtime=settings.get("runtime") or OWN_RUNTIME,
        userns_mode=f"auto:size={settings['user_ids'][1]}" if settings.get("user_ids") else "",
        # What has one value here, unless the request said another, which the daemon tells back.
        console_size=[0, 0],
        cgroupns_mode="private",
        ipc_mode="private",
        blkio_weight_device=[],
        blkio_device_read_bps=[],
        blkio_device_write_bps=[],
        blkio_device_read_iops=[],
        blkio_device_write_iops=[],
    )


def _security_options(settings: Mapping[str, Any]) -> list[str]:
    return [
        *(["no-new-privileges"] if settings["no_new_privileges"] else []),
        *(["seccomp=unconfined"] if settings["seccomp_unconfined"] else []),
    ]


def _bind_text(mount: Mapping[str, Any]) -> str:
    mode = mount["mode"] or ("ro" if mount["read_only"] else "rw")
    return f"{mount['source']}:{mount['target']}:{mode}" if mount["source"] else mount["target"]


def image_summary(image: "Image") -> ImageSummary:
    """One image, as `GET /images/json` lists it."""
    from wherry_images.reference import familiar

    return ImageSummary(
        id=image.id,
        repo_tags=list(image.tags),
        repo_digests=[familiar(digest) for digest in image.digests],
        created=unix_time(image.created),
        size=image.size,
        virtual_size=image.size,
        labels=dict(image.labels) or None,
    )


def unix_time(created: str) -> int:
    """Seconds since 1970 of an image's time stamp; 0 when it has none."""
    import re
    from datetime import datetime

    try:
        return int(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", created)).timestamp())
    except ValueError:
        return 0


def image_document(image: "Image") -> ImageInspect:
    """One image, as `GET /images/{name}/json` describes it (Engine API 1.51)."""
    from wherry_images.reference import familiar

    config, health = image.config, image.config.healthcheck
    return ImageInspect(
        id=image.id,
        repo_tags=list(image.tags),
        repo_digests=[familiar(digest) for digest in image.digests],
        comment=image.history[-1].comment if image.history else "",
        created=image.created or "1970-01-01T00:00:00Z",
        author=image.author,
        config=ImageConfig(
            user=config.user,
            env=list(config.env),
            cmd=None if config.cmd is None else Words(list(config.cmd)),
            entrypoint=None if config.entrypoint is None else Words(list(config.entrypoint)),
            working_dir=config.working_dir,
            labels=dict(config.labels) or None,
            stop_signal=config.stop_signal,
            on_build=list(config.on_build),
            shell=list(config.shell),
            exposed_ports={port: {} for port in config.exposed_ports} or None,
            volumes={path: {} for path in config.volumes} or None,
            healthcheck=None
            if health is None
            else HealthConfig(
                test=list(health.test),
                interval=health.interval,
                timeout=health.timeout,
                start_period=health.start_period,
                start_interval=health.start_interval,
                retries=health.retries,
            ),
        ),
        architecture=image.platform.architecture,
        variant=image.platform.variant,
        os=image.platform.os,
        size=image.size,
        virtual_size=image.size,
        graph_driver=GraphDriverData(name="overlay", data={}),
        root_fs=RootFS(type="layers", layers=list(image.diff_ids)),
        metadata=ImageMetadata(last_tag_time=_NEVER),
    )


def committed_config(record: "Record", image: "Image | None") -> dict[str, Any]:
    """The configuration of an image made of a container: the container's own, without what was said for it alone."""
    settings = record.settings
    volumes = image.config.volumes if image is not None else ()
    return {
        "User": settings["user"],
        "Env": list(settings["environment"]),
        "Entrypoint": list(settings["entrypoint"]) or None,
        "Cmd": list(settings["command"]) or None,
        "WorkingDir": settings["working_dir"],
        "ExposedPorts": {port: {} for port in settings["exposed_ports"]} or None,
        "Volumes": {volume: {} for volume in volumes} or None,
        "Labels": dict(record.labels) or None,
        "StopSignal": settings["stop_signal"],
    }


def _port_bindings(ports: list[Mapping[str, Any]]) -> dict[str, list[PortBinding] | None]:
    bindings: dict[str, list[PortBinding] | None] = {}
    for port in ports:
        number = str(port["host_port"]) if port["host_port"] else ""
        bound = PortBinding(host_ip=port["host_ip"], host_port=number)
        key = f"{port['container_port']}/{port['protocol']}"
        bindings[key] = [*(bindings.get(key) or ()), bound]
    return bindings


def network_settings(engine: "LocalEngine", record: "Record", state: "State") -> NetworkSettings:
    """Addresses are shown while it runs, as Docker does."""
    from wherry import membership
    from wherry.networkoptions import has_endpoints

    running = state.status in ("running", "paused")
    reachable = has_endpoints(record.settings["network"])
    networks = places_document(engine, record, membership.places_of(engine, record), running=running)
    # Docker's old fields tell of the default network alone; here, of the first one.
    first = next(iter(networks.values()), None) if reachable else None
    first = first or EndpointSettings()
    published = port_map(state.ports, record.settings["exposed_ports"]) if running and reachable else {}
    return NetworkSettings(
        sandbox_id=record.id if running else "",
        sandbox_key=f"/proc/{state.pid}/ns/net" if running else "",
        ports={
            port: None
            if bindings is None
            else [PortBinding(host_ip=bound["HostIp"], host_port=bound["HostPort"]) for bound in bindings]
            for port, bindings in published.items()
        },
        networks=networks,
        ip_address=first.ip_address,
        gateway=first.gateway,
        mac_address=first.mac_address,
        global_ipv6_address=first.global_ipv6_address,
        ipv6_gateway=first.ipv6_gateway,
        endpoint_id=first.endpoint_id,
        ip_prefix_len=first.ip_prefix_len,
        global_ipv6_prefix_len=first.global_ipv6_prefix_len,
    )


def places_document(
    engine: "LocalEngine", record: "Record", places: "Places", *, running: bool
) -> dict[str, EndpointSettings | None]:
    """A container's *places* in networks, by the networks' names."""
    from wherry.membership import names_of
    from wherry.networkdocument import describe, endpoint_settings

    mode = record.settings["network"]
    if mode in ("none", "host"):
        return {mode: EndpointSettings(network_id=describe(engine, mode).id)}
    return {
        place.name: endpoint_settings(place, endpoint, names_of(record, place, endpoint), running=running)
        for place, endpoint in places
    }
