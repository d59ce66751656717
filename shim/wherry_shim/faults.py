"""What went wrong, for whoever asked for it, and for whoever looks afterwards."""

from wherry_oci.errors import Error
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def report_of(error: BaseException) -> "dict[str, Any]":
    """*error* as the starter gets it: `kind`, `message`, and the facts of its class."""
    if isinstance(error, RuntimeFailure):
        return {**error.to_json(), "text": str(error)}
    if hasattr(error, "facts"):
        return {"kind": error.kind, "message": str(error), "text": str(error), **error.facts()}  # type: ignore[attr-defined]
    if isinstance(error, OSError):
        return {"kind": "system", "message": os_error_text(error), "text": os_error_text(error), "errno": error.errno}
    text = f"{type(error).__name__}: {error}"
    return {"kind": "system", "message": text, "text": text}


def failure_of(error: BaseException) -> RuntimeFailure:
    """*error* as what failed when a container was made."""
    if isinstance(error, RuntimeFailure):
        return error
    if isinstance(error, OSError):
        return RuntimeFailure.from_os_error("create", error)
    return RuntimeFailure("system", "create", f"{type(error).__name__}: {error}")


def note(run_directory: str, error: BaseException) -> None:
    """Keep a fault's traceback in `shim.log`; a failure that was foreseen has been reported."""
    if isinstance(error, Error):
        return
    import traceback

    try:
        with open(f"{run_directory}/shim.log", "a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        pass
