"""Volumes."""

import attrs

from wherry.engineapi.document import field


@attrs.frozen(kw_only=True)
class UsageData:
    """How much room a volume takes; -1 where nobody has counted."""

    size: int = -1  # bytes
    ref_count: int = -1


@attrs.frozen(kw_only=True)
class Volume:
    """`GET /volumes/{name}`, and each of `GET /volumes`."""

    name: str = ""
    driver: str = ""
    mountpoint: str = ""
    created_at: str = ""
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    scope: str = ""
    usage_data: UsageData | None = field(omitempty=True)  # in `GET /system/df` alone


@attrs.frozen(kw_only=True)
class VolumeList:
    """The answer to `GET /volumes`."""

    volumes: list[Volume] | None = None
    warnings: list[str] | None = None


@attrs.frozen(kw_only=True)
class VolumeCreate:
    """The body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class VolumesPruned:
    """The answer to `POST /volumes/prune`."""

    volumes_deleted: list[str] | None = None
    space_reclaimed: int = 0  # bytes
