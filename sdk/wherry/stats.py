"""What containers use: read from the kernel's own files at the moment it is asked for, in the words of `GET /stats`."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

from wherry.container import timestamp
from wherry.errors import NotRunning
from wherry_oci.runtime.cgroups import Cgroup, Hierarchies

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine

_NANO = 1_000_000_000
_NEVER = "0001-01-01T00:00:00Z"
_SYSTEM_FIELDS = 7  # of /proc/stat's first line: user, nice, system, idle, iowait, irq, softirq, as Docker counts
_NETWORK_FIELDS = ("bytes", "packets", "errors", "dropped")
_OTHER_BLOCK_LISTS = (
    *("io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive"),
    *("io_merged_recursive", "io_time_recursive", "sectors_recursive"),
)


class Stats(dict[str, Any]):
    """
    One sample, a mapping in docker's words; its attributes are what `docker stats` computes of it.

    `cpu_percent` is of one processor, since the sample before; 0.0 when there was none.
    """

    @property
    def cpu_percent(self) -> float:
        now, before = self["cpu_stats"], self["precpu_stats"]
        if "system_cpu_usage" not in before:
            return 0.0
        used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
        passed = now["system_cpu_usage"] - before["system_cpu_usage"]
        return used / passed * now["online_cpus"] * 100.0 if used > 0 and passed > 0 else 0.0

    @property
    def memory_usage(self) -> int:
        """Bytes, without the files that the kernel would give up first."""
        memory = self["memory_stats"]
        details = memory["stats"]
        inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
        usage: int = memory["usage"]
        return usage - inactive if inactive < usage else usage

    @property
    def memory_limit(self) -> int:
        """Bytes; the machine's memory when it has no limit of its own."""
        return int(self["memory_stats"]["limit"])

    @property
    def memory_percent(self) -> float:
        return self.memory_usage / self.memory_limit * 100.0 if self.memory_limit else 0.0

    @property
    def network_received(self) -> int:
        """Bytes, of all its interfaces but loopback."""
        return sum(interface["rx_bytes"] for interface in self["networks"].values())

    @property
    def network_sent(self) -> int:
        """Bytes, of all its interfaces but loopback."""
        return sum(interface["tx_bytes"] for interface in self["networks"].values())

    @property
    def block_read(self) -> int:
        """Bytes."""
        return self._block("r")

    @property
    def block_written(self) -> int:
        """Bytes."""
        return self._block("w")

    def _block(self, operation: str) -> int:
        entries = self["blkio_stats"]["io_service_bytes_recursive"]
        return sum(entry["value"] for entry in entries if entry["op"].lower().startswith(operation))

    @property
    def pids(self) -> int:
        """Processes and threads."""
        return int(self["pids_stats"]["current"])


class Sampler:
    """Takes samples, and remembers each container's last one: of two comes what it does per second."""

    def __init__(self, engine: "LocalEngine") -> None:
        self._engine = engine
        self._hierarchies = Hierarchies.own()
        self._last: dict[str, Stats] = {}

    def sample(self, record: "Record") -> Stats:
        """As it is now. Raises NotRunning."""
        state = self._engine.state(record)
        if not state.pid:
            raise NotRunning(record.name, state.status, "measure")
        used = Cgroup(f"{record.settings['cgroup_parent']}/{record.id}", self._hierarchies).stats()
        networks = {} if record.settings["network"] == "host" else _networks(state.pid)
        last = self._last.get(record.id)
        stats = Stats(
            id=record.id,
            name=f"/{record.name}",
            read=timestamp(time_ns()),
            preread=last["read"] if last else _NEVER,
            num_procs=0,
            storage_stats={},
            pids_stats=used.get("pids", {"current": 0, "limit": 0}),
            cpu_stats=_cpu(used.get("cpu") or {}),
            precpu_stats=last["cpu_stats"] if last else _cpu({}, with_system=False),
            memory_stats=_memory(used.get("memory") or {}),
            blkio_stats=_block_io(used.get("blkio") or {}),
            networks=networks,
        )
        self._last[record.id] = stats
        return stats

    def all(self) -> list[Stats]:
        """A sample of each that runs; those that end meanwhile are left out."""
        found = []
        for record in self._engine.records():
            try:
                found.append(self.sample(record))
            except NotRunning:
                continue
        return found


def stream(engine: "LocalEngine", name: str, interval_s: float) -> Iterator[Stats]:
    """A sample every *interval_s* seconds, until the container has ended. Raises NotRunning at the first."""
    record = engine.record(name)
    sampler = Sampler(engine)
    yield sampler.sample(record)
    while engine.wait(record.id, interval_s) is None:
        try:
            yield sampler.sample(record)
        except NotRunning:  # it rests between two runs, or ends just now
            continue


def _cpu(used: Mapping[str, Any], *, with_system: bool = True) -> dict[str, Any]:
    usage, throttling = used.get("usage") or {}, used.get("throttling") or {}
    found: dict[str, Any] = {
        "cpu_usage": {
            "total_usage": usage.get("total", 0),
            "usage_in_kernelmode": usage.get("kernel", 0),
            "usage_in_usermode": usage.get("user", 0),
        },
        "throttling_data": {
            "periods": throttling.get("periods", 0),
            "throttled_periods": throttling.get("throttledPeriods", 0),
            "throttled_time": throttling.get("throttledTime", 0),
        },
    }
    if usage.get("percpu"):
        found["cpu_usage"]["percpu_usage"] = usage["percpu"]
    if with_system:
        found["system_cpu_usage"], found["online_cpus"] = _system()
    return found


def _system() -> tuple[int, int]:
    """Nanoseconds of all processors together since boot, and how many processors there are."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    ticks = sum(int(field) for field in lines[0].split()[1 : 1 + _SYSTEM_FIELDS])
    processors = sum(line.startswith("cpu") for line in lines) - 1
    return ticks * _NANO // os.sysconf("SC_CLK_TCK"), processors


def _memory(used: Mapping[str, Any]) -> dict[str, Any]:
    usage = used.get("usage") or {}
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "usage": usage.get("usage", 0),
        "max_usage": usage.get("max", 0),
        "failcnt": usage.get("failcnt", 0),
        "limit": min(usage.get("limit") or total, total),
        "stats": used.get("raw") or {},
    }


def _block_io(used: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "io_service_bytes_recursive": used.get("ioServiceBytesRecursive") or [],
        "io_serviced_recursive": used.get("ioServicedRecursive") or [],
        **dict.fromkeys(_OTHER_BLOCK_LISTS),
    }


def _networks(pid: int) -> dict[str, dict[str, int]]:
    """Each interface's counters (proc_pid_net(5), "dev") but loopback's."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    except OSError:  # it has just ended
        return {}
    found = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = [int(number) for number in numbers.split()]
        if name.strip() != "lo":
            received = {f"rx_{field}": fields[at] for at, field in enumerate(_NETWORK_FIELDS)}
            sent = {f"tx_{field}": fields[8 + at] for at, field in enumerate(_NETWORK_FIELDS)}
            found[name.strip()] = {**received, **sent}
    return found
