"""
Whether config.json is what the specification says (runtime-spec config.md, config-linux.md), by its JSON path if not.

Unknown members are passed over, as the specification wants it ("Extensibility"), and null is as good as absent.
"""

from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST_NUMBER = 1 << 64
_RANGES = {"u32": (0, 1 << 32), "u64": (0, _LONGEST_NUMBER), "int": (-(1 << 63), _LONGEST_NUMBER)}
_KINDS = {"str": str, "bool": bool, "u32": int, "u64": int, "int": int, "list": list, "object": dict}
_NAMES = {str: "a string", bool: "true or false", int: "a number", list: "a list", dict: "an object"}

# A member's kind: a name of _KINDS, a dict for an object with these members, a list of one for a list of that, and
# ("map", kind) for an object with members of any name. A member whose name ends in "!" must be there.
_MAPPINGS = [{"containerID!": "u32", "hostID!": "u32", "size!": "u32"}]
_STRINGS = ["str"]
_CAPABILITIES = dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), _STRINGS)
_HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_HOOKS = [{"path!": "str", "args": ["str"], "env": ["str"], "timeout": "int"}]
PROCESS: "dict[str, Any]" = {
    "terminal": "bool",
    "consoleSize": {"height!": "u32", "width!": "u32"},
    "user": {"uid": "u32", "gid": "u32", "umask": "u32", "additionalGids": ["u32"]},
    "args!": ["str"],
    "env": ["str"],
    "cwd!": "str",
    "capabilities": _CAPABILITIES,
    "rlimits": [{"type!": "str", "soft!": "u64", "hard!": "u64"}],
    "noNewPrivileges": "bool",
    "apparmorProfile": "str",
    "selinuxLabel": "str",
    "oomScoreAdj": "int",
    "scheduler": {
        "policy!": "str",
        "nice": "int",
        "priority": "int",
        "flags": ["str"],
        "runtime": "u64",
        "deadline": "u64",
        "period": "u64",
    },
    "ioPriority": {"class!": "str", "priority": "int"},
    "execCPUAffinity": {"initial": "str", "final": "str"},
}
_DEVICE_RULES = [{"allow!": "bool", "type": "str", "major": "int", "minor": "int", "access": "str"}]
_THROTTLES = [{"major!": "int", "minor!": "int", "rate!": "u64"}]
RESOURCES: "dict[str, Any]" = {
    "devices": _DEVICE_RULES,
    "memory": {
        "limit": "int",
        "reservation": "int",
        "swap": "int",
        "kernel": "int",
        "kernelTCP": "int",
        "swappiness": "u64",
        "disableOOMKiller": "bool",
        "useHierarchy": "bool",
        "checkBeforeUpdate": "bool",
    },
    "cpu": {
        "shares": "u64",
        "quota": "int",
        "burst": "u64",
        "period": "u64",
        "realtimeRuntime": "int",
        "realtimePeriod": "u64",
        "cpus": "str",
        "mems": "str",
        "idle": "int",
    },
    "pids": {"limit": "int"},
    "blockIO": {
        "weight": "u32",
        "leafWeight": "u32",
        "weightDevice": [{"major!": "int", "minor!": "int", "weight": "u32", "leafWeight": "u32"}],
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    },
    "hugepageLimits": [{"pageSize!": "str", "limit!": "u64"}],
    "network": {"classID": "u32", "priorities": [{"name!": "str", "priority!": "u32"}]},
    "rdma": ("map", {"hcaHandles": "u32", "hcaObjects": "u32"}),
    "unified": ("map", "str"),
}
_MEMBERS: "dict[str, Any]" = {
    "ociVersion!": "str",
    "hostname": "str",
    "domainname": "str",
    "root": {"path!": "str", "readonly": "bool"},
    "mounts": [
        {
            "destination!": "str",
            "type": "str",
            "source": "str",
            "options": ["str"],
            "uidMappings": _MAPPINGS,
            "gidMappings": _MAPPINGS,
        }
    ],
    "process": PROCESS,
    "hooks": dict.fromkeys(_HOOK_KINDS, _HOOKS),
    "annotations": ("map", "str"),
    "linux": {
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
        "timeOffsets": ("map", {"secs": "int", "nanosecs": "u32"}),
        "sysctl": ("map", "str"),
        "resources": RESOURCES,
        "cgroupsPath": "str",
        "namespaces": [{"type!": "str", "path": "str"}],
        "devices": [
            {
                "path!": "str",
                "type!": "str",
                "major": "int",
                "minor": "int",
                "fileMode": "u32",
                "uid": "u32",
                "gid": "u32",
            }
        ],
        "netDevices": ("map", {"name": "str"}),
        "seccomp": "object",
        "rootfsPropagation": "str",
        "maskedPaths": ["str"],
        "readonlyPaths": ["str"],
        "mountLabel": "str",
        "intelRdt": "object",
        "personality": {"domain!": "str", "flags": ["str"]},
        "memoryPolicy": {"mode!": "str", "nodes": "str", "flags": ["str"]},
    },
}


