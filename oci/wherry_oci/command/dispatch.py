"""From a command line to what does it; and how failures are told."""

import os
import sys

from wherry_oci.command.arguments import FLAGS, Request
from wherry_oci.errors import Error, InvalidArgument

_FAILED, _EXEC_FAILED = 1, 255
_LIFECYCLE = frozenset(("create", "run", "start", "state", "kill", "delete", "exec"))


class Report:
    """Where messages go: standard error, and the file of `--log` as text or JSON lines, which engines read."""

    def __init__(self, path: str | None, format: str) -> None:
        self._path, self._format = path, format

    def warn(self, message: str) -> None:
        self._log("warning", message)
        if self._path is None:
            _write(f"warning: {message}")

    def error(self, message: str) -> None:
        self._log("error", message)
        _write(message)

    def _log(self, level: str, message: str) -> None:
        if self._path is None:
            return
        from wherry_oci.runtime.quickjson import dumps
        from wherry_oci.runtime.statefile import timestamp

        if self._format == "json":
            line = dumps({"level": level, "msg": message, "time": timestamp()})
        else:
            line = f"time={dumps(timestamp())} level={level} msg={dumps(message)}"
        try:
            with open(self._path, "ab") as file:
                file.write(line.encode("utf-8", "surrogateescape") + b"\n")
        except OSError as error:
            _write(f"cannot write to --log {self._path}: {error.strerror}")


def _write(message: str) -> None:
    try:
        os.write(2, f"wherry-oci: {message}\n".encode("utf-8", "surrogateescape"))
    except OSError:  # nobody listens
        pass


def dispatch(arguments: list[str]) -> int:
    """Do what *arguments* ask for; the exit status."""
    _open_streams()
    report = Report(None, "text")
    failed = _FAILED
    try:
        request = Request(arguments)
        report = Report(request.globals.get("log"), request.globals.get("log-format", "text"))
        if request.command == "exec":
            failed = _EXEC_FAILED
        return _do(request, report)
    except Error as error:
        report.error(str(error))
    except OSError as error:
        report.error(f"{(error.strerror or str(error)).lower()}" + (f": {error.filename}" if error.filename else ""))
    return failed


def _open_streams() -> None:
    """A container gets descriptors 0 to 2, so none of ours may take their place."""
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _do(request: Request, report: Report) -> int:
    if request.globals.get("version"):
        from wherry_oci.command.information import print_version

        return print_version()
    if not request.command or request.command == "help" or request.globals.get("help") or request.flags.get("help"):
        from wherry_oci.command.information import print_help

        return print_help(request.command)
    if request.command not in FLAGS:
        raise InvalidArgument(f"{request.command!r} is not a command of wherry-oci: see --help")
    root = request.globals.get("root") or default_root()
    if request.command in _LIFECYCLE:
        from wherry_oci.command import life

        return life.COMMANDS[request.command](request, root, report)
    from wherry_oci.command import information, limits

    done: int = {**information.COMMANDS, **limits.COMMANDS}[request.command](request, root, report)
    sys.stdout.flush()
    return done


def default_root() -> str:
    """Where containers' states are when `--root` does not say. Raises InvalidArgument."""
    if os.geteuid() == 0:
        return "/run/wherry-oci"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise InvalidArgument("neither --root nor XDG_RUNTIME_DIR says where the states of containers are")
    return f"{runtime}/wherry-oci"
