"""Telling manifests, indexes and things that are no images apart, by documents that may lie."""

from collections.abc import Iterable

from wherry_images.errors import InvalidImage, UnsupportedImage
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.manifest import (
    CONFIGS,
    INDEXES,
    LAYERS,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA_1,
    Descriptor,
    ImageDocument,
    Index,
    Manifest,
    loads,
    loads_json,
    structure,
)


def parse_manifest(content: bytes, media_type: str, what: str) -> Manifest | Index:
    """
    The manifest or index that *content*, sent as *media_type* ("" if nobody said), is.

    What says two things at once is refused (CVE-2021-41190), and so is schema 1. Raises InvalidImage and
    UnsupportedImage; *what* names the document in them.
    """
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type in SCHEMA_1:
        raise _schema_1(what)
    try:
        document = loads_json(content, what)
        if not isinstance(document, dict):
            raise InvalidImage(f"{what} is no JSON object")
        if document.get("schemaVersion") == 1:
            raise _schema_1(what)
        if document.get("schemaVersion") != 2:
            raise InvalidImage(f"{what} has the schema version {document.get('schemaVersion')!r:.100}, not 2")
        kind = _kind(document, media_type, what)
        if kind in INDEXES:
            index = structure(document, Index, what)
            _check_sizes(index.manifests, what)
            return index
        manifest = structure(document, Manifest, what)
        _check_sizes((manifest.config, *manifest.layers), what)
        return manifest
    except InvalidArgument as error:
        raise InvalidImage(str(error)) from None


def _check_sizes(descriptors: Iterable[Descriptor], what: str) -> None:
    for descriptor in descriptors:
        if descriptor.size < 0:
            raise InvalidImage(f"{what} has a blob of {descriptor.size} bytes")


def _schema_1(what: str) -> UnsupportedImage:
    return UnsupportedImage(
        f"{what} is a Docker image manifest of version 2, schema 1, which was given up in 2019; push the image again"
    )


def _kind(document: dict[str, object], media_type: str, what: str) -> str:
    said = document.get("mediaType") or ""
    sent = media_type if media_type in INDEXES + MANIFESTS else ""
    if said and sent and said != sent:
        raise InvalidImage(f"{what} was sent as {sent} but says it is {said!r:.100}")
    is_index = "manifests" in document
    if is_index and ("config" in document or "layers" in document):
        raise InvalidImage(f"{what} is both a manifest and an index")
    kind = sent or (said if isinstance(said, str) else "") or (OCI_INDEX if is_index else OCI_MANIFEST)
    if kind not in INDEXES + MANIFESTS:
        raise UnsupportedImage(f"{what} is no image: its type is {kind[:200]!r}")
    if is_index != (kind in INDEXES):
        raise InvalidImage(f"{what} says it is {kind} but has the fields of another type")
    return kind


def check_image(manifest: Manifest, what: str) -> None:
    """
    Make sure that *manifest* is an image's: artifacts are told by their types.

    Raises UnsupportedImage with what it is.
    """
    kind = manifest.config.media_type
    if kind not in CONFIGS:
        artifact = manifest.artifact_type or kind or "of no type"
        raise UnsupportedImage(f"{what} is no image but an artifact: {artifact}")
    for layer in manifest.layers:
        if layer.media_type not in LAYERS:
            raise UnsupportedImage(
                f"{what} has a layer of the type {layer.media_type[:200]!r}, which is no file system"
            )


def parse_config(content: bytes, what: str) -> ImageDocument:
    """The image configuration that *content* is. Raises InvalidImage."""
    try:
        document = loads(content, ImageDocument, what)
    except InvalidArgument as error:
        raise InvalidImage(str(error)) from None
    if document.rootfs.type != "layers":
        raise InvalidImage(f"{what} has a rootfs of the type {document.rootfs.type[:100]!r}, not 'layers'")
    return document


def check_layers(manifest: Manifest, document: ImageDocument, what: str) -> None:
    """Raises InvalidImage unless the manifest has one layer for each diff ID of the configuration."""
    if len(manifest.layers) != len(document.rootfs.diff_ids):
        raise InvalidImage(
            f"{what} has {len(manifest.layers)} layers, its configuration names {len(document.rootfs.diff_ids)}"
        )
    sizes: dict[str, int] = {}
    for descriptor in (manifest.config, *manifest.layers):
        if sizes.setdefault(descriptor.digest, descriptor.size) != descriptor.size:
            raise InvalidImage(f"{what} gives two sizes for the blob {descriptor.digest}")


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether an index's entry is BuildKit's note about another one, and no image."""
    return "vnd.docker.reference.type" in descriptor.annotations
