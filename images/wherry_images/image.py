"""An image as a caller sees it."""

from collections.abc import Mapping
from typing import Any

import attrs

from wherry_images.reference import familiar
from wherry_oci.spec.digest import ChainID, DiffID, Digest, chain_ids
from wherry_oci.spec.image import Healthcheck, History, ImageConfig, Platform


@attrs.frozen(kw_only=True)
class Image:
    """An image in the store; a value: it says how things were when it was looked up."""

    id: Digest  # the digest of its configuration
    manifest: Digest
    names: tuple[str, ...]  # normalized references with tags
    digests: tuple[str, ...]  # normalized references with digests: where it came from, or went to
    platform: Platform
    created: str  # RFC 3339, "" if it does not say
    size: int  # bytes of all its files, unpacked
    config: ImageConfig
    diff_ids: tuple[DiffID, ...]
    history: tuple[History, ...]
    author: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return self.config.labels

    @property
    def chain_ids(self) -> tuple[ChainID, ...]:
        return chain_ids(self.diff_ids)

    @property
    def tags(self) -> tuple[str, ...]:
        """The names as Docker shows them."""
        return tuple(map(familiar, self.names))

    @property
    def short_id(self) -> str:
        return self.id[:19]


def image_of(
    document: Mapping[str, Any],
    *,
    id: Digest,
    manifest: Digest,
    names: tuple[str, ...],
    digests: tuple[str, ...],
    size: int,
) -> Image:
    """
    The image of the configuration *document*, as `json` gives it, which was checked when it came into the store.

    This is on the way of every container's start, where the converter for checked documents would cost too much.
    """
    rootfs = document.get("rootfs") or {}
    return Image(
        id=id,
        manifest=manifest,
        names=names,
        digests=digests,
        platform=Platform(
            os=document.get("os") or "linux",
            architecture=document.get("architecture") or "",
            variant=document.get("variant") or "",
            os_version=document.get("os.version") or "",
        ),
        created=document.get("created") or "",
        size=size,
        config=_config(document.get("config") or {}),
        diff_ids=tuple(rootfs.get("diff_ids") or ()),
        history=tuple(map(_history, document.get("history") or ())),
        author=document.get("author") or "",
    )


def _config(document: Mapping[str, Any]) -> ImageConfig:
    entrypoint, cmd = document.get("Entrypoint"), document.get("Cmd")
    health = document.get("Healthcheck")
    return ImageConfig(
        user=document.get("User") or "",
        exposed_ports=tuple(document.get("ExposedPorts") or ()),
        env=tuple(document.get("Env") or ()),
        entrypoint=None if entrypoint is None else tuple(entrypoint),
        cmd=None if cmd is None else tuple(cmd),
        volumes=tuple(document.get("Volumes") or ()),
        working_dir=document.get("WorkingDir") or "",
        labels=dict(document.get("Labels") or {}),
        stop_signal=document.get("StopSignal") or "",
        stop_timeout=document.get("StopTimeout"),
        healthcheck=None if health is None else _healthcheck(health),
        shell=tuple(document.get("Shell") or ()),
        on_build=tuple(document.get("OnBuild") or ()),
        args_escaped=bool(document.get("ArgsEscaped")),
    )


def _healthcheck(document: Mapping[str, Any]) -> Healthcheck:
    return Healthcheck(
        test=tuple(document.get("Test") or ()),
        interval=document.get("Interval") or 0,
        timeout=document.get("Timeout") or 0,
        start_period=document.get("StartPeriod") or 0,
        start_interval=document.get("StartInterval") or 0,
        retries=document.get("Retries") or 0,
    )


def _history(document: Mapping[str, Any]) -> History:
    return History(
        created=document.get("created") or "",
        created_by=document.get("created_by") or "",
        author=document.get("author") or "",
        comment=document.get("comment") or "",
        empty_layer=bool(document.get("empty_layer")),
    )
