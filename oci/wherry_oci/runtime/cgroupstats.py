"""What a control group has used, read from v1's and v2's files into one document (runc's `events --stats`)."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_oci.runtime.cgroups import Cgroup

_UNLIMITED = (1 << 64) - 1
_NANOSECONDS = 1_000_000_000
_BLOCK_COUNTS = {
    "rbytes": ("bytes", "Read"),
    "wbytes": ("bytes", "Write"),
    "rios": ("ops", "Read"),
    "wios": ("ops", "Write"),
}


def stats(cgroup: "Cgroup") -> "dict[str, Any]":
    """`cpu`, `memory`, `pids`, `blkio`, `hugetlb`; what no file tells is left out or 0."""
    v1, unified = cgroup.hierarchies.v1, cgroup.hierarchies.unified
    found: dict[str, Any] = {}
    for section, controller, old, new in (
        ("cpu", "cpuacct", _cpu_v1, _cpu_v2),
        ("memory", "memory", _memory_v1, _memory_v2),
        ("pids", "pids", _pids, _pids),
        ("blkio", "blkio", _block_v1, _block_v2),
        ("hugetlb", "hugetlb", _huge_pages_v1, _huge_pages_v2),
    ):
        if controller in v1:
            found[section] = old(v1[controller] + cgroup.path)
        elif unified is not None:
            found[section] = new(unified + cgroup.path)
    if "cpu" in v1 and "cpu" in found:
        found["cpu"]["throttling"] = _throttling(_pairs(f"{v1['cpu']}{cgroup.path}/cpu.stat"), 1)
    return found


def _text(path: str) -> str:
    """The file's content; empty when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError:
        return ""


def _number(path: str) -> int:
    text = _text(path).strip()
    return _UNLIMITED if text == "max" else int(text) if text.lstrip("-").isdigit() else 0


def _pairs(path: str) -> dict[str, int]:
    """Lines of `name number`."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _cpu_v1(directory: str) -> "dict[str, Any]":
    # In USER_HZ, which is 100 on every machine of ours
    shares = _pairs(f"{directory}/cpuacct.stat")
    tick = _NANOSECONDS // os.sysconf("SC_CLK_TCK")
    return {
        "usage": {
            "total": _number(f"{directory}/cpuacct.usage"),
            "percpu": [int(number) for number in _text(f"{directory}/cpuacct.usage_percpu").split()],
            "kernel": shares.get("system", 0) * tick,
            "user": shares.get("user", 0) * tick,
        },
        "throttling": _throttling({}, 1),
    }


def _cpu_v2(directory: str) -> "dict[str, Any]":
    found = _pairs(f"{directory}/cpu.stat")
    return {
        "usage": {
            "total": found.get("usage_usec", 0) * 1000,
            "percpu": [],
            "kernel": found.get("system_usec", 0) * 1000,
            "user": found.get("user_usec", 0) * 1000,
        },
        "throttling": _throttling(found, 1000),
    }


def _throttling(found: dict[str, int], factor: int) -> dict[str, int]:
    time = found.get("throttled_time", found.get("throttled_usec", 0) * factor)
    return {
        "periods": found.get("nr_periods", 0),
        "throttledPeriods": found.get("nr_throttled", 0),
        "throttledTime": time,
    }


def _memory_v1(directory: str) -> "dict[str, Any]":
    def entry(name: str) -> dict[str, int]:
        return {
            "limit": _number(f"{directory}/memory.{name}limit_in_bytes"),
            "usage": _number(f"{directory}/memory.{name}usage_in_bytes"),
            "max": _number(f"{directory}/memory.{name}max_usage_in_bytes"),
            "failcnt": _number(f"{directory}/memory.{name}failcnt"),
        }

    raw = _pairs(f"{directory}/memory.stat")
    return {
        "cache": raw.get("total_cache", raw.get("cache", 0)),
        "usage": entry(""),
        "swap": entry("memsw."),
        "kernel": entry("kmem."),
        "kernelTCP": entry("kmem.tcp."),
        "raw": raw,
    }


def _memory_v2(directory: str) -> "dict[str, Any]":
    raw, events = _pairs(f"{directory}/memory.stat"), _pairs(f"{directory}/memory.events")
    usage, swap = _number(f"{directory}/memory.current"), _number(f"{directory}/memory.swap.current")
    limit, swap_limit = _number(f"{directory}/memory.max"), _number(f"{directory}/memory.swap.max")
    both = _UNLIMITED if _UNLIMITED in (limit, swap_limit) else limit + swap_limit
    return {
        "cache": raw.get("file", 0),
        "usage": {
            "limit": limit,
            "usage": usage,
            "max": _number(f"{directory}/memory.peak"),
            "failcnt": events.get("max", 0),
        },
        # runc's words count memory and swap together, as v1 does.
        "swap": {"limit": both, "usage": usage + swap, "max": 0, "failcnt": 0},
        "kernel": {"limit": 0, "usage": raw.get("kernel", 0), "max": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": raw.get("sock", 0), "max": 0, "failcnt": 0},
        "raw": raw,
    }


def _pids(directory: str) -> dict[str, int]:
    limit = _number(f"{directory}/pids.max")
    return {"current": _number(f"{directory}/pids.current"), "limit": 0 if limit == _UNLIMITED else limit}


def _block_v1(directory: str) -> "dict[str, Any]":
    found: dict[str, Any] = {}
    for key, names in (
        (
            "ioServiceBytesRecursive",
            ("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
        ),
        ("ioServicedRecursive", ("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive")),
    ):
        text = next((text for name in names if (text := _text(f"{directory}/{name}"))), "")
        rows = (line.split() for line in text.splitlines())
        found[key] = [_block(row[0], row[1], int(row[2])) for row in rows if len(row) == 3]
    return found


def _block_v2(directory: str) -> "dict[str, Any]":
    found: dict[str, Any] = {"ioServiceBytesRecursive": [], "ioServicedRecursive": []}
    for line in _text(f"{directory}/io.stat").splitlines():
        device, *counts = line.split()
        for count in counts:
            name, _, value = count.partition("=")
            if name in _BLOCK_COUNTS and ":" in device:
                unit, operation = _BLOCK_COUNTS[name]
                key = "ioServiceBytesRecursive" if unit == "bytes" else "ioServicedRecursive"
                found[key].append(_block(device, operation, int(value)))
    return found


def _block(device: str, operation: str, value: int) -> "dict[str, Any]":
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": value}


def _page_sizes(directory: str, suffix: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name.split(".")[1] for name in names if name.startswith("hugetlb.") and name.endswith(suffix))


def _huge_pages_v1(directory: str) -> "dict[str, Any]":
    return {
        size: {
            "usage": _number(f"{directory}/hugetlb.{size}.usage_in_bytes"),
            "max": _number(f"{directory}/hugetlb.{size}.max_usage_in_bytes"),
            "failcnt": _number(f"{directory}/hugetlb.{size}.failcnt"),
        }
        for size in _page_sizes(directory, "B.usage_in_bytes")
    }


def _huge_pages_v2(directory: str) -> "dict[str, Any]":
    return {
        size: {
            "usage": _number(f"{directory}/hugetlb.{size}.current"),
            "max": 0,
            "failcnt": _pairs(f"{directory}/hugetlb.{size}.events").get("max", 0),
        }
        for size in _page_sizes(directory, "B.current")
    }
