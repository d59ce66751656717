"""Which OCI runtime a container has: wherry's own, in its shim's process, or another one by its command."""

import os
import shutil
from typing import TYPE_CHECKING, Any

from wherry.options import OWN_RUNTIME
from wherry_oci.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from wherry.options import Options

KNOWN = ("runc", "crun", "youki", "runsc", "wherry-oci")  # which a host is searched for when it is asked what it has
_VERSION = "1.0.2"  # what config.json keeps to then: crun takes no later one from before its own time
_INIT_PROGRAMS = ("docker-init", "tini-static")
_INIT = "/sbin/docker-init"  # in the container, as in Docker's


def path_of(name: str) -> str:
    """The command of the runtime *name* (a name on PATH, or a path), not wherry's own. Raises InvalidArgument."""
    if "/" in name and not name.startswith("/"):
        raise InvalidArgument(f"runtime={name!r}: give a name, or an absolute path")
    found = shutil.which(name)
    if found is None:
        where = "is no program" if "/" in name else "is not on PATH"
        raise InvalidArgument(
            f"runtime={name!r}: unknown or invalid runtime name: it {where}, and is not {OWN_RUNTIME!r}"
        )
    return os.path.realpath(found)


def installed() -> dict[str, str]:
    """The runtimes of this host, wherry's own first: by name, the command of each."""
    found = {name: path for name in KNOWN if (path := shutil.which(name))}
    return {OWN_RUNTIME: "wherry-oci", **found}


def adapt(spec: dict[str, Any], options: "Options") -> None:
    """
    Change *spec* to what a runtime by its command needs, which gets config.json and nothing else.

    Raises Unsupported for what cannot be done that way.
    """
    if options.user_ids:  # its root must be reached through directories that are closed to its users
        raise Unsupported(
            f"userns_mode with runtime={options.runtime!r}: only {OWN_RUNTIME!r} gives containers user namespaces"
        )
    spec["ociVersion"] = _VERSION
    if not options.privileged and not options.seccomp_unconfined:
        from wherry_oci.seccomp import default_profile

        spec["linux"]["seccomp"] = default_profile(spec["process"]["capabilities"]["bounding"])
    if "domainname" in spec:  # runtime-spec has it from 1.1 on, the kernel ever since
        spec["linux"].setdefault("sysctl", {})["kernel.domainname"] = spec.pop("domainname")
    if options.init:
        _add_init(spec, options)


def _add_init(spec: dict[str, Any], options: "Options") -> None:
    """Wherry's own is its runtime's: here the host's is shown to the container, as Docker does."""
    program = next(filter(None, map(shutil.which, _INIT_PROGRAMS)), None)
    if program is None:
        raise Unsupported(
            f"init=True with runtime={options.runtime!r} needs {' or '.join(_INIT_PROGRAMS)} on PATH: install tini"
        )
    spec["mounts"].append(
        {"destination": _INIT, "type": "bind", "source": os.path.realpath(program), "options": ["bind", "ro"]}
    )
    spec["process"]["args"] = [_INIT, "--", *spec["process"]["args"]]
