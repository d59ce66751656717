"""A step of the runtime that failed, as the container's first process tells it to its parent."""

from wherry_oci.errors import Error


class RuntimeFailure(Error):
    """
    A container could not be made or entered.

    `kind` is one of "no_such_user", "not_found", "not_executable", "unsupported", "invalid", "conflict", "gone",
    "system", `step` what was tried, `path` on what (may be empty), `errno` the kernel's answer or 0.
    """

    def __init__(self, kind: str, step: str, message: str, path: str = "", errno: int = 0) -> None:
        super().__init__(f"{step}: {message}")
        self.kind, self.step, self.message, self.path, self.errno = kind, step, message, path, errno

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "step": self.step,
            "message": self.message,
            "path": self.path,
            "errno": self.errno,
        }

    @classmethod
    def from_json(cls, record: dict[str, object]) -> "RuntimeFailure":
        errno = record.get("errno")
        return cls(
            str(record.get("kind", "system")),
            str(record.get("step", "")),
            str(record.get("message", "")),
            str(record.get("path", "")),
            errno if isinstance(errno, int) else 0,
        )

    @classmethod
    def from_os_error(cls, step: str, error: OSError) -> "RuntimeFailure":
        path = error.filename
        text = os_error_text(error)
        return cls("system", step, text, str(path) if path is not None else "", error.errno or 0)


def os_error_text(error: OSError) -> str:
    """The kernel's words and the path, as errors show them: `/etc/x: permission denied`."""
    said = (error.strerror or str(error)).lower()
    return f"{error.filename}: {said}" if error.filename else said
