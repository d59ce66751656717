"""Mount options as fstab writes them, sorted by which call takes them (config.md, "Linux mount options")."""

from wherry_oci.linux import mount as m

# option: (attributes to set, attributes to clear)
_ATTRIBUTES = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nostrictatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
}

_PROPAGATION = {
    "private": m.MS_PRIVATE,
    "shared": m.MS_SHARED,
    "slave": m.MS_SLAVE,
    "unbindable": m.MS_UNBINDABLE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "rshared": m.MS_SHARED | m.MS_REC,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}

# flags of the file system itself, which fsconfig(2) takes by name
_SUPERBLOCK_FLAGS = frozenset(("sync", "dirsync", "mand", "lazytime", "silent", "iversion"))
_NOTHING = frozenset(("defaults", "async", "nomand", "nolazytime", "loud", "noiversion", "remount"))


class MountOptions:
    """What a list of options asks for."""

    def __init__(self, options: "list[str] | tuple[str, ...]") -> None:
        self.set = self.clear = 0  # MOUNT_ATTR_*, for the mount
        self.recursive_set = self.recursive_clear = 0  # and for all mounts below it
        self.propagation: list[int] = []  # MS_*, in their order
        self.bind = self.recursive = self.copy_up = False
        self.id_mapped = self.recursive_id_mapped = False
        self.superblock: list[str] = []  # for fsconfig: `flag` or `key=value`
        for option in options:
            self._take(option)

    def _take(self, option: str) -> None:
        if option in _ATTRIBUTES:
            added, removed = _ATTRIBUTES[option]
            self.set, self.clear = (self.set & ~removed) | added, (self.clear & ~added) | removed
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            added, removed = _ATTRIBUTES[option[1:]]
            self.recursive_set = (self.recursive_set & ~removed) | added
            self.recursive_clear = (self.recursive_clear & ~added) | removed
        elif option in _PROPAGATION:
            self.propagation.append(_PROPAGATION[option])
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option in ("idmap", "ridmap"):
            self.id_mapped, self.recursive_id_mapped = True, option == "ridmap"
        elif option not in _NOTHING:
            self.superblock.append(option)

    @property
    def superblock_flags(self) -> list[str]:
        return [option for option in self.superblock if option in _SUPERBLOCK_FLAGS]


def propagation_flag(name: str) -> int:
    """MS_* for rootfsPropagation's *name*. Raises KeyError."""
    return _PROPAGATION[name]


def known_options() -> list[str]:
    """What is understood, rather than handed on to the file system."""
    recursive = [f"r{option}" for option in _ATTRIBUTES]
    rest = ("bind", "rbind", "tmpcopyup", "idmap", "ridmap")
    return sorted({*_ATTRIBUTES, *recursive, *_PROPAGATION, *_SUPERBLOCK_FLAGS, *_NOTHING, *rest})
