"""`client.volumes`, in docker-py's names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from wherry.filters import Filters
from wherry.volumes import PrunedVolumes, VolumeRecord, document

if TYPE_CHECKING:
    import builtins

    from wherry.engineapi.volumes import Volume as VolumeDocument
    from wherry.local import LocalEngine


@attrs.frozen(eq=False)
class Volume:
    """One volume: its name and an engine. What it tells is read at the moment it is asked."""

    name: str
    _engine: "LocalEngine" = attrs.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def id(self) -> str:
        """Its name."""
        return self.name

    @property
    def _record(self) -> VolumeRecord:
        return self._engine.volumes.get(self.name)

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker volume inspect` tells, in its words. Raises VolumeNotFound."""
        from wherry.engineapi.document import told

        found: dict[str, Any] = told(self.document)
        return found

    @property
    def document(self) -> "VolumeDocument":
        """What `attrs` tells, as a value. Raises VolumeNotFound."""
        return document(self._engine.volumes, self._record)

    @property
    def labels(self) -> Mapping[str, str]:
        return self._record.labels

    @property
    def path(self) -> str:
        """Where the host has its files."""
        return str(self._engine.volumes.path(self.name))

    @property
    def size(self) -> int:
        """Bytes of its files; 0 for one that its options mount from elsewhere."""
        size: int = self._engine.do(_size, self._record)
        return size

    @property
    def containers(self) -> Sequence[str]:
        """The ids of the containers that have it."""
        return self._engine.volumes.holders(self.name)

    def remove(self, force: bool = False) -> None:
        """Remove it with its files; with *force* it may be gone. Raises VolumeInUse, VolumeNotFound."""
        self._engine.do(_remove, self.name, force=force)


class VolumeCollection:
    """The volumes of a root."""

    def __init__(self, engine: "LocalEngine") -> None:
        self._engine = engine

    def _prepare(self) -> "LocalEngine":
        self._engine.prepare()
        if self._engine.volumes.has_left_over:
            self._engine.do(_collect)
        return self._engine

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """
        The volume *name*, made if it is not there; without a name a new, anonymous one.

        *driver_opts* are mount(8)'s words: type, o, device. Raises InvalidArgument, Unsupported, or Conflict when one
        of that name is there with other options.
        """
        engine = self._prepare()
        known = {record.name for record in engine.volumes.all()}
        with engine.database.transaction() as connection:
            made = engine.volumes.create(
                connection, name or "", driver=driver, options=driver_opts, labels=labels, anonymous=not name
            )
        if made.name not in known:
            engine.events.append("volume", "create", made.name, driver=made.driver)
        return Volume(made.name, engine)

    def get(self, name: str) -> Volume:
        """Raises VolumeNotFound."""
        engine = self._prepare()
        return Volume(engine.volumes.get(name).name, engine)

    def remove(self, name: str, *, force: bool = False) -> None:
        """As `Volume.remove`; with *force* there need be none of that name."""
        Volume(name, self._prepare()).remove(force)

    def list(self, filters: Mapping[str, Any] | None = None) -> "builtins.list[Volume]":
        """
        All, by name, or those that *filters* let through: name, label, driver, dangling (no container has it).

        Raises InvalidArgument for a filter that there is not.
        """
        chosen = Filters.parse(filters, ("name", "label", "driver", "dangling"))
        engine = self._prepare()
        held = engine.volumes.held() if "dangling" in chosen else set()
        return [
            Volume(record.name, engine)
            for record in engine.volumes.all()
            if chosen.contains("name", record.name)
            and chosen.labels_fit(record.labels)
            and chosen.equals("driver", record.driver)
            and chosen.is_so("dangling", record.name not in held)
        ]

    def prune(self, filters: Mapping[str, Any] | None = None) -> PrunedVolumes:
        """
        Remove the anonymous volumes that no container has; with the filter `all` those with a name, too.

        *filters* may also have label and `label!`. Tells what was removed, and the bytes that are free.
        """
        chosen = Filters.parse(filters, ("all", "label", "label!"))
        pruned: PrunedVolumes = self._prepare().do(_prune, chosen)
        return pruned


def _size(engine: "LocalEngine", record: VolumeRecord) -> int:
    return engine.volumes.size(record)


def _remove(engine: "LocalEngine", name: str, *, force: bool) -> None:
    if engine.volumes.remove(name, force=force):
        engine.events.append("volume", "destroy", name, driver="local")


def _collect(engine: "LocalEngine") -> None:
    engine.volumes.collect()


def _prune(engine: "LocalEngine", chosen: Filters) -> PrunedVolumes:
    every = chosen.is_true("all")
    pruned = engine.volumes.prune(lambda record: (every or record.anonymous) and chosen.labels_fit(record.labels))
    for name in pruned.names:
        engine.events.append("volume", "destroy", name, driver="local")
    return pruned
