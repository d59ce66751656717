"""One container: as it is asked for, and as it is."""

from typing import Any

import attrs

from wherry.engineapi.configs import GraphDriverData, HealthConfig
from wherry.engineapi.containerlist import MountPoint
from wherry.engineapi.document import Names, Words, field
from wherry.engineapi.networks import EndpointSettings


@attrs.frozen(kw_only=True)
class ContainerConfig:
    """What is the container's own, wherever it runs."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Names | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: Words | None = None
    healthcheck: HealthConfig | None = field(omitempty=True)
    args_escaped: bool = field(default=False, omitempty=True)
    image: str = ""
    volumes: Names | None = None
    working_dir: str = ""
    entrypoint: Words | None = None
    network_disabled: bool = field(default=False, omitempty=True)
    mac_address: str = field(default="", omitempty=True)
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = field(default="", omitempty=True)
    stop_timeout: int | None = None  # seconds
    shell: list[str] | None = field(omitempty=True)


@attrs.frozen(kw_only=True)
class WeightDevice:
    """A block device's share."""

    path: str = ""
    weight: int = 0


@attrs.frozen(kw_only=True)
class ThrottleDevice:
    """A block device's limit: bytes, or operations, a second."""

    path: str = ""
    rate: int = 0


@attrs.frozen(kw_only=True)
class DeviceMapping:
    """A device of the host in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@attrs.frozen(kw_only=True)
class DeviceRequest:
    """Devices that a driver of the engine's brings, as GPUs."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = field("DeviceIDs")
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class Ulimit:
    """A limit of setrlimit(2)."""

    name: str = ""
    soft: int = 0
    hard: int = 0


@attrs.frozen(kw_only=True)
class LogConfig:
    """Where its output is kept."""

    type: str = ""
    config: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class PortBinding:
    """Where a port is to be published; an empty port is one of the host's choice."""

    host_ip: str = ""
    host_port: str = ""


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """When it is started again."""

    name: str = ""
    maximum_retry_count: int = 0


@attrs.frozen(kw_only=True)
class BindOptions:
    """Of a mount of type bind."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


@attrs.frozen(kw_only=True)
class VolumeDriverConfig:
    """How a volume is made for a mount."""

    name: str = ""
    options: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class VolumeOptions:
    """Of a mount of type volume."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: VolumeDriverConfig | None = None
    subpath: str = ""


@attrs.frozen(kw_only=True)
class ImageOptions:
    """Of a mount of type image."""

    subpath: str = ""


@attrs.frozen(kw_only=True)
class TmpfsOptions:
    """Of a mount of type tmpfs."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


@attrs.frozen(kw_only=True)
class Mount:
    """A mount as it is asked for."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


