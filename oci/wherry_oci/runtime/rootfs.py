"""
The container's file system, made by its first process in a mount namespace of its own.

What an image or a volume contains is hostile: every path below the rootfs is resolved by openat2(2) with the rootfs as
its root, and a mount is made detached, then attached to the descriptor that was found. Nobody can exchange a target in
between (CVE-2021-30465, CVE-2024-45310). Spec: runtime-spec config.md "Mounts", config-linux.md.
"""

import os
import stat
from errno import EINVAL, ELOOP, ENOENT, ENOSYS, ENOTDIR, EPERM

from wherry_oci.linux import mount as m
from wherry_oci.linux.openat2 import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from wherry_oci.runtime import remount
from wherry_oci.runtime.failure import RuntimeFailure, os_error_text
from wherry_oci.runtime.mountoptions import MountOptions, propagation_flag
from wherry_oci.runtime.remount import mount_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_NULL_DEVICE = os.makedev(1, 3)
_LINKS = 40  # as many as the kernel follows
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
_PAGE = 4096  # mount(2)'s data ends there
_DEVICE_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

# config-linux.md "Default Devices": path below /dev, major, minor
DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
# config-linux.md "Default Filesystems", "/dev symbolic links"
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# What others show in the place of the host's numbers (lxcfs), and may be mounted in /proc: nothing else is kept safe by
# masks and labels then (CVE-2019-16884).
_FAKED_IN_PROC = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo diskstats loadavg meminfo slabinfo stat swaps uptime net/dev sys/kernel/ns_last_pid "
        "sys/crypto/fips_enabled"
    ).split()
)


def failed(step: str, error: OSError, path: str = "") -> RuntimeFailure:
    """*error* as the step's failure, on *path* as the container sees it."""
    text = f"{path}: {(error.strerror or str(error)).lower()}" if path else os_error_text(error)
    return RuntimeFailure("system", step, text, path or str(error.filename or ""), error.errno or 0)


def open_inside(root: int, path: str, flags: int = os.O_PATH, mode: int = 0, resolve: int = _INSIDE) -> int:
    """A descriptor of *path*, every link of which is followed as inside of *root*. Raises OSError."""
    return openat2(root, path.lstrip("/") or ".", flags, mode, resolve | RESOLVE_IN_ROOT)


def open_tree_below(source: str, subpath: str, flags: int) -> int:
    """
    open_tree(2) of *subpath* in the directory *source*, every link of which is followed as inside of *source*: what is
    there may be a container's (a volume). Raises OSError.
    """
    top = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_inside(top, subpath)
    finally:
        os.close(top)
    try:
        return m.open_tree(found, "", flags | m.AT_EMPTY_PATH)
    finally:
        os.close(found)


