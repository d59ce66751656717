"""Where an engine is, and what shows that it is the right one: `unix://`, `tcp://`, `ssh://`, contexts, variables."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from wherry_oci.errors import InvalidArgument, NotFound

DEFAULT = "unix:///var/run/docker.sock"  # where docker's daemon listens
OURS = "unix:///run/wherry/docker.sock"  # where wherry's does
_PORT, _TLS_PORT = 2375, 2376


@attrs.frozen(kw_only=True)
class Tls:
    """Files in PEM; `ca` None: the machine's own authorities."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True


@attrs.frozen(kw_only=True)
class Address:
    """One engine's: `scheme` is unix (`path`), tcp (`host`, `port`, perhaps `tls`) or ssh (`destination`)."""

    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0
    destination: str = ""  # as ssh(1) takes it: user@host
    tls: Tls | None = None

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        if self.scheme == "ssh":
            return f"ssh://{self.destination}" + (f":{self.port}" if self.port else "")
        return f"tcp://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse(text: str, tls: Tls | None = None) -> Address:
    """Raises InvalidArgument."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise InvalidArgument(f"host {text!r} is not unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST")
    if scheme == "unix":
        if not rest.startswith("/"):
            raise InvalidArgument(f"host {text!r}: the socket's path must be absolute")
        return Address(scheme=scheme, path=rest)
    if scheme not in ("tcp", "http", "https", "ssh"):
        raise InvalidArgument(f"host {text!r}: unix, tcp and ssh are known, not {scheme!r}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidArgument(f"host {text!r}: {error}") from None
    if not host and scheme == "ssh":
        raise InvalidArgument(f"host {text!r} names no host")
    if scheme == "ssh":
        if host.startswith("-") or parts.path not in ("", "/"):
            raise InvalidArgument(f"host {text!r} is not ssh://[USER@]HOST[:PORT]")
        destination = f"{parts.username}@{host}" if parts.username else host
        return Address(scheme=scheme, destination=destination, port=port or 0)
    if scheme == "https" and tls is None:
        tls = Tls()
    port = port or (_TLS_PORT if tls else _PORT)
    return Address(scheme="tcp", host=host or "localhost", port=port, tls=tls)


def find(environment: Mapping[str, str] = os.environ) -> Address:
    """
    As the docker command finds its engine: DOCKER_HOST with the TLS variables, else DOCKER_CONTEXT, else the context
    that `docker context use` has chosen, else docker's own socket. Raises InvalidArgument, NotFound.
    """
    if host := environment.get("DOCKER_HOST"):
        return of_host(host, environment)
    folder = _configuration(environment)
    name = environment.get("DOCKER_CONTEXT") or _chosen(folder)
    if name and name != "default":
        return context(name, folder)
    return parse(DEFAULT)


def of_host(host: str, environment: Mapping[str, str] = os.environ) -> Address:
    """*host* with what the TLS variables say. Raises InvalidArgument."""
    return parse(host, _tls_of(environment) if host.startswith(("tcp:", "http")) else None)


def context(name: str, folder: Path | None = None) -> Address:
    """The address of docker's context *name* (`docker context create`). Raises NotFound, InvalidArgument."""
    folder = _configuration(os.environ) if folder is None else folder
    key = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((folder / "contexts" / "meta" / key / "meta.json").read_bytes())
    except FileNotFoundError:
        raise NotFound(f"no context {name!r} in {folder}: `docker context ls` shows those that are there") from None
    except ValueError as error:
        raise InvalidArgument(f"context {name!r} in {folder}: {error}") from None
    endpoint: dict[str, Any] = (meta.get("Endpoints") or {}).get("docker") or {}
    files = folder / "contexts" / "tls" / key / "docker"
    tls = _tls_in(files, verify=not endpoint.get("SkipTLSVerify")) if files.is_dir() else None
    if tls is None and endpoint.get("SkipTLSVerify"):
        tls = Tls(verify=False)
    return parse(endpoint.get("Host") or DEFAULT, tls)


def _configuration(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _chosen(folder: Path) -> str:
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return ""
    return str(found.get("currentContext") or "") if isinstance(found, dict) else ""


def _tls_of(environment: Mapping[str, str]) -> Tls | None:
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as docker-py reads them: any text but none verifies."""
    verify, folder = environment.get("DOCKER_TLS_VERIFY"), environment.get("DOCKER_CERT_PATH")
    if not verify and not folder:
        return None
    return _tls_in(Path(folder) if folder else _configuration(environment), verify=bool(verify))


def _tls_in(folder: Path, *, verify: bool) -> Tls:
    def there(name: str) -> str | None:
        return str(folder / name) if (folder / name).exists() else None

    return Tls(ca=there("ca.pem"), certificate=there("cert.pem"), key=there("key.pem"), verify=verify)
