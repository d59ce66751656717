"""Credentials for registries, from where docker keeps them: config.json, its helper programs, DOCKER_AUTH_CONFIG."""

import base64
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs

from wherry_images.errors import CredentialHelperFailed
from wherry_images.layout import replace_file
from wherry_images.reference import DEFAULT_REGISTRY
from wherry_oci.errors import InvalidArgument

_DOCKER_HUB = "https://index.docker.io/v1/"  # the key under which docker has always kept Docker Hub's
_TOKEN_USER = "<token>"  # by which helpers mark that the secret is an identity token
_HELPER_TIMEOUT_S = 60


@attrs.frozen(kw_only=True)
class Credentials:
    """A user's name and password, or an identity token to get access tokens with, or an access token."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    registry_token: str = attrs.field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def config_path(environment: Mapping[str, str] | None = None) -> str:
    """Where docker's config.json is for this user."""
    environment = os.environ if environment is None else environment
    folder = environment.get("DOCKER_CONFIG") or os.path.join(
        environment.get("HOME") or os.path.expanduser("~"), ".docker"
    )
    return os.path.join(folder, "config.json")


def find_credentials(registry: str, *, path: str | None = None) -> Credentials | None:
    """
    What the user has for *registry* (`docker.io`, `host[:port]`), None for nothing.

    In docker's order: DOCKER_AUTH_CONFIG, then a helper for this registry, the store of all, and the file's own.
    *path* is a config.json to be taken instead of all these. Raises CredentialHelperFailed, InvalidArgument if the
    file is broken.
    """
    if path is None:
        given = os.environ.get("DOCKER_AUTH_CONFIG")
        if given and (found := _in_auths(_loads(given, "DOCKER_AUTH_CONFIG"), registry)):
            return found
        path = config_path()
    config = load_config(path)
    helper = _helper_for(config, registry)
    if helper:
        found = _ask_helper(helper, registry)
        if found is not None:
            return found
    return _in_auths(config, registry)


def load_config(path: str) -> dict[str, Any]:
    """docker's config.json, {} if there is none. Raises InvalidArgument if it is broken."""
    try:
        with open(path, encoding="utf-8") as file:
            return _loads(file.read(), path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}; name another by DOCKER_CONFIG") from error


def _loads(text: str, what: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidArgument(f"{what} is no JSON object")
    return config


def registry_of(key: str) -> str:
    """The registry that a key of config.json means: a host name, or an address from docker's early days."""
    host = key.partition("://")[2] if "://" in key else key
    host = host.partition("/")[0].lower()
    return DEFAULT_REGISTRY if host in ("index.docker.io", "registry-1.docker.io", "docker.io") else host


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _in_auths(config: Mapping[str, Any], registry: str) -> Credentials | None:
    for key, entry in _section(config, "auths").items():
        if registry_of(key) != registry.lower() or not isinstance(entry, dict):
            continue
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                username, _, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
            except ValueError:
                raise InvalidArgument(f"config.json: the auth of {key!r} is not in base 64; log in again") from None
        found = Credentials(
            username=username,
            password=password.rstrip("\0"),
            identity_token=str(entry.get("identitytoken") or ""),
            registry_token=str(entry.get("registrytoken") or ""),
        )
        if found != Credentials():
            return found
    return None


def _helper_for(config: Mapping[str, Any], registry: str) -> str:
    for key, helper in _section(config, "credHelpers").items():
        if registry_of(key) == registry.lower():
            return str(helper)
    return str(config.get("credsStore") or "")


def _helper_key(registry: str) -> str:
    return _DOCKER_HUB if registry == DEFAULT_REGISTRY else registry


def _ask_helper(helper: str, registry: str) -> Credentials | None:
    said = _run_helper(helper, "get", _helper_key(registry).encode())
    if said is None:
        return None
    answer = _loads(said, f"the answer of docker-credential-{helper}")
    username, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)


def _run_helper(helper: str, action: str, given: bytes) -> str | None:
    """Run a credential helper (docker-credential-helpers' protocol); None if it has nothing of that name."""
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise InvalidArgument(f"config.json: {helper!r} is no name of a credential helper")
    try:
        done = subprocess.run(  # the user's own choice, by config.json
            [program, action], input=given, capture_output=True, timeout=_HELPER_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise CredentialHelperFailed(
            f"config.json names the credential helper {program}, which is not on PATH; install it or take it out"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialHelperFailed(f"{program} {action} failed: {error}") from error
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return said
    if "credentials not found" in said.lower():
        return None
    complaint = said or done.stderr.decode("utf-8", "replace").strip()
    raise CredentialHelperFailed(f"{program} {action} failed with status {done.returncode}: {complaint[:500]}")


def store_credentials(registry: str, credentials: Credentials, *, path: str | None = None) -> str:
    """Remember *credentials* where docker would; tells where. The file is replaced whole, with mode 0600."""
    path = path or config_path()
    config = load_config(path)
    helper = _helper_for(config, registry)
    key = _helper_key(registry)
    if helper:
        secret = credentials.identity_token or credentials.password
        user = _TOKEN_USER if credentials.identity_token else credentials.username
        _run_helper(helper, "store", json.dumps({"ServerURL": key, "Username": user, "Secret": secret}).encode())
        return f"docker-credential-{helper}"
    auths = _section(config, "auths")
    entry = {"auth": credentials.basic.removeprefix("Basic ")}
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    config["auths"] = {**{known: value for known, value in auths.items() if registry_of(known) != registry}, key: entry}
    _save(path, config)
    return path


def erase_credentials(registry: str, *, path: str | None = None) -> bool:
    """Forget what is remembered for *registry*; tells whether there was anything."""
    path = path or config_path()
    config = load_config(path)
    helper = _helper_for(config, registry)
    had = False
    if helper:
        had = _ask_helper(helper, registry) is not None
        if had:
            _run_helper(helper, "erase", _helper_key(registry).encode())
    auths = _section(config, "auths")
    kept = {key: value for key, value in auths.items() if registry_of(key) != registry}
    if kept != auths:
        config["auths"] = kept
        _save(path, config)
        had = True
    return had


def _save(path: str, config: Mapping[str, Any]) -> None:
    with suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), mode=0o700)
    replace_file(os.path.realpath(path), json.dumps(config, indent="\t").encode() + b"\n")