def make_directory_inside(root: int, path: str, mode: int = 0o755, resolve: int = _INSIDE, links: int = _LINKS) -> int:
    """
    An O_PATH descriptor of the directory *path* inside of *root*, made with its parents where missing.

    A link that leads to nothing leads to what is made then; *links* bounds how many.
    """
    try:
        return open_inside(root, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    except FileNotFoundError:
        pass
    parent_path, name = _split(path)
    parent = make_directory_inside(root, parent_path, mode, resolve, links)
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        target = _link_target(parent, parent_path, name)
        if target is not None and links and not resolve & RESOLVE_NO_SYMLINKS:
            return make_directory_inside(root, target, mode, resolve, links - 1)
    finally:
        os.close(parent)
    return open_inside(root, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)


def make_file_inside(root: int, path: str, links: int = _LINKS) -> int:
    """An O_PATH descriptor of the file *path* inside of *root*, made empty where missing; links as for directories."""
    try:
        return open_inside(root, path)
    except FileNotFoundError:
        pass
    parent_path, name = _split(path)
    parent = make_directory_inside(root, parent_path, links=links)
    try:
        os.close(os.open(name, _NEW_FILE, 0o644, dir_fd=parent))
    except FileExistsError:
        target = _link_target(parent, parent_path, name)
        if target is not None and links:
            return make_file_inside(root, target, links - 1)
    finally:
        os.close(parent)
    return open_inside(root, path)


def _link_target(parent: int, parent_path: str, name: str) -> str | None:
    """Where the link *name* leads, as a path from the root; None when it is no link."""
    try:
        target = os.readlink(name, dir_fd=parent)
    except OSError:
        return None
    return target if target.startswith("/") else f"{parent_path}/{target}"


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise FileNotFoundError(ENOENT, "cannot be made: it leads through a directory that does not exist", path)
    return parent or "/", name


class Rootfs:
    """The file system under construction: *root* is what will be `/`, `proc` the container's own procfs."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.proc: int | None = None
        self.devpts: int | None = None
        self.cgroup_directories: dict[str, str] = {}  # without a cgroup namespace: the container's own, by hierarchy

    # mounts

    def mount(self, spec: "dict[str, Any]", tree: int | None = None) -> None:
        """Make one of config.json's `mounts`; of *tree*, when the parent had to open it. Raises RuntimeFailure."""
        destination, kind = spec["destination"], spec.get("type") or ""
        options = MountOptions(spec.get("options") or ())
        try:
            if tree is not None:
                if not m.has_mount_setattr() and not any(flag & m.MS_SHARED for flag in options.propagation):
                    options.propagation.insert(0, m.MS_SLAVE | m.MS_REC)  # as idmap.open_source does with it
                self._attach_bind(tree, destination, options)
            elif is_bind(spec):
                self._bind(
                    spec["source"],
                    destination,
                    options,
                    recursive=options.recursive or kind == "rbind",
                    subpath=spec.get("subpath") or "",
                )
            elif kind == "cgroup":
                self._mount_cgroups(destination, options)
            else:
                self._mount_filesystem(kind, spec.get("source") or kind, destination, options)
        except OSError as error:
            raise failed(
                f"mount {kind or 'bind'} on {destination}", error, str(error.filename or destination)
            ) from None

    def _bind(self, source: str, destination: str, options: MountOptions, recursive: bool, subpath: str = "") -> None:
        flags = m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0)
        tree = open_tree_below(source, subpath, flags) if subpath else m.open_tree(m.AT_FDCWD, source, flags)
        try:
            set_attributes(tree, options)
        except BaseException:
            os.close(tree)
            raise
        self._attach_bind(tree, destination, options)

    def _attach_bind(self, tree: int, destination: str, options: MountOptions) -> None:
        try:
            is_directory = stat.S_ISDIR(os.stat(tree).st_mode)
            target = (make_directory_inside if is_directory else make_file_inside)(self.root, destination)
            self._refuse_in_proc(tree, target)
            self._attach(tree, target, options)
            remount.catch_up(tree, options)
        finally:
            os.close(tree)

    def _mount_filesystem(self, kind: str, source: str, destination: str, options: MountOptions) -> None:
        # A link or a file in the place of /proc or /sys leads masks and labels astray (CVE-2019-16884, -19921).
        strict = RESOLVE_NO_SYMLINKS if kind in ("proc", "sysfs") else 0
        covered = self._mode_of_directory(destination) if kind == "tmpfs" else None
        try:
            target = make_directory_inside(self.root, destination, resolve=_INSIDE | strict)
        except OSError as error:
            if strict and error.errno in (ELOOP, ENOTDIR):
                raise RuntimeFailure(
                    "invalid", f"mount {kind}", f"{destination} in the image is not a directory but a link or a file"
                ) from None
            raise
        if covered is not None and not any(option.startswith("mode=") for option in options.superblock):
            options.superblock.append(f"mode={covered:o}")  # as runc does; one that covers nothing is everybody's
        tree = new_filesystem(kind, source, options)
        if options.copy_up and covered is not None:
            copy_up(target, tree)
        self._refuse_in_proc(tree, target)
        self._attach(tree, target, options)
        if kind == "proc":
            self.proc = tree
        elif kind == "devpts":
            self.devpts = tree
        else:
            os.close(tree)

    def _refuse_in_proc(self, tree: int, target: int) -> None:
        """On /proc comes a procfs, and in it nothing that could hide what masks and labels are for."""
        root = os.readlink(f"/proc/self/fd/{self.root}").rstrip("/")
        place = os.readlink(f"/proc/self/fd/{target}").removeprefix(root)
        if place == "/proc":
            allowed = m.fstatfs_type(tree) == m.PROC_SUPER_MAGIC
        else:
            allowed = m.fstatfs_type(target) != m.PROC_SUPER_MAGIC or place in _FAKED_IN_PROC
        if not allowed:
            os.close(target)
            raise RuntimeFailure(
                "invalid", f"mount on {place}", "nothing but a procfs comes to /proc, and no volume in it", place
            )

    def _mode_of_directory(self, path: str) -> int | None:
        """Of what is at *path* inside already."""
        try:
            fd = open_inside(self.root, path, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            return stat.S_IMODE(os.stat(fd).st_mode)
        finally:
            os.close(fd)

    def _attach(self, tree: int, target: int, options: MountOptions) -> None:
        try:
            m.move_mount(tree, target)
        finally:
            os.close(target)
        for flag in options.propagation:
            m.mount("none", f"/proc/self/fd/{tree}", None, flag)

    def _mount_cgroups(self, destination: str, options: MountOptions) -> None:
        """
        The container's view of its own groups: one hierarchy as it is, several as directories of a tmpfs.

        It is called in the container's cgroup namespace, whose root is the container's own group.
        """
        if self.cgroup_directories:
            self._bind_cgroups(destination, options)
            return
        from wherry_oci.runtime.cgroups import Hierarchies

        hierarchies = Hierarchies.find()
        if not hierarchies.has_v1_controllers:
            self._mount_filesystem("cgroup2", "cgroup", destination, options)
            return
        top = MountOptions(["mode=755", "nosuid", "nodev", "noexec"])
        self._mount_filesystem("tmpfs", "tmpfs", destination, top)
        names: dict[str, list[str]] = {}
        for controller, where in hierarchies.v1.items():
            names.setdefault(where, []).append(controller)
        for where, controllers in names.items():
            name = where.rpartition("/")[2]
            named = [c for c in controllers if c.startswith("name=")]
            each = MountOptions([*_attribute_options(options), *(["none", *named] if named else controllers)])
            self._mount_filesystem("cgroup", "cgroup", f"{destination}/{name}", each)
        if options.set & m.MOUNT_ATTR_RDONLY:
            directory = open_inside(self.root, destination)
            remount.make_read_only(directory)
            os.close(directory)

    def _bind_cgroups(self, destination: str, options: MountOptions) -> None:
        """The same by binds, in the host's cgroup namespace, where a new mount would show all groups of the host."""
        if len(self.cgroup_directories) == 1:
            (directory,) = self.cgroup_directories.values()
            self._bind(directory, destination, options, recursive=True)
            return
        top = MountOptions(["mode=755", "nosuid", "nodev", "noexec"])
        self._mount_filesystem("tmpfs", "tmpfs", destination, top)
        for hierarchy, directory in self.cgroup_directories.items():
            self._bind(directory, f"{destination}/{hierarchy.rpartition('/')[2]}", options, recursive=True)
        if options.set & m.MOUNT_ATTR_RDONLY:
            top_directory = open_inside(self.root, destination)
            remount.make_read_only(top_directory)
            os.close(top_directory)

    # devices

    def make_devices(self, devices: "list[dict[str, Any]]") -> None:
        """The default devices and links below /dev, and config.json's `linux.devices`. Raises RuntimeFailure."""
        directory = make_directory_inside(self.root, "/dev")
        try:
            given = {device["path"] for device in devices}
            for name, major, minor in DEFAULT_DEVICES:
                if f"/dev/{name}" in given:
                    continue
                self._make_device(directory, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), f"/dev/{name}")
            for name, target in _DEVICE_LINKS:
                self._link(directory, name, target)
        finally:
            os.close(directory)
        for device in devices:
            if device["path"] != "/dev/ptmx":  # the host's would give the host's terminals: it is a link, always
                self._make_given_device(device)

    def _link(self, directory: int, name: str, target: str) -> None:
        try:
            os.symlink(target, name, dir_fd=directory)
        except FileExistsError:
            if name == "ptmx" and self.devpts is not None:
                os.unlink(name, dir_fd=directory)
                os.symlink(target, name, dir_fd=directory)

    def _make_given_device(self, device: "dict[str, Any]") -> None:
        path = device["path"]
        parent_path, name = _split(path)
        kind = _DEVICE_KINDS.get(device["type"])
        if kind is None:
            raise RuntimeFailure(
                "invalid", f"make device {path}", f"type {device['type']!r} is none of c, u, b, p", path
            )
        number = os.makedev(device.get("major") or 0, device.get("minor") or 0)
        mode = device.get("fileMode")
        parent = make_directory_inside(self.root, parent_path)
        try:
            self._make_device(parent, name, kind | (0o666 if mode is None else mode), number, path)
            uid, gid = device.get("uid") or 0, device.get("gid") or 0
            if uid or gid:
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)

    def _make_device(self, directory: int, name: str, mode: int, number: int, path: str) -> None:
        try:
            os.mknod(name, mode, number, dir_fd=directory)
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(mode) or found.st_rdev != number:
                raise RuntimeFailure("invalid", f"make device {path}", "something else is in its place", path) from None
        except OSError as error:
            if error.errno != EPERM:
                raise failed(f"make device {path}", error, path) from None
            self._bind_device(directory, name, path)

    def _bind_device(self, directory: int, name: str, path: str) -> None:
        """In a user namespace nobody makes devices: the host's own is bound."""
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o666, dir_fd=directory))
        tree = m.open_tree(m.AT_FDCWD, path, m.OPEN_TREE_CLONE)
        target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            m.move_mount(tree, target)
        except OSError as error:
            raise failed(f"bind device {path}", error, path) from None
        finally:
            os.close(tree)
            os.close(target)

    def bind_console(self, number: int) -> None:
        """Make /dev/console the terminal *number* of the container's own devpts. Raises RuntimeFailure."""
        assert self.devpts is not None
        try:
            tree = m.open_tree(self.devpts, str(number), m.OPEN_TREE_CLONE)
            target = make_file_inside(self.root, "/dev/console")
            self._attach(tree, target, MountOptions(()))
            os.close(tree)
        except OSError as error:
            raise failed("make /dev/console", error, "/dev/console") from None

    # what must not be seen or written

    def mask(self, path: str, null: int) -> None:
        """Hide *path*: a directory below an empty tmpfs, a file below *null*. What does not exist is skipped."""
        try:
            target = open_inside(self.root, path)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                return
            raise failed("mask path", error, path) from None
        try:
            if stat.S_ISDIR(os.stat(target).st_mode):
                tree = new_filesystem("tmpfs", "tmpfs", MountOptions(["ro", "mode=0555", "nr_inodes=1"]))
            else:
                tree = m.open_tree(null, "", m.OPEN_TREE_CLONE | m.AT_EMPTY_PATH)
            self._attach(tree, target, MountOptions(()))
            os.close(tree)
        except OSError as error:
            raise failed("mask path", error, path) from None

    def make_read_only(self, path: str) -> None:
        """Make *path*, with all mounts below, read-only. What does not exist is skipped."""
        try:
            target = open_inside(self.root, path)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                return
            raise failed("make path read-only", error, path) from None
        try:
            tree = m.open_tree(target, "", m.OPEN_TREE_CLONE | m.AT_EMPTY_PATH | m.AT_RECURSIVE)
            read_only = MountOptions(("rro",))
            set_attributes(tree, read_only)
            self._attach(tree, target, MountOptions(()))
            remount.catch_up(tree, read_only)
            os.close(tree)
        except OSError as error:
            raise failed("make path read-only", error, path) from None

    # the end

    def read_file(self, path: str, limit: int) -> bytes:
        """At most *limit* bytes of a regular file inside; empty when there is none. Raises OSError."""
        try:
            fd = open_inside(self.root, path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return b""
        try:
            if not stat.S_ISREG(os.stat(fd).st_mode):
                return b""
            parts: list[bytes] = []
            while limit > 0 and (chunk := os.read(fd, min(limit, 1 << 20))):
                parts.append(chunk)
                limit -= len(chunk)
            return b"".join(parts)
        finally:
            os.close(fd)

    def write_sysctl(self, key: str, value: str) -> None:
        """
        Set a sysctl of the container's namespaces, by a descriptor of this procfs and no mount on it: a link in the
        image may have led a volume, or another file of procfs, to the sysctl's place (CVE-2025-52881).
        """
        if self.proc is None:
            raise RuntimeFailure("invalid", f"set sysctl {key}", "the container mounts no /proc")
        path = "sys/" + key.replace(".", "/")
        try:
            fd = openat2(self.proc, path, os.O_WRONLY, resolve=_INSIDE | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise failed(f"set sysctl {key}", error, f"/proc/{path}") from None

    def make_root_read_only(self) -> None:
        """Make the rootfs itself, not what is mounted in it, read-only. Raises RuntimeFailure."""
        try:
            remount.make_read_only(self.root)
        except OSError as error:
            hint = ": without a mount namespace it is no mount of its own" if error.errno == EINVAL else ""
            raise RuntimeFailure(
                "system", "make the rootfs read-only", os_error_text(error) + hint, "/", error.errno or 0
            ) from None

    def enter(self, propagation: str, *, own_mounts: bool = True, pivot: bool = True) -> None:
        """Make it this process's `/`, with rootfsPropagation *propagation*. Raises RuntimeFailure."""
        if not own_mounts:
            self._chroot()
            return
        if pivot:
            self.pivot()
        else:
            self._move_to_root()
        if propagation:
            try:
                m.mount("", "/", None, propagation_flag(propagation))
            except OSError as error:
                raise failed("set rootfsPropagation", error) from None

    def _chroot(self) -> None:
        try:
            os.fchdir(self.root)
            os.chroot(".")
            os.chdir("/")
        except OSError as error:
            raise failed("chroot", error) from None

    def _move_to_root(self) -> None:
        """
        `--no-pivot`, for a host whose root is its initramfs. What of the host's procfs and sysfs lies below is taken
        away before, for whoever leaves the chroot would find it.
        """
        try:
            for point, filesystem in reversed(mount_points()):
                if filesystem in ("proc", "sysfs") and not _holds(self.root, point):
                    try:
                        m.umount2(point, m.MNT_DETACH)
                    except OSError:  # a locked one, or below another that is gone
                        continue
            os.fchdir(self.root)
            m.mount(".", "/", None, m.MS_MOVE)
        except OSError as error:
            raise failed("move the rootfs to /", error) from None
        self._chroot()

    def pivot(self) -> None:
        """Make it `/` of this mount namespace and let the host's tree go. Raises RuntimeFailure."""
        try:
            old = os.open("/", os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC)
            os.fchdir(self.root)
            m.pivot_root(".", ".")  # the old root is now mounted on the new one, so no directory for it is needed
            os.fchdir(old)
            m.mount("", ".", None, m.MS_SLAVE | m.MS_REC)  # unmounting it must not reach the host
            m.umount2(".", m.MNT_DETACH)
            os.chdir("/")
            os.close(old)
        except OSError as error:
            raise failed("pivot_root", error) from None


def _attribute_options(options: MountOptions) -> list[str]:
    names = (
        (m.MOUNT_ATTR_RDONLY, "ro"),
        (m.MOUNT_ATTR_NOSUID, "nosuid"),
        (m.MOUNT_ATTR_NODEV, "nodev"),
        (m.MOUNT_ATTR_NOEXEC, "noexec"),
    )
    return [name for attribute, name in names if options.set & attribute]


def set_attributes(tree: int, options: MountOptions) -> None:
    """Give a detached mount its flags; kernels before 5.12 take them only when it is attached. Raises OSError."""
    if not m.has_mount_setattr():
        return
    if options.set or options.clear:
        m.mount_setattr(
            tree, "", m.AT_EMPTY_PATH, set_attributes=options.set, clear_attributes=options.clear | _atime(options)
        )
    if options.recursive_set or options.recursive_clear:
        m.mount_setattr(
            tree,
            "",
            m.AT_EMPTY_PATH | m.AT_RECURSIVE,
            set_attributes=options.recursive_set,
            clear_attributes=options.recursive_clear,
        )


def _atime(options: MountOptions) -> int:
    """The kernel takes a new access-time mode only with the whole field cleared."""
    return m.MOUNT_ATTR__ATIME if options.set & m.MOUNT_ATTR__ATIME else 0


def new_filesystem(kind: str, source: str, options: MountOptions) -> int:
    """A detached mount of a new file system. Raises OSError with the kernel's own words."""
    context = m.fsopen(kind)
    try:
        m.fsconfig_set_string(context, "source", source)
        for option in options.superblock:
            key, separator, value = option.partition("=")
            if separator:
                m.fsconfig_set_string(context, key, value)
            else:
                m.fsconfig_set_flag(context, key)
        m.fsconfig_create(context)
        return m.fsmount(context, options.set)
    finally:
        os.close(context)


def is_bind(spec: "dict[str, Any]") -> bool:
    """Whether one of config.json's `mounts` shows what is there already."""
    return spec.get("type") in ("bind", "rbind") or any(
        option in ("bind", "rbind") for option in spec.get("options") or ()
    )


def is_bound(mounts: "list[dict[str, Any]] | tuple[()]", destination: str) -> bool:
    """Whether one of *mounts* binds something to *destination*."""
    return any(is_bind(each) and each["destination"].rstrip("/") == destination for each in mounts)


def _holds(root: int, point: str) -> bool:
    """Whether *point* lies below the directory *root*."""
    top = os.readlink(f"/proc/self/fd/{root}")
    return point == top or point.startswith(top.rstrip("/") + "/")


def prepare_namespace(propagation: str, path: str) -> None:
    """
    Cut this new mount namespace off, so that nothing made here reaches the host; with a shared *propagation* only the
    mount in which the rootfs at *path* lies, as shared volumes count on the rest. Raises RuntimeFailure.
    """
    try:
        flag = propagation_flag(propagation) if propagation else m.MS_SLAVE
    except KeyError:
        raise RuntimeFailure("invalid", "set rootfsPropagation", f"{propagation!r} is no propagation mode") from None
    try:
        if flag & m.MS_SHARED:
            real = os.path.realpath(path)
            holding = [point for point, _ in mount_points() if point == "/" or f"{real}/".startswith(f"{point}/")]
            m.mount("", max(holding, key=len), None, m.MS_PRIVATE)
        else:
            m.mount("", "/", None, (m.MS_SLAVE if flag & m.MS_SLAVE else m.MS_PRIVATE) | m.MS_REC)
    except OSError as error:
        raise failed("set rootfsPropagation", error) from None


def open_root(path: str) -> int:
    """The directory *path*, for a container that has no mount namespace of its own. Raises RuntimeFailure."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise failed("open the rootfs", error) from None


def copy_up(source: int, target: int) -> None:
    """
    Copy what lies in the directory *source* into the new file system *target* (`tmpcopyup`). Raises OSError.

    No link is followed; what is neither file, directory nor link is left out.
    """
    target_directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    source_directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    try:
        _copy_directory(source_directory, target_directory)
    finally:
        os.close(source_directory)
        os.close(target_directory)


def _copy_directory(source: int, target: int) -> None:
    _copy_owner(source, target)
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            _copy_directory(*inner)
            for fd in inner:
                os.close(fd)
        elif stat.S_ISREG(found.st_mode):
            reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
            writer = os.open(name, _NEW_FILE, 0o600, dir_fd=target)
            while piece := os.read(reader, 1 << 16):
                os.write(writer, piece)
            _copy_owner(reader, writer)
            os.close(reader)
            os.close(writer)


def _copy_owner(source: int, target: int) -> None:
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))


def mount_root(path: str, mounts: "list[dict[str, Any]]") -> int:
    """
    Mount *mounts* (a snapshotter's list, often one overlay) on the directory *path*, or bind it to itself when empty.

    Returns an O_PATH descriptor of what will be the container's root. Raises RuntimeFailure.
    """
    try:
        if not mounts:
            tree = m.open_tree(m.AT_FDCWD, path, m.OPEN_TREE_CLONE | m.AT_RECURSIVE)
            _attach_root(tree, path)
        for spec in mounts:
            options = MountOptions(spec.get("options") or ())
            if spec["type"] == "overlay":
                tree = _mount_overlay(path, options)
            elif options.bind:
                tree = m.open_tree(m.AT_FDCWD, spec["source"], m.OPEN_TREE_CLONE | m.AT_RECURSIVE)
                set_attributes(tree, options)
                _attach_root(tree, path)
                remount.catch_up(tree, options)
            else:
                tree = new_filesystem(spec["type"], spec["source"], options)
                _attach_root(tree, path)
        return tree
    except OSError as error:
        raise failed("mount the rootfs", error) from None


def attach_anywhere(tree: int) -> int:
    """
    Attach a rootfs that is a detached mount already, where a user namespace reaches; *tree* itself. Raises
    RuntimeFailure.

    What it covers there goes with the host's tree.
    """
    try:
        _attach_root(tree, "/sys")
    except OSError as error:
        raise failed("mount the rootfs", error) from None
    return tree


def _attach_root(tree: int, path: str) -> None:
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        m.move_mount(tree, target)
    finally:
        os.close(target)


def _mount_overlay(path: str, options: MountOptions) -> int:
    """An overlay of any number of lower directories, each one `lowerdir=` option, top first; attached to *path*."""
    try:
        tree = detached_overlay(options)
        _attach_root(tree, path)
    except OSError as error:
        if error.errno not in (EINVAL, ENOSYS):
            raise
        return _overlay_by_mount(path, options, error)
    return tree


def detached_overlay(options: MountOptions) -> int:
    """
    An overlay that is attached nowhere, as a descriptor. Raises OSError.

    Kernel 6.8 and up take one layer at a time (`lowerdir+`), so no limit on their text applies.
    """
    context = m.fsopen("overlay")
    try:
        m.fsconfig_set_string(context, "source", "overlay")
        for option in options.superblock:
            key, separator, value = option.partition("=")
            if separator:
                m.fsconfig_set_string(context, "lowerdir+" if key == "lowerdir" else key, value)
            else:
                m.fsconfig_set_flag(context, key)
        m.fsconfig_create(context)
        return m.fsmount(context, options.set)
    finally:
        os.close(context)


def _overlay_by_mount(path: str, options: MountOptions, first: OSError) -> int:
    """Older kernels: mount(2), whose options end at one page, so the layers are named relative to where they lie."""
    layers = [option[len("lowerdir=") :] for option in options.superblock if option.startswith("lowerdir=")]
    rest = [option for option in options.superblock if not option.startswith("lowerdir=")]
    common = os.path.commonpath(layers)
    names = ":".join(_escaped(os.path.relpath(layer, common)) for layer in layers)
    data = ",".join([*rest, f"lowerdir={names}"])
    if len(data) >= _PAGE:
        raise RuntimeFailure(
            "unsupported",
            "mount the rootfs",
            f"{len(layers)} layers need Linux 6.8: this kernel takes {_PAGE} bytes of overlay options, not {len(data)}"
            f" (and {os_error_text(first)})",
        )
    os.chdir(common)
    m.mount("overlay", os.path.realpath(path), "overlay", 0, data)
    os.chdir("/")
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def open_null() -> int:
    """The host's null device, checked to be it (CVE-2025-31133). Raises RuntimeFailure."""
    null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    found = os.stat(null)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL_DEVICE:
        raise RuntimeFailure("system", "open /dev/null", "the host's /dev/null is not the null device", "/dev/null")
    return null
