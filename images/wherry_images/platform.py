"""Which of an index's manifests is for this machine (image-index.md, "platform"; containerd's rules of preference)."""

import os
from collections.abc import Iterable

from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.image import Platform

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
_KNOWN_OS = frozenset({"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1", "js"})


def host_platform() -> Platform:
    """The platform of this machine."""
    return normalize(Platform(os="linux", architecture=os.uname().machine))


def normalize(platform: Platform) -> Platform:
    """*platform* in the names that images use: `aarch64` is `arm64`, and `arm64/v8` is `arm64`."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _ARCHITECTURES:
        architecture, usual = _ARCHITECTURES[architecture]
        variant = variant or usual
    if architecture == "arm" and not variant:
        variant = "v7"
    if architecture == "arm" and variant.isdigit():
        variant = f"v{variant}"
    if (architecture, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        variant = ""
    return Platform(
        os=platform.os.lower() or "linux",
        architecture=architecture,
        variant=variant,
        os_version=platform.os_version,
        os_features=platform.os_features,
    )


def parse_platform(text: str | None) -> Platform:
    """
    `os[/arch[/variant]]`, `arch` or `os(version)/arch` as docker's `--platform` takes them; None is this machine.

    Raises InvalidArgument.
    """
    host = host_platform()
    if text is None or not text.strip():
        return host
    parts = text.strip().split("/")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"platform {text!r} is not of the form os[/arch[/variant]]")
    name, _, version = parts[0].partition("(")
    if version and not version.endswith(")"):
        raise InvalidArgument(f"platform {text!r} has an os version without its closing parenthesis")
    if len(parts) == 1 and name.lower() not in _KNOWN_OS:
        return normalize(Platform(os=host.os, architecture=name))
    return normalize(
        Platform(
            os=name,
            architecture=parts[1] if len(parts) > 1 else host.architecture,
            variant=parts[2] if len(parts) > 2 else "",
            os_version=version.rstrip(")"),
        )
    )


def rank(offered: Platform, wanted: Platform) -> int | None:
    """How well *offered* suits *wanted*: 0 is best, larger is worse, None is not at all."""
    offered, wanted = normalize(offered), normalize(wanted)
    if offered.os != wanted.os:
        return None
    if wanted.os_version and offered.os_version and not offered.os_version.startswith(wanted.os_version):
        return None
    if offered.architecture == wanted.architecture:
        return _rank_variant(offered, wanted)
    if wanted.architecture == "arm64" and offered.architecture == "arm":  # what 64-bit ARM can run besides its own
        newer = _rank_variant(offered, Platform(os="linux", architecture="arm", variant="v8"))
        return None if newer is None else 100 + newer
    if wanted.architecture == "amd64" and offered.architecture == "386":
        return 100
    return None


def suits(offered: Platform, wanted: Platform) -> bool:
    """Whether *offered* suits *wanted*, as configurations say it: many leave the variant to the index."""
    if not offered.variant:
        offered = Platform(os=offered.os, architecture=offered.architecture, variant=wanted.variant)
    return rank(offered, wanted) is not None


def _rank_variant(offered: Platform, wanted: Platform) -> int | None:
    have, want = _level(offered), _level(wanted)
    if have is None or want is None:  # a variant without an order: it must be the same
        return 0 if offered.variant == wanted.variant else None
    return want - have if have <= want else None


def _level(platform: Platform) -> int | None:
    usual = {"arm": "v7", "arm64": "v8", "amd64": "v1"}.get(platform.architecture, "v0")
    variant = platform.variant or usual
    return int(variant[1:]) if variant[1:].isdigit() and variant[0] == "v" else None


def best(offers: Iterable[Platform | None], wanted: Platform) -> int | None:
    """The position of the best of *offers* for *wanted*, the first among equals; None if none suits."""
    ranked = [
        (found, position)
        for position, offered in enumerate(offers)
        if offered is not None and (found := rank(offered, wanted)) is not None
    ]
    return min(ranked)[1] if ranked else None