@attrs.frozen(kw_only=True)
class HostConfig:
    """What binds a container to the engine's host. Times of the scheduler in microseconds, sizes in bytes."""

    binds: list[str] | None = None
    container_id_file: str = field("ContainerIDFile", default="")
    log_config: LogConfig | None = None
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy | None = None
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] | None = None  # rows, columns
    annotations: dict[str, str] | None = field(omitempty=True)
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = field(omitempty=True)
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field("UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field("BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = field("BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = field(default=0, omitempty=True)
    kernel_memory_tcp: int = field("KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field("IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = field("IOMaximumBandwidth", default=0)
    mounts: list[Mount] | None = field(omitempty=True)
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


@attrs.frozen(kw_only=True)
class NetworkingConfig:
    """The networks to be in, by name."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


@attrs.frozen(kw_only=True)
class ContainerCreate(ContainerConfig):
    """The body of `POST /containers/create`: the container's own configuration, and these beside it."""

    host_config: HostConfig = attrs.field(factory=HostConfig)
    networking_config: NetworkingConfig = attrs.field(factory=NetworkingConfig)


@attrs.frozen(kw_only=True)
class ContainerCreated:
    """The answer to `POST /containers/create`."""

    id: str = ""
    warnings: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class ContainerUpdated:
    """The answer to `POST /containers/{id}/update`."""

    warnings: list[str] | None = None


@attrs.frozen(kw_only=True)
class HealthcheckResult:
    """One probe's."""

    start: str = ""
    end: str = ""
    exit_code: int = 0
    output: str = ""


@attrs.frozen(kw_only=True)
class Health:
    """What the probes say."""

    status: str = ""
    failing_streak: int = 0
    log: list[HealthcheckResult] | None = None


@attrs.frozen(kw_only=True)
class ContainerState:
    """Whether it runs, and how it ended."""

    status: str = ""
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = field("OOMKilled", default=False)
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    health: Health | None = field(omitempty=True)


@attrs.frozen(kw_only=True)
class NetworkSettings:
    """Its addresses. Those outside of `networks` are of one network alone."""

    bridge: str = ""
    sandbox_id: str = field("SandboxID", default="")
    sandbox_key: str = ""
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field("LinkLocalIPv6Address", default="")
    link_local_ipv6_prefix_len: int = field("LinkLocalIPv6PrefixLen", default=0)
    secondary_ip_addresses: list[dict[str, Any]] | None = field("SecondaryIPAddresses")
    secondary_ipv6_addresses: list[dict[str, Any]] | None = field("SecondaryIPv6Addresses")
    ports: dict[str, list[PortBinding] | None] = attrs.field(factory=dict)
    networks: dict[str, EndpointSettings | None] = attrs.field(factory=dict)
    ip_address: str = field("IPAddress", default="")
    gateway: str = ""
    mac_address: str = ""
    global_ipv6_address: str = field("GlobalIPv6Address", default="")
    ipv6_gateway: str = field("IPv6Gateway", default="")
    endpoint_id: str = field("EndpointID", default="")
    ip_prefix_len: int = field("IPPrefixLen", default=0)
    global_ipv6_prefix_len: int = field("GlobalIPv6PrefixLen", default=0)


@attrs.frozen(kw_only=True)
class ContainerInspect:
    """`GET /containers/{id}/json`."""

    id: str = ""
    created: str = ""
    path: str = ""
    args: list[str] = attrs.field(factory=list)
    state: ContainerState = attrs.field(factory=ContainerState)
    image: str = ""
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    log_path: str = ""
    name: str = ""
    restart_count: int = 0
    driver: str = ""
    platform: str = ""
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: list[str] | None = field("ExecIDs")
    host_config: HostConfig = attrs.field(factory=HostConfig)
    graph_driver: GraphDriverData = attrs.field(factory=GraphDriverData)
    mounts: list[MountPoint] = attrs.field(factory=list)
    config: ContainerConfig = attrs.field(factory=ContainerConfig)
    network_settings: NetworkSettings = attrs.field(factory=NetworkSettings)
    size_rw: int | None = field(omitempty=True)  # bytes, if they were asked for
    size_root_fs: int | None = field(omitempty=True)


@attrs.frozen(kw_only=True)
class ContainerWait:
    """The answer to `POST /containers/{id}/wait`."""

    status_code: int = 0


@attrs.frozen(kw_only=True)
class FilesystemChange:
    """Each of `GET /containers/{id}/changes`: modified (0), added (1) or deleted (2)."""

    path: str = ""
    kind: int = 0


@attrs.frozen(kw_only=True)
class ContainerTop:
    """`GET /containers/{id}/top`: a text for each title, of each process."""

    titles: list[str] | None = None
    processes: list[list[str]] | None = None


@attrs.frozen(kw_only=True)
class ContainersPruned:
    """The answer to `POST /containers/prune`."""

    containers_deleted: list[str] | None = None
    space_reclaimed: int = 0  # bytes


@attrs.frozen(kw_only=True)
class PathStat:
    """The header X-Docker-Container-Path-Stat: a file, with its mode in Go's bits."""

    name: str = field("name", default="")
    size: int = field("size", default=0)  # bytes
    mode: int = field("mode", default=0)
    mtime: str = field("mtime", default="")
    link_target: str = field("linkTarget", default="")
