"""
Images as archives: docker's and OCI's, read and written; and a plain root file system as an image.

What is written is both at once, as docker itself has written since version 25: an OCI image layout with docker's
manifest.json beside it.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from wherry_images import tar_writer
from wherry_images.compression import Source, decompressed
from wherry_images.content import Content
from wherry_images.documents import check_image, check_layers, parse_config, parse_manifest
from wherry_images.errors import DigestMismatch, InvalidImage, InvalidLayer
from wherry_images.image import Image
from wherry_images.layer import normalize
from wherry_images.layout import new_file, no_space
from wherry_images.platform import host_platform
from wherry_images.pull import Found, Stores, choose
from wherry_images.records import Lease
from wherry_images.reference import familiar, parse_reference
from wherry_images.tar_reader import HARD_LINK, REGULAR, SYMLINK, TarReader
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.digest import DiffID, Digest, digest_of, hasher, parse_digest
from wherry_oci.spec.manifest import (
    MAX_DOCUMENT,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    loads_json,
    unstructure,
)

_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_MAX_DOCUMENTS = 64 << 20  # bytes of small files of one archive that are kept in memory
_SMALL = 1 << 20  # bytes up to which a file that is no layer by its name is kept as a document
_PIECE = 1 << 20


# -- writing -----------------------------------------------------------------------------------------------------------


def save(stores: Stores, images: Sequence[tuple[Image, Sequence[str]]], *, docker: bool = True) -> Iterator[bytes]:
    """
    An archive of *images*, each with the names it shall have there, as pieces of an uncompressed tar.

    With *docker* also docker's own manifest.json. The caller keeps the images from being collected meanwhile.
    """
    yield _file(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    descriptors, items = [], []
    written: set[str] = set()
    for image, names in images:
        manifest = _manifest_of(stores, image)
        for descriptor in (manifest.config, *manifest.layers):
            if descriptor.digest not in written:
                written.add(descriptor.digest)
                yield from _blob(stores.content, descriptor.digest)
        if image.manifest not in written:
            written.add(image.manifest)
            yield from _blob(stores.content, image.manifest)
        descriptors += _index_entries(stores, image, manifest, names)
        items.append(
            {
                "Config": _blob_path(manifest.config.digest),
                "RepoTags": [familiar(name) for name in names] or None,
                "Layers": [_blob_path(layer.digest) for layer in manifest.layers],
            }
        )
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": descriptors}
    yield _file(b"index.json", json.dumps(index).encode())
    if docker:
        yield _file(b"manifest.json", json.dumps(items).encode())
    yield tar_writer.END


def _manifest_of(stores: Stores, image: Image) -> Manifest:
    content = stores.content.read(image.manifest, MAX_DOCUMENT)
    parsed = parse_manifest(content, "", f"manifest {image.manifest}")
    if not isinstance(parsed, Manifest):
        raise InvalidImage(f"manifest {image.manifest} is an index")
    return parsed


def _index_entries(stores: Stores, image: Image, manifest: Manifest, names: Sequence[str]) -> list[dict[str, object]]:
    entry: dict[str, object] = {
        "mediaType": manifest.media_type or OCI_MANIFEST,
        "digest": image.manifest,
        "size": stores.content.size(image.manifest),
        "platform": unstructure(image.platform),
    }
    return [
        {**entry, "annotations": {_CONTAINERD_NAME: name, _REF_NAME: name.rpartition(":")[2]}} for name in names
    ] or [entry]


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _file(name: bytes, content: bytes) -> bytes:
    header = tar_writer.header(tar_writer.Member(name=name, size=len(content)))
    return header + content + tar_writer.padding(len(content))


def _blob(content: Content, digest: Digest) -> Iterator[bytes]:
    with content.open(digest) as file:
        size = os.fstat(file.fileno()).st_size
        yield tar_writer.header(tar_writer.Member(name=_blob_path(digest).encode(), size=size))
        left = size
        while left and (piece := file.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece
        if left:
            raise DigestMismatch(digest, f"{size - left} bytes", "a blob in the store")
        yield tar_writer.padding(size)


# -- reading -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Loaded:
    """One image of an archive, all of its blobs in the store but not yet unpacked."""

    found: Found
    names: tuple[str, ...]


def load(stores: Stores, source: Source, lease: Lease) -> list[Loaded]:
    """
    Read an archive, compressed or not, and put its blobs into the store.

    Raises InvalidImage, DigestMismatch, PlatformNotFound, UnsupportedImage.
    """
    try:
        files = _Files(stores, lease)
        files.read(TarReader(decompressed(source)))
    except InvalidLayer as error:
        raise InvalidImage(f"the archive is broken: {error}") from error
    if "manifest.json" in files.documents:
        return _load_docker(stores, files)
    if "index.json" in files.documents:
        return _load_oci(stores, files)
    raise InvalidImage("the archive has neither manifest.json nor index.json: it is no image")


class _Files:
    """The files of an archive: documents in memory, everything else as blobs."""

    def __init__(self, stores: Stores, lease: Lease) -> None:
        self._stores, self._lease = stores, lease
        self.documents: dict[str, bytes] = {}
        self.blobs: dict[str, Digest] = {}
        self._links: dict[str, str] = {}
        self._kept = 0

    def read(self, reader: TarReader) -> None:
        while (entry := reader.next()) is not None:
            name = os.fsdecode(normalize(entry.name))
            if entry.type in (SYMLINK, HARD_LINK):
                target = os.fsdecode(entry.link)
                base = os.path.dirname(name) if entry.type == SYMLINK else ""
                self._links[name] = os.path.normpath(os.path.join(base, target))
            elif entry.type == REGULAR:
                is_blob = name.startswith("blobs/") or ".tar" in os.path.basename(name) or entry.size > _SMALL
                if is_blob and not name.endswith(".json"):
                    self.blobs[name] = ingest(self._stores, reader.read_data(), self._lease, _expected(name))
                else:
                    self._keep(name, reader, entry.size)
        reader.drain()

    def _keep(self, name: str, reader: TarReader, size: int) -> None:
        self._kept += size
        if size > MAX_DOCUMENT or self._kept > _MAX_DOCUMENTS:
            raise InvalidImage(f"{name} in the archive has {size} bytes, more than are taken")
        self.documents[name] = b"".join(reader.read_data())

    def blob(self, name: str) -> Digest:
        """The digest of the file *name*, through the links that docker put between equal layers."""
        name = os.path.normpath(name)
        for _ in range(8):
            if name in self.blobs:
                return self.blobs[name]
            if name in self.documents:
                self.blobs[name] = ingest(self._stores, [self.documents[name]], self._lease)
            elif name in self._links:
                name = self._links[name]
            else:
                break
        raise InvalidImage(f"the archive lacks {name!r}")

    def document(self, name: str) -> bytes:
        if name in self.documents:
            return self.documents[name]
        return self._stores.content.read(self.blob(name), MAX_DOCUMENT)


def _expected(name: str) -> Digest | None:
    """The digest that a file's place in a layout promises."""
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        with suppress(InvalidArgument):
            return parse_digest(f"{parts[1]}:{parts[2]}")
    return None


