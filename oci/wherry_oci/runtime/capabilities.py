"""Capabilities by name, as the masks that the kernel takes (config.md, "Linux Process": capabilities)."""

from wherry_oci.linux.process import CAPABILITIES

_NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}


def mask_of(names: "list[str]") -> int:
    """A bit for each of *names*; those that nobody knows are left out, as runtime-spec 1.1 has it."""
    mask = 0
    for name in names:
        number = _NUMBERS.get(name)
        if number is not None:
            mask |= 1 << number
    return mask


def numbers_in(mask: int) -> list[int]:
    """The capabilities of *mask*, in order."""
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
