"""
seccomp(2) filters made in Python: a profile in, a BPF program out, no library needed.

Compiling takes some milliseconds, so callers that start many containers keep the program.
"""

from wherry_oci.seccomp.filter import compile_filter, filter_flags
from wherry_oci.seccomp.profile import default_profile

__all__ = ["compile_filter", "default_profile", "filter_flags"]
