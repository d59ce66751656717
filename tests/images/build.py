"""Images made for tests: layers of a few entries, manifests around them, and layouts of both."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import zstandard

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar: a file unless *kind* says otherwise; *fields* are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    info.mode = fields.pop("mode", 0o755 if kind == tarfile.DIRTYPE else 0o644)
    info.mtime = fields.pop("mtime", 1_600_000_000)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.SYMTYPE, linkname=target, mode=0o777, **fields)


def hard_link(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.LNKTYPE, linkname=target, **fields)


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed tar of *entries* in this order, names as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@attrs.frozen
class Layer:
    """A layer's tar, and the blob that it is stored as."""

    tar: bytes
    blob: bytes
    media_type: str

    @property
    def diff_id(self) -> str:
        return digest_of(self.tar)

    @property
    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": digest_of(self.blob), "size": len(self.blob)}


def layer(*entries: tuple[tarfile.TarInfo, bytes], compression: str = "gzip", content: bytes | None = None) -> Layer:
    """A layer of *entries*, or of the tar *content*."""
    uncompressed = tar(*entries) if content is None else content
    match compression:
        case "gzip":
            return Layer(uncompressed, gzip.compress(uncompressed, 6, mtime=0), OCI_LAYER + "+gzip")
        case "zstd":
            return Layer(uncompressed, zstandard.ZstdCompressor().compress(uncompressed), OCI_LAYER + "+zstd")
        case "":
            return Layer(uncompressed, uncompressed, OCI_LAYER)
    raise ValueError(compression)


@attrs.define
class BuiltImage:
    """An image's blobs by digest, and its manifest."""

    blobs: dict[str, bytes]
    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]
    media_type: str = OCI_MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def id(self) -> str:
        return digest_of(self.config)


def image(
    *layers: Layer,
    config: Mapping[str, Any] | None = None,
    architecture: str = "amd64",
    os: str = "linux",
    diff_ids: Sequence[str] | None = None,
    docker: bool = False,
    **document: Any,
) -> BuiltImage:
    """An image of *layers*, base first; *config* is what its containers start with."""
    content = json.dumps(
        {
            "architecture": architecture,
            "os": os,
            "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/true"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids or [one.diff_id for one in layers])},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
            **document,
        }
    ).encode()
    docker_type = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": docker_type if docker else OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json" if docker else OCI_CONFIG,
            "digest": digest_of(content),
            "size": len(content),
        },
        "layers": [
            {
                **one.descriptor,
                **({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"} if docker else {}),
            }
            for one in layers
        ],
    }
    blobs = {digest_of(one.blob): one.blob for one in layers}
    blobs[digest_of(content)] = content
    encoded = json.dumps(manifest).encode()
    return BuiltImage(blobs, encoded, content, layers, docker_type if docker else OCI_MANIFEST)


def index(*images: tuple[BuiltImage, Mapping[str, Any] | None]) -> bytes:
    """An index of *images*, each with its platform."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": one.media_type,
                    "digest": one.digest,
                    "size": len(one.manifest),
                    **({"platform": dict(platform)} if platform else {}),
                }
                for one, platform in images
            ],
        }
    ).encode()


def write_layout(path: Path, built: BuiltImage, name: str = "latest") -> Path:
    """*built* as an OCI image layout in the folder *path*."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, content in {**built.blobs, built.digest: built.manifest}.items():
        (blobs / digest.partition(":")[2]).write_bytes(content)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    descriptor = {
        "mediaType": built.media_type,
        "digest": built.digest,
        "size": len(built.manifest),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return path
