"""Containers that wait for their program: all that takes time has been done before somebody asks."""

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import attrs

from wherry import recovery, specification
from wherry.container import Container
from wherry.errors import WherryError
from wherry.local import replace_document, start_error
from wherry.options import Options
from wherry_oci.errors import Conflict, InvalidArgument
from wherry_shim.launch import ShimFailed

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine
    from wherry.reservation import Reservation
    from wherry_oci.spec.image import ImageConfig
    from wherry_shim.launch import Shim

_LONGEST_PROGRAM = 60_000  # bytes of command, environment and directory as JSON: what one message holds
_NOT_OF_ALL = ("name", "wait_for", "wait_timeout")  # what cannot hold for every container of a pool


class ProgramOptions(TypedDict, total=False):
    """What a container that waits can still be told: `run`'s options of these names."""

    environment: Mapping[str, str | None] | Sequence[str]
    working_dir: str


class Held:
    """One container that waits. Ended by `run` or by `close`; with this process it goes by itself."""

    def __init__(
        self, engine: "LocalEngine", place: "Reservation", shim: "Shim", record: "Record", config: "ImageConfig"
    ) -> None:
        self._engine, self._place, self._shim, self._record, self._config = engine, place, shim, record, config

    def run(self, options: Options) -> "Record":
        """Have it run what *options* say. Raises StartFailed and its kin; nothing of it is left then."""
        try:
            process = self._note_program(options)
            self._shim.run(process)
        except ShimFailed as failure:
            recovery.clear_failed_start(self._engine.store, self._record.id)
            self._engine.discard(self._record.id)
            raise start_error(self._record.name, failure.report) from None
        except BaseException:
            self._withdraw()
            raise
        finally:
            self._let_go()
        return self._record

    def _note_program(self, options: Options) -> dict[str, Any]:
        """What is to run, once it is the container's own: for its later starts, and for who asks."""
        store, record = self._engine.store, self._record
        program = specification.program_of(options, self._config, record.image)
        process = _process(program)
        path = store.directory(record.id) / "config.json"
        document = json.loads(path.read_bytes())
        document["process"].update(process)
        replace_document(path, document)
        with self._engine.database.transaction(durable=False) as connection:
            store.update(connection, record.id, {**record.settings, **attrs.asdict(program)})
            store.mark_started(connection, record.id)
        return process

    def close(self) -> None:
        """Remove it."""
        try:
            self._withdraw()
        finally:
            self._let_go()

    def _withdraw(self) -> None:
        self._shim.withdraw()
        self._engine.discard(self._record.id)

    def _let_go(self) -> None:
        self._place.take()
        self._place.give_up()


def _process(program: specification.Program) -> dict[str, Any]:
    process = {"args": list(program.arguments), "env": list(program.environment), "cwd": program.working_dir}
    size = len(json.dumps(process))
    if size > _LONGEST_PROGRAM:
        raise InvalidArgument(
            f"command and environment are {size} bytes, a waiting container takes {_LONGEST_PROGRAM}: use Client.run"
        )
    return process


class Pool:
    """
    `Client.pool`: containers of one image that wait for their program, made anew in the background as they are used.

    A context manager: on leaving, those that wait are removed; what was run goes on, unless its `lifetime` is "owner",
    as it is when nobody says otherwise. Those that wait never outlive this process. Safe to use from threads.
    """

    def __init__(
        self,
        engine: "LocalEngine",
        image: str,
        command: str | Sequence[str] | None,
        options: Mapping[str, Any],
        size: int,
    ) -> None:
        if size < 1:
            raise InvalidArgument(f"size={size}: a pool has at least one container")
        for name in _NOT_OF_ALL:
            if options.get(name) is not None:
                raise InvalidArgument(f"{name}= cannot hold for all of a pool's containers: leave it out")
        self._engine, self._image, self._size = engine, image, size
        self._options = Options.parse(command, {"lifetime": "owner", **options})
        self._process = os.getpid()
        self._changed = Condition()  # guards what follows
        self._waiting: deque[Held] = deque()
        self._closed = self._failed = False
        self._refiller: Thread | None = None
        try:
            for _ in range(size):
                self._waiting.append(self._make())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many containers wait at this moment."""
        return len(self._waiting)

    def run(self, command: str | Sequence[str] | None = None, **options: Unpack[ProgramOptions]) -> Container:
        """
        Run *command*, or what the pool or the image names, in a container that waits; in a new one when none does.

        *environment* is added to the pool's; *working_dir* must be there. Raises what `Client.run` raises when a
        container starts, InvalidArgument for an option that belongs to the pool, Conflict when the pool is closed.
        """
        chosen = self._told(command, options)
        held = self._take() or self._make()
        try:
            return Container(held.run(chosen).id, self._engine)
        finally:
            self._ask_for_more()

    def _take(self) -> Held | None:
        if os.getpid() != self._process:
            raise Conflict(f"this pool belongs to process {self._process}: make another one after a fork")
        with self._changed:
            if self._closed:
                raise Conflict("the pool is closed: make another one")
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Remove the containers that wait. Safe to repeat."""
        if os.getpid() != self._process:  # a fork: they are its parent's
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._refiller is not None:
            self._refiller.join()
        while self._waiting:
            self._waiting.popleft().close()

    def _told(self, command: str | Sequence[str] | None, given: Mapping[str, Any]) -> Options:
        for name in given:
            if name not in ProgramOptions.__annotations__:
                raise InvalidArgument(
                    f"{name}= is for the pool, whose containers are made already: give it to Client.pool"
                )
        told = Options.parse(command, given)
        return attrs.evolve(
            self._options,
            command=self._options.command if told.command is None else told.command,
            environment=(*self._options.environment, *told.environment),
            working_dir=told.working_dir or self._options.working_dir,
        )

    def _make(self) -> Held:
        return self._engine.hold(self._image, self._options)

    def _ask_for_more(self) -> None:
        with self._changed:
            self._failed = False
            if not self._closed and self._refiller is None:
                self._refiller = Thread(target=self._refill, name="wherry-pool", daemon=True)
                self._refiller.start()
            self._changed.notify_all()

    def _refill(self) -> None:
        """The thread that makes new ones; what fails here is told to the next `run`, which tries it itself."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (len(self._waiting) < self._size and not self._failed))
                if self._closed:
                    return
            try:
                held = self._make()
            except (WherryError, OSError):
                self._failed = True
            else:
                self._waiting.append(held)