def ingest(
    stores: Stores, pieces: Iterable[bytes | memoryview], lease: Lease, expected: Digest | None = None
) -> Digest:
    """
    Store a blob of unknown digest, or of *expected*; on the disk with the layout's next sync.

    Raises DigestMismatch, NoSpace.
    """
    found = hasher(expected or "sha256")
    beside = f"{stores.layout.ingest}/blob"
    with no_space(beside, "a blob"), new_file(beside) as (descriptor, path):
        for piece in pieces:
            found.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
        digest = Digest(f"{(expected or 'sha256').partition(':')[0]}:{found.hexdigest()}")
        if expected is not None and digest != expected:
            raise DigestMismatch(expected, digest, "a blob in the archive")
        lease.add(digest)
        with stores.content.lock(digest).held():
            os.rename(path, stores.content.path(digest))
        return digest


def _load_docker(stores: Stores, files: _Files) -> list[Loaded]:
    items = _json(files.documents["manifest.json"], "manifest.json")
    if not isinstance(items, list):
        raise InvalidImage("manifest.json is no list of images")
    originals = _originals(stores, files)
    loaded = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("Config"), str):
            raise InvalidImage("manifest.json has an image without a configuration")
        config = files.document(item["Config"])
        layers = item.get("Layers") or []
        names = item.get("RepoTags") or []
        if not all(isinstance(text, str) for text in (*layers, *names)):
            raise InvalidImage("manifest.json has a layer or name that is no text")
        original = originals.get(digest_of(config))
        found = original or compose(stores, config, [files.blob(layer) for layer in layers])
        loaded.append(Loaded(found=found, names=tuple(str(parse_reference(name)) for name in names)))
    return loaded


def _originals(stores: Stores, files: _Files) -> dict[str, Found]:
    """The manifests that come along in an archive of both kinds, by configuration."""
    found: dict[str, Found] = {}
    if "index.json" in files.documents:
        for loaded in _load_oci(stores, files):
            found[loaded.found.manifest.config.digest] = loaded.found
    return found


def _load_oci(stores: Stores, files: _Files) -> list[Loaded]:
    content = files.documents["index.json"]
    index = parse_manifest(content, "application/vnd.oci.image.index.v1+json", "index.json")
    assert isinstance(index, Index)
    names: dict[Digest, list[str]] = {}
    order: dict[Digest, Descriptor] = {}
    for entry in index.manifests:
        order.setdefault(entry.digest, entry)
        name = entry.annotations.get(_CONTAINERD_NAME) or entry.annotations.get(_REF_NAME)
        if name:
            with suppress(InvalidArgument):
                names.setdefault(entry.digest, []).append(str(parse_reference(name)))
    return [
        Loaded(found=_open_manifest(stores, entry), names=tuple(dict.fromkeys(names.get(digest, ()))))
        for digest, entry in order.items()
    ]


