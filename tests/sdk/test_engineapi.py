"""Documents of the Engine API: Go's rules for names, nulls and types, both ways."""

import importlib
import json
import pkgutil
import subprocess
import sys
from typing import Any

import attrs
import pytest

from wherry import engineapi
from wherry.engineapi.containerlist import PortSummary
from wherry.engineapi.containers import ContainerConfig, ContainerCreate, HostConfig, PortBinding
from wherry.engineapi.document import Malformed, Words, asked, json_names, parse, told
from wherry.engineapi.networks import EndpointSettings

pytestmark = pytest.mark.unit


def _documents() -> list[type]:
    modules = [
        importlib.import_module(f"{engineapi.__name__}.{one.name}") for one in pkgutil.iter_modules(engineapi.__path__)
    ]
    return [
        found
        for module in modules
        for found in vars(module).values()
        if isinstance(found, type) and attrs.has(found) and found.__module__ == module.__name__
    ]


@pytest.mark.parametrize("cls", _documents(), ids=lambda cls: cls.__name__)
def test_each_document_comes_back_from_json(cls: Any) -> None:
    """With every field at its zero value, told whole or asked for; and no two fields share a name."""
    names = list(json_names(cls).values())
    assert len({name.lower() for name in names}) == len(names)
    for shown in (told(cls()), asked(cls())):
        assert parse(json.loads(json.dumps(shown)), cls) == cls()


def test_names_are_taken_in_any_case_and_null_is_nothing() -> None:
    """As Go's decoder does; what no field is named after is ignored."""
    found = parse({"image": "x", "CMD": None, "Newer": {}, "hostconfig": {"CPURealtimePeriod": 5}}, ContainerCreate)
    assert found == ContainerCreate(image="x", host_config=HostConfig(cpu_realtime_period=5))
    assert parse(None, ContainerConfig) == ContainerConfig()


def test_a_single_text_is_a_command() -> None:
    """Docker's old clients send it so."""
    assert parse({"Cmd": "ls", "Entrypoint": ["a", "b"]}, ContainerConfig) == ContainerConfig(
        cmd=Words(["ls"]), entrypoint=Words(["a", "b"])
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], r"the body: \[\] is not an object"),
        ({"Tty": 1}, r"the body\.Tty: 1 is not true or false"),
        ({"Cmd": [1]}, r"the body\.Cmd: \[1\] is neither a string nor an array of strings"),
        ({"Labels": {"a": 1}}, r"the body\.Labels: \['a'\]: 1 is not a string"),
        ({"HostConfig": {"Memory": True}}, r"the body\.HostConfig\.Memory: True is not an integer"),
        ({"HostConfig": {"Memory": 1 << 63}}, r"the body\.HostConfig\.Memory: 9223372036854775808 is not an integer"),
        ({"HostConfig": {"Binds": "x"}}, r"the body\.HostConfig\.Binds: 'x' is not an array"),
        (
            {"HostConfig": {"Mounts": [{}, {"Type": 4}]}},
            r"the body\.HostConfig\.Mounts: \[1\]\.Type: 4 is not a string",
        ),
        ({"Env": [1], "User": 2}, r"the body\.User: 2 .*; the body\.Env: \[0\]: 1 |the body\.Env.*; the body\.User"),
    ],
)
def test_another_type_is_refused_with_its_place(body: Any, said: str) -> None:
    """In the names of JSON, all that is wrong at once."""
    with pytest.raises(Malformed, match=said):
        parse(body, ContainerCreate)


def test_what_is_told_is_whole_and_what_is_asked_is_short() -> None:
    """Docker's clients look for fields that are empty, too; of a request the engine's defaults hold."""
    assert told(PortSummary(private_port=80, type="tcp")) == {"PrivatePort": 80, "Type": "tcp"}
    assert told(EndpointSettings())["IPAddress"] == ""
    assert told([PortBinding(host_port="1")]) == [{"HostIp": "", "HostPort": "1"}]
    assert asked(ContainerCreate(image="x", host_config=HostConfig(port_bindings={"80/tcp": [PortBinding()]}))) == {
        "Image": "x",
        "HostConfig": {"PortBindings": {"80/tcp": [{}]}},
    }


def test_a_local_container_costs_none_of_it() -> None:
    """What starts a container here imports no document."""
    script = (
        "import sys, wherry.local, wherry.container, wherry.options\n"
        "print([name for name in sys.modules if name.startswith(('wherry.engineapi', 'cattrs'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
