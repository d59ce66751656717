"""
What an image says of itself: the platform, the configuration of its containers, its history.

These few classes are on the way of every container's start; the documents around them are in `manifest`.
"""

import attrs


def _json(name: str) -> dict[str, str]:
    return {"json": name}


@attrs.frozen(kw_only=True)
class Platform:
    """What an image runs on (image-index.md, "platform")."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = attrs.field(default="", metadata=_json("os.version"))
    os_features: tuple[str, ...] = attrs.field(default=(), metadata=_json("os.features"))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@attrs.frozen(kw_only=True)
class Healthcheck:
    """How a container's health is probed (Docker's addition; times in ns)."""

    test: tuple[str, ...] = attrs.field(default=(), metadata=_json("Test"))
    interval: int = attrs.field(default=0, metadata=_json("Interval"))
    timeout: int = attrs.field(default=0, metadata=_json("Timeout"))
    start_period: int = attrs.field(default=0, metadata=_json("StartPeriod"))
    start_interval: int = attrs.field(default=0, metadata=_json("StartInterval"))
    retries: int = attrs.field(default=0, metadata=_json("Retries"))


@attrs.frozen(kw_only=True)
class ImageConfig:
    """What a container of the image starts with (config.md, "config", and Docker's additions)."""

    user: str = attrs.field(default="", metadata=_json("User"))
    exposed_ports: tuple[str, ...] = attrs.field(default=(), metadata=_json("ExposedPorts"))
    env: tuple[str, ...] = attrs.field(default=(), metadata=_json("Env"))
    entrypoint: tuple[str, ...] | None = attrs.field(default=None, metadata=_json("Entrypoint"))
    cmd: tuple[str, ...] | None = attrs.field(default=None, metadata=_json("Cmd"))
    volumes: tuple[str, ...] = attrs.field(default=(), metadata=_json("Volumes"))
    working_dir: str = attrs.field(default="", metadata=_json("WorkingDir"))
    labels: dict[str, str] = attrs.field(factory=dict, metadata=_json("Labels"))
    stop_signal: str = attrs.field(default="", metadata=_json("StopSignal"))
    stop_timeout: int | None = attrs.field(default=None, metadata=_json("StopTimeout"))
    healthcheck: Healthcheck | None = attrs.field(default=None, metadata=_json("Healthcheck"))
    shell: tuple[str, ...] = attrs.field(default=(), metadata=_json("Shell"))
    on_build: tuple[str, ...] = attrs.field(default=(), metadata=_json("OnBuild"))
    args_escaped: bool = attrs.field(default=False, metadata=_json("ArgsEscaped"))


@attrs.frozen(kw_only=True)
class History:
    """How one layer, or nothing, was made (config.md, "history")."""

    created: str = ""  # RFC 3339
    created_by: str = attrs.field(default="", metadata=_json("created_by"))
    author: str = ""
    comment: str = ""
    empty_layer: bool = attrs.field(default=False, metadata=_json("empty_layer"))
