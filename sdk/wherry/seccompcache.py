"""Compiled seccomp filters, kept by what they are made of: compiling one takes longer than starting a container."""

import os
from collections.abc import Sequence
from pathlib import Path

from wherry_oci.runtime.capabilities import mask_of

_PROFILE_VERSION = "1"  # raised whenever wherry_oci.seccomp would make another program of the same question


def default_filter(root: Path, capabilities: Sequence[str]) -> str:
    """The file with Docker's default filter for a container with *capabilities*, compiled at first need."""
    system = os.uname()
    directory = root / "cache" / "seccomp"
    path = directory / f"{_PROFILE_VERSION}-{system.machine}-{system.release}-{mask_of(list(capabilities)):x}"
    if not path.exists():
        for made in (directory.parent, directory):
            os.makedirs(made, 0o700, exist_ok=True)
        _compile(path, capabilities)
    return str(path)


def _compile(path: Path, capabilities: Sequence[str]) -> None:
    from wherry_oci.seccomp import compile_filter, default_profile

    program = compile_filter(default_profile(capabilities))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    temporary.write_bytes(program)
    os.rename(temporary, path)
