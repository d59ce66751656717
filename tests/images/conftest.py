"""What tests of images ask for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from images.build import BuiltImage
from images.faulty_registry import FaultyRegistry, serving
from wherry_images import Image, ImageStore, RegistryConfig

# Retries as in life, but without its patience.
IMPATIENT = RegistryConfig(retry_wait=0.001, longest_wait=2.0, timeout=10.0, certificates=())


@pytest.fixture(autouse=True)
def _no_credentials_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see neither the user's credentials nor proxies."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
    for name in ("DOCKER_AUTH_CONFIG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def faulty() -> Iterator[FaultyRegistry]:
    """A registry that does as it is told."""
    with serving() as registry:
        yield registry


@attrs.define
class Puller:
    """A store and a registry, and the shortest way from a built image to a pulled one."""

    store: ImageStore
    registry: FaultyRegistry

    def name(self, repository: str = "app", tag: str = "latest") -> str:
        return f"{self.registry.host}/{repository}:{tag}"

    def pull(self, built: BuiltImage, repository: str = "app", tag: str = "latest") -> Image:
        self.registry.push(repository, tag, built)
        return self.store.pull(self.name(repository, tag))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    """An empty store of the test's own."""
    made = ImageStore(tmp_path / "root", registries=IMPATIENT)
    yield made
    made.close()


@pytest.fixture
def puller(store: ImageStore, faulty: FaultyRegistry) -> Puller:
    return Puller(store, faulty)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., ImageStore]]:
    """Stores on roots of the test's own, closed at its end; options are ImageStore's."""
    made: list[ImageStore] = []

    def make(root: str = "root", **options: object) -> ImageStore:
        options.setdefault("registries", IMPATIENT)
        store = ImageStore(tmp_path / root, **options)  # type: ignore[arg-type]
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()
