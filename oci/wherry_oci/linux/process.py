"""What a process is allowed and how it looks to others: prctl(2), capset(2), seccomp(2), close_range(2), keyctl(2)."""

import os

from wherry_oci.linux._libc import address, syscall
from wherry_oci.linux.numbers import NUMBERS

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
_CLOSE_RANGE_CLOEXEC = 4
_KEYCTL_JOIN_SESSION_KEYRING = 1
_LAST_DESCRIPTOR = 0xFFFFFFFF
_USUAL_DESCRIPTORS = 1 << 16

# capabilities(7), in the order of their numbers
CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID "
    "CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW "
    "CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT "
    "CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD "
    "CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG "
    "CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
).split()


def _prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    return syscall(NUMBERS["prctl"], option, a, b, c, d)


def set_child_subreaper() -> None:
    """Orphans below this process become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(signal: int) -> None:
    """*signal* reaches this process when the thread that made it ends; 0 takes that back."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def set_dumpable(dumpable: bool) -> None:
    """Whether others of the same user may ptrace this process or open its files below /proc; execve(2) resets it."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def set_keepcaps(keep: bool) -> None:
    """Whether permitted capabilities outlive the change to a user that is not root; execve(2) resets it."""
    _prctl(_PR_SET_KEEPCAPS, int(keep))


def set_name(name: bytes) -> None:
    """The thread's name, at most 15 bytes, as ps shows it."""
    buffer = bytearray(name[:15] + b"\0")
    _prctl(_PR_SET_NAME, address(buffer))


def set_no_new_privileges() -> None:
    """No execve(2) below this process gains anything, for ever."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def bounding_set() -> int:
    """The capabilities that may be had at all, as a mask."""
    mask = 0
    for number in range(64):
        try:
            mask |= _prctl(_PR_CAPBSET_READ, number) << number
        except OSError:  # EINVAL: the kernel knows no capability of that number, nor any beyond
            break
    return mask


def drop_from_bounding_set(number: int) -> None:
    """Raises OSError (EPERM without CAP_SETPCAP)."""
    _prctl(_PR_CAPBSET_DROP, number)


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2), for this thread, from masks. Raises OSError (EPERM when *permitted* would grow)."""
    header = bytearray(_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4))
    data = bytearray()
    for shift in (0, 32):
        for mask in (effective, permitted, inheritable):
            data += (mask >> shift & 0xFFFFFFFF).to_bytes(4, "little")
    syscall(NUMBERS["capset"], address(header), address(data))


def permitted_capabilities() -> int:
    """capget(2): the mask of this thread's permitted capabilities."""
    header = bytearray(_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4))
    data = bytearray(24)
    syscall(NUMBERS["capget"], address(header), address(data))
    return int.from_bytes(data[4:8], "little") | int.from_bytes(data[16:20], "little") << 32


def clear_ambient_capabilities() -> None:
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient_capability(number: int) -> None:
    """Raises OSError (EPERM unless it is permitted and inheritable)."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def set_seccomp_filter(program: bytes, flags: int = 0) -> int:
    """
    seccomp(2), SECCOMP_SET_MODE_FILTER: *program* is an array of struct sock_filter.

    Returns 0, or the listener with SECCOMP_FILTER_FLAG_NEW_LISTENER. Raises OSError.
    """
    code = bytearray(program)
    fprog = bytearray(16)  # struct sock_fprog: unsigned short len, struct sock_filter *filter
    fprog[0:2] = (len(code) // 8).to_bytes(2, "little")
    fprog[8:16] = address(code).to_bytes(8, "little")
    return syscall(NUMBERS["seccomp"], _SECCOMP_SET_MODE_FILTER, flags, address(fprog))


def set_domain_name(name: str) -> None:
    """setdomainname(2). Raises OSError."""
    encoded = name.encode()
    syscall(NUMBERS["setdomainname"], encoded, len(encoded))


def copy_descriptor(pid: int, fd: int) -> int:
    """pidfd_getfd(2): a descriptor of ours for what *pid* has open as *fd*. Raises OSError."""
    handle = os.pidfd_open(pid)
    try:
        return syscall(NUMBERS["pidfd_getfd"], handle, fd, 0)
    finally:
        os.close(handle)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from *first* up close-on-exec. Raises OSError."""
    try:
        syscall(NUMBERS["close_range"], first, _LAST_DESCRIPTOR, _CLOSE_RANGE_CLOEXEC)
    except OSError:  # Kernel < 5.11 lacks the call or the flag: one by one, by no list that others could have made.
        for fd in range(first, _USUAL_DESCRIPTORS):
            try:
                os.set_inheritable(fd, False)
            except OSError:  # not open
                continue


def join_session_keyring(name: str) -> None:
    """keyctl(2): a new session keyring, so the host's keys are out of reach. Raises OSError."""
    syscall(NUMBERS["keyctl"], _KEYCTL_JOIN_SESSION_KEYRING, name.encode() + b"\0")
