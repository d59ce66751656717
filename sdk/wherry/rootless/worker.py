"""
The process that is inside: an engine in the namespaces of its user's containers, at the other end of a line.

It is started by `spawn`, from within the user's program: no child of it, in a session of its own. Its main thread is in
the holder's network, where bridges are; a second one stays in the host's, for what concerns registries, and starts the
shims, which publish ports there. It ends with its line, or when nobody has wanted anything of it for a while.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread, get_ident
from typing import Any, TypeVar

from wherry.containerstore import Record
from wherry.local import LocalEngine
from wherry.options import Options
from wherry.reservation import Reservation
from wherry.rootless import holder, line
from wherry.rootless.line import Line
from wherry_images import Image
from wherry_oci.errors import Error
from wherry_shim.launch import Shim

T = TypeVar("T")

_IDLE_S = 60.0
LINE = 3
_OUT_OF_THE_WAY = 10
_BOOTSTRAP = "import sys,json;sys.path[:]=json.loads(sys.argv[1]);from wherry.rootless.worker import main;main()"


def spawn() -> Line:
    """A new worker. Raises OSError."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    ours, its = socket.socketpair()
    path = json.dumps([os.path.abspath(place) for place in sys.path])
    arguments = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, path]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    high_null, high = (fcntl(fd, F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in (null, its.fileno()))
    actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, high_null, stream) for stream in (0, 1, 2)]
    actions.append((os.POSIX_SPAWN_DUP2, high, LINE))
    try:
        child = os.posix_spawn(
            sys.executable, arguments, dict(os.environ), file_actions=actions, setsigmask=[], setsigdef=range(1, 32)
        )
    except BaseException:
        ours.close()
        raise
    finally:
        its.close()
        for fd in (null, high_null, high):
            os.close(fd)
    try:
        os.waitpid(child, 0)  # it has forked the worker proper
    except ChildProcessError:
        pass
    return Line(ours)


def main() -> None:
    """The whole life of a worker."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.closerange(LINE + 1, 1 << 20)
    os.set_inheritable(LINE, False)
    end = Line(socket.socket(fileno=LINE))
    try:
        _, settings = end.receive()
        end.send(line.VALUE, None)
        _serve(end, settings)
    except line.Closed:
        pass
    finally:
        os._exit(0)


def _serve(end: Line, settings: Mapping[str, Any]) -> None:
    try:
        network = holder.enter(settings["holder"])
        engine = InsideEngine(settings, network, end)
    except Exception as error:
        end.receive()
        end.send(line.BEGUN, None)
        end.send(line.ERROR, error)
        return
    Thread(target=_end_with, args=(end,), daemon=True).start()
    while end.has_message(_IDLE_S):
        kind, request = end.receive()
        if kind == line.CALL:
            end.send(line.BEGUN, None)
            engine.outside(_answer, engine, end, request) if request.outside else _answer(engine, end, request)


def _end_with(end: Line) -> None:
    """Whoever is killed does nothing more, and neither does his worker: what it was at is found as it lies."""
    end.wait_for_end()
    os._exit(0)


def _answer(engine: "InsideEngine", end: Line, request: line.Request) -> None:
    try:
        arguments = [engine.received(argument) for argument in request.arguments]
        keywords = {name: engine.received(value) for name, value in request.keywords.items()}
        result = request.function(engine, *arguments, **keywords)
        if isinstance(result, Iterator):
            _send_all(end, result)
        else:
            end.send(line.VALUE, result)
    except line.Closed:
        raise
    except BaseException as error:
        _send_error(end, error)


def _send_all(end: Line, items: Iterator[Any]) -> None:
    try:
        while True:
            end.send(line.ITEM, next(items))
    except StopIteration as stop:
        end.send(line.END, stop.value)
    finally:
        if hasattr(items, "close"):
            items.close()


def _send_error(end: Line, error: BaseException) -> None:
    try:
        end.send(line.ERROR, error)
    except line.Closed:
        raise
    except Exception:  # it holds what cannot be sent
        end.send(line.ERROR, Error(f"{type(error).__name__}: {error}"))


class InsideEngine(LocalEngine):
    """The engine that root has, with its parts in two networks; *settings* are the outer engine's."""

    def __init__(self, settings: Mapping[str, Any], network: int, end: Line) -> None:
        from wherry_oci.linux.namespaces import CLONE_NEWNET, setns

        super().__init__(Path(settings["root"]), Path(settings["run"]), settings["mirrors"])
        self.network, self._line = network, end
        self.owner = settings["owner"]
        self._holder = settings["holder"]
        self._host = ThreadPoolExecutor(1)
        self._host_thread = self._host.submit(get_ident).result()  # it exists, in the host's network, before we leave
        setns(network, CLONE_NEWNET)

    def outside(self, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Do it in the host's network."""
        if get_ident() == self._host_thread:
            return function(*arguments, **keywords)
        return self._host.submit(function, *arguments, **keywords).result()

    def received(self, argument: Any) -> Any:
        """An argument as it is to be used: what stayed with the caller is called there."""
        return _Stub(self._line, argument.number) if isinstance(argument, line.Reference) else argument

    # what is different inside

    def image(self, reference: str, options: Options) -> Image:
        return self.outside(super().image, reference, options)

    def _reserve(self, options: Options, *, with_shim: bool = True) -> Reservation:
        return self.outside(super()._reserve, options, with_shim=with_shim)

    def _new_shim(self, record: Record) -> Shim:
        return self.outside(super()._new_shim, record)

    def host_servers(self, dns: Sequence[str]) -> list[str]:
        """Servers on the host's loopback are reached by way of who connects the holder's network."""
        forwarder = {"pasta": holder.PASTA_DNS, "slirp4netns": holder.SLIRP_DNS}.get(holder.way_out(self._holder))
        found = super().host_servers(dns)
        if forwarder is None:
            return found
        return list(dict.fromkeys(forwarder if one.startswith("127.") or one == "::1" else one for one in found))


class _Stub:
    """Something of the caller's: a callable, or what can be read or iterated over."""

    def __init__(self, end: Line, number: int) -> None:
        self._line, self._number = end, number

    def __call__(self, *arguments: Any) -> Any:
        self._line.send(line.ASK, (self._number, arguments))
        kind, value = self._line.receive()
        if kind == line.ERROR:
            raise value
        return value

    def read(self, size: int = -1, /) -> bytes:
        """As a file's."""
        content: bytes = self(size)
        return content

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece
