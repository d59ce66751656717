"""Any OCI runtime by its command line, which is runc's: one command for each operation, waited for to its end."""

import os
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from wherry_oci.runtime import quickjson
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Streams = tuple[int, int, int]

_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
_UMASK = 0o022  # what runtimes make in a rootfs (places for mounts) is for the container's users
_CONSOLE, _LOG, _PROCESS, _RESOURCES = "console", "log", "process.json", "resources.json"
_CONSOLE_WAIT_S = 10.0
_SHOWN = 4096  # bytes of what a runtime said

# What runc, crun and others say of a program that is not there, that cannot be executed, and of a container that ended.
_OF_PROGRAMS = ("exec:", "executable file", "open executable")
_NOT_FOUND = ("executable file not found", "not found in $path", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error", "operation not permitted")
_GONE = ("not running", "already finished", "does not exist", "no such process", "is stopped")


class CommandProcess:
    """A process that a runtime's command has made: a child of this process, which is its subreaper."""

    def __init__(self, pid: int, terminal: int | None, start: "Callable[[], None]") -> None:
        self.pid = pid
        self.terminal = terminal  # the master, the caller's to close
        self._start = start

    def start(self, *, told: "dict[str, Any] | None" = None) -> None:
        """Let it execute its program, which was told when it was made. Raises RuntimeFailure; it is gone then."""
        assert told is None, "a runtime's command takes the program at creation"
        try:
            self._start()
        except RuntimeFailure:
            self._kill()
            raise

    def abandon(self) -> None:
        """Kill and reap it before it ever ran."""
        self._kill()
        if self.terminal is not None:
            os.close(self.terminal)

    def _kill(self) -> None:
        try:
            os.kill(self.pid, _SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


class RuntimeCommand:
    """
    The runtime *program* (a path) for the container *identity*.

    Its state, and what it is handed by files, is in *directory*, which exists. Every method raises RuntimeFailure with
    what the runtime said.
    """

    def __init__(self, program: str, directory: str, identity: str) -> None:
        self._program, self._directory, self._identity = program, directory, identity
        self._name = program.rpartition("/")[2]

    def create(self, bundle: str, streams: "_Streams | None") -> CommandProcess:
        """The container of *bundle*, up to its program; with *streams*, or a terminal when its config has one."""
        pid, terminal = self._make("create", "init.pid", ["--bundle", bundle], streams)
        return CommandProcess(pid, terminal, lambda: self._call("start", [self._identity]))

    def execute(self, process: "dict[str, Any]", streams: "_Streams | None") -> CommandProcess:
        """A further process (config.md's `process`), which runs by then."""
        path = self._write(_PROCESS, process)
        pid, terminal = self._make("exec", "exec.pid", ["--detach", "--process", path], streams)
        return CommandProcess(pid, terminal, lambda: None)

    def kill(self, signal: int) -> None:
        """To the first process. Raises ProcessLookupError when that has ended."""
        try:
            self._call("kill", [self._identity, str(signal)])
        except RuntimeFailure as failure:
            if failure.kind == "gone":
                raise ProcessLookupError from None
            raise

    def pause(self) -> None:
        self._call("pause", [self._identity])

    def resume(self) -> None:
        self._call("resume", [self._identity])

    def update(self, resources: "dict[str, Any]") -> None:
        """Other limits (config-linux.md's `resources`); what is not among them stays."""
        self._call("update", ["--resources", self._write(_RESOURCES, resources), self._identity])

    def delete(self) -> None:
        """All that the runtime keeps of it, whatever it does; that there is nothing is fine."""
        try:
            self._call("delete", ["--force", self._identity])
        except RuntimeFailure as failure:
            if failure.kind != "gone":
                raise

    # how

    def _write(self, name: str, document: "dict[str, Any]") -> str:
        path = f"{self._directory}/{name}"
        with open(path, "wb") as file:
            file.write(quickjson.dumps(document).encode("utf-8", "surrogateescape"))
        return path

    def _make(
        self, command: str, pid_file: str, flags: "list[str]", streams: "_Streams | None"
    ) -> "tuple[int, int | None]":
        """The pid of what *command* makes, and the master of its terminal when it has no *streams*."""
        flags = [*flags, "--pid-file", f"{self._directory}/{pid_file}"]
        if streams is not None:
            self._call(command, [*flags, self._identity], streams)
            return self._pid_in(pid_file), None
        place = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener = _listen(place)
            try:
                # By a descriptor of this process: a socket's path is limited to 107 bytes, a directory's is not.
                path = f"/proc/{os.getpid()}/fd/{place}/{_CONSOLE}"
                self._call(command, [*flags, "--console-socket", path, self._identity])
                return self._pid_in(pid_file), self._take_terminal(command, listener)
            finally:
                listener.close()
                os.unlink(_CONSOLE, dir_fd=place)
        finally:
            os.close(place)

    def _pid_in(self, name: str) -> int:
        with open(f"{self._directory}/{name}", "rb") as file:
            return int(file.read())

    def _take_terminal(self, command: str, listener: socket) -> int:
        from select import select

        if select([listener], [], [], _CONSOLE_WAIT_S)[0]:
            fd, _ = listener._accept()  # type: ignore[attr-defined] # what socket.accept itself calls
            end = socket(fileno=fd)
            try:
                end.settimeout(_CONSOLE_WAIT_S)
                _, ancillary, _, _ = end.recvmsg(_SHOWN, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
            except TimeoutError:
                ancillary = []
            finally:
                end.close()
            for level, kind, rights in ancillary:
                if level == SOL_SOCKET and kind == SCM_RIGHTS:
                    return int.from_bytes(rights[:4], "little")
        raise RuntimeFailure("system", f"{self._name} {command}", "it sent no terminal to its --console-socket")

    def _call(self, command: str, arguments: "list[str]", streams: "_Streams | None" = None) -> None:
        """Run it to its end. Without *streams* what it prints is kept for the error."""
        log = f"{self._directory}/{_LOG}"
        words = [self._program, "--root", f"{self._directory}/state", "--log", log, "--log-format", "json"]
        printed = os.memfd_create("runtime")
        try:
            with open(log, "wb"):  # empty: what is in it after this is about this
                pass
            status = self._run([*words, command, *arguments], streams, printed)
            if status != 0:
                said = _errors(_end_of(log)) or _end_of(f"/proc/self/fd/{printed}").strip()
                raise self._failure(command, said or f"it ended with exit status {status} and no word")
        finally:
            os.close(printed)

    def _run(self, words: "list[str]", streams: "_Streams | None", printed: int) -> int:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        ends = streams or (null, printed, printed)
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends)]
        before = os.umask(_UMASK)
        try:
            pid = os.posix_spawn(
                self._program,
                words,
                os.environ,
                file_actions=actions,
                setsigmask=[],
                setsigdef=[_SIGPIPE, _SIGXFSZ],  # which Python ignores, and what is ignored stays so
            )
        except OSError as error:
            raise RuntimeFailure(
                "system", f"run {self._name}", os_error_text(error), self._program, error.errno or 0
            ) from None
        finally:
            os.umask(before)
            os.close(null)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _failure(self, command: str, said: str) -> RuntimeFailure:
        return RuntimeFailure(_kind(said), f"{self._name} {command}", said)


def _listen(directory: int) -> socket:
    end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        end.bind(f"/proc/self/fd/{directory}/{_CONSOLE}")
        end.listen(1)
    except BaseException:
        end.close()
        raise
    return end


def _end_of(path: str) -> str:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _SHOWN, 0))
        return file.read().decode("utf-8", "replace")


def _errors(log: str) -> str:
    """The last message of a runtime's `--log` in JSON lines; runtimes log their failure last."""
    for line in reversed(log.splitlines()):
        try:
            entry = quickjson.loads(line.encode())
        except ValueError:  # the first line may be cut
            continue
        if entry.get("level") in ("error", "fatal") and entry.get("msg"):
            return str(entry["msg"]).strip()
    return ""


def _kind(said: str) -> str:
    """What RuntimeFailure calls it: runtimes tell by words alone, and Docker reads those, too."""
    lowered = said.lower()
    if any(words in lowered for words in _OF_PROGRAMS):
        if any(words in lowered for words in _NOT_FOUND):
            return "not_found"
        if any(words in lowered for words in _NOT_EXECUTABLE):
            return "not_executable"
    return "gone" if any(words in lowered for words in _GONE) else "system"
