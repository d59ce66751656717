"""What goes wrong, in HTTP and in Docker's words: clients choose what to do next by both."""

import re
from collections.abc import Callable
from typing import Any

from wherry.engineapi.system import ErrorResponse
from wherry.errors import (
    ContainerNotFound,
    ExecutableNotFound,
    ExecutableNotRunnable,
    NameInUse,
    NetworkInUse,
    NetworkNotFound,
    NotRunning,
    PortInUse,
    StartFailed,
    UserNotFound,
    VolumeInUse,
    VolumeNotFound,
)
from wherry_daemon.http import Json
from wherry_images.errors import AuthRequired, ImageInUse, ImageNotFound, ManifestUnknown, RateLimited
from wherry_images.reference import parse_reference
from wherry_oci.errors import (
    AlreadyExists,
    Conflict,
    DataLoss,
    Error,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)


class NotModified(Exception):
    """It is so already: 304."""


class BadParameter(InvalidArgument):
    """A request that Docker refuses with 400, in its words."""


class NotInSwarm(Unavailable):
    """Docker's answer of a machine that is in no swarm."""


class NoSuchEndpoint(NotFound):
    """Neither Docker nor wherry have it."""


# The first that fits.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotInSwarm, 503),
    (NetworkInUse, 403),
    (PortInUse, 500),
    (StartFailed, 400),
    (RateLimited, 429),
    (ManifestUnknown, 404),
    (AuthRequired, 404),
    (NotFound, 404),
    (InvalidArgument, 400),
    (AlreadyExists, 409),
    (Conflict, 409),
    (PermissionDenied, 403),
    (Unsupported, 501),
    (Unavailable, 500),
    (DataLoss, 500),
    (Error, 500),
    (TypeError, 400),
)


def refusal(error: Exception) -> Json:
    """The answer that *error* is: its class gives the status, Docker's error text what is known of it."""
    if isinstance(error, NotModified):
        return Json(status=304, document=None)
    status = next((number for kind, number in _STATUS if isinstance(error, kind)), 500)
    return Json(status=status, document=ErrorResponse(message=message(error)))


def message(error: Exception) -> str:
    """In Docker's words where clients look for them; else in ours."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words(error)
    if isinstance(error, Error | TypeError):
        return _reworded(str(error))
    return f"wherry failed: {type(error).__name__}"


def _reworded(text: str) -> str:
    for pattern, docker in _SENTENCES:
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return found.expand(docker)
    return text


_LOCAL_NAME = (
    r'create \1: "\1" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
    r"allowed. If you intended to pass a host directory, use absolute path"
)
# What an option's or a record's own check says, and Docker of the same.
_SENTENCES = (
    (r"filters: '(.*?)' is none of .*", r"invalid filter '\1'"),
    (r"working_dir='(.*)': .*", r"the working directory '\1' is invalid, it needs to be an absolute path"),
    (r"cap_add: '(.*)' is no capability.*", r'invalid CapAdd: unknown capability: "\1"'),
    (r"cap_drop: '(.*)' is no capability.*", r'invalid CapDrop: unknown capability: "\1"'),
    (r"mem_limit=\d+: at least .*", r"Minimum memory limit allowed is 6MB"),
    (r"name='(.*)': a name is .*", r"Invalid container name (\1), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    (r"security_opt: '(.*)' is no security option.*", r'invalid --security-opt 2: "\1"'),
    (
        r"volumes: (\S+) does not exist on the host.*",
        r'invalid mount config for type "bind": bind source path does not exist: \1',
    ),
    (r"volumes: '(.*)' is neither an absolute path nor a volume's name.*", _LOCAL_NAME),
    (r"volume name '(.*)': .*", _LOCAL_NAME),
    (r"signal '(.*)': no such signal.*", r"Invalid signal: \1"),
    (r"restart_policy=\{'Name': '(.*?)'.*", r"invalid restart policy '\1'"),
    (
        r"devices: the host has no (.*)",
        r'error gathering device information while adding custom device "\1": no such file or directory',
    ),
    (r"a network is called '(.*)' already.*", r"network with name \1 already exists"),
    (r"network '.*': driver '(.*)' is not supported.*", r'plugin "\1" not found'),
    (r"subnet '(.*?)': .*", r"Invalid subnet \1 : invalid CIDR address: \1"),
    (r"container (\S+) is in network '(.*)' already.*", r"endpoint with name \1 already exists in network \2"),
    (r"container (\S+) is not in network '(.*)'.*", r"container \1 is not connected to network \2"),
    (r"network '(.*)' is always there: .*", r"\1 is a pre-defined network and cannot be removed"),
)


def _name_in_use(error: NameInUse) -> str:
    return (
        f'Conflict. The container name "/{error.name}" is already in use by container "{error.container_id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def _start_failed(error: StartFailed, reason: str) -> str:
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"unable to start container process: {reason}"
    )


def _port_in_use(error: PortInUse) -> str:
    return (
        "driver failed programming external connectivity on endpoint "
        f"{error.container}: Bind for {error.address}:{error.port} failed: port is already allocated ({error})"
    )


def _user_of(error: UserNotFound) -> str:
    found = re.search(r"no (?:user|group) '?([^' ]+)'?", str(error))
    return found[1] if found else ""


def _image_not_found(error: ImageNotFound) -> str:
    return f"No such image: {tagged(error.name)}"


def tagged(name: str) -> str:
    """*name* with the tag that it has when it says none, as Docker writes it."""
    try:
        parsed = parse_reference(name)
    except InvalidArgument:
        return name
    if parsed.digest or name.startswith("sha256:") or name.endswith(f":{parsed.tag}"):
        return name
    return f"{name}:{parsed.tag}"


def _volume_in_use(error: VolumeInUse) -> str:
    return f"remove {error.name}: volume is in use - [{', '.join(error.containers)}]"


_WORDS: tuple[tuple[type[Exception], Callable[[Any], str]], ...] = (
    (ContainerNotFound, lambda error: f"No such container: {error.name}"),
    (ImageNotFound, _image_not_found),
    (ImageInUse, lambda error: f"conflict: unable to delete {error.image}: {error}"),
    (VolumeNotFound, lambda error: f"get {error.name}: no such volume"),
    (VolumeInUse, _volume_in_use),
    (NetworkNotFound, lambda error: f"network {error.name} not found"),
    (NetworkInUse, lambda error: f"error while removing network: network {error.name} has active endpoints"),
    (UserNotFound, lambda error: f"unable to find user {_user_of(error)}: no matching entries in passwd file"),
    (NameInUse, _name_in_use),
    (NotRunning, lambda error: f"container {error.container} is not running"),
    (PortInUse, _port_in_use),
    (
        ExecutableNotFound,
        lambda error: _start_failed(error, f'exec: "{error.path}": executable file not found in $PATH: unknown'),
    ),
    (
        ExecutableNotRunnable,
        lambda error: _start_failed(error, f'exec: "{error.path}": permission denied: unknown'),
    ),
    (StartFailed, lambda error: _start_failed(error, str(error))),
    (
        ManifestUnknown,
        lambda error: f"manifest unknown: {error}",
    ),
    (
        AuthRequired,
        lambda error: f"pull access denied, repository does not exist or may require 'docker login': denied: {error}",
    ),
)
