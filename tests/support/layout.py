"""OCI image layouts, written plainly: the tests' own writer, so that it cannot share a mistake with wherry's."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
CREATED = "2024-01-01T00:00:00Z"  # fixed, so that the same content has the same digest everywhere
_MTIME = 1_704_067_200  # CREATED in seconds

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Json = dict[str, Any]


@attrs.frozen(kw_only=True)
class Entry:
    """One entry of a layer, as a tar has it."""

    path: str  # without a leading slash
    kind: bytes = tarfile.REGTYPE
    content: bytes = attrs.field(default=b"", repr=lambda value: hashlib.sha256(value).hexdigest())
    link: str = ""  # target of a symbolic or hard link; a hard link's is relative to the root
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = _MTIME  # seconds
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = attrs.field(factory=dict)


def file(path: str, content: bytes | str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Entry:
    """A regular file."""
    return Entry(
        path=path, content=content.encode() if isinstance(content, str) else content, mode=mode, uid=uid, gid=gid
    )


def folder(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """A directory."""
    return Entry(path=path, kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path=path, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(path: str, target: str, mode: int = 0o644) -> Entry:
    """
    A hard link to an entry of this layer or of one below, named from the root without a leading slash.

    *mode* is to be the target's: who unpacks it sets it on the one file that both name.
    """
    return Entry(path=path, kind=tarfile.LNKTYPE, link=target, mode=mode)


def whiteout(path: str) -> Entry:
    """What hides *path* of the layers below."""
    parent, _, name = path.rpartition("/")
    return file(f"{parent}/.wh.{name}" if parent else f".wh.{name}", b"")


def tar(entries: Iterable[Entry]) -> bytes:
    """The uncompressed layer that holds *entries* in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            header = tarfile.TarInfo(entry.path)
            header.type, header.linkname, header.size = entry.kind, entry.link, len(entry.content)
            header.mode, header.uid, header.gid, header.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
            header.devmajor, header.devminor = entry.device
            header.pax_headers = dict(entry.pax)
            archive.addfile(header, io.BytesIO(entry.content))
    return stream.getvalue()


def digest(content: bytes) -> str:
    """The digest that names *content*."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@attrs.frozen
class Layout:
    """An OCI image layout folder with one image in it (image-spec image-layout.md)."""

    path: Path

    @property
    def descriptor(self) -> Json:
        """The image's manifest, as index.json lists it."""
        index: Json = json.loads((self.path / "index.json").read_bytes())
        first: Json = index["manifests"][0]
        return first

    @property
    def manifest(self) -> Json:
        """The image's manifest."""
        return self.json(self.descriptor["digest"])

    @property
    def config(self) -> Json:
        """The image's config, whose digest is the image's ID."""
        return self.json(self.manifest["config"]["digest"])

    @property
    def id(self) -> str:
        """Digest of the image's config."""
        config_digest: str = self.manifest["config"]["digest"]
        return config_digest

    @property
    def diff_ids(self) -> list[str]:
        """Digests of the uncompressed layers, base first."""
        ids: list[str] = self.config["rootfs"]["diff_ids"]
        return ids

    def blob(self, digest: str) -> Path:
        """Where the blob of that digest is."""
        algorithm, _, encoded = digest.partition(":")
        return self.path / "blobs" / algorithm / encoded

    def json(self, digest: str) -> Json:
        """The document of that digest."""
        document: Json = json.loads(self.blob(digest).read_bytes())
        return document

    def add(self, content: bytes, media_type: str) -> Json:
        """Write a blob; its descriptor."""
        name = digest(content)
        blob = self.blob(name)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        return {"mediaType": media_type, "digest": name, "size": len(content)}


def write(
    path: Path, layers: Sequence[Iterable[Entry] | bytes], config: Json | None = None, *, tag: str = "latest"
) -> Layout:
    """
    Write an image layout folder to *path*, which must not exist.

    *layers*, base first, are entries or ready uncompressed tars. *config* is the config's "config" object
    ("Cmd", "Env", …).
    """
    path.mkdir(parents=True)
    layout = Layout(path)
    (path / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    tars = [layer if isinstance(layer, bytes) else tar(layer) for layer in layers]
    descriptors = [layout.add(gzip.compress(layer, 6, mtime=0), LAYER) for layer in tars]
    image = {
        "created": CREATED,
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in tars]},
        "history": [{"created": CREATED, "created_by": f"layer {number}"} for number in range(len(tars))],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add(json.dumps(image).encode(), CONFIG),
        "layers": descriptors,
    }
    descriptor = layout.add(json.dumps(manifest).encode(), MANIFEST)
    descriptor["platform"] = {"os": "linux", "architecture": ARCHITECTURE}
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}
    (path / "index.json").write_text(json.dumps(index))
    return layout
