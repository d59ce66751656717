"""Networks, and the places of containers in them."""

import attrs

from wherry.engineapi.document import field


@attrs.frozen(kw_only=True)
class EndpointIPAMConfig:
    """The addresses that somebody asked for."""

    ipv4_address: str = field("IPv4Address", default="", omitempty=True)
    ipv6_address: str = field("IPv6Address", default="", omitempty=True)
    link_local_ips: list[str] = field("LinkLocalIPs", factory=list, omitempty=True)


@attrs.frozen(kw_only=True)
class EndpointSettings:
    """A container's place in a network: as it is asked for, and, with addresses, as it is."""

    ipam_config: EndpointIPAMConfig | None = field("IPAMConfig")
    links: list[str] | None = None  # CONTAINER:ALIAS
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = field("GwPriority", default=0, omitempty=True)
    network_id: str = field("NetworkID", default="")
    endpoint_id: str = field("EndpointID", default="")
    gateway: str = ""
    ip_address: str = field("IPAddress", default="")
    ip_prefix_len: int = field("IPPrefixLen", default=0)
    ipv6_gateway: str = field("IPv6Gateway", default="")
    global_ipv6_address: str = field("GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field("GlobalIPv6PrefixLen", default=0)
    dns_names: list[str] | None = field("DNSNames")


@attrs.frozen(kw_only=True)
class IPAMConfig:
    """One range of a network's addresses."""

    subnet: str = field(default="", omitempty=True)
    ip_range: str = field("IPRange", default="", omitempty=True)
    gateway: str = field(default="", omitempty=True)
    aux_address: dict[str, str] = field("AuxiliaryAddresses", factory=dict, omitempty=True)


@attrs.frozen(kw_only=True)
class IPAM:
    """Where a network's addresses come from."""

    driver: str = ""
    options: dict[str, str] | None = None
    config: list[IPAMConfig] | None = None


@attrs.frozen(kw_only=True)
class ConfigReference:
    """The network that another one's settings are taken from: only a swarm has such."""

    network: str = ""


@attrs.frozen(kw_only=True)
class EndpointResource:
    """A container as its network tells of it."""

    name: str = ""
    endpoint_id: str = field("EndpointID", default="")
    mac_address: str = ""
    ipv4_address: str = field("IPv4Address", default="")  # with the prefix's length
    ipv6_address: str = field("IPv6Address", default="")


@attrs.frozen(kw_only=True)
class Network:
    """`GET /networks/{id}`, and each of `GET /networks`."""

    name: str = ""
    id: str = ""
    created: str = ""
    scope: str = ""
    driver: str = ""
    enable_ipv4: bool = field("EnableIPv4", default=False)
    enable_ipv6: bool = field("EnableIPv6", default=False)
    ipam: IPAM = field("IPAM", factory=IPAM)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference = attrs.field(factory=ConfigReference)
    config_only: bool = False
    containers: dict[str, EndpointResource] = attrs.field(factory=dict)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class NetworkCreate:
    """The body of `POST /networks/create`."""

    name: str = ""
    driver: str = ""
    options: dict[str, str] | None = None
    ipam: IPAM | None = field("IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    enable_ipv4: bool | None = field("EnableIPv4")
    enable_ipv6: bool | None = field("EnableIPv6")
    labels: dict[str, str] | None = None
    check_duplicate: bool = False
    scope: str = ""


@attrs.frozen(kw_only=True)
class NetworkCreated:
    """The answer to `POST /networks/create`."""

    id: str = ""
    warning: str = ""


@attrs.frozen(kw_only=True)
class NetworkConnect:
    """The body of `POST /networks/{id}/connect`."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


@attrs.frozen(kw_only=True)
class NetworkDisconnect:
    """The body of `POST /networks/{id}/disconnect`."""

    container: str = ""
    force: bool = False


@attrs.frozen(kw_only=True)
class NetworksPruned:
    """The answer to `POST /networks/prune`."""

    networks_deleted: list[str] | None = None
