"""Every way in which a mount is said, and what it comes to."""

import os
from pathlib import Path
from typing import Any

import pytest

from wherry.mounts import (
    BIND,
    IMAGE,
    TMPFS,
    VOLUME,
    Mount,
    MountPoint,
    MountRequest,
    parse_mount,
    parse_mount_text,
    parse_volume,
    parse_volumes,
    without_replaced,
)
from wherry.options import Options
from wherry_oci.errors import InvalidArgument, Unsupported

pytestmark = pytest.mark.unit


def test_a_source_is_a_path_a_volumes_name_or_nothing(tmp_path: Path) -> None:
    """docker's --volume: what begins with a slash or a dot is the host's."""
    assert parse_volume(f"{tmp_path}:/a") == MountRequest(kind=BIND, source=str(tmp_path), target="/a")
    assert parse_volume(".:/a:ro").source == os.getcwd()
    assert parse_volume("data:/a:ro,nocopy") == MountRequest(
        kind=VOLUME, source="data", target="/a", read_only=True, no_copy=True, mode="ro,nocopy"
    )
    assert parse_volume("/a/") == MountRequest(kind=VOLUME, target="/a")
    slave = parse_volume(f"{tmp_path}:/b:ro,rslave")
    assert (slave.read_only, slave.propagation) == (True, "rslave")


def test_docker_pys_mapping_and_a_list_say_the_same(tmp_path: Path) -> None:
    """In a list the same path may come twice."""
    source = str(tmp_path)
    assert parse_volumes({source: {"bind": "/a", "mode": "ro"}, "data": "/d"}) == [
        MountRequest(kind=BIND, source=source, target="/a", read_only=True, mode="ro"),
        MountRequest(kind=VOLUME, source="data", target="/d"),
    ]
    assert [request.target for request in parse_volumes([f"{source}:/a", f"{source}:/b"])] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("data:/a:quick", "'quick'"),
        ("data:a", "must be absolute"),
        ("data:/", "not / itself"),
        ("a:b:c:d", "not source:target"),
        ("x:/a", "at least two"),
        ("../../nowhere-at-all:/a", "does not exist"),
        ("data:/a:rslave", "only a path of the host"),
        ("/:/a:nocopy", "only a volume"),
        ("/:/a:z", "SELinux"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(item: str, said: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises((InvalidArgument, Unsupported), match=said):
        parse_volume(item)


def test_dockers_own_door_makes_paths_and_passes_labels_over(tmp_path: Path) -> None:
    """Only there: the SDK says that a path is missing."""
    missing = tmp_path / "missing"
    with pytest.raises(InvalidArgument, match="does not exist"):
        Options.parse(None, {"volumes": [f"{missing}:/a"]})
    [request] = Options.parse(None, {"volumes": [f"{missing}:/a:z"]}, as_docker=True).mounts
    assert request.make_source
    assert not missing.exists()  # that is for the engine


def test_two_mounts_on_one_target_are_refused() -> None:
    """One of them would be lost."""
    with pytest.raises(InvalidArgument, match="two mounts on /a"):
        Options.parse(None, {"volumes": ["data:/a"], "mounts": [Mount("/a/", "other")]})


def test_mount_objects_are_taken_ours_and_docker_pys(tmp_path: Path) -> None:
    """docker.types.Mount is a dictionary of the Engine API's names, as ours is."""
    theirs = {"Target": "/a", "Source": str(tmp_path), "Type": "bind", "ReadOnly": True}
    ours = Mount("/a", tmp_path, "bind", True)
    assert (
        parse_mount(theirs)
        == parse_mount(ours)
        == MountRequest(kind=BIND, source=str(tmp_path), target="/a", read_only=True)
    )
    tmpfs = parse_mount(Mount("/t", type="tmpfs", tmpfs_size="1k", tmpfs_mode=0o700))
    assert (tmpfs.kind, tmpfs.options) == (TMPFS, ("size=1024", "mode=700"))
    volume = parse_mount(Mount("/v", "data", no_copy=True, labels={"a": "b"}, subpath="x/y"))
    assert (volume.kind, volume.no_copy, volume.labels, volume.subpath) == (VOLUME, True, {"a": "b"}, "x/y")
    image = parse_mount(Mount("/i", "busybox", "image"))
    assert (image.kind, image.read_only) == (IMAGE, True)


@pytest.mark.parametrize(
    "mount",
    [
        {"Target": "/a", "Type": "npipe"},
        {"Target": "a", "Type": "volume"},
        {"Target": "/a", "Type": "bind", "Source": "data"},
        {"Target": "/a", "Type": "tmpfs", "Source": "data"},
        {"Target": "/a", "Type": "image"},
        {"Target": "/a", "Type": "bind", "Source": "/", "TmpfsOptions": {"SizeBytes": 1}},
        {"Target": "/a", "Type": "bind", "Source": "/", "BindOptions": {"Propagation": "often"}},
        {"Target": "/a", "Source": "data", "VolumeOptions": {"Subpath": "../x"}},
    ],
)
def test_mounts_that_make_no_sense_are_refused(mount: dict[str, Any]) -> None:
    """Each names its target or its word."""
    with pytest.raises(InvalidArgument, match="mounts:"):
        parse_mount(mount)


def test_the_command_lines_mount_is_read_as_docker_reads_it() -> None:
    """Comma-separated fields, quoted as CSV has it, with docker's several names."""
    volume = parse_mount(parse_mount_text('src=data,dst=/d,readonly,volume-label=a=b,"volume-opt=o=size=1m,mode=1"'))
    assert (volume.source, volume.target, volume.read_only, volume.labels) == ("data", "/d", True, {"a": "b"})
    assert volume.driver_options == {"o": "size=1m,mode=1"}
    bind = parse_mount(parse_mount_text("type=bind,source=/,target=/h,bind-propagation=rslave,bind-recursive=disabled"))
    assert (bind.kind, bind.propagation, bind.recursive) == (BIND, "rslave", False)
    tmpfs = parse_mount(parse_mount_text("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700"))
    assert tmpfs.options == ("size=1048576", "mode=700")
    with pytest.raises(InvalidArgument, match="no field"):
        parse_mount_text("type=bind,sauce=/,target=/h")
    with pytest.raises(InvalidArgument, match="does not go with"):
        parse_mount_text("type=bind,source=/,target=/h,volume-nocopy")


def test_what_lies_below_a_read_only_bind_is_read_only() -> None:
    """Docker's rule for kernels that can; a bind that leaves it behind says nothing of it."""
    point = MountPoint(kind=BIND, source="/a", target="/b", read_only=True)
    assert point.entry()["options"] == ["rbind", "ro", "rro", "rprivate"]
    assert MountPoint(kind=BIND, source="/a", target="/b", recursive=False).entry()["options"] == ["bind", "rprivate"]


def test_of_several_mounts_on_a_target_the_last_one_stays() -> None:
    """What is asked for replaces what is taken over."""
    one, two, other = (
        MountPoint(kind=VOLUME, target=path, name=name) for path, name in (("/a", "1"), ("/a", "2"), ("/b", "3"))
    )
    assert without_replaced([one, other, two]) == [two, other]


def test_volumes_from_says_whose_and_how() -> None:
    """As docker: name[:ro|rw]."""
    assert Options.parse(None, {"volumes_from": ["one", "two:ro"]}).volumes_from == (("one", ""), ("two", "ro"))
    with pytest.raises(InvalidArgument, match="volumes_from"):
        Options.parse(None, {"volumes_from": ["one:often"]})
