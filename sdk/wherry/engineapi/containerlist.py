"""Containers as they are listed."""

import attrs

from wherry.engineapi.document import field
from wherry.engineapi.networks import EndpointSettings


@attrs.frozen(kw_only=True)
class PortSummary:
    """A port of a container, and where it is published."""

    ip: str = field("IP", default="", omitempty=True)
    private_port: int = 0
    public_port: int = field(default=0, omitempty=True)
    type: str = ""  # tcp, udp or sctp


@attrs.frozen(kw_only=True)
class MountPoint:
    """What is mounted in a container, as lists and inspects show it."""

    type: str = ""
    name: str = field(default="", omitempty=True)
    source: str = ""
    destination: str = ""
    driver: str = field(default="", omitempty=True)
    mode: str = ""
    rw: bool = field("RW", default=False)
    propagation: str = ""


@attrs.frozen(kw_only=True)
class HostConfigSummary:
    """What a list tells of a container's HostConfig."""

    network_mode: str = ""


@attrs.frozen(kw_only=True)
class NetworkSettingsSummary:
    """A listed container's places in networks, by the networks' names."""

    networks: dict[str, EndpointSettings | None] | None = None


@attrs.frozen(kw_only=True)
class ContainerSummary:
    """Each of `GET /containers/json`."""

    id: str = ""
    names: list[str] = attrs.field(factory=list)  # each with a slash before it
    image: str = ""
    image_id: str = field("ImageID", default="")
    command: str = ""
    created: int = 0  # seconds since 1970
    ports: list[PortSummary] = attrs.field(factory=list)
    labels: dict[str, str] | None = None
    state: str = ""
    status: str = ""
    host_config: HostConfigSummary = attrs.field(factory=HostConfigSummary)
    network_settings: NetworkSettingsSummary | None = None
    mounts: list[MountPoint] | None = None
    size_rw: int = field(default=0, omitempty=True)  # bytes, if they were asked for
    size_root_fs: int = field(default=0, omitempty=True)
