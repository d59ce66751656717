"""What wherry raises: one hierarchy under `WherryError`. Each error says what was tried, on what, and what to do."""

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

WherryError = Error

__all__ = [
    "AlreadyExists",
    "CommandFailed",
    "Conflict",
    "ContainerError",
    "ContainerNotFound",
    "DataLoss",
    "Error",
    "ExecNotFound",
    "ExecutableNotFound",
    "ExecutableNotRunnable",
    "InvalidArgument",
    "NameInUse",
    "NetworkInUse",
    "NetworkNotFound",
    "NotFound",
    "NotHealthy",
    "NotReady",
    "NotRunning",
    "PermissionDenied",
    "PortInUse",
    "StartFailed",
    "Unavailable",
    "Unsupported",
    "UserNotFound",
    "VolumeInUse",
    "VolumeNotFound",
    "WherryError",
]

_SHOWN_OUTPUT = 2048  # bytes of each stream in an error's text


class NotRunning(Conflict):
    """The container does not run, and must for this: `container`, `status`."""

    def __init__(self, container: str, status: str, doing: str) -> None:
        super().__init__(f"cannot {doing} container {container}: it is not running but {status}; start it first")
        self.container, self.status = container, status


class ContainerNotFound(NotFound):
    """No container of that name, id or id prefix."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such container: {name!r}; `wherry ps --all` lists them")
        self.name = name


class NetworkNotFound(NotFound):
    """No network of that name, id or id prefix."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no network is called {name!r}: create it, or list those that are there")
        self.name = name


class NetworkInUse(Conflict):
    """Containers are in the network: `name`, `count`."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(f"network {name!r} has {count} containers: remove or disconnect them first")
        self.name, self.count = name, count


class ExecNotFound(NotFound):
    """No exec of that id: it never was, its container has ended, or it has been forgotten."""

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"no such exec: {exec_id!r}; those that ended are forgotten in time, or with their container")
        self.exec_id = exec_id


class VolumeNotFound(NotFound):
    """No volume of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such volume: {name!r}; `wherry volume ls` lists them")
        self.name = name


class VolumeInUse(Conflict):
    """Containers have the volume: `name`, `containers` (their ids)."""

    def __init__(self, name: str, containers: "list[str]") -> None:
        shown = ", ".join(container[:12] for container in containers)
        super().__init__(f"volume {name!r} is in use by {shown}: remove these containers first")
        self.name, self.containers = name, containers


class NameInUse(AlreadyExists, Conflict):
    """Another container has the name: `name`, `container_id`."""

    def __init__(self, name: str, container_id: str) -> None:
        super().__init__(
            f"the container name {name!r} is in use by container {container_id[:12]}: remove or rename that one, "
            "or choose another name"
        )
        self.name, self.container_id = name, container_id


class StartFailed(Unavailable):
    """A container could not be started: the `step` that failed, the `path` it was on, and the kernel's `errno`."""

    def __init__(self, container: str, message: str, step: str = "", path: str = "", errno: int = 0) -> None:
        super().__init__(f"container {container} did not start: {message}")
        self.container, self.step, self.path, self.errno = container, step, path, errno


class NotHealthy(Unavailable):
    """A container that was waited for is unhealthy, or has ended: `container`, `status`, and what it `said` last."""

    def __init__(self, container: str, status: str, said: str) -> None:
        super().__init__(f"container {container} is {status}: {said.strip()[-_SHOWN_OUTPUT:] or 'it said nothing'}")
        self.container, self.status, self.said = container, status, said


class NotReady(Unavailable):
    """A container has ended before it was ready: `container`, `status`, and the end of what it `said`."""

    def __init__(self, container: str, status: str, wanted: object, said: str) -> None:
        super().__init__(
            f"container {container} is {status} and was not ready ({wanted}): "
            f"{said.strip()[-_SHOWN_OUTPUT:] or 'it said nothing'}"
        )
        self.container, self.status, self.said = container, status, said


class ExecutableNotFound(StartFailed, NotFound):
    """The program is not in the image. A shell would say 127."""

    exit_code = 127


class ExecutableNotRunnable(StartFailed, PermissionDenied):
    """The program is there and cannot be executed. A shell would say 126."""

    exit_code = 126


class UserNotFound(StartFailed, NotFound):
    """The user or group is not in the image's /etc/passwd or /etc/group."""


# a shim's or runtime's `kind` of failure (wherry_oci.runtime.failure): the class for it; StartFailed for others
START_FAILURES: dict[str, type[StartFailed]] = {
    "not_found": ExecutableNotFound,
    "not_executable": ExecutableNotRunnable,
    "no_such_user": UserNotFound,
}


class PortInUse(StartFailed, Conflict):
    """The host's port is taken: `address`, `port`, `protocol`, and `holder` where /proc tells."""

    def __init__(
        self, container: str, message: str, address: str, port: int, protocol: str, holder: str | None
    ) -> None:
        super().__init__(container, message, "publish port")
        self.address, self.port, self.protocol, self.holder = address, port, protocol, holder


def _tail(output: bytes) -> str:
    text = output[-_SHOWN_OUTPUT:].decode("utf-8", "replace").strip()
    return f"…{text}" if len(output) > _SHOWN_OUTPUT else text


class CommandFailed(Error):
    """A program ended with another exit code than 0: `exit_code`, `stdout`, `stderr`, `command`."""

    def __init__(self, what: str, command: tuple[str, ...], exit_code: int, stdout: bytes, stderr: bytes) -> None:
        said = _tail(stderr) or _tail(stdout)
        super().__init__(
            f"{what}: {' '.join(command) or 'its default command'} ended with exit code {exit_code}: {said}"
        )
        self.command, self.exit_code, self.stdout, self.stderr = command, exit_code, stdout, stderr


class ContainerError(CommandFailed):
    """A container that was run to its end failed: `container_id` and `exit` (its exit record) beside the output."""

    def __init__(
        self, container_id: str, command: tuple[str, ...], exit_code: int, stdout: bytes, stderr: bytes
    ) -> None:
        super().__init__(f"container {container_id[:12]}", command, exit_code, stdout, stderr)
        self.container_id = container_id
