"""
A container whose runtime is another one (runc, crun, …), called by its command.

The rootfs is mounted in a mount namespace of the shim's own, which the runtime starts from: nothing is mounted on the
host, and whatever ends the shim takes the mounts away with it. What only wherry's own runtime understands (parts of
volumes, recursively read-only mounts, names of users) is done here, before; the runtime gets plain
runtime-spec 1.0.
"""

import os

from wherry_oci.linux import mount as m
from wherry_oci.linux import namespaces as ns
from wherry_oci.runtime import quickjson, users
from wherry_oci.runtime import rootfs as fs
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.mountoptions import MountOptions
from wherry_shim.runtimecommand import CommandProcess, RuntimeCommand
from wherry_shim.supervisor import Supervisor
from wherry_shim.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLACE = "runtime"  # below the run directory


class ForeignSupervisor(Supervisor):
    """As Supervisor; its order has `runtime`, the path of the runtime's command, too."""

    def __init__(self, order: "dict[str, Any]", network: "int | None" = None) -> None:
        super().__init__(order, network)
        self._place = f"{self._run}/{_PLACE}"
        self._rootfs = os.path.realpath(f"{self._directory}/rootfs")  # runc takes no link to it
        self._runtime = RuntimeCommand(order["runtime"], self._place, order["id"])
        self._mounted: list[str] = []

    def _arrive(self) -> None:
        remove_tree(self._place)  # of a shim that was killed
        os.makedirs(f"{self._place}/mounts", 0o700)
        super()._arrive()
        self._prepare_root()

    def _prepare_root(self) -> None:
        """The rootfs and the sources of mounts, in a mount namespace of this process."""
        try:
            ns.unshare(ns.CLONE_NEWNS)
        except OSError as error:
            raise fs.failed("make a mount namespace", error) from None
        linux = self._config["linux"]
        fs.prepare_namespace(linux.get("rootfsPropagation") or "", self._rootfs)
        os.close(fs.mount_root(self._rootfs, self._order["rootfs"]))
        self._mounted.append(self._rootfs)
        self._config["root"]["path"] = self._rootfs
        self._config["mounts"] = [self._plain(number, spec) for number, spec in enumerate(self._config["mounts"])]

    def _plain(self, number: int, spec: "dict[str, Any]") -> "dict[str, Any]":
        """*spec* of config.json's `mounts`, or in its place a bind of what has been mounted by this process."""
        if not _is_ours_alone(spec):
            return spec
        tree = self._open(spec)
        try:
            place = f"{self._place}/mounts/{number}"
            if os.path.isdir(f"/proc/self/fd/{tree}"):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            target = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                m.move_mount(tree, target)
            finally:
                os.close(target)
        except OSError as error:
            raise fs.failed(f"mount on {spec['destination']}", error) from None
        finally:
            os.close(tree)
        self._mounted.append(place)
        options = MountOptions(spec.get("options") or ())
        left = [name for name in spec.get("options") or () if name in _LEFT_TO_RUNTIMES]
        access = ["ro"] if options.set & m.MOUNT_ATTR_RDONLY else []
        return {
            "destination": spec["destination"],
            "type": "bind",
            "source": place,
            "options": ["rbind" if options.recursive else "bind", *access, *left],
        }

    def _open(self, spec: "dict[str, Any]") -> int:
        """Raises RuntimeFailure."""
        if spec.get("type") == "overlay":
            try:
                return fs.new_filesystem("overlay", spec["source"], MountOptions(spec.get("options") or ()))
            except OSError as error:
                raise fs.failed(f"mount on {spec['destination']}", error) from None
        from wherry_oci.runtime.idmap import open_source

        return open_source(spec, [], [])

    # what the runtime does

    def _make_first(self, *, told_later: bool) -> CommandProcess:
        assert not told_later, "a runtime's command takes the program at creation"
        root = fs.open_root(self._rootfs)
        try:
            rootfs = fs.Rootfs(root)
            process = self._numbered(self._config["process"], self._order, rootfs)
            _make_working_directory(rootfs, process["cwd"])
        finally:
            os.close(root)
        with open(f"{self._place}/config.json", "wb") as file:
            file.write(quickjson.dumps({**self._config, "process": process}).encode("utf-8", "surrogateescape"))
        return self._runtime.create(self._place, self.streams.child_ends)

    def _make_further(self, request: "dict[str, Any]", stdio: "tuple[int, int, int] | None") -> CommandProcess:
        root = fs.open_root(f"/proc/{self._pid}/root")
        try:
            process = self._numbered(request["process"], request, fs.Rootfs(root))
        finally:
            os.close(root)
        return self._runtime.execute(process, stdio)

    @staticmethod
    def _numbered(process: "dict[str, Any]", asked: "dict[str, Any]", rootfs: fs.Rootfs) -> "dict[str, Any]":
        """*process* with the numbers of the `user` and `groups` that are *asked* for, and with HOME."""
        identity = users.resolve(
            asked.get("user") or "",
            asked.get("groups") or [],
            rootfs.read_file("/etc/passwd", users.SIZE_LIMIT),
            rootfs.read_file("/etc/group", users.SIZE_LIMIT),
        )
        env = list(process.get("env") or ())
        if not any(item.startswith("HOME=") and item != "HOME=" for item in env):
            env = [item for item in env if item != "HOME="] + [f"HOME={identity.home}"]
        user = {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups}
        return {**process, "user": user, "env": env, "cwd": process.get("cwd") or "/"}

    def _signal(self, number: int) -> None:
        self._runtime.kill(number)

    def _freeze(self, frozen: bool) -> None:
        if frozen:
            self._runtime.pause()
        else:
            self._runtime.resume()

    def _limit(self, resources: "dict[str, Any]") -> None:
        self._runtime.update(resources)

    def _end_run(self) -> None:
        try:
            self._runtime.delete()
        except RuntimeFailure:  # its cgroup and files are removed here, too
            return

    # the end

    def _take_down(self) -> None:
        self._end_run()
        while self._mounted:
            try:
                m.umount2(self._mounted.pop(), m.MNT_DETACH)
            except OSError:  # it goes with the namespace, that is with this process
                continue
        super()._take_down()

    def _remove_live_files(self) -> None:
        super()._remove_live_files()
        remove_tree(self._place)


# What of a mount's options says how a mount made by this process shows in the container
_LEFT_TO_RUNTIMES = frozenset("private rprivate shared rshared slave rslave unbindable runbindable".split())


def _is_ours_alone(spec: "dict[str, Any]") -> bool:
    """Whether *spec* asks for what runtime-spec 1.0 has not."""
    options = MountOptions(spec.get("options") or ())
    return bool(
        spec.get("subpath")
        or options.recursive_set
        or options.recursive_clear
        or spec.get("type") == "overlay"  # its layers in one text are limited to a page
    )


def _make_working_directory(rootfs: fs.Rootfs, cwd: str) -> None:
    """As Docker does: an image may name a directory that it does not have."""
    before = os.umask(0o022)  # it is for the container's users
    try:
        os.close(fs.make_directory_inside(rootfs.root, cwd))
    except OSError as error:
        raise fs.failed("make working directory", error, cwd) from None
    finally:
        os.umask(before)
