"""create, start, run, state, kill, delete, exec."""

import os
import sys
from _signal import SIGCHLD, SIGKILL, SIGSTOP, SIGURG, signal, valid_signals  # type: ignore[import-not-found]

from wherry_oci.command.arguments import Request
from wherry_oci.errors import Error, InvalidArgument, NotFound
from wherry_oci.runtime import lifecycle
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.statefile import ContainerDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_oci.command.dispatch import Report

_FIRST_PRESERVED = 3


def _options(request: Request, report: "Report", *, gated: bool) -> lifecycle.Options:
    flags = request.flags
    return lifecycle.Options(
        pivot=not flags.get("no-pivot"),
        new_keyring=not flags.get("no-new-keyring"),
        preserve=_preserved(flags.get("preserve-fds") or 0),
        systemd_cgroup=bool(request.globals.get("systemd-cgroup")),
        pid_file=flags.get("pid-file"),
        gated=gated,
        warn=report.warn,
    )


def _preserved(count: int) -> int:
    count += int(os.environ.get("LISTEN_FDS") or 0)
    for fd in range(_FIRST_PRESERVED, _FIRST_PRESERVED + count):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidArgument(f"--preserve-fds: there is no descriptor {fd}") from None
    return count


def _send_terminal(path: str | None) -> "Callable[[int], None]":
    if path is None:
        raise InvalidArgument("process.terminal needs --console-socket when nobody stays with the container")

    def send(master: int) -> None:
        try:
            lifecycle.send_descriptor(path, b"/dev/ptmx", master)
        except OSError as error:
            raise RuntimeFailure.from_os_error(f"send the terminal to {path}", error) from None
        finally:
            os.close(master)

    return send


def _bundle(request: Request) -> str:
    bundle: str = request.flags.get("bundle") or os.getcwd()
    return bundle


def _create(request: Request, root: str, report: "Report") -> int:
    options = _options(request, report, gated=True)
    bundle, socket = _bundle(request), request.flags.get("console-socket")
    if _wants_terminal(bundle):
        options.on_terminal = _send_terminal(socket)
    elif socket:
        raise InvalidArgument("--console-socket is for a container with process.terminal")
    lifecycle.create(root, request.only_argument(), bundle, options)
    return 0


def _wants_terminal(bundle: str) -> bool:
    process = lifecycle.load_config(bundle)["process"]
    return bool(process.get("terminal"))


def _run(request: Request, root: str, report: "Report") -> int:
    detach = bool(request.flags.get("detach"))
    options = _options(request, report, gated=False)
    bundle, socket = _bundle(request), request.flags.get("console-socket")
    terminal = _wants_terminal(bundle)
    relay = _relay(options, terminal, detach, socket)
    directory, process = lifecycle.create(root, request.only_argument(), bundle, options)
    try:
        record = directory.read()
        process.start(lambda number: lifecycle.send_listener(record, number))
        lifecycle.started_steps(directory, record, report.warn)
    except BaseException:
        lifecycle.delete_locked(directory, report.warn)
        raise
    if detach:
        return 0
    directory.unlock()
    status = _attend(process.pid, relay)
    if not request.flags.get("keep"):
        try:
            lifecycle.delete(root, directory.id, force=True, warn=report.warn)
        except NotFound:  # somebody else did
            pass
    return status


def _relay(options: lifecycle.Options, terminal: bool, detach: bool, socket: str | None) -> "Any":
    """The one who stays between the caller's terminal and the container's, if it has one."""
    if not terminal:
        if socket:
            raise InvalidArgument("--console-socket is for a process with a terminal")
        return None
    if detach or socket:
        options.on_terminal = _send_terminal(socket)
        return None
    from wherry_oci.command.relay import Relay

    relay = Relay()
    options.on_terminal = relay.take
    return relay


