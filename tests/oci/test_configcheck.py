"""What is decided before anything is done: configurations, command lines, device rules."""

import pytest

from wherry_oci.command.arguments import Request
from wherry_oci.command.information import template
from wherry_oci.errors import InvalidArgument
from wherry_oci.runtime.configcheck import check
from wherry_oci.runtime.devicefilter import exceptions, program
from wherry_oci.runtime.failure import RuntimeFailure

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("rootless", [True, False])
def test_our_own_template_is_right(rootless: bool) -> None:
    """`spec` writes what `create` takes."""
    check(template(rootless=rootless))


def test_what_is_wrong_is_named_by_its_path() -> None:
    """Types, ranges, what must be there, and what must not be twice."""
    for change, path in (
        ({"ociVersion": "2.0.0"}, r"\$\.ociVersion"),
        ({"root": None}, r"\$\.root"),
        ({"process": {"args": [], "cwd": "/"}}, r"\$\.process\.args"),
        ({"process": {"args": ["a"], "cwd": "b"}}, r"\$\.process\.cwd"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": -1, "size": 1}]}}, r"uidMappings\[0\]\.hostID"),
    ):
        with pytest.raises(RuntimeFailure, match=path):
            check({**template(rootless=False), **change})


def test_flags_are_read_as_engines_write_them() -> None:
    """Global ones first, values with and without `=`, and for exec nothing after the id."""
    request = Request(["--root=/r", "--log-format", "json", "exec", "-e", "A=1", "--cap", "KILL", "id", "ls", "-e"])
    assert request.globals == {"root": "/r", "log-format": "json"}
    assert request.flags == {"env": ["A=1"], "cap": ["KILL"]}
    assert request.arguments == ["id", "ls", "-e"]
    assert Request(["update", "--memory", "1m", "id"]).flags == {"memory": 1 << 20}
    with pytest.raises(InvalidArgument, match="no flag"):
        Request(["state", "--nonsense", "id"])


def test_device_rules_mean_what_v1_means() -> None:
    """The last word counts, access adds up, and all is reset by a rule for everything."""
    deny = {"allow": False, "access": "rwm"}
    null = {"allow": True, "type": "c", "major": 1, "minor": 3}
    assert exceptions([deny, {**null, "access": "r"}, {**null, "access": "w"}]) == (False, {(2, 1, 3): 6})
    assert exceptions([deny, {**null, "access": "rw"}, {**null, "allow": False, "access": "w"}]) == (
        False,
        {(2, 1, 3): 2},
    )
    assert exceptions([{**null, "allow": False, "access": "rwm"}]) == (True, {(2, 1, 3): 7})
    assert len(program([deny, {**null, "access": "r"}])) % 8 == 0
