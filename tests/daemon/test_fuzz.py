"""Requests that nobody would send: each is answered, with a reason, and the next one finds the daemon well."""

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wherry
from support.world import World
from wherry import Client
from wherry_daemon import containers, images, networks, system
from wherry_daemon.creation import CONFIG, HOST_CONFIG

pytestmark = pytest.mark.e2e

_NAMES = ["", "x", "busybox", "0", "a" * 300, "..", "%2e%2e%2f", "ünï", "sha256:" + "0" * 64, "a b", "\x00"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.dictionaries(st.sampled_from(sorted(CONFIG)), _JSON, max_size=5)
_HOST = st.dictionaries(st.sampled_from(sorted(HOST_CONFIG)), _JSON, max_size=5)
_BODY = st.one_of(
    _JSON,
    st.builds(lambda config, host: {**config, "Image": "busybox", "HostConfig": host}, _FIELDS, _HOST),
)
_PARAMETERS = sorted(
    "all filters limit size force v t signal condition path tag repo fromImage follow stdout stderr tail since until "
    "stream one-shot name platform h w ps_args detachKeys logs link digests term changes".split()
)
_VALUE = st.sampled_from(["", "0", "1", "-1", "true", "x", "{}", "[]", '{"label":1}', '{"until":[{}]}', "9" * 30])
# They wait for ever by design, or are a stream both ways; other tests have them.
_ENDLESS = {("GET", "/events"), ("POST", "/containers/{id}/wait"), ("POST", "/containers/{id}/attach")}
# Docker Hub is not there, and it takes its time to say so.
_ABROAD = {
    ("GET", "/images/search"),
    ("POST", "/images/create"),
    ("POST", "/images/{name}/push"),
    ("GET", "/distribution/{name}/json"),
    ("POST", "/auth"),
}
_ROUTES = [route for part in (system, containers, images, networks) for route in part.route.listed]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@pytest.fixture
def door(world: World) -> Iterator[str]:
    """A daemon's socket, with busybox and a container that does not run."""
    world.push("busybox")
    with Client(host="") as client:
        client.images.pull("busybox")
        client.create("busybox", "true", name="x")
        with wherry.docker_host(client) as address:
            yield address.removeprefix("unix://")
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
        for network in client.networks.list(filters={"type": "custom"}):
            network.remove()
        client.volumes.prune({"all": True})


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    route=st.sampled_from([route for route in _ROUTES if route not in _ENDLESS | _ABROAD]),
    names=st.lists(st.sampled_from(_NAMES), min_size=3, max_size=3),
    query=st.dictionaries(st.sampled_from(_PARAMETERS), _VALUE, max_size=4),
    body=_BODY,
)
def test_any_request_is_answered(
    door: str, route: tuple[str, str], names: list[str], query: dict[str, str], body: Any
) -> None:
    """No 500 without a reason, no traceback, no hang; the description of each endpoint is the router's own table."""
    method, path = route
    parts = iter(names)
    filled = "/".join(quote(next(parts), safe="%") or "x" if part.startswith("{") else part for part in path.split("/"))
    if method == "GET" and filled.endswith(("/stats", "/logs")):
        query = {name: value for name, value in query.items() if name not in ("stream", "follow")} | {"stream": "0"}
    _check_answer(door, method, f"{filled}?{urlencode(query)}", body)


def _check_answer(door: str, method: str, target: str, body: Any) -> None:
    """It comes in time; a refusal says why, and is our fault only where that is told."""
    connection = _Connection(door)
    try:
        content = json.dumps(body).encode()
        connection.request(method, f"/v1.51{target}", content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    assert b"Traceback" not in told
    if answer.status >= 400 and method != "HEAD":
        said = json.loads(told)["message"]
        assert said
        assert "wherry failed" not in said, (method, target, body)
        assert answer.status != 500 or _has_a_cause(said), (method, target, body, said)


def _has_a_cause(said: str) -> bool:
    """What is not the request's fault: the registry that no test has, a start that failed."""
    return any(word in said for word in ("registry", "docker.io", "start", "connect", "resolve"))


# -- Docker's own description ------------------------------------------------------------------------------------------

# api/docs/v1.51.yaml of Docker's sources; it is theirs, and so is not kept here.
_DESCRIPTION = os.environ.get("WHERRY_DOCKER_API")


def _described(description: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Method, path and parameters of each operation that ends by itself, on this machine."""
    found = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            key = (method.upper(), path)
            if key in _ENDLESS | _ABROAD or path == "/containers/{id}/attach/ws":
                continue
            found.append((*key, [*methods.get("parameters", []), *operation.get("parameters", [])]))
    return found


def _values(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """What *schema* describes, now and then something else."""
    return st.one_of(_fitting(schema, definitions, depth), _fitting(schema, definitions, depth), _JSON)


def _fitting(schema: dict[str, Any], definitions: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if depth > 4:
        return st.none()
    kind = schema.get("type")
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "allOf" in schema:
        parts = [_fitting(part, definitions, depth + 1) for part in schema["allOf"]]
        return st.tuples(*parts).map(
            lambda found: {k: v for one in found if isinstance(one, dict) for k, v in one.items()}
        )
    if kind == "array":
        return st.lists(_values(schema.get("items", {}), definitions, depth + 1), max_size=3)
    if kind == "object" or "properties" in schema:
        fields = {name: _values(one, definitions, depth + 1) for name, one in schema.get("properties", {}).items()}
        if not fields:
            inner = schema.get("additionalProperties")
            values = _values(inner, definitions, depth + 1) if isinstance(inner, dict) else _JSON
            return st.dictionaries(st.sampled_from(["80/tcp", "/d", "a.b", "x", ""]), values, max_size=3)
        return st.fixed_dictionaries({}, optional=fields)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        "string": st.sampled_from(["", "busybox", "x", "/x", "always", "10.0.0.0/24", "1m"]) | st.text(max_size=12),
        "integer": st.integers(-2, 2**31) | st.sampled_from([0, 1, -(2**63), 2**63]),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
    }
    return plain.get(kind, _JSON)


@pytest.mark.skipif(
    _DESCRIPTION is None, reason="WHERRY_DOCKER_API names no description of the API (api/docs/v1.51.yaml)"
)
@pytest.mark.timeout(900)
def test_any_request_of_the_published_description_is_answered(door: str) -> None:
    """Every operation that Docker describes, with parameters of the types that it says, and of others."""
    assert _DESCRIPTION is not None
    description = yaml.safe_load(Path(_DESCRIPTION).read_text(encoding="utf-8"))
    operations, definitions = _described(description), description["definitions"]
    assert len(operations) > 90

    @settings(
        max_examples=int(os.environ.get("WHERRY_FUZZ_EXAMPLES", "1000")),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(data=st.data(), operation=st.sampled_from(operations))
    def ask(data: st.DataObject, operation: tuple[str, str, list[dict[str, Any]]]) -> None:
        method, path, parameters = operation
        query: dict[str, str] = {}
        body: Any = None
        for one in parameters:
            if one["in"] == "path":
                name = data.draw(st.sampled_from(_NAMES))
                path = path.replace(f"{{{one['name']}}}", quote(name, safe="%") or "x")
            elif one["in"] == "query" and one["name"] not in ("follow", "stream"):
                value = data.draw(st.none() | _values(one, definitions).map(str))
                query |= {} if value is None else {one["name"]: value}
            elif one["in"] == "body":
                body = data.draw(_values(one["schema"], definitions))
        if path.endswith("/stats"):
            query["stream"] = "0"
        _check_answer(door, method, f"{path}?{urlencode(query, errors='replace')}", body)

    ask()
