"""Every way in which it is said in which networks a container shall be."""

from typing import Any

import pytest

from wherry.network import EndpointRequest
from wherry.networkoptions import parse_endpoint, parse_network_text
from wherry.options import Options
from wherry_oci.errors import InvalidArgument, Unsupported

pytestmark = pytest.mark.unit


def _parse(**given: Any) -> tuple[str, tuple[EndpointRequest, ...]]:
    parsed = Options.parse(None, given)
    return parsed.network, parsed.endpoints


def test_who_asks_for_nothing_is_in_the_default_network() -> None:
    """Under either of its names."""
    assert _parse() == ("bridge", (EndpointRequest(network="bridge"),))
    assert _parse(network_mode="default") == _parse(network="bridge") == _parse()


def test_none_host_and_anothers_network_have_no_places() -> None:
    """And nothing that would need one goes with them."""
    for mode in ("none", "host", "container:web"):
        assert _parse(network=mode) == (mode, ())
    assert _parse(network_disabled=True) == ("none", ())
    for given in (
        {"network": "none", "networks": ["a"]},
        {"network": "host", "mac_address": "02:00:00:00:00:01"},
        {"network": "container:web", "ports": {80: 80}},
        {"network": "container:web", "hostname": "x"},
        {"network": "a", "network_mode": "b"},
        {"network": "a", "network_disabled": True},
    ):
        with pytest.raises(InvalidArgument):
            _parse(**given)


def test_several_networks_at_once_the_first_one_leads() -> None:
    """A list, a mapping in compose's words, or docker-py's networking_config, in either of its shapes."""
    assert _parse(networks=["a", "b"]) == ("a", (EndpointRequest(network="a"), EndpointRequest(network="b")))
    assert _parse(network="b", networks={"a": None, "b": {"aliases": ["x"], "ipv4_address": "10.0.0.9"}}) == (
        "b",
        (EndpointRequest(network="b", aliases=("x",), ipv4="10.0.0.9"), EndpointRequest(network="a")),
    )
    config = {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9"}, "Links": ["c:d"]}
    expected = EndpointRequest(network="a", aliases=("x",), ipv4="10.0.0.9", ipv6="fd00::9", links=(("c", "d"),))
    assert _parse(network="a", networking_config={"a": config}) == ("a", (expected,))
    assert _parse(network="a", networking_config={"EndpointsConfig": {"a": config}}) == ("a", (expected,))


def test_mac_address_and_links_are_for_the_first_network() -> None:
    """As docker-py has them, beside the network."""
    _, (first, second) = _parse(networks=["a", "b"], mac_address="02-00-00-00-00-0A", links={"db": "store"})
    assert (first.mac, first.links, second.mac) == ("02:00:00:00:00:0a", (("db", "store"),), "")
    for mac in ("02:00", "03:00:00:00:00:01", "zz:00:00:00:00:01"):
        with pytest.raises(InvalidArgument, match="mac_address"):
            _parse(mac_address=mac)


def test_what_a_place_cannot_have_is_refused_by_name() -> None:
    """What inspect tells may be sent back."""
    assert parse_endpoint("a", {"NetworkID": "x", "Gateway": "10.0.0.1", "DriverOpts": None}) == EndpointRequest(
        network="a"
    )
    with pytest.raises(InvalidArgument, match="'alias'"):
        parse_endpoint("a", {"alias": ["x"]})
    with pytest.raises(Unsupported, match="driver_opts"):
        parse_endpoint("a", {"DriverOpts": {"x": "y"}})
    with pytest.raises(InvalidArgument, match="give a list"):
        parse_endpoint("a", {"aliases": "x"})


def test_the_command_lines_network_is_a_name_or_fields() -> None:
    """As docker's."""
    assert parse_network_text("a") == ("a", {})
    assert parse_network_text("name=a,alias=x,alias=y,ip=10.0.0.9,mac-address=02:00:00:00:00:01") == (
        "a",
        {"aliases": ["x", "y"], "ipv4_address": "10.0.0.9", "mac_address": "02:00:00:00:00:01"},
    )
    for wrong in ("alias=x", "name=a,colour=red"):
        with pytest.raises(InvalidArgument, match="network:"):
            parse_network_text(wrong)
