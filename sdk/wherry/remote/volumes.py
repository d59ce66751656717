"""`client.volumes` of a distant engine."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wherry.engineapi.containerlist import ContainerSummary
from wherry.engineapi.system import DiskUsage
from wherry.engineapi.volumes import Volume as VolumeDocument
from wherry.engineapi.volumes import VolumeCreate, VolumeList, VolumesPruned
from wherry.filters import Filters
from wherry.remote.api import Api, filters
from wherry.volumecollection import Volume
from wherry.volumes import PrunedVolumes
from wherry_oci.errors import Unsupported

if TYPE_CHECKING:
    import builtins

_ALL_SINCE = (1, 42)  # until then a prune took all volumes, and knew no filter of that name


class RemoteVolume(Volume):
    """As `wherry.volumecollection.Volume`."""

    def __init__(self, name: str, api: Api) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_api", api)

    _api: Api

    def __repr__(self) -> str:
        return f"RemoteVolume(name={self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteVolume, (self.name, self._api)

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker volume inspect` tells, in its words. Raises VolumeNotFound."""
        found: dict[str, Any] = self._api.get(f"/volumes/{self.name}", about={"volume": self.name})
        return found

    @property
    def document(self) -> VolumeDocument:
        """What `attrs` tells, as a value. Raises VolumeNotFound."""
        return self._api.read(VolumeDocument, f"/volumes/{self.name}", about={"volume": self.name})

    @property
    def labels(self) -> Mapping[str, str]:
        return self.document.labels or {}

    @property
    def path(self) -> str:
        """Where the engine's host has its files."""
        return self.document.mountpoint

    @property
    def size(self) -> int:
        """Bytes of its files, as the engine counts them in `docker system df`."""
        for one in self._api.read(DiskUsage, "/system/df").volumes or ():
            if one.name == self.name and one.usage_data is not None:
                return max(0, one.usage_data.size)
        return 0

    @property
    def containers(self) -> Sequence[str]:
        """The ids of the containers that have it."""
        wanted = {"all": True, "filters": filters({"volume": self.name})}
        return [one.id for one in self._api.read_all(ContainerSummary, "/containers/json", wanted)]

    def remove(self, force: bool = False) -> None:
        """As `Volume.remove`."""
        self._api.delete(f"/volumes/{self.name}", {"force": force}, about={"volume": self.name})


class RemoteVolumeCollection:
    """As `VolumeCollection`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> RemoteVolume:
        """As `VolumeCollection.create`."""
        asked = VolumeCreate(name=name or "", driver=driver, driver_opts=_texts(driver_opts), labels=_texts(labels))
        return RemoteVolume(self._api.ask(VolumeDocument, "/volumes/create", None, asked).name, self._api)

    def get(self, name: str) -> RemoteVolume:
        """Raises VolumeNotFound."""
        return RemoteVolume(RemoteVolume(name, self._api).document.name, self._api)

    def remove(self, name: str, *, force: bool = False) -> None:
        """As `Volume.remove`; with *force* there need be none of that name."""
        RemoteVolume(name, self._api).remove(force)

    def list(self, filters: Mapping[str, Any] | None = None) -> "builtins.list[RemoteVolume]":
        """As `VolumeCollection.list`."""
        found = self._api.read(VolumeList, "/volumes", {"filters": _filters(filters)}).volumes
        return [RemoteVolume(one.name, self._api) for one in found or ()]

    def prune(self, filters: Mapping[str, Any] | None = None) -> PrunedVolumes:
        """As `VolumeCollection.prune`. Raises Unsupported of an engine that would take those with a name, too."""
        if self._api.version < _ALL_SINCE:
            wanted = Filters.parse(filters, ("all", "label", "label!"))
            if not wanted.is_true("all"):
                raise Unsupported("this engine removes volumes with a name, too: say so by the filter all")
            filters = {name: value for name, value in (filters or {}).items() if name != "all"}
        done = self._api.ask(VolumesPruned, "/volumes/prune", {"filters": _filters(filters)})
        return PrunedVolumes(names=tuple(done.volumes_deleted or ()), size=done.space_reclaimed)


def _texts(given: Mapping[str, str] | None) -> dict[str, str] | None:
    return dict(given) if given else None


_filters = filters  # `list` has an argument of that name
