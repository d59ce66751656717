"""What a container shares with the host, and the finer limits: from options to config.json."""

from typing import Any

import pytest

from wherry.isolation import Isolation, parse_isolation
from wherry_oci.errors import InvalidArgument, NotFound, Unsupported

pytestmark = pytest.mark.unit


def test_shared_namespaces_are_left_out() -> None:
    """Of those that the container would have of its own; private ones are the default."""
    kinds = ["pid", "mount", "ipc", "uts", "cgroup"]
    shared = parse_isolation({"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "cgroupns": "host"})
    assert shared.namespaces(kinds) == ["mount"]
    assert parse_isolation({"ipc_mode": "shareable", "cgroupns": "private"}).namespaces(kinds) == kinds
    assert parse_isolation({}) == Isolation()


def test_limits_are_put_beside_the_others() -> None:
    """In runtime-spec's names, and nothing that was there is lost."""
    given = parse_isolation(
        {
            "mem_swappiness": 10,
            "oom_kill_disable": True,
            "cpu_rt_period": 1000,
            "cpu_rt_runtime": 500,
            "blkio_weight": 300,
            "device_cgroup_rules": ["c 1:3 rwm", "b 8:* r"],
        }
    )
    resources = given.complete({"devices": [{"allow": False}], "memory": {"limit": 5}})
    assert resources == {
        "devices": [
            {"allow": False},
            {"allow": True, "type": "c", "access": "rwm", "major": 1, "minor": 3},
            {"allow": True, "type": "b", "access": "r", "major": 8},
        ],
        "memory": {"limit": 5, "swappiness": 10, "disableOOMKiller": True},
        "cpu": {"realtimePeriod": 1000, "realtimeRuntime": 500},
        "blockIO": {"weight": 300},
    }


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"pid_mode": "container:x"}, Unsupported),
        ({"ipc_mode": "nosuch"}, InvalidArgument),
        ({"mem_swappiness": 101}, InvalidArgument),
        ({"blkio_weight": 5}, InvalidArgument),
        ({"device_cgroup_rules": ["x 1:3 rwm"]}, InvalidArgument),
        ({"device_cgroup_rules": ["c 1:3"]}, InvalidArgument),
        ({"device_read_bps": [{"Path": "/dev/nosuch", "Rate": "1m"}]}, NotFound),
        ({"device_read_bps": [{"Path": "/dev/null", "Rate": "1m"}]}, InvalidArgument),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], error: type[Exception]) -> None:
    """With the option's name."""
    with pytest.raises(error):
        parse_isolation(given)
