"""The engine itself."""

from typing import Any

import attrs

from wherry.engineapi.containerlist import ContainerSummary
from wherry.engineapi.document import field
from wherry.engineapi.images import ImageSummary
from wherry.engineapi.volumes import Volume


@attrs.frozen(kw_only=True)
class ErrorResponse:
    """The body of every answer that refuses."""

    message: str = field("message", default="")


@attrs.frozen(kw_only=True)
class PlatformName:
    """What an engine calls itself."""

    name: str = ""


@attrs.frozen(kw_only=True)
class ComponentVersion:
    """A part of an engine."""

    name: str = ""
    version: str = ""
    details: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class Version:
    """`GET /version`."""

    platform: PlatformName = attrs.field(factory=PlatformName)
    version: str = ""
    api_version: str = ""
    min_api_version: str = field("MinAPIVersion", default="")
    arch: str = ""
    kernel_version: str = ""
    os: str = ""
    git_commit: str = ""
    go_version: str = ""
    build_time: str = ""
    components: list[ComponentVersion] | None = None


@attrs.frozen(kw_only=True)
class PluginsInfo:
    """The kinds of volumes, networks and logs that there are."""

    volume: list[str] | None = None
    network: list[str] | None = None
    authorization: list[str] | None = None
    log: list[str] | None = None


@attrs.frozen(kw_only=True)
class IndexInfo:
    """A registry, as an engine is set up for it."""

    name: str = ""
    mirrors: list[str] | None = None
    secure: bool = False
    official: bool = False


@attrs.frozen(kw_only=True)
class RegistryServiceConfig:
    """How an engine goes about with registries."""

    index_configs: dict[str, IndexInfo | None] = attrs.field(factory=dict)
    insecure_registry_cidrs: list[str] | None = field("InsecureRegistryCIDRs")
    mirrors: list[str] | None = None


@attrs.frozen(kw_only=True)
class Runtime:
    """An OCI runtime that an engine knows."""

    path: str = field("path", default="")
    runtime_args: list[str] = field("runtimeArgs", factory=list, omitempty=True)


@attrs.frozen(kw_only=True)
class SwarmInfo:
    """Whether an engine is part of a swarm."""

    node_id: str = field("NodeID", default="")
    node_addr: str = ""
    local_node_state: str = ""
    control_available: bool = False


@attrs.frozen(kw_only=True)
class SystemInfo:
    """`GET /info`."""

    id: str = field("ID", default="")
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    driver: str = ""
    driver_status: list[list[str]] | None = None
    plugins: PluginsInfo = attrs.field(factory=PluginsInfo)
    memory_limit: bool = False
    swap_limit: bool = False
    cpu_cfs_period: bool = False
    cpu_cfs_quota: bool = False
    cpu_shares: bool = field("CPUShares", default=False)
    cpu_set: bool = field("CPUSet", default=False)
    pids_limit: bool = False
    ipv4_forwarding: bool = field("IPv4Forwarding", default=False)
    bridge_nf_iptables: bool = field("BridgeNfIptables", default=False)
    bridge_nf_ip6tables: bool = field("BridgeNfIp6tables", default=False)
    debug: bool = False
    oom_kill_disable: bool = False
    logging_driver: str = ""
    cgroup_driver: str = ""
    cgroup_version: str = ""
    kernel_version: str = ""
    operating_system: str = ""
    os_version: str = field("OSVersion", default="")
    os_type: str = field("OSType", default="")
    architecture: str = ""
    ncpu: int = field("NCPU", default=0)
    mem_total: int = 0  # bytes
    index_server_address: str = ""
    registry_config: RegistryServiceConfig | None = None
    docker_root_dir: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    name: str = ""
    labels: list[str] | None = None
    experimental_build: bool = False
    server_version: str = ""
    runtimes: dict[str, Runtime] = attrs.field(factory=dict)
    default_runtime: str = ""
    swarm: SwarmInfo = attrs.field(factory=SwarmInfo)
    live_restore_enabled: bool = False
    isolation: str = ""
    init_binary: str = ""
    security_options: list[str] | None = None
    system_time: str = ""
    warnings: list[str] | None = None


@attrs.frozen(kw_only=True)
class DiskUsage:
    """`GET /system/df`."""

    layers_size: int = 0  # bytes
    images: list[ImageSummary] | None = None
    containers: list[ContainerSummary] | None = None
    volumes: list[Volume] | None = None
    build_cache: list[dict[str, Any]] | None = None


@attrs.frozen(kw_only=True)
class AuthConfig:
    """Credentials for a registry: the body of `POST /auth`, and the header X-Registry-Auth."""

    username: str = field("username", default="")
    password: str = field("password", default="")
    server_address: str = field("serveraddress", default="")
    identity_token: str = field("identitytoken", default="")
    registry_token: str = field("registrytoken", default="")


@attrs.frozen(kw_only=True)
class AuthStatus:
    """The answer to `POST /auth`."""

    status: str = ""
    identity_token: str = ""


@attrs.frozen(kw_only=True)
class BuildCachePruned:
    """The answer to `POST /build/prune`."""

    caches_deleted: list[str] | None = None
    space_reclaimed: int = 0  # bytes
