"""Being attached to a container's own streams, from before its start if need be."""

from select import POLLIN, poll
from types import TracebackType
from typing import TYPE_CHECKING

from wherry.execution import Process
from wherry_shim.client import Appointment, Conversation

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.local import LocalEngine


class Attachment(Process):
    """
    A container's streams, with what `Process` has. A context manager that lets go of it on leaving; it goes on.

    Of a container that is not started yet it begins with the first byte, and `read` and `write` wait for the start.
    """

    def __init__(self, conversation: Conversation | None, appointment: Appointment | None, record: "Record") -> None:
        self._conversation, self._appointment = conversation, appointment
        self.pid = 0
        self.command = (*record.settings["entrypoint"], *record.settings["command"])
        self.exit_code = None

    @classmethod
    def to(cls, engine: "LocalEngine", name: str, *, logs: bool) -> "Attachment":
        """Raises ContainerNotFound, Conflict; with *logs* what was written since its start comes first."""
        record = engine.record(name)
        if engine.state(record).alive:
            conversation, _ = engine.converse(record, "attach", replay=logs)
            return cls(conversation, None, record)
        return cls(None, Appointment(str(engine.store.run_directory(record.id))), record)

    @property
    def conversation(self) -> Conversation:  # type: ignore[override] # here it may be still to come
        if self._conversation is None:
            assert self._appointment is not None
            self._conversation = self._appointment.conversation()
        return self._conversation

    def _begin(self) -> None:
        self.conversation  # noqa: B018 # which comes with the start

    @property
    def pending(self) -> bool:
        """As `Process.pending`; nothing is before the start."""
        return self._conversation is not None and self._conversation.pending

    def read(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """As `Process.read`; *timeout* holds for the start and for what comes after it, each."""
        if self._conversation is None and timeout is not None:
            waiting = poll()
            waiting.register(self.fileno(), POLLIN)
            if not waiting.poll(timeout * 1000):
                raise TimeoutError(f"the container was not started in {timeout:.3g} s")
        return super().read(timeout)

    def fileno(self) -> int:
        """Readable when `read` would not wait; another one before the start than after it."""
        if self._conversation is None and self._appointment is not None:
            return self._appointment.fileno()
        return self.conversation.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; it goes on. Safe to repeat."""
        if self._conversation is not None:
            self._conversation.close()
        if self._appointment is not None:
            self._appointment.close()
