"""What is mounted into a container: every way in which it is said, and what it comes to."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from wherry_oci.errors import InvalidArgument, Unsupported

BIND, VOLUME, TMPFS, IMAGE = "bind", "volume", "tmpfs", "image"
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_IGNORED = ("rw", "", "consistent", "cached", "delegated")  # the last three are for other systems than Linux
_SELINUX = "/sys/fs/selinux/enforce"


class Mount(dict[str, Any]):
    """
    One mount for `mounts=`, with docker-py's arguments; like docker-py's own it is a dictionary in the Engine API's
    words, and either is taken.

    *source* is a path of the host, a volume's name or an image's; *type* is volume, bind, tmpfs or image.
    """

    def __init__(
        self,
        target: str,
        source: str | os.PathLike[str] | None = None,
        type: str = VOLUME,
        read_only: bool = False,
        *,
        propagation: str | None = None,
        no_copy: bool = False,
        labels: Mapping[str, str] | None = None,
        driver_config: Mapping[str, Any] | None = None,
        tmpfs_size: int | str | None = None,
        tmpfs_mode: int | None = None,
        subpath: str | None = None,
    ) -> None:
        super().__init__(Target=target, Source="" if source is None else os.fspath(source), Type=type)
        self["ReadOnly"] = read_only
        if propagation is not None:
            self["BindOptions"] = {"Propagation": propagation}
        if type == VOLUME:
            self["VolumeOptions"] = {
                "NoCopy": no_copy,
                "Labels": dict(labels or {}),
                "DriverConfig": dict(driver_config or {}),
                "Subpath": subpath or "",
            }
        if type == TMPFS:
            self["TmpfsOptions"] = {"SizeBytes": tmpfs_size or 0, "Mode": tmpfs_mode or 0}
        if type == IMAGE:
            self["ImageOptions"] = {"Subpath": subpath or ""}


@attrs.frozen(kw_only=True)
class MountRequest:
    """One mount as it was asked for, checked."""

    kind: str
    target: str  # absolute, in the container
    source: str = ""  # a path of the host, a volume's name ("": a new one without a name), or an image's name
    read_only: bool = False
    propagation: str = ""
    recursive: bool = True  # a bind takes what is mounted below its source along
    no_copy: bool = False  # an empty volume is not filled with what the image has there
    subpath: str = ""
    options: tuple[str, ...] = ()  # a tmpfs's
    driver: str = "local"
    driver_options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    make_source: bool = False  # a missing path of the host is made, as Docker's own door does for -v
    mode: str = ""  # what stood after the second colon


@attrs.frozen(kw_only=True)
class MountPoint:
    """One mount as the container has it: kept with the container, so that others can take it over."""

    kind: str
    target: str
    source: str = ""  # a path of the host
    name: str = ""  # the volume's or the image's
    driver: str = ""
    read_only: bool = False
    propagation: str = ""
    recursive: bool = True
    subpath: str = ""
    options: tuple[str, ...] = ()
    mode: str = ""

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "MountPoint":
        """What attrs.asdict and JSON made of one."""
        return cls(**{**kept, "options": tuple(kept["options"])})

    def entry(self) -> dict[str, Any]:
        """Its entry in config.json's `mounts`."""
        if self.kind == TMPFS:
            options = ["nosuid", "nodev", "noexec", *self.options, *(["ro"] if self.read_only else [])]
            return _entry(self.target, "tmpfs", "tmpfs", options)
        if self.kind == IMAGE and not self.source:
            made = _entry(self.target, "overlay", "overlay", self.options)
        else:
            # What is mounted below a read-only one is read-only, too, as far as it is taken along.
            # One that may be written says nothing, for its source may be read-only.
            access = (["ro", "rro"] if self.recursive else ["ro"]) if self.read_only else []
            kind = "rbind" if self.recursive else "bind"
            made = _entry(self.target, "bind", self.source, [kind, *access, self.propagation or "rprivate"])
        if self.subpath:
            made["subpath"] = self.subpath
        return made


