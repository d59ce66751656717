"""
A shim's first steps: `python -I -S -c … CONTAINER_DIRECTORY RUN_DIRECTORY`, as `wherry_shim.launch` starts it.

Descriptor 3 is the container's lock, held for as long as the shim lives; 4 takes the report to whoever started it:
one line of JSON, `{"ok": true, "state": …}` or `{"ok": false, …}`.
"""

import gc
import os
import sys

from wherry_oci.linux import process as p
from wherry_oci.runtime import quickjson

LOCK, REPORT = 3, 4
_FIRST_UNNEEDED = 5
_LARGEST_DESCRIPTOR = 1 << 20
_FAILED = 1


def main() -> None:
    """The whole life of a shim."""
    _detach()
    directory, run_directory = sys.argv[1:3]
    gc.disable()  # a start makes no garbage worth a search, and a search writes to pages shared with the child
    status = _FAILED
    try:
        status = _supervise(directory, run_directory)
    finally:
        os._exit(status)  # nothing is left to be done, and an interpreter's own end costs 2 ms


def _detach() -> None:
    """Be nobody's child but init's, and hold nothing of the starter's."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    os.closerange(_FIRST_UNNEEDED, _LARGEST_DESCRIPTOR)
    for fd in (LOCK, REPORT):
        os.set_inheritable(fd, False)
    p.set_child_subreaper()
    p.set_name(b"wherry-shim")


def _supervise(directory: str, run_directory: str) -> int:
    try:
        from wherry_shim.supervisor import Supervisor, report_of
    except BaseException as error:
        _report({"ok": False, "kind": "system", "message": str(error), "text": f"{type(error).__name__}: {error}"})
        raise
    try:
        with open(f"{directory}/shim.json", "rb") as file:
            supervisor = Supervisor(quickjson.loads(file.read()))
        state = supervisor.start()
    except BaseException as error:
        _report({"ok": False, **report_of(error)})
        _note(run_directory, error)
        return _FAILED
    _report({"ok": True, "state": state})
    os.close(REPORT)
    gc.freeze()
    gc.enable()
    try:
        supervisor.run()
    except BaseException as error:
        _note(run_directory, error)
        return _FAILED
    return 0


def _report(message: "dict[str, object]") -> None:
    try:
        os.write(REPORT, quickjson.dumps(message).encode("utf-8", "surrogateescape") + b"\n")
    except BrokenPipeError:  # the starter was killed: the container is what it wanted all the same
        pass


def _note(run_directory: str, error: BaseException) -> None:
    """Keep a fault's traceback for whoever looks; a failure that was foreseen has been reported."""
    from wherry_oci.errors import Error

    if isinstance(error, Error):
        return
    import traceback

    try:
        with open(f"{run_directory}/shim.log", "a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        pass
