"""
The `wherry` command: docker's verbs, flags and columns, by this process alone or, with `-H`, by an engine elsewhere.

`wherry run` reserves its container's place, shim included, before the rest of the command is imported: the shim's
interpreter starts beside ours, on another processor.
"""

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from wherry.reservation import Reservation

gc.set_threshold(100_000)  # a command makes little garbage, and searching its imports for some costs 5 ms


def main() -> "NoReturn":
    """Run the command line."""
    place = _reserve(sys.argv[1:])
    from wherry.cli.main import run

    code = run(place)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an interpreter's own end costs 5 ms, and nothing is left for it to do


def _reserve(arguments: list[str]) -> "Reservation | None":
    """For `wherry run …` in its plainest form; whatever fails here fails again, with words, where it is looked at."""
    plain = arguments[:1] == ["run"] and len(arguments) > 1 and "--help" not in arguments
    if not plain or os.geteuid() != 0 or os.environ.get("WHERRY_HOST"):
        return None
    from wherry.places import root_directory
    from wherry.reservation import Reservation, modules_for

    published = any(word.startswith(("-p", "-P", "--publish")) for word in arguments)
    try:
        return Reservation(root_directory(), ahead=modules_for("bridge", ports=published))
    except OSError:
        return None


__all__ = ["main"]
