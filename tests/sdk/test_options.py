"""docker-py's option names and shapes, and what is wrong with others."""

from datetime import timedelta
from typing import Any

import attrs
import pytest

from wherry import isolation
from wherry.networkoptions import OPTIONS
from wherry.options import _MOUNTING, _PARSERS, Limit, Options, Restart, RunOptions, health_check, size_in_bytes
from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_oci.spec.image import Healthcheck

pytestmark = pytest.mark.unit


def _parse(command: Any = None, **given: Any) -> Options:
    return Options.parse(command, given)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1k", 1024), ("1.5m", 1572864), ("2G", 2 << 30), ("512MiB", 512 << 20), (7, 7), ("-1", -1)],
)
def test_sizes_are_read_as_docker_reads_them(text: str | int, size: int) -> None:
    """Powers of 1024 whatever the letters say."""
    assert size_in_bytes(text, "x") == size


def test_a_command_is_a_list_or_a_shells_words() -> None:
    """No shell runs, but its quoting holds."""
    assert _parse("sh -c 'a b'").command == ("sh", "-c", "a b")
    assert _parse(["a b", "c"]).command == ("a b", "c")
    assert _parse().command is None
    assert _parse(entrypoint="").entrypoint == ()
    assert _parse(entrypoint=["a"]).entrypoint == ("a",)
    with pytest.raises(InvalidArgument, match="command"):
        _parse("unbalanced '")


def test_environment_is_a_mapping_or_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name alone takes the caller's own value, and is left out when there is none."""
    monkeypatch.setenv("HERE", "mine")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert _parse(environment={"A": "1", "HERE": None, "NOT_HERE": None}).environment == ("A=1", "HERE=mine")
    assert _parse(environment=["A=1=2", "HERE", "NOT_HERE", "E="]).environment == ("A=1=2", "HERE=mine", "E=")
    with pytest.raises(InvalidArgument, match="no variable"):
        _parse(environment=["=x"])


def test_capabilities_go_by_any_of_their_names() -> None:
    """Lower case, without CAP_, and ALL."""
    parsed = _parse(cap_add=["net_admin", "CAP_SYS_TIME"], cap_drop=["ALL"])
    assert (parsed.cap_add, parsed.cap_drop) == (("CAP_NET_ADMIN", "CAP_SYS_TIME"), ("ALL",))
    with pytest.raises(InvalidArgument, match="'NET_ADMEN' is no capability"):
        _parse(cap_add=["NET_ADMEN"])


def test_ulimits_in_both_forms() -> None:
    """docker.types.Ulimit is a dictionary."""
    parsed = _parse(ulimits=["nofile=1:2", {"Name": "nproc", "Soft": 3, "Hard": 4}, "core=0"])
    assert parsed.ulimits == (
        Limit(name="nofile", soft=1, hard=2),
        Limit(name="nproc", soft=3, hard=4),
        Limit(name="core", soft=0, hard=0),
    )


@pytest.mark.parametrize(
    ("given", "restart"),
    [
        ({"Name": "on-failure", "MaximumRetryCount": 3}, Restart(name="on-failure", maximum=3)),
        ({"Name": "always"}, Restart(name="always")),
        ("on-failure:2", Restart(name="on-failure", maximum=2)),
        ("unless-stopped", Restart(name="unless-stopped")),
        ("no", Restart()),
    ],
)
def test_restart_policies_in_both_forms(given: Any, restart: Restart) -> None:
    """docker-py's mapping and the command line's text."""
    assert _parse(restart_policy=given).restart == restart


@pytest.mark.parametrize("given", ["sometimes", "always:3", "on-failure:x"])
def test_other_restart_policies_are_refused(given: str) -> None:
    """The error shows what there is."""
    with pytest.raises(InvalidArgument, match=r"unless-stopped|only on-failure"):
        _parse(restart_policy=given)


def test_a_health_check_is_the_requests_before_the_images() -> None:
    """Field by field; NONE turns it off."""
    image = Healthcheck(test=("CMD", "image"), interval=5, timeout=6, retries=7)
    asked = _parse(healthcheck={"test": "a line", "interval": timedelta(seconds=2), "Timeout": "1m30s"})
    found = health_check(asked, image)
    assert found is not None
    assert found["test"] == ["CMD-SHELL", "a line"]
    assert (found["interval"], found["timeout"], found["retries"]) == (2_000_000_000, 90_000_000_000, 7)
    assert health_check(_parse(), None) is None
    assert health_check(_parse(healthcheck={"test": ["NONE"]}), image) is None
    with pytest.raises(InvalidArgument, match="interval"):
        _parse(healthcheck={"test": "x", "interval": "soon"})


def test_what_excludes_each_other_is_refused() -> None:
    """Each error names the options."""
    with pytest.raises(InvalidArgument, match="nano_cpus"):
        _parse(cpus=1.5, cpu_quota=1000)
    with pytest.raises(InvalidArgument, match="ports"):
        _parse(ports={80: 80}, network="host")
    with pytest.raises(InvalidArgument, match="memswap_limit"):
        _parse(memswap_limit="1g")
    with pytest.raises(InvalidArgument, match="working_dir"):
        _parse(working_dir="relative")


def test_an_unknown_option_is_a_type_error_with_the_nearest_name() -> None:
    """As for any function."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'enviroment'; did you mean 'environment'"):
        _parse(enviroment={})
    with pytest.raises(TypeError, match=r"'zzz'$"):
        _parse(zzz=1)


def test_what_docker_py_has_and_wherry_not_yet_is_never_passed_over() -> None:
    """An error unless it asks for nothing; no name of docker-py's is unknown."""
    with pytest.raises(Unsupported, match="storage_opt"):
        _parse(storage_opt={"size": "1g"})
    assert _parse(storage_opt=None, userns_mode="host", links={}) == Options()


def test_every_option_has_a_field_or_a_parser() -> None:
    """The typed keyword arguments and what is done with them do not drift apart."""
    fields = {field.name for field in attrs.fields(Options)}
    assert [
        name
        for name in RunOptions.__annotations__
        if name not in {*_PARSERS, *_MOUNTING, *OPTIONS, *isolation.OPTIONS, *fields}
    ] == []
    assert _parse(**dict.fromkeys(RunOptions.__annotations__)) == Options()
