"""Filters at work: the kernel's verdicts on real system calls, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wherry_oci.seccomp import compile_filter, default_profile, filter_flags

pytestmark = pytest.mark.unit

_LOADER = """
import ctypes, errno, json, os, socket, sys, threading
from wherry_oci.linux.process import set_no_new_privileges, set_seccomp_filter
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return errno.errorcode.get(ctypes.get_errno(), "OK") if result == -1 else "OK"
set_no_new_privileges()
set_seccomp_filter(bytes.fromhex(sys.argv[1]), int(sys.argv[2]))
"""

x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")


def _loaded(profile: dict[str, Any], script: str) -> subprocess.CompletedProcess[str]:
    program = compile_filter(profile).hex()
    return subprocess.run(
        [sys.executable, "-c", _LOADER + script, program, str(filter_flags(profile))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@x86_64
def test_the_default_profile_lets_programs_live_and_refuses_the_rest() -> None:
    """Threads, files, processes and sockets work; namespaces, kernel modules, AF_ALG and AF_VSOCK do not."""
    done = _loaded(
        default_profile([]),
        """
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
assert os.system("true") == 0
socket.socket(socket.AF_INET).close(); socket.socket(socket.AF_UNIX).close()
import subprocess
assert subprocess.check_output([sys.executable, "-c", "print(7)"]) == b"7\\n"
print(json.dumps({
    "unshare user": call(272, 0x10000000), "setns": call(308, 0, 0), "mount": call(165, 0, 0, 0, 0, 0),
    "init_module": call(175, 0, 0, 0), "keyctl": call(250, 0), "bpf": call(321, 0, 0, 0),
    "clone user": call(56, 0x10000000, 0, 0, 0, 0), "clone3": call(435, 0, 0),
    "AF_ALG": call(41, 38, 5, 0), "AF_VSOCK": call(41, 40, 1, 0), "personality": call(135, 0x0040000),
    "personality?": call(135, 0xffffffff), "new": call(999), "getpid": call(39),
}))
""",
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "unshare user": "EPERM",
        "setns": "EPERM",
        "mount": "EPERM",
        "init_module": "EPERM",
        "keyctl": "EPERM",
        "bpf": "EPERM",
        "clone user": "EPERM",
        "clone3": "ENOSYS",
        "AF_ALG": "EPERM",
        "AF_VSOCK": "EPERM",
        "personality": "EPERM",
        "personality?": "OK",
        "new": "ENOSYS",
        "getpid": "OK",
    }


@x86_64
def test_capabilities_add_what_they_are_for() -> None:
    """With CAP_SYS_ADMIN unshare reaches the kernel."""
    done = _loaded(default_profile(["CAP_SYS_ADMIN"]), "print(call(272, 0), call(308, -1, 0), call(435, 0, 0))")
    assert done.stdout.split() == ["OK", "EBADF", "EINVAL"]


@pytest.mark.parametrize(
    ("action", "ending"),
    [("SCMP_ACT_KILL_PROCESS", -signal.SIGSYS), ("SCMP_ACT_TRAP", -signal.SIGSYS), ("SCMP_ACT_ALLOW", 0)],
)
def test_actions_end_as_they_say(action: str, ending: int) -> None:
    """A killed process shows it."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat", "mkdir"], "action": action}]}
    done = _loaded(profile, "os.mkdir(f'/tmp/{os.getpid()}-made'); os.rmdir(f'/tmp/{os.getpid()}-made')")
    assert done.returncode == ending


def test_conditions_see_all_bits_of_arguments(tmp_path: Path) -> None:
    """lseek(2) takes an offset of 64 bits; the filter refuses one beyond 4 GiB and no smaller one."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["lseek"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 27,  # EFBIG
                "args": [{"index": 1, "op": "SCMP_CMP_GT", "value": 2**32}],
            }
        ],
    }
    path = tmp_path / "file"
    path.touch()
    done = _loaded(
        profile,
        f"fd = os.open({str(path)!r}, os.O_RDONLY)\n"
        "for offset in (0, 2**32 - 1, 2**32, 2**32 + 1, 2**40):\n"
        "    try: print(os.lseek(fd, offset, 0) == offset)\n"
        "    except OSError as error: print(errno.errorcode[error.errno])\n",
    )
    assert done.stdout.split() == ["True", "True", "True", "EFBIG", "EFBIG"]
