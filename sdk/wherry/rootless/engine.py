"""The engine of an ordinary user, as the user's own process has it: what needs the namespaces goes to a worker."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from wherry import recovery
from wherry.containerstore import Record
from wherry.errors import PortInUse
from wherry.local import LocalEngine
from wherry.options import Options
from wherry.rootless import adaptation, line, worker
from wherry.rootless.line import Line, Reference, Request
from wherry_images import Image, ImageStore
from wherry_oci.errors import Unavailable, Unsupported
from wherry_shim.ports import port_holder

if TYPE_CHECKING:
    from wherry.pool import Held
    from wherry.reservation import Reservation
    from wherry.rootfsview import RootfsView
    from wherry_images import PullEvent, PushEvent
    from wherry_images.check import Problem, Usage
    from wherry_images.collect import Pruned
    from wherry_images.compression import Source
    from wherry_images.diff import Change

_IDLE = 2  # workers kept for the next call
_STACK = 4  # frames from a warning up to who called the client


class RootlessEngine(LocalEngine):
    """
    As LocalEngine, for who is not root. *holder* is the directory of the namespaces' holder.

    It keeps the lines to a few workers between calls, until `close`; a child by fork makes its own.
    """

    reaches_bridges = False

    def __init__(
        self, root: Path, run: Path, mirrors: Mapping[str, Sequence[str]] | None = None, *, holder: str
    ) -> None:
        super().__init__(root, run, mirrors)
        self._holder = holder
        self._mirrors = mirrors
        self._idle: list[tuple[int, Line]] = []  # with the process that opened it
        self.images = _Images(self, root, mirrors)
        self.database = self.images.database = self.store.database

    def close(self) -> None:
        """Let the idle workers go; the engine stays usable."""
        while self._idle:
            self._idle.pop()[1].close()
        super().close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter is ending
            return

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_idle": []}

    # calling

    def do(self, function: Callable[..., Any], *arguments: Any, outside: bool = False, **keywords: Any) -> Any:
        """What *function*, called inside with the engine there, returns; an iterator comes item by item."""
        references: list[Any] = []
        request = Request(
            function,
            tuple(_sendable(argument, references) for argument in arguments),
            {name: _sendable(value, references) for name, value in keywords.items()},
            outside,
        )
        return self._called(request, references)

    def _called(self, request: Request, references: Sequence[Any]) -> Any:
        end = self._begun(request)
        kept = False
        try:
            kind, value = _next(end, references)
            if kind == line.ITEM:
                kept = True
                return self._items(end, value, references)
            kept = True
            self._give_back(end)
        except line.Closed:
            raise Unavailable("the process that works in this user's namespaces was killed: try it again") from None
        finally:
            if not kept:
                end.close()
        if kind == line.ERROR:
            raise value
        if kind == line.END:
            return _nothing(value)
        return value

    def _begun(self, request: Request) -> Line:
        """A line to a worker that has the request; one that was killed while it was idle is replaced."""
        while True:
            end, is_new = self._take()
            try:
                end.send(line.CALL, request)
                end.receive()
                return end
            except line.Closed:
                end.close()
                if is_new:
                    raise Unavailable(
                        "the process that works in this user's namespaces was killed: try it again"
                    ) from None
            except BaseException:
                end.close()
                raise

    def _items(self, end: Line, item: Any, references: Sequence[Any]) -> Generator[Any, None, Any]:
        finished = False
        try:
            while True:
                yield item
                kind, item = _next(end, references)
                if kind != line.ITEM:
                    finished = True
                    break
        except line.Closed:
            raise Unavailable("the process that works in this user's namespaces was killed: try it again") from None
        finally:
            if finished:
                self._give_back(end)
            else:
                end.close()
        if kind == line.ERROR:
            raise item
        return item

    def _take(self) -> tuple[Line, bool]:
        """A line, and whether it is a new one."""
        while self._idle:
            pid, end = self._idle.pop()
            if pid == os.getpid() and end.is_quiet:
                return end, False
            end.close()  # it has ended, or is our parent's
        try:
            end = worker.spawn()
            end.send(line.CALL, self._settings())
            end.receive()
        except (OSError, line.Closed) as error:
            raise Unavailable(f"cannot start a process for this user's namespaces: {error}") from error
        return end, True

    def _settings(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "run": str(self.run_directory),
            "mirrors": self._mirrors,
            "holder": self._holder,
            "owner": os.getpid(),
        }

    def _give_back(self, end: Line) -> None:
        if len(self._idle) < _IDLE:
            self._idle.append((os.getpid(), end))
        else:
            end.close()

    # what is done inside

    def _check_user(self) -> None:
        return

    def prepare(self) -> None:
        self.open()
        if recovery.is_needed(self.store):
            self.do(LocalEngine.prepare)

    def image(self, reference: str, options: Options) -> Image:
        found: Image = self.do(LocalEngine.image, reference, _plain(options))
        return found

    def create(self, image: str, options: Options) -> Record:
        self.open()
        _check_ids(options)
        adaptation.warn_of_limits(options, _STACK)
        made: Record = self.do(LocalEngine.create, image, _plain(options))
        return made

    def run(
        self,
        image: str,
        options: Options,
        *,
        place: "Reservation | None" = None,
        before_start: Callable[[Record], None] = lambda record: None,
    ) -> Record:
        if place is not None:
            place.give_up()
        self.open()
        _check_ids(options)
        adaptation.warn_of_limits(options, _STACK)
        with _holder_told():
            made: Record = self.do(_run, image, _plain(options), before_start)
        return made

    def hold(self, image: str, options: Options) -> "Held":
        """Not yet: those that wait are this process' own, and the shims of an ordinary user are a worker's."""
        raise Unsupported("a pool of waiting containers needs root: use Client.run")

    def start(self, name: str) -> None:
        with _holder_told():
            self.do(LocalEngine.start, name)

    def remove(self, name: str, *, force: bool = False, anonymous_volumes: bool = False) -> None:
        self.do(LocalEngine.remove, name, force=force, anonymous_volumes=anonymous_volumes)

    def prune(self) -> list[str]:
        removed: list[str] = self.do(LocalEngine.prune)
        return removed

    def check(self) -> list[str]:
        problems: list[str] = self.do(LocalEngine.check)
        return problems

    def changes(self, name: str) -> "list[Change]":
        found: list[Change] = self.do(LocalEngine.changes, name)
        return found

    def size(self, name: str) -> int:
        size: int = self.do(LocalEngine.size, name)
        return size

    def export(self, name: str) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self.do(LocalEngine.export, name)
        return pieces

    def commit(
        self, name: str, reference: str | None, *, config: Mapping[str, Any], author: str, message: str, pause: bool
    ) -> Image:
        record = self.record(name)
        if pause and self.state(record).status == "running":
            pause = adaptation.warn_of_pause(record.name, _STACK)
        options: dict[str, Any] = {"config": config, "author": author, "message": message, "pause": pause}
        made: Image = self.do(LocalEngine.commit, name, reference, **options)
        return made

    def processes(self, name: str) -> list[int]:
        found: list[int] = self.do(LocalEngine.processes, name)
        return found

    @contextmanager
    def rootfs(self, name: str) -> "Iterator[RootfsView]":
        yield _View(self, self.record(name).id)  # type: ignore[misc] # what a view can, each call by itself


def _check_ids(options: Options) -> None:
    if options.user_ids:
        raise Unsupported("userns_mode: an ordinary user's containers are in a user namespace already: leave it away")


@contextmanager
def _holder_told() -> Iterator[None]:
    """Out here it can be seen who has a port that is in use; from a user namespace the host's processes cannot."""
    try:
        yield
    except PortInUse as error:
        if error.holder is None and (holder := port_holder(error.address, error.port, error.protocol)):
            said = str(error).replace(" is in use:", f" is in use by {holder}:")
            error.holder, error.args = holder, (said, *error.args[1:])
        raise


