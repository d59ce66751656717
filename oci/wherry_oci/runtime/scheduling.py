"""How a container's process is scheduled and where its memory lies (config.md "Linux Process", config-linux.md)."""

import os

from wherry_oci.linux import scheduling as s
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NANOSECOND_FIELDS = ("runtime", "deadline", "period")


def take(process: "dict[str, Any]", linux: "dict[str, Any]") -> None:
    """Give this process what *process* and *linux* ask for, while it still has the rights. Raises RuntimeFailure."""
    _scheduler(process.get("scheduler") or {})
    _io_priority(process.get("ioPriority") or {})
    _personality(linux.get("personality") or {})
    _memory_policy(linux.get("memoryPolicy") or {})
    take_affinity(process, "initial")


def take_affinity(process: "dict[str, Any]", which: str) -> None:
    """`execCPUAffinity`: "initial" or "final". Raises RuntimeFailure."""
    processors = (process.get("execCPUAffinity") or {}).get(which)
    if processors:
        _tried(f"set {which} CPU affinity {processors}", lambda: os.sched_setaffinity(0, number_set(processors)))


def number_set(text: str) -> set[int]:
    """The numbers in a list such as "0-3,7". Raises RuntimeFailure."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise RuntimeFailure("invalid", "read a list of numbers", f"{text!r} is not like 0-3,7")
        found.update(range(int(first), int(last if dash else first) + 1))
    return found


def _scheduler(asked: "dict[str, Any]") -> None:
    if not asked:
        return
    policy = _known(s.SCHED_POLICIES, asked.get("policy"), "scheduler policy")
    flags = 0
    for name in asked.get("flags") or ():
        flags |= _known(s.SCHED_FLAGS, name, "scheduler flag")
    times = {name: int(asked.get(name) or 0) for name in _NANOSECOND_FIELDS}
    nice, priority = int(asked.get("nice") or 0), int(asked.get("priority") or 0)
    _tried(
        f"set scheduler {asked.get('policy')}",
        lambda: s.sched_setattr(0, policy, flags, nice=nice, priority=priority, **times),
    )


def _io_priority(asked: "dict[str, Any]") -> None:
    if asked:
        io_class = _known(s.IOPRIO_CLASSES, asked.get("class"), "I/O priority class")
        _tried(f"set I/O priority {asked}", lambda: s.ioprio_set(0, io_class, int(asked.get("priority") or 0)))


def _personality(asked: "dict[str, Any]") -> None:
    if asked:
        if asked.get("flags"):
            raise RuntimeFailure("unsupported", "set personality", f"no flags are known, not {asked['flags']}")
        domain = _known(s.PERSONALITIES, asked.get("domain"), "execution domain")
        _tried("set personality", lambda: s.personality(domain))


def _memory_policy(asked: "dict[str, Any]") -> None:
    if asked:
        mode = _known(s.MEMORY_POLICIES, asked.get("mode"), "memory policy")
        for name in asked.get("flags") or ():
            mode |= _known(s.MEMORY_POLICY_FLAGS, name, "memory policy flag")
        nodes = sorted(number_set(asked["nodes"])) if asked.get("nodes") else []
        _tried(f"set memory policy {asked.get('mode')}", lambda: s.set_mempolicy(mode, nodes))


def _known(names: dict[str, int], name: object, what: str) -> int:
    if not isinstance(name, str) or name not in names:
        raise RuntimeFailure("invalid", f"set {what}", f"{name!r} is none of {', '.join(names)}")
    return names[name]


def _tried(step: str, call: "Any") -> None:
    try:
        call()
    except OSError as error:
        raise RuntimeFailure("system", step, os_error_text(error), errno=error.errno or 0) from None
