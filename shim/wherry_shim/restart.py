"""Whether and when a container that has ended is started again: Docker's rules and its back-off."""

_FIRST_S = 0.1
_LONGEST_S = 60.0
_LONG_ENOUGH_S = 10.0  # a run of that length counts as a success: the next wait is the shortest again

NAMES = ("no", "on-failure", "always", "unless-stopped")


class RestartPolicy:
    """*name* is one of NAMES; *maximum* bounds how often "on-failure" tries, 0 does not."""

    def __init__(self, name: str = "no", maximum: int = 0) -> None:
        self.name, self.maximum = name, maximum
        self.count = 0
        self._wait_s = 0.0

    def change(self, name: str, maximum: int) -> None:
        """From the next end on it is another one; what was counted stays."""
        self.name, self.maximum = name, maximum

    def next_wait(self, exit_code: int, ran_s: float, *, stopped: bool) -> float | None:
        """
        Seconds until the next start, which counts from now on; None if there is none.

        *stopped*: somebody asked it to end, so no policy starts it again.
        """
        if stopped or not self._wants(exit_code):
            return None
        self.count += 1
        if not self._wait_s or ran_s >= _LONG_ENOUGH_S:
            self._wait_s = _FIRST_S
        else:
            self._wait_s = min(self._wait_s * 2, _LONGEST_S)
        return self._wait_s

    def _wants(self, exit_code: int) -> bool:
        if self.name == "on-failure":
            return exit_code != 0 and (not self.maximum or self.count < self.maximum)
        return self.name in ("always", "unless-stopped")