def _entry(destination: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def is_volume_name(text: str) -> bool:
    """Whether it can be a volume's name: at least two of a-z A-Z 0-9 _ . -, the first no sign."""
    return _VOLUME_NAME.fullmatch(text) is not None


def parse_volume(item: str, *, as_docker: bool = False) -> MountRequest:
    """
    `[source:]target[:options]`, docker's `--volume`: *source* a path of the host or a volume's name.

    With *as_docker* a missing path is to be made and SELinux's options are passed over where there is no SELinux, as
    Docker does; otherwise both are errors. Raises InvalidArgument, Unsupported.
    """
    parts = item.split(":")
    if len(parts) == 1:
        return _volume("", _target(item, "volumes"), "", as_docker)
    if len(parts) > 3:
        raise InvalidArgument(
            f"volumes: {item!r} is not source:target[:options]; a path with a colon goes into mounts="
        )
    return _volume(parts[0], _target(parts[1], "volumes"), parts[2] if len(parts) == 3 else "", as_docker)


def parse_volumes(value: Mapping[str, Any] | Iterable[str], *, as_docker: bool = False) -> list[MountRequest]:
    """docker-py's mapping (source: bind, mode), or a list of `parse_volume`'s texts, where a source may come twice."""
    if not isinstance(value, Mapping):
        if isinstance(value, str):
            raise InvalidArgument(f"volumes={value!r}: give a list, as [{value!r}], or a mapping")
        return [parse_volume(os.fspath(item), as_docker=as_docker) for item in value]
    found = []
    for source, given in value.items():
        item = {"bind": given} if isinstance(given, str) else given
        modes = [text for text in (item.get("mode"), item.get("propagation")) if text]
        if not item.get("bind"):
            raise InvalidArgument(f"volumes: {source!r} needs a path in the container: {{'bind': '/path'}}")
        found.append(
            _volume(os.fspath(source), _target(os.fspath(item["bind"]), "volumes"), ",".join(modes), as_docker)
        )
    return found


def _volume(source: str, target: str, mode: str, as_docker: bool) -> MountRequest:
    read_only, propagation, no_copy = False, "", False
    for option in mode.split(","):
        if option in ("ro", "readonly"):
            read_only = True
        elif option in PROPAGATIONS:
            propagation = option
        elif option == "nocopy":
            no_copy = True
        elif option in ("z", "Z"):
            _check_label(f"{source}:{target}:{mode}", as_docker)
        elif option not in _IGNORED:
            raise InvalidArgument(f"volumes: {option!r} of {source}:{target}:{mode} is no option: ro, rw, nocopy, …")
    common: dict[str, Any] = {"target": target, "read_only": read_only, "mode": mode}
    path = _host_path(source)
    if path is None:
        if propagation:
            raise InvalidArgument(f"volumes: {propagation} of {source}:{target}: only a path of the host has that")
        return MountRequest(kind=VOLUME, source=_volume_name(source), no_copy=no_copy, **common)
    if no_copy and not as_docker:
        raise InvalidArgument(f"volumes: nocopy of {source}:{target}: only a volume is filled from the image")
    _check_source(path, as_docker)
    return MountRequest(kind=BIND, source=path, propagation=propagation, make_source=as_docker, **common)


def _host_path(source: str) -> str | None:
    """*source* as an absolute path; None when it is a volume's name, or nothing."""
    expanded = os.path.expanduser(source)
    if expanded.startswith("/"):
        return os.path.normpath(expanded)
    return os.path.abspath(expanded) if expanded.startswith(("./", "../")) or expanded in (".", "..") else None


def _volume_name(source: str) -> str:
    if source and not is_volume_name(source):
        raise InvalidArgument(
            f"volumes: {source!r} is neither an absolute path nor a volume's name: a name is at least two of a-z A-Z "
            "0-9 _ . -, the first no sign"
        )
    return source


def _check_source(path: str, may_be_made: bool) -> None:
    if not may_be_made and not os.path.exists(path):
        raise InvalidArgument(f"volumes: {path} does not exist on the host: make it first")


def _check_label(item: str, as_docker: bool) -> None:
    if os.path.exists(_SELINUX):
        raise Unsupported(f"volumes: relabelling for SELinux ({item}) is not supported yet: label the path yourself")
    if not as_docker:
        raise InvalidArgument(f"volumes: z and Z of {item} are for SELinux, which this host does not have")


def _target(path: str, option: str) -> str:
    if not path.startswith("/") or os.path.normpath(path) in ("/", "//"):
        raise InvalidArgument(f"{option}: the container's path {path!r} must be absolute, and not / itself")
    return os.path.normpath("/" + path.lstrip("/"))


def parse_mount(mount: Mapping[str, Any], *, as_docker: bool = False) -> MountRequest:
    """A `Mount`, or what else has the Engine API's names. Raises InvalidArgument, Unsupported."""
    kind, source = mount.get("Type") or VOLUME, mount.get("Source") or ""
    target = _target(mount.get("Target") or "", "mounts")
    common: dict[str, Any] = {"target": target, "read_only": bool(mount.get("ReadOnly"))}
    _check_parts(mount, kind, target)
    if kind == BIND:
        return _bind_request(source, mount.get("BindOptions") or {}, common)
    if kind == VOLUME:
        return _volume_request(source, mount.get("VolumeOptions") or {}, common)
    if kind == TMPFS:
        if source:
            raise InvalidArgument(f"mounts: a tmpfs ({target}) has no source")
        return MountRequest(kind=TMPFS, options=tuple(_tmpfs_options(mount.get("TmpfsOptions") or {})), **common)
    if kind == IMAGE:
        if not source:
            raise InvalidArgument(f"mounts: an image mount ({target}) needs the image's name as its source")
        subpath = _subpath((mount.get("ImageOptions") or {}).get("Subpath"))
        return MountRequest(kind=IMAGE, source=source, subpath=subpath, **{**common, "read_only": True})
    raise InvalidArgument(f"mounts: type {kind!r} of {target} is none of bind, volume, tmpfs, image")


_PARTS = {"BindOptions": BIND, "VolumeOptions": VOLUME, "TmpfsOptions": TMPFS, "ImageOptions": IMAGE}


def _check_parts(mount: Mapping[str, Any], kind: str, target: str) -> None:
    for part, its_kind in _PARTS.items():
        if mount.get(part) and its_kind != kind:
            raise InvalidArgument(f"mounts: {part} of {target} do not go with type {kind}")


def _bind_request(source: str, options: Mapping[str, Any], common: dict[str, Any]) -> MountRequest:
    path = _host_path(source)
    if path is None:
        raise InvalidArgument(f"mounts: the source {source!r} of a bind must be an absolute path")
    propagation = options.get("Propagation") or ""
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidArgument(f"mounts: propagation {propagation!r} is none of {', '.join(PROPAGATIONS)}")
    if options.get("ReadOnlyNonRecursive"):
        raise Unsupported("mounts: ReadOnlyNonRecursive is not supported: take NonRecursive, or a writable mount")
    make = bool(options.get("CreateMountpoint"))
    _check_source(path, make)
    return MountRequest(
        kind=BIND,
        source=path,
        propagation=propagation,
        recursive=not options.get("NonRecursive"),
        make_source=make,
        **common,
    )


def _volume_request(source: str, options: Mapping[str, Any], common: dict[str, Any]) -> MountRequest:
    driver = options.get("DriverConfig") or {}
    return MountRequest(
        kind=VOLUME,
        source=_volume_name(source),
        no_copy=bool(options.get("NoCopy")),
        labels=dict(options.get("Labels") or {}),
        driver=driver.get("Name") or "local",
        driver_options=dict(driver.get("Options") or {}),
        subpath=_subpath(options.get("Subpath")),
        **common,
    )


def _subpath(given: Any) -> str:
    subpath = str(given or "")
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise InvalidArgument(f"mounts: the subpath {subpath!r} must be relative, and not lead upwards")
    return subpath


def _tmpfs_options(options: Mapping[str, Any]) -> list[str]:
    from wherry.options import size_in_bytes

    found = []
    if size := options.get("SizeBytes"):
        found.append(f"size={size_in_bytes(size, 'tmpfs_size')}")
    mode = options.get("Mode")
    found.append(f"mode={mode:o}" if mode else "mode=1777")
    for pair in options.get("Options") or ():
        found.append("=".join(pair))
    return found


_VALUES = {"source": "source", "src": "source", "target": "target", "dst": "target", "destination": "target"}


def parse_mount_text(text: str) -> Mount:
    """The command line's `--mount type=volume,source=name,target=/path[,…]`. Raises InvalidArgument."""
    fields: dict[str, str] = {}
    labels: dict[str, str] = {}
    driver: dict[str, Any] = {"Name": "", "Options": {}}
    for field in _csv(text):
        key, has_value, value = field.partition("=")
        key = _VALUES.get(key.lower(), key.lower())
        if key == "volume-label":
            labels.update([value.partition("=")[::2]])
        elif key == "volume-opt":
            driver["Options"].update([value.partition("=")[::2]])
        elif key == "volume-driver":
            driver["Name"] = value
        elif key in _FLAGS or key in _FIELDS:
            fields[key] = value if has_value else "true"
        else:
            raise InvalidArgument(f"mount: {key!r} of {text!r} is no field of a mount")
    return _made(fields, labels, driver, text)


_FLAGS = frozenset(("readonly", "ro", "volume-nocopy", "bind-nonrecursive"))
_FIELDS = frozenset(
    "type source target bind-propagation bind-recursive consistency volume-subpath image-subpath tmpfs-size "
    "tmpfs-mode".split()
)


def _made(fields: dict[str, str], labels: dict[str, str], driver: dict[str, Any], text: str) -> Mount:
    kind = fields.get("type", VOLUME)
    made = Mount(
        fields.get("target", ""),
        fields.get("source"),
        kind,
        _flag(fields, "readonly", text) or _flag(fields, "ro", text),
        propagation=fields.get("bind-propagation"),
        no_copy=_flag(fields, "volume-nocopy", text),
        labels=labels,
        driver_config=driver if driver["Name"] or driver["Options"] else None,
        tmpfs_size=fields.get("tmpfs-size"),
        tmpfs_mode=_octal(fields["tmpfs-mode"]) if "tmpfs-mode" in fields else None,
        subpath=fields.get("volume-subpath") or fields.get("image-subpath"),
    )
    recursive = fields.get("bind-recursive", "enabled")
    if recursive not in ("enabled", "disabled"):
        raise Unsupported(f"mount: bind-recursive={recursive}: enabled or disabled are supported")
    if recursive == "disabled" or _flag(fields, "bind-nonrecursive", text):
        made.setdefault("BindOptions", {})["NonRecursive"] = True
    for prefix, its_kind in (("bind-", BIND), ("volume-", VOLUME), ("tmpfs-", TMPFS), ("image-", IMAGE)):
        if kind != its_kind and (any(key.startswith(prefix) for key in fields) or (labels and its_kind == VOLUME)):
            raise InvalidArgument(f"mount: {prefix}… of {text!r} does not go with type={kind}")
    return made


def _flag(fields: Mapping[str, str], name: str, text: str) -> bool:
    value = fields.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidArgument(f"mount: {name}={value} of {text!r} is neither true nor false")
    return value in ("true", "1")


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise InvalidArgument(f"mount: tmpfs-mode={text} is no octal number") from None


def _csv(text: str) -> list[str]:
    """The fields of one line of comma-separated values, as docker reads `--mount`."""
    import csv

    rows = list(csv.reader([text]))
    return rows[0] if rows else []


def without_replaced(points: Iterable[MountPoint]) -> list[MountPoint]:
    """Of several mounts on one target the last one, each in its first one's place."""
    return list({point.target: point for point in points}.values())
