"""What the numbers were measured on: a number without its machine says nothing."""

import os
import platform
import re
from pathlib import Path


def description() -> str:
    """Processor, cores, memory, kernel and interpreter, in one line."""
    return ", ".join(
        [_processor(), f"{os.cpu_count()} cores", _memory(), f"Linux {platform.release()}", _interpreter()],
    )


def _processor() -> str:
    named = re.search(r"^(?:model name|CPU part)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{named[1] if named else 'unknown processor'} ({platform.machine()})"


def _memory() -> str:
    kibibytes = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return f"{round(int(kibibytes[1]) / 2**20) if kibibytes else '?'} GiB"


def _interpreter() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"
