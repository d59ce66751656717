"""What this host has of what containers need, what is lacking, and the command that would mend it."""

import errno
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import attrs

from wherry_oci.errors import Error

if TYPE_CHECKING:
    from wherry.local import LocalEngine

OK, WARNING, MISSING = "ok", "warning", "missing"

_LEAST_KERNEL = (5, 12)  # mount_setattr(2)
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_CONTROLLERS = ("cpu", "memory", "pids")
_LEAST_FREE = 1 << 30  # bytes


@attrs.frozen(kw_only=True)
class Check:
    """One thing that was looked at: "ok"; "warning": something works less well; "missing": containers cannot start."""

    name: str
    status: str
    found: str
    remedy: str = ""  # a command, or what to do


def examine(root: str, engine: "LocalEngine") -> list[Check]:
    """Look at everything; nothing is changed. *root* is where images and containers are, *engine* whose they are."""
    found = [check for look in _LOOKS for check in look()]
    try:
        found += engine.do(_inside)
    except Error as error:
        remedy = "sysctl -w user.max_user_namespaces=15000 kernel.apparmor_restrict_unprivileged_userns=0"
        found.append(Check(name="user namespace", status=MISSING, found=str(error), remedy=remedy))
    if os.geteuid() != 0:
        found += _way_out()
    return found + list(_root(root)) + list(_shims(engine))


def _inside(engine: "LocalEngine") -> list[Check]:
    """What is to be looked at where containers are made."""
    return [check for look in _INSIDE for check in look()]


def _user() -> Iterator[Check]:
    user = os.geteuid()
    if user == 0:
        yield Check(name="user", status=OK, found="root")
        return
    yield Check(name="user", status=OK, found=f"user {user}: containers are in a user namespace, where it is root")
    yield from _ids()


def _ids() -> Iterator[Check]:
    from wherry.rootless import holder

    lacking = [name for name in ("newuidmap", "newgidmap") if holder.program(name) is None]
    users, _ = holder.mappings()
    if lacking:
        yield Check(
            name="ids",
            status=WARNING,
            found=f"no {lacking[0]}: containers have one user, who owns every file",
            remedy="apt-get install uidmap",
        )
    elif len(users) == 1:
        yield Check(
            name="ids",
            status=WARNING,
            found="none in /etc/subuid and /etc/subgid: containers have one user, who owns every file",
            remedy="usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER (as root)",
        )
    else:
        yield Check(name="ids", status=OK, found=f"{sum(each['size'] for each in users)} can be mapped")


def _way_out() -> Iterator[Check]:
    from wherry.places import holder_directory
    from wherry.rootless import holder

    found = holder.way_out(holder_directory())
    if found:
        yield Check(name="way out", status=OK, found=f"containers reach the world through {found}")
        return
    there = [name for name in holder.CONNECTORS if holder.program(name) is not None]
    why = f"{there[0]} could not: see {holder_directory()}/{holder.LOG}" if there else "no pasta, no slirp4netns"
    yield Check(
        name="way out",
        status=WARNING,
        found=f"{why}: containers in bridges do not reach the world; their published ports work",
        remedy="apt-get install passt (as root); then end the holder, or log in anew" if not there else "read that log",
    )


def _kernel() -> Iterator[Check]:
    release = os.uname().release
    version = tuple(int(number) for number in release.partition("-")[0].split(".")[:2] if number.isdecimal())
    least = ".".join(map(str, _LEAST_KERNEL))
    if version >= _LEAST_KERNEL:
        yield Check(name="kernel", status=OK, found=f"Linux {release}")
    else:
        yield Check(
            name="kernel",
            status=MISSING,
            found=f"Linux {release}",
            remedy=f"boot Linux {least} or later",
        )


