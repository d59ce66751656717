"""Requests that nobody would send: each is answered, with a reason, and the next one finds the daemon well."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
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
    connection = _Connection(door)
    try:
        connection.request(
            method,
            f"/v1.51{filled}?{urlencode(query)}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    assert b"Traceback" not in content
    if answer.status >= 400 and method != "HEAD":
        said = json.loads(content)["message"]
        assert said
        assert "wherry failed" not in said, (method, filled, query, body)
        assert answer.status != 500 or _has_a_cause(said), (method, filled, query, body, said)


def _has_a_cause(said: str) -> bool:
    """What is not the request's fault: the registry that no test has, a start that failed."""
    return any(word in said for word in ("registry", "docker.io", "start", "connect", "resolve"))
