"""What can go wrong with images: each class is one thing a caller can act on, with the facts as attributes."""

from wherry_oci.errors import (
    Conflict,
    DataLoss,
    Error,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)


class InvalidReference(InvalidArgument):
    """A text that names no image."""

    def __init__(self, reference: str, why: str) -> None:
        super().__init__(f"invalid reference {reference[:300]!r}: {why}")
        self.reference, self.why = reference, why


class ImageNotFound(NotFound):
    """No image of that name or id is in the store."""

    def __init__(self, name: str, why: str = "pull it first") -> None:
        super().__init__(f"no such image {name!r}: {why}")
        self.name = name


class ImageInUse(Conflict):
    """The image cannot be removed now."""

    def __init__(self, image: str, why: str, holders: tuple[str, ...] = ()) -> None:
        super().__init__(f"image {image} is not removed: {why}")
        self.image, self.holders = image, holders


class RegistryError(Error):
    """A registry refused; `status` is HTTP's, `said` the registry's own words."""

    def __init__(self, what: str, *, registry: str, status: int = 0, said: str = "") -> None:
        super().__init__(what + (f": {said}" if said else ""))
        self.registry, self.status, self.said = registry, status, said


class ManifestUnknown(RegistryError, NotFound):
    """The registry has no such tag, digest or repository; or it hides it from who may not see it."""


class BlobUnknown(RegistryError, NotFound):
    """The registry lacks a blob that its own manifest names."""


class AuthRequired(RegistryError, PermissionDenied):
    """The registry wants credentials, or other ones than it was given."""


class RateLimited(RegistryError, Unavailable):
    """The registry has had enough of us: `retry_after` seconds, `limit` and `remaining` are what it told, or None."""

    def __init__(
        self,
        what: str,
        *,
        registry: str,
        status: int = 429,
        said: str = "",
        retry_after: float | None = None,
        limit: str | None = None,
        remaining: str | None = None,
    ) -> None:
        super().__init__(what, registry=registry, status=status, said=said)
        self.retry_after, self.limit, self.remaining = retry_after, limit, remaining


class RegistryUnreachable(RegistryError, Unavailable):
    """No answer from the registry, or none that makes sense."""


class RegistryRefused(RegistryError, InvalidArgument):
    """The registry understood and said no, for a reason of its own."""


class DigestMismatch(DataLoss):
    """A blob's bytes are not what its descriptor promised."""

    def __init__(self, expected: str, actual: str, what: str = "") -> None:
        super().__init__((f"{what}: " if what else "") + f"expected {expected}, got {actual}")
        self.expected, self.actual = expected, actual


class SizeMismatch(DigestMismatch):
    """A blob is longer or shorter than its descriptor promised."""

    def __init__(self, digest: str, expected: int, actual: int) -> None:
        super().__init__(digest, f"{actual} bytes instead of {expected}")
        self.expected_size, self.actual_size = expected, actual


class InvalidLayer(DataLoss):
    """A layer's tar is broken, or would not stay inside its root; nothing of it was kept."""

    def __init__(self, why: str, *, layer: str = "", entry: str = "") -> None:
        super().__init__()
        self.why, self.layer, self.entry = why, "", ""
        self.place(layer=layer, entry=entry)

    def place(self, *, layer: str = "", entry: str = "") -> None:
        """Add where it happened, as far as that was not known."""
        self.layer, self.entry = self.layer or layer, self.entry or entry
        where = (f"layer {self.layer}" if self.layer else "", f"entry {self.entry!r}" if self.entry else "")
        self.args = (": ".join(filter(None, (*where, self.why))),)


class LimitExceeded(InvalidLayer):
    """A layer is larger than the caller's limits allow: `limit` names which."""

    def __init__(self, limit: str, value: int, *, layer: str = "", entry: str = "") -> None:
        super().__init__(f"over the limit of {value} {limit}; a larger one can be set", layer=layer, entry=entry)
        self.limit, self.value = limit, value


class InvalidImage(DataLoss):
    """A manifest, index, configuration or archive is not what it should be."""


class UnsupportedImage(Unsupported):
    """What the registry has is no image that this version can run."""


class PlatformNotFound(UnsupportedImage, NotFound):
    """The image exists, for other platforms."""

    def __init__(self, reference: str, wanted: str, available: tuple[str, ...]) -> None:
        super().__init__(f"{reference} is not for {wanted}: it is for {', '.join(available) or 'no platform'}")
        self.reference, self.wanted, self.available = reference, wanted, available


class NoSpace(Unavailable):
    """The file system is full; everything partial was removed."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"no space left for {what} in {path}: remove images or make room")
        self.path = path


class Offline(Unavailable):
    """The image is not here and the network may not be asked."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"{reference} is not in the store and the store is offline")
        self.reference = reference


class CredentialHelperFailed(PermissionDenied):
    """A docker-credential-… program could not be run or failed."""