def _open_manifest(stores: Stores, entry: Descriptor) -> Found:
    """The image below a descriptor, for this machine if there is a choice."""
    documents: dict[Digest, bytes] = {}
    top = entry.digest
    for _ in range(4):
        what = f"manifest {entry.digest} of the archive"
        content = stores.content.read(entry.digest, MAX_DOCUMENT)
        documents[entry.digest] = content
        parsed = parse_manifest(content, entry.media_type, what)
        if isinstance(parsed, Manifest):
            check_image(parsed, what)
            config = stores.content.read(parsed.config.digest, MAX_DOCUMENT)
            document = parse_config(config, f"configuration {parsed.config.digest}")
            check_layers(parsed, document, what)
            return Found(
                manifest=parsed,
                document=document,
                config=config,
                top=top,
                digest=entry.digest,
                media_type=parsed.media_type or entry.media_type or OCI_MANIFEST,
                documents=documents,
            )
        entry = choose(parsed, host_platform(), what)
    raise InvalidImage("the archive has an index in an index in an index")


def compose(stores: Stores, config: bytes, layers: Sequence[Digest]) -> Found:
    """An image of a configuration and of blobs that are in the store, with a manifest made for it."""
    document = parse_config(config, "the configuration")
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config)),
        layers=tuple(_layer_descriptor(stores.content, digest) for digest in layers),
    )
    check_layers(manifest, document, "the image")
    content = json.dumps(unstructure(manifest), separators=(",", ":")).encode()
    digest = digest_of(content)
    return Found(
        manifest=manifest,
        document=document,
        config=config,
        top=digest,
        digest=digest,
        media_type=OCI_MANIFEST,
        documents={digest: content},
    )


def _layer_descriptor(content: Content, digest: Digest) -> Descriptor:
    with content.open(digest) as file:
        head = file.read(4)
        size = os.fstat(file.fileno()).st_size
    suffix = "+gzip" if head[:2] == b"\x1f\x8b" else "+zstd" if head == b"\x28\xb5\x2f\xfd" else ""
    return Descriptor(media_type=OCI_LAYER + suffix, digest=digest, size=size)


def _json(content: bytes, what: str) -> object:
    try:
        return loads_json(content, what)
    except InvalidArgument as error:
        raise InvalidImage(str(error)) from None


# -- a root file system ------------------------------------------------------------------------------------------------


def import_layer(
    stores: Stores,
    source: Source,
    lease: Lease,
    *,
    config: Mapping[str, Any],
    message: str,
    platform: str,
    created: str,
) -> Found:
    """A new image whose one layer is the tar *source*, compressed or not; *config* is its configuration's `config`."""
    layer = ingest(stores, iter(lambda: source.read(_PIECE), b""), lease)
    found = hasher("sha256")
    with stores.content.open(layer) as file:
        for piece in decompressed(file):
            found.update(piece)
    os_name, _, architecture = platform.partition("/")
    document = {
        "created": created,
        "architecture": architecture.partition("/")[0],
        "os": os_name,
        **({"variant": architecture.partition("/")[2]} if "/" in architecture else {}),
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{found.hexdigest()}"]},
        "history": [{"created": created, "comment": message}],
    }
    return compose(stores, json.dumps(document, separators=(",", ":")).encode(), [layer])


def commit_layer(
    stores: Stores,
    pieces: Iterable[bytes],
    lease: Lease,
    parent: Image | None,
    *,
    config: Mapping[str, Any] | None,
    author: str,
    message: str,
    created_by: str,
    created: str,
) -> Found:
    """An image that is *parent* with one more layer, the uncompressed tar *pieces*, and *config* in its place."""
    from isal import isal_zlib

    found = hasher("sha256")
    packer = isal_zlib.compressobj(level=1, wbits=31)

    def packed() -> Iterator[bytes]:
        for piece in pieces:
            found.update(piece)
            if done := packer.compress(piece):
                yield done
        yield packer.flush()

    layer = ingest(stores, packed(), lease)
    diff_id = DiffID(f"sha256:{found.hexdigest()}")
    layers: list[Digest] = []
    if parent is None:
        platform = host_platform()
        document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    else:
        lease.add(parent.id, parent.manifest)
        parsed = loads_json(stores.content.read(parent.id, MAX_DOCUMENT), "configuration")
        assert isinstance(parsed, dict)
        document = dict(parsed)
        layers = [one.digest for one in _manifest_of(stores, parent).layers]
    rootfs = document.get("rootfs") or {}
    document |= {
        "created": created,
        "rootfs": {"type": "layers", "diff_ids": [*(rootfs.get("diff_ids") or []), diff_id]},
        "history": [
            *(document.get("history") or []),
            {"created": created, "created_by": created_by, "author": author, "comment": message},
        ],
    }
    if author:
        document["author"] = author
    if config is not None:
        document["config"] = dict(config)
    return compose(stores, json.dumps(document, separators=(",", ":")).encode(), [*layers, layer])
