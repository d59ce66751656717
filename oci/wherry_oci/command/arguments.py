"""
The command line, as runc's users write it: `--flag value`, `--flag=value`, `-flag`, and one-letter aliases.

A parser of its own: argparse costs 8 ms, a third of a container's start.
"""

from wherry_oci.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GLOBAL = {
    "root": "text",
    "log": "text",
    "log-format": "text",
    "debug": "bool",
    "systemd-cgroup": "bool",
    "rootless": "text",
    "criu": "text",
    "help": "bool",
    "version": "bool",
}
_CREATE = {
    "bundle": "text",
    "console-socket": "text",
    "pid-file": "text",
    "no-pivot": "bool",
    "no-new-keyring": "bool",
    "preserve-fds": "number",
}
_UPDATE_NUMBERS = (
    "blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime kernel-memory "
    "kernel-memory-tcp pids-limit cpu-idle"
).split()
FLAGS: dict[str, dict[str, str]] = {
    "create": _CREATE,
    "run": {**_CREATE, "detach": "bool", "keep": "bool", "no-subreaper": "bool"},
    "start": {},
    "state": {},
    "kill": {"all": "bool"},
    "delete": {"force": "bool"},
    "exec": {
        "console-socket": "text",
        "cwd": "text",
        "env": "list",
        "tty": "bool",
        "user": "text",
        "additional-gids": "list",
        "process": "text",
        "detach": "bool",
        "pid-file": "text",
        "process-label": "text",
        "apparmor": "text",
        "no-new-privs": "bool",
        "cap": "list",
        "preserve-fds": "number",
        "cgroup": "text",
        "ignore-paused": "bool",
    },
    "list": {"format": "text", "quiet": "bool"},
    "ps": {"format": "text"},
    "pause": {},
    "resume": {},
    "update": {
        "resources": "text",
        **dict.fromkeys(_UPDATE_NUMBERS, "number"),
        "memory": "size",
        "memory-reservation": "size",
        "memory-swap": "size",
        "cpuset-cpus": "text",
        "cpuset-mems": "text",
        "l3-cache-schema": "text",
        "mem-bw-schema": "text",
    },
    "events": {"interval": "text", "stats": "bool"},
    "spec": {"bundle": "text", "rootless": "bool"},
    "features": {},
}
_ALIASES = {
    "b": "bundle",
    "a": "all",
    "f": "force",
    "e": "env",
    "t": "tty",
    "u": "user",
    "g": "additional-gids",
    "p": "process",
    "d": "detach",
    "c": "cap",
    "q": "quiet",
    "r": "resources",
    "h": "help",
    "v": "version",
}
_SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Request:
    """One call of the command: its global flags, its command, and that one's flags and arguments."""

    def __init__(self, arguments: list[str]) -> None:
        self.globals, rest = _parse(arguments, _GLOBAL, "wherry-oci", only_leading=True)
        self.command = rest[0] if rest else ""
        self.flags: dict[str, Any] = {}
        self.arguments: list[str] = []
        if self.command in FLAGS and not self.globals.get("help"):
            flags = {**FLAGS[self.command], "help": "bool"}
            self.flags, self.arguments = _parse(rest[1:], flags, self.command, only_leading=self.command == "exec")

    def only_argument(self) -> str:
        """The container's id. Raises InvalidArgument."""
        if len(self.arguments) != 1:
            raise InvalidArgument(f"{self.command} takes a container id, not {self.arguments}")
        return self.arguments[0]


def _parse(
    arguments: list[str], known: dict[str, str], command: str, *, only_leading: bool
) -> "tuple[dict[str, Any], list[str]]":
    flags: dict[str, Any] = {}
    rest: list[str] = []
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        index += 1
        if argument == "--":
            return flags, rest + arguments[index:]
        if argument[:1] != "-" or argument == "-" or _is_number(argument):
            rest.append(argument)
            if only_leading:
                return flags, rest + arguments[index:]
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "f" and "format" in known:
            name = "format"
        name = _ALIASES.get(name, name) if name not in known else name
        kind = known.get(name)
        if kind is None:
            raise InvalidArgument(f"{command} has no flag {argument!r}: see {command} --help")
        if kind == "bool":
            flags[name] = value.lower() not in ("false", "0", "f") if equals else True
            continue
        if not equals:
            if index == len(arguments):
                raise InvalidArgument(f"the flag {argument!r} of {command} needs a value")
            value = arguments[index]
            index += 1
        if kind == "list":
            flags.setdefault(name, []).append(value)
        else:
            flags[name] = _value(kind, value, argument)
    return flags, rest


def _is_number(argument: str) -> bool:
    return argument[1:].isdigit()


def _value(kind: str, value: str, flag: str) -> "str | int":
    if kind == "text":
        return value
    digits, factor = value, 1
    if kind == "size" and value:
        digits = value.lower().removesuffix("ib").removesuffix("b")
        if digits[-1:] in _SIZES:
            digits, factor = digits[:-1], _SIZES[digits[-1]]
    if not digits.removeprefix("-").isdigit():
        raise InvalidArgument(f"{flag}: {value!r} is not a number")
    return int(digits) * factor
