"""Platforms: names, and which of several is the best."""

import pytest

from wherry_images.platform import best, host_platform, normalize, parse_platform, rank, suits
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.image import Platform

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("i386", "linux/386"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("windows(10.0.17763)/amd64", "windows/amd64"),
        ("windows", "windows/" + host_platform().architecture),
    ],
)
def test_names_of_platforms(text: str, expected: str) -> None:
    """As docker's --platform takes them."""
    assert str(parse_platform(text)) == expected


@pytest.mark.parametrize("text", ["a/b/c/d", "linux//v7", "/", "linux(1/amd64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    """Too many parts, empty ones."""
    with pytest.raises(InvalidArgument):
        parse_platform(text)


def test_none_is_this_machine() -> None:
    """Also an empty text."""
    assert parse_platform(None) == parse_platform("") == host_platform()


def of(text: str) -> Platform:
    os, architecture, *variant = text.split("/")
    return Platform(os=os, architecture=architecture, variant=variant[0] if variant else "")


@pytest.mark.parametrize(
    ("offers", "wanted", "chosen"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v7"),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", "linux/amd64/v2"),
        (["linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm/v7", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/arm/v7"], "linux/arm64", "linux/arm/v7"),
        (["linux/386"], "linux/amd64", "linux/386"),
        (["linux/amd64"], "linux/386", None),
        (["windows/amd64"], "linux/amd64", None),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        ([], "linux/amd64", None),
        (["linux/mips/strange"], "linux/mips/other", None),
        (["linux/mips/strange"], "linux/mips/strange", "linux/mips/strange"),
    ],
)
def test_the_best_of_several(offers: list[str], wanted: str, chosen: str | None) -> None:
    """The same, else the newest that still runs."""
    found = best([of(one) for one in offers], of(wanted))
    assert (None if found is None else offers[found]) == chosen


def test_versions_of_windows() -> None:
    """By the beginning of os.version."""
    offered = Platform(os="windows", architecture="amd64", os_version="10.0.17763.1")
    assert rank(offered, Platform(os="windows", architecture="amd64", os_version="10.0.17763")) == 0
    assert rank(offered, Platform(os="windows", architecture="amd64", os_version="10.0.20348")) is None


def test_configurations_often_lack_the_variant() -> None:
    """The index knew it."""
    assert suits(of("linux/arm"), of("linux/arm/v6"))
    assert not suits(of("linux/arm/v7"), of("linux/arm/v6"))
    assert normalize(of("linux/arm")).variant == "v7"