class _View:
    """A container's file system, opened inside anew for each call."""

    def __init__(self, engine: RootlessEngine, container_id: str) -> None:
        self._engine, self._id = engine, container_id
        engine.do(_view, container_id, "check")  # that it can be opened is to be known at once

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        found: os.stat_result = self._engine.do(_view, self._id, "stat", path, follow=follow)
        return found

    def link(self, path: str) -> str:
        found: str = self._engine.do(_view, self._id, "link", path)
        return found

    def read(self, path: str, limit: int | None = None) -> bytes:
        content: bytes = self._engine.do(_view, self._id, "read", path, limit)
        return content

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._engine.do(_view, self._id, "write", path, content, mode)

    def names(self, path: str) -> list[str]:
        found: list[str] = self._engine.do(_view, self._id, "names", path)
        return found

    def unlink(self, path: str) -> None:
        self._engine.do(_view, self._id, "unlink", path)

    def make_directories(self, path: str) -> None:
        self._engine.do(_view, self._id, "make_directories", path)

    def archive(self, path: str) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self._engine.do(_archive, self._id, path)
        return pieces

    def extract(self, path: str, chunks: Iterable[bytes], **options: Any) -> None:
        self._engine.do(_view, self._id, "extract", path, _Pieces(chunks), **options)


