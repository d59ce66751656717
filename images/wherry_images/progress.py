"""What a pull or a push tells while it runs."""

from typing import Literal

import attrs

Phase = Literal[
    "resolving",  # asking the registry what the name stands for
    "waiting",  # another process is fetching the same
    "downloading",
    "unpacking",
    "uploading",
    "mounted",  # the registry had it in another repository
    "exists",  # it was there already
    "done",
]


@attrs.frozen
class PullEvent:
    """One step: *layer* is the digest of the layer as stored, "" for the image as a whole."""

    layer: str
    phase: Phase
    current: int = 0  # bytes
    total: int | None = None  # bytes, None where nobody knows


@attrs.frozen
class PushEvent:
    """As PullEvent, of a push."""

    layer: str
    phase: Phase
    current: int = 0
    total: int | None = None
