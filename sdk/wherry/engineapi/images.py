"""Images, and the messages that tell of their coming and going."""

import attrs

from wherry.engineapi.configs import GraphDriverData, HealthConfig
from wherry.engineapi.document import Names, Words, field


@attrs.frozen(kw_only=True)
class ImageSummary:
    """Each of `GET /images/json`."""

    id: str = ""
    parent_id: str = ""
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    created: int = 0  # seconds since 1970
    size: int = 0  # bytes
    virtual_size: int = field(default=0, omitempty=True)
    shared_size: int = -1  # bytes; -1 where nobody has counted
    labels: dict[str, str] | None = None
    containers: int = -1


@attrs.frozen(kw_only=True)
class ImageConfig:
    """What an image's containers start with."""

    user: str = ""
    env: list[str] | None = None
    cmd: Words | None = None
    entrypoint: Words | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = field(omitempty=True)  # seconds
    on_build: list[str] | None = None
    shell: list[str] | None = None
    exposed_ports: Names | None = None
    volumes: Names | None = None
    healthcheck: HealthConfig | None = field(omitempty=True)
    hostname: str = ""
    domainname: str = ""
    image: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    args_escaped: bool = field(default=False, omitempty=True)


@attrs.frozen(kw_only=True)
class RootFS:
    """An image's layers, the lowest first, by the digests of their uncompressed tars."""

    type: str = ""
    layers: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class ImageMetadata:
    """What an engine knows of an image beside the image."""

    last_tag_time: str = ""


@attrs.frozen(kw_only=True)
class ImageDescriptor:
    """An image's manifest (image-spec descriptor.md)."""

    media_type: str = field("mediaType", default="")
    digest: str = field("digest", default="")
    size: int = field("size", default=0)


@attrs.frozen(kw_only=True)
class ImageInspect:
    """`GET /images/{name}/json`."""

    id: str = ""
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    parent: str = ""
    comment: str = ""
    created: str = ""
    docker_version: str = ""
    author: str = ""
    config: ImageConfig | None = None
    architecture: str = ""
    variant: str = field(default="", omitempty=True)
    os: str = ""
    size: int = 0  # bytes
    virtual_size: int = field(default=0, omitempty=True)
    graph_driver: GraphDriverData = attrs.field(factory=GraphDriverData)
    root_fs: RootFS = field("RootFS", factory=RootFS)
    metadata: ImageMetadata = attrs.field(factory=ImageMetadata)
    descriptor: ImageDescriptor | None = field(omitempty=True)


@attrs.frozen(kw_only=True)
class HistoryItem:
    """Each of `GET /images/{name}/history`, the newest first."""

    id: str = ""
    created: int = 0  # seconds since 1970
    created_by: str = ""
    tags: list[str] | None = None
    size: int = 0  # bytes
    comment: str = ""


@attrs.frozen(kw_only=True)
class ImageDeleted:
    """What became of an image or of one of its names: one of the two."""

    untagged: str = field(default="", omitempty=True)
    deleted: str = field(default="", omitempty=True)


@attrs.frozen(kw_only=True)
class ImagesPruned:
    """The answer to `POST /images/prune`."""

    images_deleted: list[ImageDeleted] | None = None
    space_reclaimed: int = 0  # bytes


@attrs.frozen(kw_only=True)
class SearchResult:
    """Each of `GET /images/search`."""

    name: str = field("name", default="")
    description: str = field("description", default="")
    star_count: int = field("star_count", default=0)
    is_official: bool = field("is_official", default=False)
    is_automated: bool = field("is_automated", default=False)


@attrs.frozen(kw_only=True)
class Committed:
    """The answer to `POST /commit`."""

    id: str = ""


@attrs.frozen(kw_only=True)
class Platform:
    """What an image runs on (image-spec image-index.md, "platform")."""

    architecture: str = field("architecture", default="")
    os: str = field("os", default="")
    os_version: str = field("os.version", default="", omitempty=True)
    os_features: list[str] = field("os.features", factory=list, omitempty=True)
    variant: str = field("variant", default="", omitempty=True)


@attrs.frozen(kw_only=True)
class DistributionInspect:
    """`GET /distribution/{name}/json`."""

    descriptor: ImageDescriptor = attrs.field(factory=ImageDescriptor)
    platforms: list[Platform] = attrs.field(factory=list)


# What a pull, push or load tells, a line each.


@attrs.frozen(kw_only=True)
class ProgressDetail:
    """How far one layer is, in bytes."""

    current: int = field("current", default=0, omitempty=True)
    total: int = field("total", default=0, omitempty=True)


@attrs.frozen(kw_only=True)
class ErrorDetail:
    """Why it failed."""

    code: int = field("code", default=0, omitempty=True)
    message: str = field("message", default="")


@attrs.frozen(kw_only=True)
class PushResult:
    """What a push has made in the registry."""

    tag: str = ""
    digest: str = ""
    size: int = 0


@attrs.frozen(kw_only=True)
class JSONMessage:
    """A line of what the engine tells while it works."""

    stream: str = field("stream", default="", omitempty=True)
    status: str = field("status", default="", omitempty=True)
    progress_detail: ProgressDetail | None = field("progressDetail", omitempty=True)
    id: str = field("id", default="", omitempty=True)
    error_detail: ErrorDetail | None = field("errorDetail", omitempty=True)
    error: str = field("error", default="", omitempty=True)
    aux: PushResult | None = field("aux", omitempty=True)
