"""The keys by which a user leaves."""

import pytest

from wherry.detachkeys import DetachKeys
from wherry_oci.errors import InvalidArgument

pytestmark = pytest.mark.unit


def test_what_is_not_the_whole_sequence_is_passed_on() -> None:
    """In pieces as in one, and the first key may begin the sequence anew."""
    keys = DetachKeys()
    assert [keys.pass_on(one) for one in (b"a\x10", b"b", b"\x10\x10", b"\x11c")] == [
        (b"a", False),
        (b"\x10b", False),
        (b"\x10", False),
        (b"", True),
    ]
    assert DetachKeys("x,ctrl-a").pass_on(b"yx\x01") == (b"y", True)


def test_keys_that_do_not_exist_are_refused() -> None:
    """In docker's words."""
    with pytest.raises(InvalidArgument, match="Invalid detach keys"):
        DetachKeys("ctrl-1")
