"""Every way to say what is published."""

import attrs
import pytest

from wherry.portbinding import PortBinding, container_ports, parse_ports, parse_publish, port_map, publish_all
from wherry_oci.errors import InvalidArgument

pytestmark = pytest.mark.unit


def tcp(container: int, host: int = 0, ip: str = "0.0.0.0", last: int = 0) -> PortBinding:
    return PortBinding(container_port=container, host_port=host, host_ip=ip, last_host_port=last)


def udp(container: int, host: int = 0, ip: str = "0.0.0.0") -> PortBinding:
    return PortBinding(container_port=container, host_port=host, host_ip=ip, protocol="udp")


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (None, []),
        ({}, []),
        ([], []),
        ({80: 8080}, [tcp(80, 8080)]),
        ({"80": "8080"}, [tcp(80, 8080)]),
        ({"80/tcp": None}, [tcp(80)]),
        ({"80/TCP": ""}, [tcp(80)]),
        ({80: 0}, [tcp(80)]),
        ({"53/udp": ("127.0.0.1", 53)}, [udp(53, 53, "127.0.0.1")]),
        ({(53, "udp"): ("127.0.0.1",)}, [udp(53, 0, "127.0.0.1")]),
        ({53: ("127.0.0.1", None)}, [tcp(53, 0, "127.0.0.1")]),
        ({53: "127.0.0.1:5353"}, [tcp(53, 5353, "127.0.0.1")]),
        ({53: "127.0.0.1:"}, [tcp(53, 0, "127.0.0.1")]),
        ({53: ("", 5353)}, [tcp(53, 5353)]),
        ({80: [1, 2]}, [tcp(80, 1), tcp(80, 2)]),
        ({80: (1, 2)}, [tcp(80, 1), tcp(80, 2)]),
        ({80: [("127.0.0.1", 1), None, "2"]}, [tcp(80, 1, "127.0.0.1"), tcp(80), tcp(80, 2)]),
        ({80: []}, []),
        ({"8000-8002": None}, [tcp(8000), tcp(8001), tcp(8002)]),
        ({"8000-8001": "9000-9001"}, [tcp(8000, 9000), tcp(8001, 9001)]),
        ({"8000-8001/udp": ("127.0.0.1", "9000-9001")}, [udp(8000, 9000, "127.0.0.1"), udp(8001, 9001, "127.0.0.1")]),
        ({80: "9000-9010"}, [tcp(80, 9000, last=9010)]),
        ({"132/sctp": 132}, [PortBinding(container_port=132, host_port=132, protocol="sctp")]),
        ([80, "53/udp", (54, "udp")], [tcp(80), udp(53), udp(54)]),
        (["8080:80", "127.0.0.1:53:53/udp"], [tcp(80, 8080), udp(53, 53, "127.0.0.1")]),
        ({80: 8080, "80/udp": 8080}, [tcp(80, 8080), udp(80, 8080)]),
        ({80: ("127.0.0.1", 80), 81: ("127.0.0.2", 80)}, [tcp(80, 80, "127.0.0.1"), tcp(81, 80, "127.0.0.2")]),
    ],
)
def test_ports_are_said_as_in_docker_py(ports: object, expected: list[PortBinding]) -> None:
    """The container's port is the key, the host's the value."""
    assert parse_ports(ports) == expected  # type: ignore[arg-type] # whatever a user may pass


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ({"http": 80}, r"ports\['http'\]: the container's port must be a number or a range, not 'http'"),
        ({0: 80}, r"ports\[0\]: the container's port must be from 1 to 65535"),
        ({70000: 80}, r"ports\[70000\]: the container's port must be from 0 to 65535"),
        ({-1: 80}, r"ports\[-1\]"),
        ({True: 80}, r"ports\[True\]"),
        ({1.5: 80}, r"ports\[1\.5\]"),
        ({80: 65536}, r"ports\[80\]: the host's port must be from 0 to 65535"),
        ({80: "x"}, r"ports\[80\]: the host's port must be a number or a range, not 'x'"),
        ({80: False}, r"ports\[80\]: the host's port must be a number"),
        ({80: {"a": 1}}, r"ports\[80\]: the host's port must be a number"),
        ({80: 1.5}, r"ports\[80\]: the host's port must be a number"),
        ({80: "9-1"}, r"ports\[80\]: .*low to high"),
        ({80: "9-"}, r"ports\[80\]: the host's port must be a number or a range"),
        ({"80/icmp": 80}, r"ports\['80/icmp'\]: protocol 'icmp' is none of tcp, udp, sctp"),
        ({(80, 7): 80}, r"ports\[\(80, 7\)\]: protocol 7"),
        ({80: ("localhost", 80)}, r"ports\[80\]: 'localhost' is no IP address of the host"),
        ({80: ("1.2.3", 80)}, r"ports\[80\]: '1\.2\.3' is no IP address"),
        ({80: ("1.2.3.256", 80)}, r"ports\[80\]: '1\.2\.3\.256' is no IP address"),
        ({"8000-8002": "9000-9001"}, r"ports\['8000-8002'\]: 3 ports of the container cannot be 2 of the host"),
        ({"8000-8002": 9000}, r"ports\['8000-8002'\]: 3 ports of the container cannot be 1 of the host"),
        ({80: 8080, 81: 8080}, r"tcp port 8080 of the host is given twice"),
        ("8080:80", "give a mapping"),
        (80, "give a mapping"),
        (["a:b"], r"ports\['a:b'\]"),
    ],
)
def test_a_wrong_one_is_refused_by_its_key(ports: object, message: str) -> None:
    """InvalidArgument says which and why."""
    with pytest.raises(InvalidArgument, match=message):
        parse_ports(ports)  # type: ignore[arg-type] # that is the point


