"""
A test host: namespaces of the test process's own that look like a machine on a small network.

The machine itself is never touched: its network and mounts are left as they are, and what a test leaves in the
namespaces goes with the process that owns them.
"""

import ctypes
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs

ADDRESS, ADDRESS_6 = "192.0.2.1", "2001:db8::1"
NEIGHBOUR, NEIGHBOUR_6 = "192.0.2.2", "2001:db8::2"
DEVICE = "machine0"

_NEWNS, _NEWNET = 0x00020000, 0x40000000
_DETACH = 2
_BIND, _REC, _PRIVATE, _SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


class NoHost(Exception):
    """A test host cannot be made here; the message says why."""


@attrs.frozen
class Network:
    """A network namespace, held by a file descriptor."""

    fd: int

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command that shall run in it; the command must inherit *fd* (pass_fds)."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self.fd}", "--")

    def run(self, command: Sequence[str | os.PathLike[str]], **options: Any) -> "subprocess.CompletedProcess[str]":
        """subprocess.run in this network, with text and captured output."""
        from support import users

        with users.as_root():
            return subprocess.run(
                [*self.prefix, *command], check=options.pop("check", False), text=True, capture_output=True, **options
            )

    def call(self, function: Callable[[], T]) -> T:
        """What *function* returns, run in this network by a thread that ends with it."""

        from support import users

        def inside() -> T:
            with users.as_root():
                _checked(_libc.setns(self.fd, _NEWNET), "setns")
            return function()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(inside).result()

    def get(self, url: str, timeout_s: float = 10) -> bytes:
        """The body of a page, fetched from this network with no proxy. Raises OSError, HTTP errors included."""

        def fetch() -> bytes:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=timeout_s) as response:
                body: bytes = response.read()
                return body

        return self.call(fetch)


@attrs.frozen
class Host:
    """The test host that this process is on."""

    network: Network
    neighbour: Network  # another machine, on the same wire as this host's machine0
    machine: Network  # the real machine's: only for building test images from Debian's packages
    address: str = ADDRESS
    address_6: str = ADDRESS_6
    neighbour_address: str = NEIGHBOUR
    neighbour_address_6: str = NEIGHBOUR_6
    device: str = DEVICE

    def get(self, url: str, timeout_s: float = 10) -> bytes:
        """The body of a page, fetched from this host."""
        return self.network.get(url, timeout_s)


_entered: list[Host] = []


def entered() -> Host | None:
    """The host that this process is on, if it entered one."""
    return _entered[0] if _entered else None


def enter() -> Host:
    """
    Put this process on a host of its own; once for all, the second call returns the same host.

    To be called from the main thread before threads are started that shall be on it too: namespaces belong to
    threads. Processes that are started later are on it. Raises NoHost where this is not allowed.

    Its mounts are shared among themselves, as on a machine that systemd runs, so what a container lets out is seen.
    Its /sys shows its own network devices.
    """
    if _entered:
        return _entered[0]
    if threading.current_thread() is not threading.main_thread():
        raise NoHost("namespaces belong to threads: enter from the main thread")
    machine = _current()
    try:
        neighbour = _new_network()
        network = _new_network()
    except PermissionError as error:
        raise NoHost("network namespaces need root (CAP_SYS_ADMIN)") from error
    _own_mounts()
    wire(network, neighbour)
    host = Host(network=network, neighbour=neighbour, machine=machine)
    _entered.append(host)
    return host


def _current() -> Network:
    return Network(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def _new_network() -> Network:
    _checked(_libc.unshare(_NEWNET), "unshare")
    return _current()


def _own_mounts() -> None:
    _checked(_libc.unshare(_NEWNS), "unshare")
    _mount(None, "/", None, _REC | _PRIVATE)  # first cut off from the machine,
    cgroups = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    _mount("sysfs", "/sys", "sysfs", 0)  # a sysfs shows the network of the one who mounted it
    _mount(f"/proc/self/fd/{cgroups}", "/sys/fs/cgroup", None, _BIND | _REC)
    os.close(cgroups)
    _mount(None, "/", None, _REC | _SHARED)  # then shared again among ourselves


def cover(path: str) -> None:
    """Put an empty tmpfs on *path*; on this process's host only."""
    _mount("tmpfs", path, "tmpfs", 0)


def show(source: str, path: str) -> None:
    """Put *source* in the place of *path*; on this process's host only."""
    _mount(source, path, None, _BIND | _REC)


def uncover(path: str) -> None:
    """Take away what `cover` or `show` put there last, with all that is mounted below."""
    _checked(_libc.umount2(path.encode(), _DETACH), f"umount {path}")


def own_mounts_without(path: str) -> None:
    """Give the calling thread mounts of its own in which the one at *path* is missing."""
    _checked(_libc.unshare(_NEWNS), "unshare")
    _mount(None, "/", None, _REC | _PRIVATE)
    _checked(_libc.umount2(path.encode(), 0), f"umount {path}")


def wire(network: Network, neighbour: Network) -> None:
    """
    Loopback up on both, and a wire between them, with addresses from the ranges kept for documentation.

    The neighbour is the way to everywhere else, as a machine has one; and it says at once that there is nobody.
    """
    settings = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
    settings |= {"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0"}
    for name, value in settings.items():
        neighbour.call(partial(Path("/proc/sys/net", name).write_text, value))
    lines = {
        network: (
            "link set lo up",
            f"link add {DEVICE} type veth peer name {DEVICE} netns /proc/{os.getpid()}/fd/{neighbour.fd}",
            f"addr add {ADDRESS}/24 dev {DEVICE}",
            f"addr add {ADDRESS_6}/64 dev {DEVICE} nodad",
            f"link set {DEVICE} up",
            f"route add default via {NEIGHBOUR}",
            f"route add default via {NEIGHBOUR_6}",
        ),
        neighbour: (
            "link set lo up",
            f"addr add {NEIGHBOUR}/24 dev {DEVICE}",
            f"addr add {NEIGHBOUR_6}/64 dev {DEVICE} nodad",
            f"link set {DEVICE} up",
        ),
    }
    for where, commands in lines.items():
        try:
            done = where.run(["ip", "-batch", "-"], input="\n".join(commands))
        except FileNotFoundError as error:
            raise NoHost("a test host's devices are made by ip: apt-get install iproute2") from error
        if done.returncode != 0:
            raise NoHost(f"ip cannot make the test host's devices: {done.stderr.strip()}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind)]
    _checked(_libc.mount(*encoded, ctypes.c_ulong(flags), None), f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
