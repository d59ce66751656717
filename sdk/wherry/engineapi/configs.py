"""What containers and images both have."""

import attrs


@attrs.frozen(kw_only=True)
class HealthConfig:
    """How health is probed; times in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@attrs.frozen(kw_only=True)
class GraphDriverData:
    """Where the layers are on the engine's host."""

    name: str = ""
    data: dict[str, str] | None = None
