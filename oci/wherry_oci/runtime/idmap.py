"""Sources of mounts that only the parent of a container can open: for user namespaces, and id-mapped."""

import os

from wherry_oci.linux import mount as m
from wherry_oci.runtime import rootfs as fs
from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.mountoptions import MountOptions
from wherry_oci.runtime.usernamespace import open_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
        if not any(flag & m.MS_SHARED for flag in options.propagation):
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
