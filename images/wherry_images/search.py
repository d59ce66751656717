"""Looking for repositories by name, where a registry can tell."""

from collections.abc import Callable

import attrs

from wherry_images.errors import RegistryError
from wherry_images.hosts import RegistryConfig
from wherry_images.reference import DEFAULT_REGISTRY
from wherry_images.registry import Registry
from wherry_oci.errors import Unsupported


@attrs.frozen(kw_only=True)
class Result:
    """One repository."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False


def search(term: str, limit: int, config: Callable[[str], RegistryConfig]) -> list[Result]:
    """
    At most *limit* repositories whose names or descriptions have *term*; `host/term` asks another registry.

    Raises Unsupported where the registry cannot tell.
    """
    first, slash, rest = term.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    registry, wanted = (first, rest) if named else (DEFAULT_REGISTRY, term)
    client = Registry(registry, config(registry), push=True)
    try:
        if registry == DEFAULT_REGISTRY:
            return _results(client.search_v1(wanted, limit))[:limit]
        try:
            names = client.catalog()
        except RegistryError as error:
            if error.status in (404, 405):
                raise Unsupported(f"{registry} does not tell what it has") from error
            raise
        return [Result(name=f"{registry}/{name}") for name in names if wanted.lower() in name.lower()][:limit]
    finally:
        client.close()


def _results(answer: object) -> list[Result]:
    items = answer.get("results") if isinstance(answer, dict) else None
    found = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            stars = item.get("star_count")
            found.append(
                Result(
                    name=item["name"],
                    description=str(item.get("description") or ""),
                    stars=stars if isinstance(stars, int) else 0,
                    official=bool(item.get("is_official")),
                )
            )
    return found
