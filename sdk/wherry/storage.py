"""What a root directory is to whoever wants its images alone: the modules of containers and networks stay out."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from wherry.errors import PermissionDenied, Unavailable
from wherry_images import ImageStore
from wherry_shim.eventlog import EventLog

EVENTS = "events"


class Storage:
    """
    Images below *root*, and the log of what happens to them.

    It remembers paths only: nothing is read, made or connected to before the first call, and a handle may be pickled,
    used from threads, and after fork. Safe with any number of processes on one root.
    """

    def __init__(self, root: Path, run: Path, mirrors: Mapping[str, Sequence[str]] | None = None) -> None:
        self.root, self.run_directory = root, run
        self.images = ImageStore(root, mirrors=mirrors, snapshotter=partial(_snapshotter, root, run))
        self.database = self.images.database
        self.events = EventLog(str(root / EVENTS))

    def open(self) -> None:
        """Make the directories at first need. Raises PermissionDenied, Unavailable."""
        self._check_user()
        try:
            for directory in (self.root, self.run_directory):
                os.makedirs(directory, 0o700, exist_ok=True)
        except PermissionError as error:
            raise PermissionDenied(
                f"user {os.geteuid()} cannot make {error.filename}: give a root of its own (root=, WHERRY_ROOT)"
            ) from error
        except OSError as error:
            raise Unavailable(f"cannot make {error.filename}: {(error.strerror or '').lower()}") from error

    def _check_user(self) -> None:
        if os.geteuid() != 0:
            raise PermissionDenied(
                f"user {os.geteuid()} cannot use root's engine: make a Client, which takes the one for this user"
            )

    def close(self) -> None:
        """Let idle connections to the root's database go; it stays usable."""
        self.database.close()


def _snapshotter(root: Path, run: Path) -> str:
    from wherry import snapshotters  # not for who has no new container

    return snapshotters.choose(root, run)
