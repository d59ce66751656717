"""The keys by which a user leaves a container to itself: docker's `ctrl-p,ctrl-q`, or others in its form."""

from wherry_oci.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"


class DetachKeys:
    """Finds them in what is typed; those typed so far are held back until it is clear what follows."""

    def __init__(self, text: str = DEFAULT) -> None:
        """*text* is letters and `ctrl-X`, with commas; "" is the default. Raises InvalidArgument."""
        self._keys = _keys(text or DEFAULT)
        self._held = b""

    def pass_on(self, typed: bytes) -> tuple[bytes, bool]:
        """What of it goes to the process, and whether the user leaves."""
        out = bytearray()
        for number in typed:
            key = bytes((number,))
            if self._keys.startswith(self._held + key):
                self._held += key
                if self._held == self._keys:
                    return bytes(out), True
                continue
            out += self._held
            self._held = b""
            if self._keys.startswith(key):
                self._held = key
            else:
                out += key
        return bytes(out), False


def _keys(text: str) -> bytes:
    found = bytearray()
    for name in text.split(","):
        if len(name) == 1:
            found += name.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and 64 <= ord(name[5].upper()) <= 95:
            found.append(ord(name[5].upper()) - 64)
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(found)
