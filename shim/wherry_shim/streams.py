"""The standard streams of one process in the container: pipes or a terminal, and who gets what they carry."""

import os
from fcntl import F_SETPIPE_SZ, fcntl

from wherry_oci.linux.terminal import set_window_size
from wherry_shim.connection import STDERR, STDOUT
from wherry_shim.loop import READABLE, WRITABLE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_READ_SIZE = 1 << 16
_PIPE_SIZE = 1 << 18  # fewer wake-ups for a program that writes much
INPUT_LIMIT = 1 << 20  # of what the program has not read, before its writer has to wait
_DRAIN_LIMIT = 1 << 26  # of what is read at the end, when something outside still writes


class Streams:
    """
    The shim's ends of a process' streams. *on_output*(stream, piece) gets all that it writes.

    `child_ends` are the process' own, to be closed here once it runs; None with a terminal, whose master comes from
    the process itself (`use_terminal`).
    """

    def __init__(self, loop: Loop, *, terminal: bool, stdin: bool, on_output: "Callable[[int, bytes], None]") -> None:
        self._loop, self._on_output = loop, on_output
        self._sources: dict[int, int] = {}  # descriptor → stream
        self._input: int | None = None
        self._terminal: int | None = None
        self._unwritten = bytearray()
        self._input_ends = False
        self.on_input_room: list[Callable[[], None]] = []
        self.child_ends: tuple[int, int, int] | None = None
        if not terminal:
            self.child_ends = self._make_pipes(stdin)

    def _make_pipes(self, stdin: bool) -> tuple[int, int, int]:
        if stdin:
            child_in, self._input = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input, False)
        else:
            child_in = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ends = [child_in]
        for stream in (STDOUT, STDERR):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            try:
                fcntl(reader, F_SETPIPE_SZ, _PIPE_SIZE)
            except OSError:  # over the user's share of pipe memory: the usual size does
                pass
            os.set_blocking(reader, False)
            self._sources[reader] = stream
            ends.append(writer)
        return ends[0], ends[1], ends[2]

    def use_terminal(self, master: int) -> None:
        """Take the master of the process' terminal: it is all three streams."""
        self._terminal = self._input = master
        os.set_blocking(master, False)
        self._sources[master] = STDOUT

    def started(self) -> None:
        """The process runs: let go of its ends and begin to read."""
        self._close_child_ends()
        for source in self._sources:
            self._watch_source(source)

    def _watch_source(self, source: int) -> None:
        self._loop.watch(source, READABLE, lambda events: self._on_source(source, events))

    def _close_child_ends(self) -> None:
        if self.child_ends is not None:
            for fd in self.child_ends:
                os.close(fd)
            self.child_ends = None

    # out of the process

    def _on_source(self, source: int, events: int) -> None:
        if source == self._terminal and events & WRITABLE and self._unwritten:
            self._flush_input()
        if events & READABLE:
            self._read(source)

    def _read(self, source: int) -> bool:
        """Hand one piece on; False when there is none now."""
        try:
            piece = os.read(source, _READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:  # EIO: no process has the terminal open any more
            piece = b""
        if not piece:
            self._close_source(source)
            return False
        self._on_output(self._sources[source], piece)
        return True

    def _close_source(self, source: int) -> None:
        self._loop.forget(source)
        del self._sources[source]
        if source == self._terminal:
            self._terminal = self._input = None
        os.close(source)

    def pause(self) -> None:
        """Do not read for now: whoever gets it cannot keep up."""
        for source in self._sources:
            self._loop.forget(source)

    def resume(self) -> None:
        """Read again after `pause`."""
        self.started()

    def drain(self) -> None:
        """The process has ended: take what is still in the pipes, then close everything."""
        taken = 0
        for source in list(self._sources):
            while taken < _DRAIN_LIMIT and self._read(source):
                taken += _READ_SIZE
        self.close()

    # into the process

    def write_input(self, piece: bytes) -> None:
        """Give the process *piece*, or, when it is empty, the end of its input. Nobody waits for it to read."""
        if self._input is None:
            return
        if not piece:
            self._input_ends = True
        else:
            self._unwritten += piece
        self._flush_input()

    @property
    def input_is_full(self) -> bool:
        """Whether a writer should wait until `on_input_room` is called."""
        return len(self._unwritten) > INPUT_LIMIT

    def _has_room(self) -> None:
        waiting, self.on_input_room = self.on_input_room, []
        for action in waiting:
            action()

    def _flush_input(self) -> None:
        assert self._input is not None
        while self._unwritten:
            try:
                written = os.write(self._input, self._unwritten)
            except BlockingIOError:
                self._watch_input()
                return
            except OSError:  # nobody reads it any more
                self.end_input()
                return
            del self._unwritten[:written]
        self._has_room()
        if self._input_ends:
            self.end_input()
        elif self._input == self._terminal:
            self.started()
        else:
            self._loop.forget(self._input)

    def _watch_input(self) -> None:
        assert self._input is not None
        fd = self._input
        if fd == self._terminal:
            self._loop.watch(fd, READABLE | WRITABLE, lambda events: self._on_source(fd, events))
        else:
            self._loop.watch(fd, WRITABLE, lambda events: self._flush_input())

    def end_input(self) -> None:
        """Close its stdin; a terminal gets the end-of-file character instead. Safe to repeat."""
        self._unwritten.clear()
        self._has_room()
        if self._input is None:
            return
        if self._input == self._terminal:
            try:
                os.write(self._input, b"\x04")
            except OSError:
                pass
            return
        self._loop.forget(self._input)
        os.close(self._input)
        self._input = None

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; without one, nothing."""
        if self._terminal is not None:
            set_window_size(self._terminal, rows, columns)

    def close(self) -> None:
        """Close everything. Safe to repeat."""
        self._close_child_ends()
        for source in list(self._sources):
            self._close_source(source)
        if self._input is not None:
            self.end_input()
