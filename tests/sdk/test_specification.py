"""What an image and a request come to in config.json."""

from typing import Any

import pytest

from wherry import defaults
from wherry.options import Options
from wherry.specification import document, program_of
from wherry_oci.errors import InvalidArgument, NotFound
from wherry_oci.spec.image import ImageConfig

pytestmark = pytest.mark.unit

_IMAGE = ImageConfig(
    entrypoint=("/entry",),
    cmd=("a", "b"),
    env=("PATH=/image", "X=image"),
    working_dir="/w",
    user="www",
    stop_signal="SIGQUIT",
)


def _options(command: Any = None, **given: Any) -> Options:
    return Options.parse(command, given)


def _spec(command: Any = None, image: ImageConfig = _IMAGE, **given: Any) -> dict[str, Any]:
    options = _options(command, **given)
    return document(
        options,
        program_of(options, image, "image"),
        container_id="c" * 64,
        hostname="host",
        directory="/root/containers/c",
    )


@pytest.mark.parametrize(
    ("given", "command", "arguments"),
    [
        ({}, None, ("/entry", "a", "b")),
        ({}, ["c"], ("/entry", "c")),
        ({"entrypoint": ["/other"]}, None, ("/other",)),
        ({"entrypoint": ["/other"]}, ["c"], ("/other", "c")),
        ({"entrypoint": ""}, ["c"], ("c",)),
    ],
)
def test_entry_point_and_command_come_together_as_dockers(given: dict[str, Any], command: Any, arguments: Any) -> None:
    """A given entry point takes the image's command away, a given command leaves its entry point."""
    assert program_of(_options(command, **given), _IMAGE, "image").arguments == arguments


def test_nothing_to_run_is_an_error_that_names_the_image() -> None:
    """From scratch, say."""
    with pytest.raises(InvalidArgument, match="'scratch' names no command"):
        program_of(_options(), ImageConfig(), "scratch")


def test_the_request_goes_before_the_image() -> None:
    """Environment by name, directory, user, stop signal."""
    program = program_of(_options(environment={"X": "mine", "Y": "2"}, working_dir="/v", user="1"), _IMAGE, "image")
    assert program.environment == ("PATH=/image", "X=mine", "Y=2")
    assert (program.working_dir, program.user, program.stop_signal) == ("/v", "1", "SIGQUIT")
    assert program_of(_options(), _IMAGE, "image").user == "www"
    assert program_of(_options("x"), ImageConfig(), "i").environment == (f"PATH={defaults.PATH}",)


def test_a_container_has_dockers_namespaces_masks_and_devices() -> None:
    """And a privileged one has neither masks nor device rules."""
    linux = _spec()["linux"]
    kinds = {namespace["type"] for namespace in linux["namespaces"]}
    assert kinds == {"pid", "mount", "ipc", "uts", "cgroup", "network"}
    assert {"/proc/kcore", "/proc/scsi", "/proc/acpi", "/sys/firmware"} <= set(linux["maskedPaths"])
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"} in linux["resources"]["devices"]
    privileged = _spec(privileged=True)["linux"]
    assert "maskedPaths" not in privileged
    assert privileged["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


def test_the_host_network_is_no_namespace_and_sets_nothing_of_the_host() -> None:
    """No network namespace, no UTS namespace, no hostname, no sysctl."""
    spec = _spec(network="host")
    assert not {"network", "uts"} & {namespace["type"] for namespace in spec["linux"]["namespaces"]}
    assert "hostname" not in spec
    assert "sysctl" not in spec["linux"]


def test_limits_are_in_the_units_of_the_specification() -> None:
    """nano_cpus is a quota, swap is memory and swap together and as much again unless it is given."""
    resources = _spec(mem_limit="64m", cpus=1.5, pids_limit=10, cpu_shares=512)["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert resources["cpu"] == {"shares": 512, "quota": 150_000, "period": 100_000}
    assert resources["pids"] == {"limit": 10}
    assert _spec(mem_limit="64m", memswap_limit=-1)["linux"]["resources"]["memory"]["swap"] == -1


def test_mounts_are_sorted_so_that_none_hides_another() -> None:
    """A parent comes before its child, whatever the order of asking; the same place twice is the last."""
    spec = _spec(tmpfs={"/a/b/c": "", "/a": "size=1m", "/dev/shm": "size=2m"})
    places = [mount["destination"] for mount in spec["mounts"]]
    assert places.index("/a") < places.index("/a/b/c")
    assert places.index("/dev") < places.index("/dev/pts")
    [shm] = [mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm"]
    assert "size=2m" in shm["options"]


def test_a_device_of_the_host_is_given_with_its_numbers() -> None:
    """Made in the container, and allowed to the cgroup."""
    linux = _spec(devices=["/dev/null:/dev/other:r"])["linux"]
    [device] = linux["devices"]
    assert (device["path"], device["type"], device["major"], device["minor"]) == ("/dev/other", "c", 1, 3)
    assert linux["resources"]["devices"][-1] == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}
    with pytest.raises(NotFound, match="/dev/nothing"):
        _spec(devices=["/dev/nothing"])
    with pytest.raises(InvalidArgument, match="not a device"):
        _spec(devices=["/etc/passwd"])
