"""Where wherry keeps things, when nobody says otherwise: root in the system's directories, a user in his own."""

import os

DEFAULT_ROOT = "/var/lib/wherry"
DEFAULT_RUN = "/run/wherry"


def root_directory(given: "str | os.PathLike[str] | None" = None) -> str:
    """Images and containers: *given*, WHERRY_ROOT, or the default."""
    return os.path.abspath(given or os.environ.get("WHERRY_ROOT") or _default_root())


def run_directory(given: "str | os.PathLike[str] | None" = None, root: "str | os.PathLike[str] | None" = None) -> str:
    """What lives only while containers do: *given*, WHERRY_RUN, `run` below a *root* that was given, or the default."""
    chosen = given or os.environ.get("WHERRY_RUN")
    if chosen:
        return os.path.abspath(chosen)
    if root or os.environ.get("WHERRY_ROOT"):
        return f"{root_directory(root)}/run"
    return DEFAULT_RUN if os.geteuid() == 0 else holder_directory()


def _default_root() -> str:
    if os.geteuid() == 0:
        return DEFAULT_ROOT
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return f"{base}/wherry"


def holder_directory() -> str:
    """
    Where the holder of an ordinary user's namespaces is recorded, and what lives only while containers do.

    Where no XDG_RUNTIME_DIR is, below /tmp, whose files of others are known by their owner.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    return f"{base}/wherry" if base else f"/tmp/wherry-{os.geteuid()}"
