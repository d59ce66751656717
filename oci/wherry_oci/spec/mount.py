"""One mount to be made, as a snapshotter returns it and a shim takes it."""

import attrs


@attrs.frozen(kw_only=True)
class Mount:
    """A mount that somebody else will make (runtime-spec config.md, "Mounts")."""

    type: str  # as in mount(8): overlay, bind, tmpfs, …
    source: str
    options: tuple[str, ...] = ()  # as in fstab; the order is kept
    destination: str = ""  # absolute in the container; "" is the rootfs itself
