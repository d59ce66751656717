"""What a shim goes without."""

import os
import subprocess
import sys

import pytest

import wherry_oci
import wherry_shim


@pytest.mark.unit
def test_a_shim_imports_nothing_that_makes_containers() -> None:
    """Each container has a shim, for as long as it lives; what is done once is a maker's."""
    roots = [os.path.dirname(os.path.dirname(str(module.__file__))) for module in (wherry_shim, wherry_oci)]
    makers = {f"wherry_oci.runtime.{name}" for name in ("container", "init", "rootfs", "idmap", "usernamespace")}
    heavy = makers | {"wherry_oci.linux.mount", "wherry_oci.linux.nftables", "ctypes", "signal", "typing", "json", "re"}
    code = (
        f"import sys; sys.path[:0] = {roots}; import wherry_shim.main, wherry_shim.supervisor, wherry_shim.network;"
        f"print(sorted({heavy} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
