"""Layers: any bytes become a tree inside of their directory, or an InvalidLayer, in bounded memory."""

import os
import sys
import tempfile
from importlib import import_module

atheris = import_module("atheris")  # it is installed for fuzzing alone

with atheris.instrument_imports(include=["wherry_images"]):
    from wherry_images import layer, lower, tar_reader, tree, whiteout
    from wherry_images.errors import InvalidLayer

_LIMITS = layer.Limits(size=1 << 20, file_size=1 << 24, entries=200)
_parent = tempfile.mkdtemp(prefix="fuzz")
_folder = os.open(_parent, os.O_RDONLY | os.O_DIRECTORY)


def one_input(data: bytes) -> None:
    content = bytearray(data)
    if content and content[0] & 1:
        _mend(content)
    os.mkdir("target", dir_fd=_folder)
    target = os.open("target", os.O_RDONLY | os.O_DIRECTORY, dir_fd=_folder)
    try:
        reader = tar_reader.TarReader(bytes(content[start : start + 700]) for start in range(0, len(content), 700))
        layer.apply(reader, target, lower=lower.Lower(), limits=_LIMITS, keeps_modes=False)
    except InvalidLayer:
        pass
    finally:
        os.close(target)
        if os.listdir(_folder) != ["target"]:
            raise AssertionError("something was made outside")
        tree.remove(_folder, "target")


def _mend(content: bytearray) -> None:
    """Make checksums right: no fuzzer finds them by chance."""
    for start in range(0, len(content) - 511, 512):
        block = content[start : start + 512]
        block[148:156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % sum(block)


if __name__ == "__main__":
    assert whiteout.PREFIX
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