def check(config: object) -> "dict[str, Any]":
    """*config*, if it is a configuration that this runtime can take. Raises RuntimeFailure of kind "invalid"."""
    check_members(config, _MEMBERS, "$")
    assert isinstance(config, dict)
    major = config["ociVersion"].partition(".")[0]
    if major != "1":
        raise _wrong("$.ociVersion", f"{config['ociVersion']!r} is not one of 1.x.y, which this runtime knows")
    if not config.get("root"):
        raise _wrong("$.root", "must be there")
    if not config.get("process"):
        raise _wrong("$.process", "must be there: a container starts with it")
    check_process(config["process"], "$.process")
    for index, mount in enumerate(config.get("mounts") or ()):
        if bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
            raise _wrong(f"$.mounts[{index}]", "uidMappings and gidMappings come together")
    return config


def check_process(process: "dict[str, Any]", path: str) -> None:
    """What `process` must be beyond its types. Raises RuntimeFailure."""
    if not process["args"]:
        raise _wrong(f"{path}.args", "must name a program")
    if not process["cwd"].startswith("/"):
        raise _wrong(f"{path}.cwd", f"{process['cwd']!r} is not an absolute path")
    kinds: set[str] = set()
    for index, limit in enumerate(process.get("rlimits") or ()):
        if limit["type"] in kinds:
            raise _wrong(f"{path}.rlimits[{index}].type", f"{limit['type']} is there twice")
        kinds.add(limit["type"])


def check_members(value: object, members: "dict[str, Any]", path: str) -> None:
    """Check the object *value* against *members*. Raises RuntimeFailure with the path of what is wrong."""
    if not isinstance(value, dict):
        raise _wrong(path, f"must be {_NAMES[dict]}, not {value!r}")
    for member, kind in members.items():
        name = member.rstrip("!")
        found = value.get(name)
        if found is not None:
            _check(found, kind, f"{path}.{name}")
        elif member.endswith("!"):
            raise _wrong(f"{path}.{name}", "must be there")


def _check(value: object, kind: "Any", path: str) -> None:
    if isinstance(kind, str):
        expected = _KINDS[kind]
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise _wrong(path, f"must be {_NAMES[expected]}, not {value!r}")
        if isinstance(value, int) and kind in _RANGES and not _RANGES[kind][0] <= value < _RANGES[kind][1]:
            raise _wrong(path, f"{value} is out of its range")
        if isinstance(value, str) and "\0" in value:
            raise _wrong(path, "must have no NUL in it")
    elif isinstance(kind, list):
        if not isinstance(value, list):
            raise _wrong(path, f"must be {_NAMES[list]}, not {value!r}")
        for index, item in enumerate(value):
            _check(item, kind[0], f"{path}[{index}]")
    elif isinstance(kind, tuple):
        if not isinstance(value, dict):
            raise _wrong(path, f"must be {_NAMES[dict]}, not {value!r}")
        for name, item in value.items():
            _check(item, kind[1], f"{path}.{name}")
    else:
        check_members(value, kind, path)


def _wrong(path: str, what: str) -> RuntimeFailure:
    return RuntimeFailure("invalid", "read config.json", f"{path}: {what}", path)