def _namespaces() -> Iterator[Check]:
    lacking = [name for name in _NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")]
    if lacking:
        yield Check(
            name="namespaces",
            status=MISSING,
            found=f"none of {', '.join(lacking)}",
            remedy="boot a kernel with CONFIG_NAMESPACES and its kin",
        )
    else:
        yield Check(name="namespaces", status=OK, found=", ".join(_NAMESPACES))


def _cgroups() -> Iterator[Check]:
    from wherry_oci.runtime.cgroups import Hierarchies

    hierarchies = Hierarchies.own()
    if os.geteuid() != 0 and not hierarchies.directories():
        yield Check(
            name="cgroups",
            status=WARNING,
            found="this user has none of its own without other processes: no limits, no pause, no stats of use",
            remedy="systemd-run --user --scope -p Delegate=yes $SHELL (on cgroup v2)",
        )
        return
    known = set(hierarchies.v1)
    if hierarchies.unified is not None:
        known |= set(_read(f"{hierarchies.unified}/cgroup.controllers").split())
    if not known and hierarchies.unified is None:
        yield Check(
            name="cgroups",
            status=MISSING,
            found="no hierarchy is mounted",
            remedy="mount -t cgroup2 none /sys/fs/cgroup",
        )
        return
    kind = "v2" if not hierarchies.has_v1_controllers else "v1" if hierarchies.unified is None else "v1 and v2"
    lacking = [name for name in _CONTROLLERS if name not in known]
    if lacking:
        yield Check(
            name="cgroups",
            status=WARNING,
            found=f"{kind}, without {', '.join(lacking)}: such limits cannot be set",
            remedy=f"boot without cgroup_disable={','.join(lacking)}, or enable them above (cgroup.subtree_control)",
        )
    else:
        yield Check(name="cgroups", status=OK, found=f"{kind} with {', '.join(_CONTROLLERS)}")


def _overlay() -> Iterator[Check]:
    from wherry_oci.linux.mount import fsopen

    try:
        os.close(fsopen("overlay"))
    except OSError as error:
        if error.errno == errno.EPERM:
            yield Check(name="overlay", status=WARNING, found="cannot be tried without root", remedy="run it as root")
        else:
            yield Check(name="overlay", status=MISSING, found=error.strerror or str(error), remedy="modprobe overlay")
    else:
        yield Check(name="overlay", status=OK, found="overlayfs")


def _nftables() -> Iterator[Check]:
    from wherry import nettable

    if nettable.available():
        yield Check(name="nf_tables", status=OK, found="ports are published, and networks masqueraded, by the kernel")
        yield from _firewall()
    else:
        yield Check(
            name="nf_tables",
            status=WARNING,
            found="this kernel has none: ports are published by a proxy, and containers do not reach the world",
            remedy="modprobe nf_tables nft_chain_nat nft_masq nft_fib_ipv4",
        )


# what containers send, what they are answered, and what is published
_LET_THROUGH = (
    "iifname 'wherry*'",
    "oifname 'wherry*' ct state established,related",
    "oifname 'wherry*' ct status dnat",
)


def _firewall() -> Iterator[Check]:
    """Whose chain drops by its policy what is forwarded: what one table accepts another may still drop."""
    from wherry import nettable
    from wherry_oci.linux import nftables

    with nftables.NftSocket() as netfilter:
        try:
            chains = [chain for family in (nftables.IPV4, nftables.INET) for chain in netfilter.chains(family)]
        except OSError:  # not root
            return
    for chain in nettable.dropping():
        family = "inet" if chain.family == nftables.INET else "ip"
        target = "DOCKER-USER" if any(one.name == "DOCKER-USER" for one in chains) else chain.name
        yield Check(
            name="firewall",
            status=WARNING,
            found=f"{family} {chain.table} {chain.name} drops what is forwarded: containers may not reach the world",
            remedy="; ".join(f"nft insert rule {family} {chain.table} {target} {rule} accept" for rule in _LET_THROUGH),
        )


def _ipv6() -> Iterator[Check]:
    if os.path.isdir("/proc/sys/net/ipv6"):
        yield Check(name="ipv6", status=OK, found="networks can have it")
    else:
        yield Check(
            name="ipv6",
            status=WARNING,
            found="this kernel has none",
            remedy="boot without ipv6.disable=1",
        )


def _seccomp() -> Iterator[Check]:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail")
    if actions:
        yield Check(name="seccomp", status=OK, found="system calls can be filtered")
    else:
        yield Check(
            name="seccomp",
            status=MISSING,
            found="this kernel cannot filter system calls",
            remedy="boot a kernel with CONFIG_SECCOMP_FILTER, or run containers with seccomp=unconfined",
        )


def _root(root: str) -> Iterator[Check]:
    place = root
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = os.statvfs(place)
    room = free.f_bavail * free.f_frsize
    if room < _LEAST_FREE:
        yield Check(
            name="root",
            status=WARNING,
            found=f"{root} has {room >> 20} MiB left",
            remedy="wherry system prune --all, or another disk (WHERRY_ROOT)",
        )
    elif _filesystem(place) == "overlay":
        yield Check(
            name="root",
            status=WARNING,
            found=f"{root} lies on an overlay, on which no other can be put: each container gets a copy of its image",
            remedy="put it on a disk or a tmpfs (WHERRY_ROOT)",
        )
    else:
        yield Check(name="root", status=OK, found=f"{root}, {room >> 30} GiB left")


def _shims(engine: "LocalEngine") -> Iterator[Check]:
    """Whose shim was killed: the container goes on, with nobody to look after it."""
    if not os.path.exists(engine.root / "wherry.db"):
        return
    for record in engine.records():
        state = engine.state(record)
        if state.pid and not state.shim:
            yield Check(
                name="shim",
                status=WARNING,
                found=f"container {record.name} goes on, but its shim was killed: no logs, execs, names and restarts",
                remedy=f"wherry restart {record.name}",
            )


def _filesystem(path: str) -> str:
    from wherry_oci.runtime.remount import mount_points

    real = os.path.realpath(path)
    holding = [(point, kind) for point, kind in mount_points() if f"{real}/".startswith(f"{point.rstrip('/')}/")]
    return max(holding, key=lambda pair: len(pair[0]))[1] if holding else ""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


_LOOKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _user,
    _kernel,
    _namespaces,
    _cgroups,
    _ipv6,
    _seccomp,
)
_INSIDE: tuple[Callable[[], Iterator[Check]], ...] = (_overlay, _nftables)
