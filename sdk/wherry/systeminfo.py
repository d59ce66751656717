"""What an engine is, and what it has, in Docker's words."""

import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wherry import __version__, otherruntimes
from wherry.engineapi.system import PluginsInfo, RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo
from wherry.logdrivers import DRIVERS
from wherry.options import OWN_RUNTIME

if TYPE_CHECKING:
    from wherry.local import LocalEngine


def system_info(engine: "LocalEngine", version: str = __version__) -> SystemInfo:
    """`GET /info`, by an engine of that *version*."""
    states = [engine.state(record).status for record in engine.records()]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    return SystemInfo(
        id=engine.root.as_posix(),
        containers=len(states),
        containers_running=states.count("running") + states.count("restarting"),
        containers_paused=states.count("paused"),
        containers_stopped=states.count("exited") + states.count("created"),
        images=len(engine.images.list()),
        driver="overlay",
        driver_status=[["Backing Filesystem", "overlayfs"]],
        plugins=PluginsInfo(volume=["local"], network=["bridge", "host", "macvlan", "null"], log=list(DRIVERS)),
        memory_limit=True,
        swap_limit=True,
        cpu_cfs_period=True,
        cpu_cfs_quota=True,
        cpu_shares=True,
        cpu_set=True,
        pids_limit=True,
        ipv4_forwarding=True,
        oom_kill_disable=True,
        logging_driver="json-file",
        cgroup_driver="cgroupfs",
        cgroup_version="2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        kernel_version=os.uname().release,
        operating_system=_operating_system(),
        os_type="linux",
        architecture=platform.machine(),
        ncpu=os.cpu_count() or 0,
        mem_total=memory,
        index_server_address="https://index.docker.io/v1/",
        registry_config=RegistryServiceConfig(insecure_registry_cidrs=["127.0.0.0/8"], mirrors=[]),
        docker_root_dir=str(engine.root),
        name=os.uname().nodename,
        labels=[],
        server_version=version,
        runtimes={name: Runtime(path=path) for name, path in otherruntimes.installed().items()},
        default_runtime=OWN_RUNTIME,
        swarm=SwarmInfo(local_node_state="inactive"),
        live_restore_enabled=True,
        init_binary="wherry",
        security_options=["name=seccomp,profile=builtin"],
        system_time=datetime.now(UTC).isoformat(),
    )


def _operating_system() -> str:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return "Linux"
    return found.get("PRETTY_NAME", "Linux")
