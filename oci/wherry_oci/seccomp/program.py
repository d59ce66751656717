"""
Classic BPF programs for seccomp(2), written backwards.

Jumps lead forwards only, so when the end is written first every target is known when its jump is written. A place in
the program is its distance from the end, which does not change as more is put in front.
"""

import struct

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_GO = 0x05  # BPF_JMP | BPF_JA
_RETURN = 0x06  # BPF_RET | BPF_K
JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35  # BPF_JMP | … | BPF_K

NUMBER, ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_FARTHEST = 255  # of a conditional jump


def low_word(argument: int) -> int:
    """The offset of the low half of a system call's argument; both machines are little-endian."""
    return _ARGUMENTS + 8 * argument


def high_word(argument: int) -> int:
    """The offset of the high half."""
    return low_word(argument) + 4


class Program:
    """Instructions from the last to the first. Each method puts one in front of all others and gives its place."""

    def __init__(self) -> None:
        self._backwards: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def ret(self, action: int) -> int:
        """End with *action*; the nearest such end is used again if jumps reach it."""
        known = self._returns.get(action)
        if known is not None and len(self._backwards) - known <= _FARTHEST // 2:
            return known
        self._returns[action] = self._put(_RETURN, 0, 0, action)
        return self._returns[action]

    def load(self, offset: int, then: int) -> int:
        """Load a word of struct seccomp_data, and go on at *then*."""
        self.go(then)
        return self._put(_LOAD, 0, 0, offset)

    def mask(self, mask: int, then: int) -> int:
        """Keep these bits of what was loaded, and go on at *then*."""
        self.go(then)
        return self._put(_AND, 0, 0, mask)

    def go(self, target: int) -> int:
        """Go on at *target*, wherever it is; nothing is put if that is what is behind."""
        if target == len(self._backwards) - 1:
            return target
        return self._put(_GO, 0, 0, self._distance(target))

    def jump(self, test: int, value: int, true: int, false: int) -> int:
        """Compare what was loaded with *value*, and go on at the one place or the other."""
        if true == false:
            return self.go(true)
        # Putting a stop in between moves the other target away by one, so look at both until neither is too far.
        while self._distance(true) > _FARTHEST or self._distance(false) > _FARTHEST:
            if self._distance(true) > _FARTHEST:
                true = self._put(_GO, 0, 0, self._distance(true))
            else:
                false = self._put(_GO, 0, 0, self._distance(false))
        return self._put(test, self._distance(true), self._distance(false), value)

    def packed(self) -> bytes:
        """The program as an array of struct sock_filter."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in reversed(self._backwards))

    def __len__(self) -> int:
        return len(self._backwards)

    def _distance(self, target: int) -> int:
        """How many instructions lie between the one that is put next, and *target*."""
        return len(self._backwards) - 1 - target

    def _put(self, code: int, true: int, false: int, value: int) -> int:
        self._backwards.append((code, true, false, value))
        return len(self._backwards) - 1
