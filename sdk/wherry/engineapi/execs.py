"""Further processes of containers."""

import attrs

from wherry.engineapi.document import Words, field


@attrs.frozen(kw_only=True)
class ExecCreate:
    """The body of `POST /containers/{id}/exec`."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach: bool = False
    detach_keys: str = ""
    console_size: list[int] | None = None  # rows, columns
    env: list[str] | None = None
    working_dir: str = ""
    cmd: Words | None = None


@attrs.frozen(kw_only=True)
class ExecCreated:
    """The answer to `POST /containers/{id}/exec`."""

    id: str = ""


@attrs.frozen(kw_only=True)
class ExecStart:
    """The body of `POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None  # rows, columns


@attrs.frozen(kw_only=True)
class ProcessConfig:
    """What an exec runs; the API has these names in lower case."""

    tty: bool = field("tty", default=False)
    entrypoint: str = field("entrypoint", default="")
    arguments: list[str] = field("arguments", factory=list)
    privileged: bool = field("privileged", default=False)
    user: str = field("user", default="", omitempty=True)


@attrs.frozen(kw_only=True)
class ExecInspect:
    """`GET /exec/{id}/json`."""

    id: str = field("ID", default="")
    container_id: str = field("ContainerID", default="")
    running: bool = False
    exit_code: int | None = None  # of one that has not ended: null
    pid: int = 0
    process_config: ProcessConfig = attrs.field(factory=ProcessConfig)
    open_stdin: bool = False
    open_stdout: bool = False
    open_stderr: bool = False
    detach_keys: str = ""
    can_remove: bool = False
