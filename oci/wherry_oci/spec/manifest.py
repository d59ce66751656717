"""
The documents of the OCI image specification 1.1, and of Docker's image manifest version 2, schema 2, which have the
same shape: descriptor, index (manifest list), manifest, image configuration.

Only what comes from a registry or an archive is read with these classes: `structure` refuses what has the wrong type
and names its place. Unknown fields are ignored; whoever needs a digest keeps the bytes.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.digest import DiffID, Digest, parse_digest
from wherry_oci.spec.image import Healthcheck, History, ImageConfig, Platform

if TYPE_CHECKING:
    from cattrs import Converter

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
LAYERS = frozenset(
    prefix + suffix
    for prefix, suffixes in {
        OCI_LAYER: ("", "+gzip", "+zstd"),
        "application/vnd.oci.image.layer.nondistributable.v1.tar": ("", "+gzip", "+zstd"),
        DOCKER_LAYER: ("", ".gzip", ".zstd"),
        "application/vnd.docker.image.rootfs.foreign.diff.tar": ("", ".gzip", ".zstd"),
    }.items()
    for suffix in suffixes
)

MAX_DOCUMENT = 4 << 20  # bytes; registries hold manifests to the same limit (distribution-spec, "Pushing Manifests")


def _json(name: str) -> dict[str, str]:
    return {"json": name}


@attrs.frozen(kw_only=True)
class Descriptor:
    """What to fetch and how to check it (descriptor.md, "Properties")."""

    media_type: str = ""
    digest: Digest
    size: int  # bytes as stored, so compressed for a +gzip layer
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = attrs.field(factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""


@attrs.frozen(kw_only=True)
class Index:
    """One image for several platforms (image-index.md)."""

    schema_version: int
    media_type: str = ""
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Manifest:
    """One image for one platform (manifest.md)."""

    schema_version: int
    media_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = attrs.field(factory=dict)
    artifact_type: str = ""


@attrs.frozen(kw_only=True)
class RootFS:
    """The layers, base first (config.md, "rootfs")."""

    type: str
    diff_ids: tuple[DiffID, ...] = attrs.field(default=(), metadata=_json("diff_ids"))


@attrs.frozen(kw_only=True)
class ImageDocument:
    """The image configuration (config.md)."""

    created: str = ""  # RFC 3339
    author: str = ""
    architecture: str = ""
    os: str = ""
    os_version: str = attrs.field(default="", metadata=_json("os.version"))
    variant: str = ""
    config: ImageConfig = attrs.field(factory=ImageConfig)
    rootfs: RootFS
    history: tuple[History, ...] = ()

    @property
    def platform(self) -> Platform:
        return Platform(
            architecture=self.architecture, os=self.os or "linux", variant=self.variant, os_version=self.os_version
        )


T = TypeVar("T")


def loads(content: bytes, cls: type[T], what: str) -> T:
    """
    *content*, JSON of at most MAX_DOCUMENT bytes, as *cls*; *what* names it in errors.

    Raises InvalidArgument with the path of each thing that is wrong, for any bytes whatever.
    """
    return structure(loads_json(content, what), cls, what)


def loads_json(content: bytes, what: str) -> object:
    """*content* as JSON: bounded in size and depth. Raises InvalidArgument."""
    import json

    if len(content) > MAX_DOCUMENT:
        raise InvalidArgument(f"{what} has {len(content)} bytes, more than the {MAX_DOCUMENT} that are taken")
    try:
        document: object = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise InvalidArgument(f"{what} is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, and an integer of thousands of digits
        raise InvalidArgument(f"{what} is no JSON: {error}") from None
    return document


def structure(document: object, cls: type[T], what: str) -> T:
    """*document*, as `json` gives it, as *cls*. Raises InvalidArgument with the paths of what is wrong."""
    from cattrs import BaseValidationError, transform_error

    try:
        return _converter().structure(document, cls)
    except BaseValidationError as error:
        problems = "; ".join(transform_error(error, format_exception=_problem)[:5])
        raise InvalidArgument(f"{what} is not well formed: {problems}") from None
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not well formed: {error}") from None


def unstructure(value: object) -> dict[str, Any]:
    """*value*, one of this module's, as what `json` writes: fields at their defaults are left out."""
    document: dict[str, Any] = _converter().unstructure(value)
    return document


def _problem(error: BaseException, _type: object) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    return str(error) or type(error).__name__


@cache
def _converter() -> "Converter":
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

    converter = Converter(detailed_validation=True, omit_if_default=True)

    def exactly(kind: type, name: str) -> None:
        def check(value: object, _: object) -> object:
            if type(value) is not kind:
                raise TypeError(f"expected {name}, got {type(value).__name__}")
            return value

        converter.register_structure_hook(kind, check)

    for kind, name in ((str, "a string"), (int, "an integer"), (bool, "true or false")):
        exactly(kind, name)

    def digest(value: object, _: object) -> Digest:
        if not isinstance(value, str):
            raise TypeError(f"expected a digest, got {type(value).__name__}")
        return parse_digest(value)

    converter.register_structure_hook_func(lambda kind: kind in (Digest, DiffID), digest)

    # Go's encoder writes null for an empty slice or map, and its decoder takes it for one.
    strings = tuple[str, ...]

    def sequence(kind: Any) -> bool:
        return getattr(kind, "__origin__", None) is tuple

    def structure_sequence(value: object, kind: Any) -> tuple[object, ...]:
        if value is None:
            return ()
        if isinstance(value, dict) and kind == strings:  # the set that Go writes as {"80/tcp": {}}
            value = list(value)
        if not isinstance(value, list):
            raise TypeError(f"expected an array, got {type(value).__name__}")
        list_of: Any = list[kind.__args__[0]]
        return tuple(converter.structure(value, list_of))

    converter.register_structure_hook_func(sequence, structure_sequence)

    def structure_map(value: object, _: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        for key, text in value.items():
            if not isinstance(text, str):
                raise TypeError(f"expected a string at {key!r}, got {type(text).__name__}")
        return value

    converter.register_structure_hook_func(lambda kind: kind == dict[str, str], structure_map)

    classes: tuple[Any, ...] = (
        Platform,
        Descriptor,
        Index,
        Manifest,
        Healthcheck,
        ImageConfig,
        RootFS,
        History,
        ImageDocument,
    )
    for cls in classes:
        names: Any = {field.name: override(rename=_json_name(field)) for field in attrs.fields(cls)}
        inner: Any = make_dict_structure_fn(cls, converter, **names)

        def structure_object(value: object, kind: Any, inner: Any = inner) -> object:
            if not isinstance(value, dict):
                raise TypeError(f"expected an object, got {type(value).__name__}")
            # null stands for absent wherever Go wrote an empty value
            return inner({key: item for key, item in value.items() if item is not None}, kind)

        converter.register_structure_hook(cls, structure_object)
        written: Any = make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True, **names)
        converter.register_unstructure_hook(cls, _with_sets(written) if cls is ImageConfig else written)

    return converter


def _with_sets(written: Any) -> Any:
    def unstructure_config(config: ImageConfig) -> dict[str, Any]:
        document: dict[str, Any] = written(config)
        for name in ("ExposedPorts", "Volumes"):
            if name in document:
                document[name] = {item: {} for item in document[name]}
        return document

    return unstructure_config


def _json_name(field: "attrs.Attribute[Any]") -> str:
    named: str | None = field.metadata.get("json")
    if named is not None:
        return named
    first, *others = field.name.split("_")
    return first + "".join(word.capitalize() for word in others)
