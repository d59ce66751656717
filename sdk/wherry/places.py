"""Where wherry keeps things, when nobody says otherwise."""

import os

DEFAULT_ROOT = "/var/lib/wherry"
DEFAULT_RUN = "/run/wherry"


def root_directory(given: "str | os.PathLike[str] | None" = None) -> str:
    """Images and containers: *given*, WHERRY_ROOT, or the default."""
    return os.path.abspath(given or os.environ.get("WHERRY_ROOT") or DEFAULT_ROOT)


def run_directory(given: "str | os.PathLike[str] | None" = None, root: "str | os.PathLike[str] | None" = None) -> str:
    """What lives only while containers do: *given*, WHERRY_RUN, `run` below a *root* that was given, or the default."""
    chosen = given or os.environ.get("WHERRY_RUN")
    if chosen:
        return os.path.abspath(chosen)
    if root or os.environ.get("WHERRY_ROOT"):
        return f"{root_directory(root)}/run"
    return DEFAULT_RUN