def _view(engine: LocalEngine, name: str, method: str, *arguments: Any, **keywords: Any) -> Any:
    with engine.rootfs(name) as view:
        return getattr(view, method)(*arguments, **keywords) if method != "check" else None


def _archive(engine: LocalEngine, name: str, path: str) -> Iterator[bytes]:
    with engine.rootfs(name) as view:
        yield from view.archive(path)


def _run(engine: LocalEngine, image: str, options: Options, before_start: Callable[[Record], None]) -> Record:
    return engine.run(image, options, before_start=before_start)


class _Pieces:
    """Pieces of bytes, as something to read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def read(self, size: int = -1, /) -> bytes:
        """The next piece that is not empty, whatever the size; b"" at the end."""
        return next((bytes(piece) for piece in self._chunks if piece), b"")


def _plain(options: Options) -> Options:
    """Without what is waited for afterwards, and out here."""
    return attrs.evolve(options, wait_for=())


def _sendable(argument: Any, references: list[Any]) -> Any:
    """*argument* itself, or for a callable or a file what stands for it."""
    if callable(argument) and not isinstance(argument, type):
        references.append(argument)
    elif hasattr(argument, "read"):
        references.append(argument.read)
    else:
        return argument
    return Reference(len(references) - 1)


def _next(end: Line, references: Sequence[Any]) -> tuple[str, Any]:
    """The next answer; what is asked on the way to it is answered. Raises Closed."""
    while True:
        kind, value = end.receive()
        if kind != line.ASK:
            return kind, value
        number, arguments = value
        try:
            end.send(line.VALUE, references[number](*arguments))
        except Exception as error:
            end.send(line.ERROR, error)


def _nothing(value: Any) -> Generator[Any, None, Any]:
    """An iterator that is at its end."""
    yield from ()
    return value


class _Images(ImageStore):
    """The images of an ordinary user: whoever touches a layer's files does it inside, in the host's network."""

    def __init__(self, engine: RootlessEngine, root: Path, mirrors: Mapping[str, Sequence[str]] | None) -> None:
        super().__init__(root, mirrors=mirrors)
        self._engine = engine

    def _do(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return self._engine.do(_of_images, method, *arguments, outside=True, **keywords)

    def pulling(self, reference: str, **options: Any) -> "Generator[PullEvent, None, Image]":
        image: Image = yield from self._do("pulling", reference, **options)
        return image

    def pushing(self, name: str, **options: Any) -> "Generator[PushEvent, None, str]":
        digest: str = yield from self._do("pushing", name, **options)
        return digest

    def remove(self, name_or_id: str, *, force: bool = False) -> list[str]:
        done: list[str] = self._do("remove", name_or_id, force=force)
        return done

    def prune(self, **options: Any) -> "Pruned":
        pruned: Pruned = self._do("prune", **options)
        return pruned

    def usage(self) -> "Usage":
        usage: Usage = self._do("usage")
        return usage

    def check(self, *, content: bool = False) -> "list[Problem]":
        problems: list[Problem] = self._do("check", content=content)
        return problems

    def load(self, source: "Source | str | os.PathLike[str]", **options: Any) -> list[Image]:
        images: list[Image] = self._do("load", _absolute(source), **options)
        return images

    def import_(self, source: "Source | str | os.PathLike[str]", *arguments: Any, **options: Any) -> Image:
        image: Image = self._do("import_", _absolute(source), *arguments, **options)
        return image

    def export(self, image: Image | None, directory: "str | os.PathLike[str] | None" = None) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self._do("export", image, directory)
        return pieces

    def save(self, names: Sequence[str], **options: Any) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self._do("save", names, **options)
        return pieces


def _of_images(engine: LocalEngine, method: str, *arguments: Any, **keywords: Any) -> Any:
    return getattr(engine.images, method)(*arguments, **keywords)


def _absolute(source: Any) -> Any:
    """A path means the same inside; what can be read is read out here."""
    return os.path.abspath(source) if isinstance(source, (str, os.PathLike)) else source
