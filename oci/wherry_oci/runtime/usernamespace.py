"""User namespaces: whose ids are whose (config-linux.md "User namespace mappings")."""

import os
from errno import ENOENT

from wherry_oci.linux import namespaces as ns
from wherry_oci.linux.process import set_parent_death_signal
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"


def write_mappings(pid: int, uids: "list[dict[str, Any]]", gids: "list[dict[str, Any]]") -> None:
    """
    Map the ids of the user namespace in which process *pid* is.

    As root directly; else by newuidmap and newgidmap, which know what /etc/subuid allows, unless one's own id is all
    that is mapped. Raises RuntimeFailure.
    """
    if not uids or not gids:
        raise RuntimeFailure("invalid", "map ids", "a new user namespace needs uidMappings and gidMappings")
    if os.geteuid() == 0:
        _write(pid, "uid_map", _lines(uids))
        _write(pid, "gid_map", _lines(gids))
        return
    if only_self(uids, os.geteuid()):
        _write(pid, "uid_map", _lines(uids))
    else:
        _by_helper("newuidmap", pid, uids)
    if only_self(gids, os.getegid()):
        _write(pid, "setgroups", "deny")
        _write(pid, "gid_map", _lines(gids))
    else:
        _by_helper("newgidmap", pid, gids)


def only_self(mappings: "list[dict[str, Any]]", own: int) -> bool:
    """Whether just the id *own* is mapped, which needs no right."""
    return len(mappings) == 1 and mappings[0].get("size") == 1 and mappings[0].get("hostID") == own


def setgroups_denied() -> bool:
    """Whether the user namespace of this process forbids setgroups(2) (user_namespaces(7), "setgroups")."""
    try:
        with open("/proc/self/setgroups", "rb") as file:
            return file.read(4) == b"deny"
    except OSError:
        return False


def _lines(mappings: "list[dict[str, Any]]") -> str:
    return "".join(f"{each['containerID']} {each['hostID']} {each['size']}\n" for each in mappings)


def _write(pid: int, name: str, text: str) -> None:
    path = f"/proc/{pid}/{name}"
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        raise RuntimeFailure(
            "system", "map ids", f"{path}: {(error.strerror or '').lower()} (writing {text!r})", path, error.errno or 0
        ) from None


def _by_helper(program: str, pid: int, mappings: "list[dict[str, Any]]") -> None:
    numbers = [str(each[key]) for each in mappings for key in ("containerID", "hostID", "size")]
    try:
        child = os.posix_spawnp(program, [program, str(pid), *numbers], {"PATH": _PATH})
    except OSError as error:
        hint = " (Debian: package uidmap)" if error.errno == ENOENT else ""
        raise RuntimeFailure("system", "map ids", f"{program}: {os_error_text(error)}{hint}") from None
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise RuntimeFailure("system", "map ids", f"{program} ended with {status}: are the ids in /etc/subuid?")


def open_mapping(uids: "list[dict[str, Any]]", gids: "list[dict[str, Any]]") -> int:
    """A descriptor of a user namespace with these mappings, for an id-mapped mount. Raises RuntimeFailure."""
    try:
        child = ns.clone(ns.CLONE_NEWUSER)
    except OSError as error:
        raise RuntimeFailure.from_os_error("map ids for a mount", error) from None
    if child == 0:
        set_parent_death_signal(_SIGKILL)
        end, _kept = os.pipe()
        while True:  # it is all there is in the namespace, until it is killed
            os.read(end, 1)
    try:
        write_mappings(child, uids, gids)
        return ns.open_namespace(child, "user")
    except OSError as error:
        raise RuntimeFailure.from_os_error("map ids for a mount", error) from None
    finally:
        os.kill(child, _SIGKILL)
        os.waitpid(child, 0)
