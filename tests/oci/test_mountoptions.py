"""Mount options, sorted by what takes them."""

import pytest

from wherry_oci.linux import mount as m
from wherry_oci.runtime.mountoptions import MountOptions

pytestmark = pytest.mark.unit


def test_flags_go_to_the_mount_and_the_rest_to_the_file_system() -> None:
    """Docker's options for /dev/shm."""
    options = MountOptions(["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])
    assert options.set == m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC | m.MOUNT_ATTR_NODEV
    assert options.superblock == ["mode=1777", "size=65536k"]
    assert not options.bind


def test_a_later_option_takes_an_earlier_one_back() -> None:
    """ro,rw is rw; of access times the last one counts."""
    options = MountOptions(["ro", "rw", "noatime", "strictatime"])
    assert options.set == m.MOUNT_ATTR_STRICTATIME
    assert options.clear & m.MOUNT_ATTR_RDONLY


def test_binds_propagation_and_recursive_flags_are_told_apart() -> None:
    """rbind is no recursive flag, rro and rslave are."""
    options = MountOptions(["rbind", "rro", "rslave", "unbindable"])
    assert (options.bind, options.recursive) == (True, True)
    assert options.recursive_set == m.MOUNT_ATTR_RDONLY
    assert options.set == 0
    assert options.propagation == [m.MS_SLAVE | m.MS_REC, m.MS_UNBINDABLE]


def test_layers_keep_their_order_and_number() -> None:
    """Each lowerdir is an option of its own."""
    assert MountOptions(["lowerdir=/b", "lowerdir=/a"]).superblock == ["lowerdir=/b", "lowerdir=/a"]
