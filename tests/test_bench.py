"""The bench tells the truth about whom it measured, whom it could not, and what was promised."""

import pytest

from bench import machine, measure, table
from bench.measure import Case

pytestmark = pytest.mark.unit


def _case(limit: float | None = 0.5, rival: str = "docker", **contenders: float) -> Case:
    made = {name: (lambda number: lambda: number)(value) for name, value in contenders.items()}
    return Case(name="a case", contenders=made, limit=limit, rival=rival)


def test_medians_leave_the_warm_up_out() -> None:
    """The first rounds are for caches; one slow round later changes little."""
    values = iter([1000.0] * measure.WARM_UP + [3.0, 1.0, 900.0])
    result = measure.run(Case(name="a case", contenders={"wherry": lambda: next(values)}), rounds=3)
    assert result.medians == {"wherry": 3.0}


def test_all_take_turns() -> None:
    """What slows the machine for a while slows all of them."""
    order: list[str] = []
    contenders = {name: (lambda own: lambda: order.append(own))(name) for name in ("wherry", "docker")}
    measure.run(Case(name="a case", contenders=contenders), rounds=2)
    assert order == ["wherry", "docker"] * (measure.WARM_UP + 2)


def test_who_fails_is_left_out_with_the_reason() -> None:
    """A rival that breaks spoils neither the others' numbers nor the table."""

    def broken() -> float:
        raise OSError("no such thing")

    result = measure.run(Case(name="a case", contenders={"wherry": lambda: 1.0, "docker": broken}, limit=0.5), 2)
    assert (result.medians, result.ratio, result.kept) == ({"wherry": 1.0}, None, None)
    assert table.footnotes([result]) == ["a case, docker: OSError: no such thing"]


@pytest.mark.parametrize(("ours", "kept"), [(4.0, True), (5.0, True), (6.0, False)])
def test_a_limit_is_a_multiple_of_the_rival(ours: float, kept: bool) -> None:
    """At most half of docker's time: just half is kept."""
    result = measure.run(_case(wherry=ours, docker=10.0), rounds=1)
    assert result.kept is kept
    assert ("too much" in table.markdown([result])) is not kept


def test_a_limit_may_stand_by_itself() -> None:
    """Thirty milliseconds are thirty milliseconds, whatever others take."""
    result = measure.run(_case(limit=30, rival="", wherry=8.0), rounds=1)
    assert result.kept is True
    assert "| 8.0 ms | 30 ms |" in table.markdown([result])


def test_the_machine_is_named() -> None:
    """Processor, cores, memory, kernel, interpreter."""
    described = machine.description()
    for word in ("cores", "GiB", "Linux", "Python"):
        assert word in described
