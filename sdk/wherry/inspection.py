"""What `docker inspect` and `docker ps` tell, in Docker's words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wherry.container import timestamp
from wherry.mounts import BIND, VOLUME, MountPoint
from wherry.portbinding import port_map

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine
    from wherry.state import State
    from wherry_images import Image

_NEVER = "0001-01-01T00:00:00Z"


def container_document(engine: "LocalEngine", record: "Record", state: "State") -> dict[str, Any]:
    """One container, as `GET /containers/{id}/json` describes it (Engine API 1.51); only what wherry has."""
    settings = record.settings
    arguments = [*settings["entrypoint"], *settings["command"]]
    directory = engine.store.directory(record.id)
    return {
        "Id": record.id,
        "Created": timestamp(record.created),
        "Path": arguments[0],
        "Args": arguments[1:],
        "State": _state(state),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(directory / "log"),
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "Config": _config(record, settings),
        "HostConfig": _host_config(settings),
        "Mounts": [MountPoint.from_json(point).document() for point in settings["mount_points"]],
        "NetworkSettings": network_settings(engine, record, state),
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


def _config(record: "Record", settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Hostname": settings["hostname"],
        "Domainname": settings["domainname"],
        "User": settings["user"],
        "Tty": settings["tty"],
        "OpenStdin": settings["stdin_open"],
        "Env": list(settings["environment"]),
        "Cmd": list(settings["command"]),
        "Image": record.image,
        "WorkingDir": settings["working_dir"],
        "Entrypoint": list(settings["entrypoint"]) or None,
        "ExposedPorts": {port: {} for port in settings["exposed_ports"]},
        "Labels": dict(record.labels),
        "StopSignal": settings["stop_signal"],
        "StopTimeout": settings["stop_timeout"],
    }


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
        "MemorySwap": settings["memory_swap"] or 0,
        "NanoCpus": settings["nano_cpus"] or 0,
        "CpuShares": settings["cpu_shares"] or 0,
        "CpuPeriod": settings["cpu_period"] or 0,
        "CpuQuota": settings["cpu_quota"] or 0,
        "CpusetCpus": settings["cpuset_cpus"],
        "CpusetMems": settings["cpuset_mems"],
        "PidsLimit": settings["pids_limit"],
        "CgroupParent": settings["cgroup_parent"],
        "LogConfig": {"Type": "local", "Config": {}},
        "RestartPolicy": {"Name": settings["restart"]["name"], "MaximumRetryCount": settings["restart"]["maximum"]},
    }


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


def network_settings(engine: "LocalEngine", record: "Record", state: "State") -> dict[str, Any]:
    """`NetworkSettings`: addresses are shown while it runs, as Docker does."""
    from wherry import membership
    from wherry.networkdocument import describe, endpoint_settings
    from wherry.networkoptions import has_endpoints

    running = state.status in ("running", "paused")
    mode = record.settings["network"]
    networks = {
        place.name: endpoint_settings(place, endpoint, membership.names_of(record, place, endpoint), running=running)
        for place, endpoint in membership.places_of(engine, record)
    }
    if mode in ("none", "host"):
        networks = {mode: {"NetworkID": describe(engine, mode).id, **dict.fromkeys(_ADDRESSES, ""), "IPPrefixLen": 0}}
    # Docker's old fields tell of the default network alone; here, of the first one.
    first = next(iter(networks.values())) if has_endpoints(mode) and networks else {}
    return {
        "Ports": port_map(state.ports, record.settings["exposed_ports"]) if running and has_endpoints(mode) else {},
        "Networks": networks,
        **{name: first.get(name, "") for name in _ADDRESSES},
        **{name: first.get(name, 0) for name in ("IPPrefixLen", "GlobalIPv6PrefixLen")},
    }


_ADDRESSES = ("IPAddress", "Gateway", "MacAddress", "GlobalIPv6Address", "IPv6Gateway", "EndpointID")