def _attend(pid: int, relay: "Any") -> int:
    """Hand signals on and wait for the end; the exit status, as shells count."""

    def forward(number: int, frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    for number in valid_signals():
        if number not in (SIGCHLD, SIGKILL, SIGSTOP, SIGURG):
            try:
                signal(number, forward)
            except (OSError, ValueError):  # libc's own
                continue
    if relay is not None:
        relay.run(pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _start(request: Request, root: str, report: "Report") -> int:
    lifecycle.start(root, request.only_argument(), report.warn)
    return 0


def _state(request: Request, root: str, report: "Report") -> int:
    directory = ContainerDirectory(root, request.only_argument())
    record = directory.read()
    _print_json(lifecycle.shown_state(directory, record))
    return 0


def _print_json(value: object) -> None:
    from wherry_oci.command.output import indented

    sys.stdout.write(indented(value) + "\n")


def _kill(request: Request, root: str, report: "Report") -> int:
    if not 1 <= len(request.arguments) <= 2:
        raise InvalidArgument(f"kill takes a container id and perhaps a signal, not {request.arguments}")
    id, *name = request.arguments
    number = _signal_number(name[0] if name else "TERM")
    lifecycle.kill(root, id, number, everything=bool(request.flags.get("all")))
    return 0


def _signal_number(name: str) -> int:
    if name.isdigit():
        if 0 < int(name) <= 64:
            return int(name)
        raise InvalidArgument(f"{name!r} is no signal")
    import _signal

    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    base, plus, offset = full.partition("+")
    number = getattr(_signal, base, None)
    if not isinstance(number, int) or base.startswith("SIG_") or (plus and not offset.isdigit()):
        raise InvalidArgument(f"{name!r} is no signal")
    return number + int(offset or 0)


def _delete(request: Request, root: str, report: "Report") -> int:
    failed = 0
    if not request.arguments:
        raise InvalidArgument("delete takes a container id")
    for id in request.arguments:
        try:
            lifecycle.delete(root, id, force=bool(request.flags.get("force")), warn=report.warn)
        except Error as error:
            report.error(str(error))
            failed = 1
    return failed


def _exec(request: Request, root: str, report: "Report") -> int:
    if not request.arguments:
        raise InvalidArgument("exec takes a container id and what to run")
    id, *command = request.arguments
    flags = request.flags
    record = ContainerDirectory(root, id).read()
    process = _process(record, command, flags)
    detach = bool(flags.get("detach"))
    options = _options(request, report, gated=False)
    relay = _relay(options, bool(process.get("terminal")), detach, flags.get("console-socket"))
    made, record = lifecycle.execute(root, id, process, options, ignore_paused=bool(flags.get("ignore-paused")))
    made.start(lambda number: lifecycle.send_listener_of(record, made.pid, number))
    if detach:
        return 0
    return _attend(made.pid, relay)


def _process(record: "dict[str, Any]", command: list[str], flags: "dict[str, Any]") -> "dict[str, Any]":
    """What --process says, or the container's own process as the flags change it. Raises InvalidArgument."""
    if flags.get("process"):
        from wherry_oci.runtime import configcheck, quickjson

        try:
            with open(flags["process"], "rb") as file:
                given: dict[str, Any] = quickjson.loads(file.read())
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"--process {flags['process']}: {error}") from None
        configcheck.check_members(given, configcheck.PROCESS, "$")
        return given
    if not command:
        raise InvalidArgument("exec takes a container id and what to run")
    process: dict[str, Any] = {**record["config"]["process"], "args": command}
    process["terminal"] = bool(flags.get("tty"))
    process.pop("consoleSize", None)
    process.pop("oomScoreAdj", None)
    if flags.get("cwd"):
        process["cwd"] = flags["cwd"]
    process["env"] = [*(process.get("env") or ()), *flags.get("env", ())]
    _change_user(process, flags)
    if flags.get("cap"):
        wanted = [name if name.startswith("CAP_") else f"CAP_{name}" for name in map(str.upper, flags["cap"])]
        rights = dict(process.get("capabilities") or {})
        for name in ("bounding", "effective", "permitted"):
            rights[name] = list(dict.fromkeys([*(rights.get(name) or ()), *wanted]))
        process["capabilities"] = rights
    if flags.get("no-new-privs"):
        process["noNewPrivileges"] = True
    if flags.get("apparmor"):
        process["apparmorProfile"] = flags["apparmor"]
    if flags.get("process-label"):
        process["selinuxLabel"] = flags["process-label"]
    return process


def _change_user(process: "dict[str, Any]", flags: "dict[str, Any]") -> None:
    user = dict(process.get("user") or {})
    if flags.get("user"):
        uid, colon, gid = flags["user"].partition(":")
        if not uid.isdigit() or (colon and not gid.isdigit()):
            raise InvalidArgument(f"--user {flags['user']!r}: a runtime takes numbers, uid or uid:gid")
        user.update(uid=int(uid), gid=int(gid) if colon else user.get("gid") or 0)
    added = [number for item in flags.get("additional-gids", ()) for number in item.split(",")]
    if not all(map(str.isdigit, added)):
        raise InvalidArgument(f"--additional-gids {','.join(added)}: a runtime takes numbers")
    if added:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *map(int, added)]
    process["user"] = user


COMMANDS: "dict[str, Callable[[Request, str, Report], int]]" = {
    "create": _create,
    "run": _run,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": _exec,
}
