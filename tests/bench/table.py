"""The results as a table, in Markdown, so that it can stand in a document as it is."""

from collections.abc import Sequence

from bench.measure import Result

COLUMNS = ("wherry", "docker", "podman", "runc", "crun")


def markdown(results: Sequence[Result]) -> str:
    """One row for each case; wherry's limit beside what it reached."""
    head = ["", *COLUMNS, "wherry is", "at most"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *map(_row, results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(result: Result) -> list[str]:
    case = result.case
    values = [_value(result.medians[name], case.unit) if name in result.medians else "–" for name in COLUMNS]
    return [case.name, *values, _reached(result), _limit(result)]


def _value(number: float, unit: str) -> str:
    return f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"


def _reached(result: Result) -> str:
    if result.ratio is None:
        return "–"
    if not result.case.rival:
        return _value(result.ratio, result.case.unit)
    reached = [f"{result.ratio:.2f} × {result.case.rival}"]
    reached += [f"{value:.2f} × {name}" for name in result.case.others if (value := result.beside(name)) is not None]
    return ", ".join(reached) + ("" if result.kept in (True, None) else " (too much)")


def _limit(result: Result) -> str:
    limit = result.case.limit
    if limit is None:
        return ""
    if not result.case.rival:
        return f"{limit:g} {result.case.unit}"
    bounds = {result.case.rival: limit, **result.case.others}
    return ", ".join(f"{bound:g} × {name}" for name, bound in bounds.items())


def footnotes(results: Sequence[Result]) -> list[str]:
    """What has no column, and why a place in the table is empty."""
    lines = [
        f"{result.case.name}: {name} is {_value(value, result.case.unit)}, wherry {result.beside(name) or 0:.2f} × it"
        for result in results
        for name, value in result.medians.items()
        if name not in COLUMNS
    ]
    return [
        *lines,
        *(f"{result.case.name}, {name}: {why}" for result in results for name, why in result.failures.items()),
    ]