def test_an_ipv6_address_is_in_brackets_or_a_pair() -> None:
    """As the kernel writes it."""
    assert parse_ports({80: "[::1]:8080"}) == parse_ports({80: ("::1", 8080)}) == [tcp(80, 8080, "::1")]
    assert parse_ports({80: ("0:0::1",)}) == parse_ports({80: "[::1]"}) == [tcp(80, 0, "::1")]
    assert tcp(80, 8080, "::1").plan()["host_ip"] == "::1"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", [tcp(80)]),
        ("80/udp", [udp(80)]),
        ("8080:80", [tcp(80, 8080)]),
        ("8080:80/udp", [udp(80, 8080)]),
        (":80", [tcp(80)]),
        ("127.0.0.1:8080:80/tcp", [tcp(80, 8080, "127.0.0.1")]),
        ("127.0.0.1::80", [tcp(80, 0, "127.0.0.1")]),
        ("8000-8001:9000-9001", [tcp(9000, 8000), tcp(9001, 8001)]),
        ("8000-8009:80", [tcp(80, 8000, last=8009)]),
        ("0.0.0.0:8080:80", [attrs.evolve(tcp(80, 8080), ipv4_only=True)]),
        ("[::1]:8080:80", [tcp(80, 8080, "::1")]),
        ("[2001:DB8:0::1]::80", [tcp(80, 0, "2001:db8::1")]),
        ("[::]:80", [tcp(80, 0, "::")]),
    ],
)
def test_the_command_lines_form(spec: str, expected: list[PortBinding]) -> None:
    """The host's port comes first there."""
    assert parse_publish(spec) == expected


@pytest.mark.parametrize("spec", ["", "a", "80:", "80:x", "1:2:3:4:5", "80/x", "/tcp", "127.0.0.1:80"])
def test_a_wrong_form_is_refused_as_it_was_said(spec: str) -> None:
    """The whole of it, so that the user finds it on his command line."""
    with pytest.raises(InvalidArgument) as caught:
        parse_publish(spec)
    assert repr(spec) in str(caught.value)


def test_all_exposed_ports_are_published_once() -> None:
    """Those that are published already are left alone."""
    published = parse_ports({80: 8080})
    assert publish_all(["80/tcp", "443/tcp", "53/udp"], published) == [tcp(443), udp(53)]
    assert container_ports("8000-8001/udp") == [(8000, "udp"), (8001, "udp")]


def test_the_port_map_is_dockers() -> None:
    """Strings, lists, and None for what is only exposed."""
    common = {"container_port": 80, "protocol": "tcp", "container_ip": "172.30.0.2"}
    published = [
        {"host_ip": "0.0.0.0", "host_port": 8080, **common},
        {"host_ip": "127.0.0.1", "host_port": 81, **common},
    ]
    assert port_map(published, ["443/tcp", "80/tcp"]) == {
        "443/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "81"}],
    }
