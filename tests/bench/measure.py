"""Taking turns: contenders run one after the other in each round, so that what slows the machine slows all of them."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import attrs

WARM_UP = 2  # rounds that are not counted


@attrs.frozen(kw_only=True)
class Case:
    """One thing that several do; what is compared is the medians."""

    name: str
    contenders: Mapping[str, Callable[[], float | None]]  # each does it once; a number it returns is the measurement
    unit: str = "ms"  # of the measurements; what returns nothing is timed in milliseconds
    rival: str = "docker"  # whom wherry's limit is a multiple of; "" for a limit in the unit itself
    limit: float | None = None
    others: Mapping[str, float] = attrs.field(factory=dict)  # further limits, each a multiple of that one's
    close: Callable[[], None] = lambda: None  # take away what the case has made


@attrs.frozen(kw_only=True)
class Result:
    """Medians of one case."""

    case: Case
    medians: Mapping[str, float]
    failures: Mapping[str, str]

    @property
    def ratio(self) -> float | None:
        """Wherry's median by its rival's; by nothing where the limit is in the unit itself."""
        ours = self.medians.get("wherry")
        theirs = self.medians.get(self.case.rival) if self.case.rival else 1.0
        return None if ours is None or not theirs else ours / theirs

    @property
    def kept(self) -> bool | None:
        """Whether wherry is within all its limits; None where that cannot be told."""
        if self.ratio is None or self.case.limit is None:
            return None
        beside = [self.beside(name) for name in self.case.others]
        if None in beside:
            return None
        bounds = zip(beside, self.case.others.values(), strict=True)
        return self.ratio <= self.case.limit and all(value is not None and value <= limit for value, limit in bounds)

    def beside(self, name: str) -> float | None:
        """Wherry's median by that of *name*."""
        ours, theirs = self.medians.get("wherry"), self.medians.get(name)
        return None if ours is None or not theirs else ours / theirs


def run(case: Case, rounds: int) -> Result:
    """Measure a case. A contender that fails is left out from then on, with its reason."""
    try:
        return _taking_turns(case, rounds)
    finally:
        case.close()


def _taking_turns(case: Case, rounds: int) -> Result:
    values: dict[str, list[float]] = {name: [] for name in case.contenders}
    failures: dict[str, str] = {}
    for number in range(WARM_UP + rounds):
        for name, once in case.contenders.items():
            if name in failures:
                continue
            try:
                value = _measured(once)
            except Exception as error:  # whatever a rival's library raises is its result
                failures[name] = f"{type(error).__name__}: {error}"
                continue
            if number >= WARM_UP:
                values[name].append(value)
        print(".", end="", file=sys.stderr, flush=True)
    medians = {name: statistics.median(found) for name, found in values.items() if found and name not in failures}
    return Result(case=case, medians=medians, failures=failures)


def _measured(once: Callable[[], float | None]) -> float:
    start = time.perf_counter()
    value = once()
    elapsed = (time.perf_counter() - start) * 1000
    return elapsed if value is None else value
