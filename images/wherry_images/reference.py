"""References, normalized exactly as the docker command does it."""

import re

import attrs

from wherry_images.errors import InvalidReference
from wherry_oci.errors import InvalidArgument
from wherry_oci.spec.digest import Digest, parse_digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

# distribution's reference grammar
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"[a-f0-9]{64}")
_MAX_REPOSITORY = 255


@attrs.frozen(kw_only=True)
class Reference:
    """`registry/repository:tag`, `…@digest`, or both; `str()` is the normalized form."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """As Docker shows it: `nginx:latest` for `docker.io/library/nginx:latest`."""
        return familiar(str(self))

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def tagged(self, tag: str) -> "Reference":
        return attrs.evolve(self, tag=tag, digest=None)

    def at(self, digest: Digest) -> "Reference":
        return attrs.evolve(self, tag="", digest=digest)


def familiar(reference: str) -> str:
    """The short form of a normalized *reference*, unless that would be understood as something else."""
    for prefix in (f"{DEFAULT_REGISTRY}/library/", f"{DEFAULT_REGISTRY}/"):
        if reference.startswith(prefix):
            short = reference[len(prefix) :]
            first, slash, _ = short.partition("/")
            return reference if slash and ("." in first or first == "localhost") else short
    return reference


def parse_reference(text: str, *, default_tag: str = DEFAULT_TAG) -> Reference:
    """
    The reference that *text* means to Docker; with neither tag nor digest it gets *default_tag* ("" for none).

    Raises InvalidReference.
    """
    if _ID.fullmatch(text):
        raise InvalidReference(text, "64 hexadecimal digits are an image id, not a name")
    name, at, digest_text = text.partition("@")
    digest: Digest | None = None
    if at:
        try:
            digest = parse_digest(digest_text)
        except InvalidArgument as error:
            raise InvalidReference(text, str(error)) from None
    registry, path = _split_registry(name)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(text, f"tag {tag[:140]!r} is not of up to 128 letters, digits, '_', '.' and '-'")
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}" if path else path
    _check(text, registry, path)
    if not tag and digest is None:
        tag = default_tag
    return Reference(registry=registry, repository=path, tag=tag, digest=digest)


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_registry = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not is_registry:
        return DEFAULT_REGISTRY, name
    return (DEFAULT_REGISTRY if first == "index.docker.io" else first), rest


def _check(text: str, registry: str, path: str) -> None:
    if not _REGISTRY.fullmatch(registry):
        raise InvalidReference(text, f"registry {registry[:100]!r} is no host name or address with an optional port")
    if not _REPOSITORY.fullmatch(path):
        if _REPOSITORY.fullmatch(path.lower()):
            raise InvalidReference(text, f"the repository must be lower case: {path.lower()!r}")
        raise InvalidReference(text, f"repository {path[:100]!r} is not of lower-case letters, digits and separators")
    if len(path) > _MAX_REPOSITORY:
        raise InvalidReference(text, f"the repository has more than {_MAX_REPOSITORY} characters")
