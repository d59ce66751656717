"""Sources of mounts that only the parent of a container can open: for user namespaces, and id-mapped."""

import os

from wherry_oci.linux import mount as m
from wherry_oci.linux import namespaces as ns
from wherry_oci.linux import process as p
from wherry_oci.runtime import rootfs as fs
from wherry_oci.runtime.channel import Channel
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.mountoptions import MountOptions
from wherry_oci.runtime.usernamespace import open_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9


def open_source(spec: "dict[str, Any]", uids: "list[dict[str, Any]]", gids: "list[dict[str, Any]]") -> int:
    """
    A detached mount for *spec* of config.json's `mounts`, its attributes set, its ids mapped when that is asked for:
    by the mount's own mappings, else by the container's, *uids* and *gids*. Raises RuntimeFailure.
    """
    step = f"mount {spec.get('type') or 'bind'} on {spec['destination']}"
    options = MountOptions(spec.get("options") or ())
    if not fs.is_bind(spec):
        raise RuntimeFailure("unsupported", step, "only bind mounts can be id-mapped")
    recursive = options.recursive or spec.get("type") == "rbind"
    try:
        flags = m.OPEN_TREE_CLONE | (m.AT_RECURSIVE if recursive else 0)
        subpath = spec.get("subpath")
        if subpath:
            tree = fs.open_tree_below(spec["source"], subpath, flags)
        else:
            tree = m.open_tree(m.AT_FDCWD, spec["source"], flags)
    except OSError as error:
        raise fs.failed(step, error) from None
    try:
        fs.set_attributes(tree, options)
        if not any(flag & m.MS_SHARED for flag in options.propagation) and m.has_mount_setattr():
            # Made in the host's namespace it is a peer of its source: the container's mounts below would show there.
            m.mount_setattr(tree, "", m.AT_EMPTY_PATH | m.AT_RECURSIVE, propagation=m.MS_SLAVE)
        if options.id_mapped or spec.get("uidMappings"):
            _map(tree, options, spec.get("uidMappings") or uids, spec.get("gidMappings") or gids)
    except OSError as error:
        os.close(tree)
        raise fs.failed(step, error) from None
    except BaseException:
        os.close(tree)
        raise
    return tree


def _map(tree: int, options: MountOptions, uids: "list[dict[str, Any]]", gids: "list[dict[str, Any]]") -> None:
    mapping = open_mapping(uids, gids)
    try:
        flags = m.AT_EMPTY_PATH | (m.AT_RECURSIVE if options.recursive_id_mapped else 0)
        m.mount_setattr(tree, "", flags, set_attributes=m.MOUNT_ATTR_IDMAP, userns_fd=mapping)
    finally:
        os.close(mapping)


def mapped_root(mounts: "list[dict[str, Any]]", mapping: int, uid: int, gid: int) -> int:
    """
    A snapshotter's *mounts* (one overlay, or a bind) as a detached mount that shows ids as the user namespace *mapping*
    has them, whose root is the host's *uid* and *gid*. Files stay as they are. Raises RuntimeFailure.

    It is made by a child that is that user, with all capabilities: overlayfs makes files as whoever mounted it, and
    only mapped users can own files of id-mapped layers.
    """
    ours, its = Channel.pair()
    child = ns.clone(0)
    if child == 0:
        ours.close()
        try:
            _become(uid, gid)
            its.send({"tree": True}, [_mapped_tree(mounts[-1], mapping)])
        except OSError as error:
            its.send({"failure": fs.failed(_STEP, error).to_json()})
        finally:
            os._exit(0)
    its.close()
    message = ours.receive()
    ours.close()
    os.waitpid(child, 0)
    if message is None:
        raise RuntimeFailure("gone", _STEP, "the process that mounts was killed")
    said, descriptors = message
    if "failure" in said:
        failure = RuntimeFailure.from_json(said["failure"])
        text = f"{failure.message} (id-mapped layers need Linux 6.15 and a file system that can be id-mapped)"
        raise RuntimeFailure(failure.kind, failure.step, text, failure.path, failure.errno)
    return descriptors[0]


_STEP = "mount the rootfs with its ids mapped"


def _become(uid: int, gid: int) -> None:
    rights = p.permitted_capabilities()
    p.set_parent_death_signal(_SIGKILL)
    p.set_dumpable(False)
    p.set_keepcaps(True)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    p.set_capabilities(rights, rights, 0)


def _mapped_tree(spec: "dict[str, Any]", mapping: int) -> int:
    options = MountOptions(spec.get("options") or ())
    if spec["type"] != "overlay":
        tree = _mapped(spec["source"], mapping)
        fs.set_attributes(tree, options)
        return tree
    places: dict[str, int] = {}  # upper and work directory are to be on one mount
    options.superblock = [_mapped_option(option, mapping, places) for option in options.superblock]
    return fs.detached_overlay(options)


def _mapped_option(option: str, mapping: int, places: dict[str, int]) -> str:
    """An overlay's option with its directory on a mapped mount, which is open as long as this process is."""
    key, _, path = option.partition("=")
    if key == "lowerdir":
        return f"lowerdir=/proc/self/fd/{_mapped(path, mapping)}"
    if key not in ("upperdir", "workdir"):
        return option
    parent, _, name = path.rpartition("/")
    if parent not in places:
        places[parent] = _mapped(parent, mapping)
    return f"{key}=/proc/self/fd/{places[parent]}/{name}"


def _mapped(path: str, mapping: int) -> int:
    tree = m.open_tree(m.AT_FDCWD, path, m.OPEN_TREE_CLONE)
    m.mount_setattr(tree, "", m.AT_EMPTY_PATH, set_attributes=m.MOUNT_ATTR_IDMAP, userns_fd=mapping)
    return tree
