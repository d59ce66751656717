"""A systemd of a test's own: process 1 of its own namespaces, in a control group of its own, with no unit but ours."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from support import leftovers
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies

_PROGRAM = "/lib/systemd/systemd"
_PATIENCE_S = 60
# A target alone: the units of this machine are not started. Groups are shown as from their namespace's root.
_BOOT = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/units /run/dbus
for name in only.target shutdown.target dbus.socket dbus.service; do
    printf '[Unit]\\nDefaultDependencies=no\\n' > /run/units/$name
done
printf '[Socket]\\nListenStream=/run/dbus/system_bus_socket\\n' >> /run/units/dbus.socket
printf '[Service]\\nExecStart={bus} --config-file=/run/bus --address=systemd: --nofork\\n' >> /run/units/dbus.service
printf '%s' '{bus_config}' > /run/bus
umount -R /sys/fs/cgroup
if test "$HIERARCHIES" = unified; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for name in $HIERARCHIES systemd; do
        mkdir /sys/fs/cgroup/$name
        mount -t cgroup -o "$(test $name = systemd && echo none,name=systemd || echo $name)" cgroup /sys/fs/cgroup/$name
    done
fi
mount -t proc proc /proc
mount --bind "$LOG" /dev/console
exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH=/run/units:/run/systemd/transient \\
    {program} --system --unit=only.target --log-target=console --show-status=no
"""


_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc")
# Its cgroup namespace begins at a group of its own; beside it, below that, is room for who speaks to it.
_ENTER = """
for group in $GROUPS; do echo 0 > $group/cgroup.procs; done
exec unshare --cgroup sh -c "$0"
"""
_BESIDE = 'test -z "$0" || echo 0 > "$0/beside/cgroup.procs"; exec "$@"'

# Everything is allowed on it, and it stands where programs look for the system's.
_BUS_CONFIG = (
    '<busconfig><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth><policy context="default">'
    '<allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/></policy></busconfig>'
)


@attrs.frozen
class Systemd:
    """One that runs; `pid` is the host's."""

    pid: int
    group: str  # of cgroup v2, where the kernel moves processes within a namespace only; else ""

    def words(self, *arguments: str) -> list[str]:
        """The command line that runs *arguments* beside it."""
        inside = ["nsenter", f"--target={self.pid}", *_NAMESPACES, "--cgroup", "--", *arguments]
        return ["sh", "-c", _BESIDE, self.group, *inside]

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """What a command beside it prints."""
        done = subprocess.run(self.words(*arguments), capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """A unit's properties, in systemctl's words."""
        lines = self("systemctl", "show", unit, *(f"--property={name}" for name in properties)).splitlines()
        return dict(line.partition("=")[::2] for line in lines)


@contextmanager
def booted(folder: Path) -> Iterator[Systemd]:
    """It runs, on leaving it is killed with all below; a skip where there is none, or where none comes up."""
    for program in (_PROGRAM, "systemctl", "nsenter", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    hierarchies = Hierarchies.find()
    cgroup = Cgroup(f"/systemd-{uuid.uuid4().hex[:8]}", hierarchies)
    with ExitStack() as stack:
        cgroup.create()
        stack.callback(_remove, cgroup)
        log = stack.enter_context((folder / "systemd.log").open("wb"))
        script = _BOOT.replace("{program}", _PROGRAM).replace("{bus}", shutil.which("dbus-daemon") or "/nosuch")
        script = script.replace("{bus_config}", _BUS_CONFIG)
        names = " ".join(name for name in hierarchies.v1 if not name.startswith("name=")) or "unified"
        holder = stack.enter_context(
            subprocess.Popen(
                ["unshare", *_NAMESPACES, "--fork", "--kill-child", "sh", "-c", _ENTER, script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HIERARCHIES": names, "LOG": log.name, "GROUPS": " ".join(cgroup.directories)},
            )
        )
        stack.callback(holder.kill)
        group = "" if hierarchies.has_v1_controllers else f"{hierarchies.unified}{cgroup.path}"
        if group:
            os.mkdir(f"{group}/beside")
        yield _await(holder, group, folder / "systemd.log")


def _await(holder: "subprocess.Popen[bytes]", group: str, log: Path) -> Systemd:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and holder.poll() is None:
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        if children:
            found = Systemd(int(children[0]), group)
            state = subprocess.run(
                found.words("systemctl", "is-active", "only.target"), capture_output=True, text=True, check=False
            )
            if state.stdout.strip() == "active":
                return found
        time.sleep(0.05)
    pytest.skip(f"systemd does not come up here: {log.read_text(errors='replace')[-500:]}")


def _remove(cgroup: Cgroup) -> None:
    def left() -> list[str]:
        cgroup.signal(9)
        try:
            cgroup.remove()
        except OSError as error:
            return [str(error)]
        return []

    assert leftovers.settled(left) == []
