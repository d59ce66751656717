"""What `docker inspect` and `docker ps` tell, in Docker's words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry import defaults, execs
from wherry.container import timestamp
from wherry.mounts import BIND, VOLUME, MountPoint
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
) -> dict[str, Any]:
    """One container, as `GET /containers/{id}/json` describes it (Engine API 1.51), with *sizes* how large it is."""
    settings = record.settings
    order = _order(engine, record)
    arguments = [*settings["entrypoint"], *settings["command"]]
    directory = engine.store.directory(record.id)
    document = {
        "Id": record.id,
        "Created": timestamp(record.created),
        "Path": arguments[0],
        "Args": arguments[1:],
        "State": _state(state),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": _log_path(directory, record),
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs.running(engine, record) or None if state.pid else None,
        "GraphDriver": {"Name": "overlay", "Data": _layers(directory, order)},
        "Config": _config(record, settings, order),
        "HostConfig": _host_config(settings),
        "Mounts": [MountPoint.from_json(point).document() for point in settings["mount_points"]],
        "NetworkSettings": network_settings(engine, record, state),
    }
    if sizes:
        written = engine.size(record.id)
        document |= {"SizeRw": written, "SizeRootFs": written + engine.images.get(record.image_id).size}
    return document


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


def _state(state: "State") -> dict[str, Any]:
    ended = state.exit
    document = {
        "Status": state.status,
        "Running": state.alive,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": ended.oom_killed if ended is not None else False,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": ended.exit_code if ended is not None else 0,
        "Error": "" if ended is None or ended.known else "its shim was killed: how it ended is unknown",
        "StartedAt": timestamp(state.started) if state.started else _NEVER,
        "FinishedAt": timestamp(ended.finished) if ended is not None and ended.finished else _NEVER,
    }
    if state.health is not None:
        document["Health"] = {
            "Status": state.health["status"],
            "FailingStreak": state.health["failing_streak"],
            "Log": [
                {
                    "Start": timestamp(result["start"]),
                    "End": timestamp(result["end"]),
                    "ExitCode": result["exit_code"],
                    "Output": result["output"],
                }
                for result in state.health["log"]
            ],
        }
    return document


def _config(record: "Record", settings: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    health = order.get("health")
    config = {
        "Hostname": settings["hostname"],
        "Domainname": settings["domainname"],
        "User": settings["user"],
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": settings["tty"],
        "OpenStdin": settings["stdin_open"],
        "StdinOnce": False,
        "Env": list(settings["environment"]),
        "Cmd": list(settings["command"]) or None,
        "Image": record.image,
        "WorkingDir": settings["working_dir"],
        "Entrypoint": list(settings["entrypoint"]) or None,
        "ExposedPorts": {port: {} for port in settings["exposed_ports"]},
        "Volumes": {point["target"]: {} for point in settings["mount_points"] if point["kind"] == VOLUME} or None,
        "OnBuild": None,
        "Labels": dict(record.labels),
        "StopSignal": settings["stop_signal"],
        "StopTimeout": settings["stop_timeout"],
    }
    if health is not None:
        config["Healthcheck"] = {
            "Test": list(health["test"]),
            "Interval": health["interval"],
            "Timeout": health["timeout"],
            "StartPeriod": health["start_period"],
            "StartInterval": health["start_interval"],
            "Retries": health["retries"],
        }
    return config


def _host_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Binds": [_bind_text(mount) for mount in settings["mounts"] if mount["kind"] in (BIND, VOLUME)] or None,
        "VolumesFrom": [":".join(filter(None, pair)) for pair in settings["volumes_from"]] or None,
        "NetworkMode": settings["network"],
        "PortBindings": _port_bindings(settings["ports"]),
        "AutoRemove": settings["auto_remove"],
        "CapAdd": list(settings["cap_add"]) or None,
        "CapDrop": list(settings["cap_drop"]) or None,
        "GroupAdd": list(settings["group_add"]) or None,
        "Privileged": settings["privileged"],
        "ReadonlyRootfs": settings["read_only"],
        "Init": settings["init"],
        "ShmSize": settings["shm_size"],
        "Tmpfs": dict(settings["tmpfs"]),
        "Sysctls": dict(settings["sysctls"]),
        "Memory": settings["memory"] or 0,
        "MemoryReservation": settings["memory_reservation"] or 0,
        "MemorySwap": settings["memory_swap"] or 2 * max(settings["memory"] or 0, 0),
        "MemorySwappiness": None,
        "KernelMemoryTCP": 0,
        "NanoCpus": settings["nano_cpus"] or 0,
        "CpuShares": settings["cpu_shares"] or 0,
        "CpuPeriod": settings["cpu_period"] or 0,
        "CpuQuota": settings["cpu_quota"] or 0,
        "CpusetCpus": settings["cpuset_cpus"],
        "CpusetMems": settings["cpuset_mems"],
        "PidsLimit": settings["pids_limit"],
        "CgroupParent": settings["cgroup_parent"],
        "LogConfig": {"Type": settings["log"]["driver"], "Config": dict(settings["log"]["options"])},
        "RestartPolicy": {"Name": settings["restart"]["name"], "MaximumRetryCount": settings["restart"]["maximum"]},
        "PublishAllPorts": settings["publish_all_ports"],
        "Dns": list(settings["dns"]),
        "DnsOptions": list(settings["dns_opt"]),
        "DnsSearch": list(settings["dns_search"]),
        "ExtraHosts": list(settings["extra_hosts"]) or None,
        "OomScoreAdj": settings["oom_score_adj"] or 0,
        "OomKillDisable": None,
        "SecurityOpt": _security_options(settings) or None,
        "Devices": [
            {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": rights}
            for source, target, rights in settings["devices"]
        ],
        "Ulimits": [{"Name": one["name"], "Soft": one["soft"], "Hard": one["hard"]} for one in settings["ulimits"]],
        "MaskedPaths": None if settings["privileged"] else list(defaults.MASKED_PATHS),
        "ReadonlyPaths": None if settings["privileged"] else list(defaults.READ_ONLY_PATHS),
        "Runtime": settings.get("runtime") or OWN_RUNTIME,
        "UsernsMode": f"auto:size={settings['user_ids'][1]}" if settings.get("user_ids") else "",
        **_WHAT_NOBODY_CAN_ASK_FOR,
    }


# Docker's fields that have one value here: clients look for them.
_WHAT_NOBODY_CAN_ASK_FOR: dict[str, Any] = {
    "ContainerIDFile": "",
    "VolumeDriver": "",
    "ConsoleSize": [0, 0],
    "Cgroup": "",
    "CgroupnsMode": "private",
    "IpcMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "Links": None,
    "Isolation": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [],
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}


def _security_options(settings: Mapping[str, Any]) -> list[str]:
    return [
        *(["no-new-privileges"] if settings["no_new_privileges"] else []),
        *(["seccomp=unconfined"] if settings["seccomp_unconfined"] else []),
    ]


def _bind_text(mount: Mapping[str, Any]) -> str:
    mode = mount["mode"] or ("ro" if mount["read_only"] else "rw")
    return f"{mount['source']}:{mount['target']}:{mode}" if mount["source"] else mount["target"]


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


def _port_bindings(ports: list[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        key = f"{port['container_port']}/{port['protocol']}"
        number = str(port["host_port"]) if port["host_port"] else ""
        bindings.setdefault(key, []).append({"HostIp": port["host_ip"], "HostPort": number})
    return bindings


def network_settings(
    engine: "LocalEngine", record: "Record", state: "State", places: "Places | None" = None
) -> dict[str, Any]:
    """`NetworkSettings`: addresses are shown while it runs, as Docker does. *places*: known from a look at all."""
    from wherry import membership
    from wherry.networkdocument import describe, endpoint_settings
    from wherry.networkoptions import has_endpoints

    running = state.status in ("running", "paused")
    mode = record.settings["network"]
    networks = {
        place.name: endpoint_settings(place, endpoint, membership.names_of(record, place, endpoint), running=running)
        for place, endpoint in (membership.places_of(engine, record) if places is None else places)
    }
    if mode in ("none", "host"):
        networks = {mode: {"NetworkID": describe(engine, mode).id, **dict.fromkeys(_ADDRESSES, ""), "IPPrefixLen": 0}}
    # Docker's old fields tell of the default network alone; here, of the first one.
    first = next(iter(networks.values())) if has_endpoints(mode) and networks else {}
    return {
        "Bridge": "",
        "SandboxID": record.id if running else "",
        "SandboxKey": f"/proc/{state.pid}/ns/net" if running else "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "Ports": port_map(state.ports, record.settings["exposed_ports"]) if running and has_endpoints(mode) else {},
        "Networks": networks,
        **{name: first.get(name, "") for name in _ADDRESSES},
        **{name: first.get(name, 0) for name in ("IPPrefixLen", "GlobalIPv6PrefixLen")},
    }


_ADDRESSES = ("IPAddress", "Gateway", "MacAddress", "GlobalIPv6Address", "IPv6Gateway", "EndpointID")
