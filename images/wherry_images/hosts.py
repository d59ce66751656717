"""Which hosts stand for a registry, and how each may be spoken to: mirrors, consent to plain http, certificates."""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import attrs

from wherry_images.credentials import Credentials
from wherry_images.reference import DEFAULT_REGISTRY
from wherry_oci.errors import InvalidArgument

_DOCKER_HUB_API = "registry-1.docker.io"
_CERTIFICATES = ("/etc/wherry/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
MIRRORS_VARIABLE = "WHERRY_REGISTRY_MIRRORS"
INSECURE_VARIABLE = "WHERRY_INSECURE_REGISTRIES"


@attrs.frozen(kw_only=True)
class RegistryConfig:
    """How registries are reached; a value without a life of its own."""

    mirrors: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    """Base addresses to try before a registry itself, by registry; "*" is for all that are not named."""
    insecure: frozenset[str] = frozenset()
    """host[:port] that may be spoken to by plain http, or by TLS with a certificate that nobody vouches for."""
    certificates: Sequence[str] = _CERTIFICATES
    """Folders that have HOST[:PORT]/*.crt (authorities), *.cert and *.key (a client's)."""
    credentials: Mapping[str, Credentials] = attrs.field(factory=dict)
    """By registry; they go before the user's own."""
    docker_config: str | None = None
    """A config.json in the place of the user's own."""
    parallel: int = 4
    """Layers that are fetched, or sent, at a time; so also connections."""
    retries: int = 5
    """Tries after the first one that brought nothing."""
    retry_wait: float = 0.5
    """Seconds before the first retry; each next one waits twice as long."""
    longest_wait: float = 30.0
    """Seconds: a registry that asks for more patience than this gets an error instead."""
    timeout: float = 30.0
    """Seconds without a byte after which a connection counts as broken."""
    foreign: bool = False
    """Consent to fetch layers from addresses outside the registry that a manifest names."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "RegistryConfig":
        """
        What WHERRY_REGISTRY_MIRRORS (`docker.io=http://127.0.0.1:5000,…`) and WHERRY_INSECURE_REGISTRIES say.

        Raises InvalidArgument.
        """
        environment = os.environ if environment is None else environment
        mirrors: dict[str, list[str]] = {}
        for item in filter(None, map(str.strip, environment.get(MIRRORS_VARIABLE, "").split(","))):
            registry, equals, address = item.partition("=")
            if not equals or not address:
                raise InvalidArgument(f"{MIRRORS_VARIABLE}: {item!r} is not of the form REGISTRY=ADDRESS")
            mirrors.setdefault(registry.strip(), []).append(address.strip())
        insecure = filter(None, map(str.strip, environment.get(INSECURE_VARIABLE, "").split(",")))
        return cls(mirrors=mirrors, insecure=frozenset(insecure))

    def endpoints(self, registry: str, *, push: bool = False) -> "list[Endpoint]":
        """Where to ask for what *registry* has, in this order; mirrors are for reading alone."""
        found: list[Endpoint] = []
        for address in () if push else self.mirrors.get(registry, self.mirrors.get("*", ())):
            found.append(self._mirror(address))
        host = _DOCKER_HUB_API if registry == DEFAULT_REGISTRY else registry
        schemes = ("https", "http") if self.may_be_plain(host) else ("https",)
        found.append(Endpoint(host=host, schemes=schemes, credentials_for=registry))
        return found

    def _mirror(self, address: str) -> "Endpoint":
        parts = urlsplit(address if "://" in address else f"https://{address}")
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.username:
            raise InvalidArgument(f"the mirror {address!r} is no http or https address of a host")
        if parts.scheme == "http" and not self.may_be_plain(parts.netloc):
            raise InvalidArgument(f"the mirror {address} has no TLS: use https, or name {parts.netloc} as insecure")
        return Endpoint(
            host=parts.netloc,
            schemes=(parts.scheme,),
            path=parts.path.rstrip("/"),
            credentials_for=parts.netloc,
            mirror=True,
        )

    def may_be_plain(self, host: str) -> bool:
        """Whether *host* may be spoken to without TLS: this machine itself, or whoever the user consented to."""
        return host in self.insecure or _host_only(host) in self.insecure or is_loopback(host)


@attrs.frozen(kw_only=True)
class Endpoint:
    """One host that has what a registry should have."""

    host: str  # with its port
    schemes: tuple[str, ...]  # to be tried in this order
    path: str = ""  # before /v2
    credentials_for: str  # the registry whose credentials may go there
    mirror: bool = False


def _host_only(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[")
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether *host*, with or without a port, is this machine by its very name."""
    name = _host_only(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def certificate_files(config: RegistryConfig, host: str) -> tuple[list[str], tuple[str, str] | None]:
    """The authorities for *host*, and a client's certificate and key, of the first folder that has any (certs.d)."""
    for top in config.certificates:
        folder = os.path.join(top, host)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        authorities = [os.path.join(folder, name) for name in names if name.endswith(".crt")]
        client: tuple[str, str] | None = None
        for name in names:
            if name.endswith(".cert"):
                key = name[: -len(".cert")] + ".key"
                if key not in names:
                    raise InvalidArgument(f"{folder} has {name} but not its {key}")
                client = (os.path.join(folder, name), os.path.join(folder, key))
        return authorities, client
    return [], None
