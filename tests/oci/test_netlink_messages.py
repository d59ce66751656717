"""What is said to netlink and heard from it, without a kernel."""

import pytest

from wherry_oci.linux import netlink
from wherry_oci.linux.rtnetlink import (
    interface,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("wrong", ["172.30.0.2/33", "172.30.0.2/x", "300.0.0.1/8", "fd00::1/129", "", "172.30.0.2/"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    """Before the kernel sees it."""
    with pytest.raises(ValueError, match=r"(is no IP address|prefix length)"):
        interface(wrong)


def test_attributes_are_read_back_and_broken_ones_end_the_list() -> None:
    """Padding, nesting flags and a length that leads outside."""
    packed = netlink.text(1, "abcd") + netlink.nested(2, netlink.u32(3, 7)) + netlink.be32(4, -2)
    found = netlink.attributes(packed)
    assert netlink.string(found[1]) == "abcd"
    assert netlink.attributes(found[2]) == {3: b"\7\0\0\0"}
    assert found[4] == b"\xff\xff\xff\xfe"
    assert netlink.attributes(b"\2\0\1\0") == {}
    assert netlink.attributes(b"\x40\0\1\0abc") == {1: b"abc"}


def test_an_attribute_that_is_too_long_is_refused() -> None:
    """Its length has 16 bits; silently it would be cut."""
    with pytest.raises(ValueError, match="do not fit"):
        netlink.attribute(1, bytes(0xFFFD))
