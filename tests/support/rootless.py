"""The e2e tests that cannot pass as an ordinary user, with the reasons: tests/e2e/ROOTLESS.md in a form for pytest."""

from pathlib import Path

_LIST = Path(__file__).parent.parent / "e2e" / "ROOTLESS.md"


def reasons(text: str) -> dict[str, str]:
    """By test ("test_x.py::test_y"), from the list's rows: `| file | test, test | reason |`, `*` for all of a file."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 3 and cells[0].endswith(".py"):
            found.update({f"{cells[0]}::{name.strip(' `')}": cells[2] for name in cells[1].split(",")})
    return found


_REASONS = reasons(_LIST.read_text(encoding="utf-8"))


def reason(node: str) -> str:
    """Why that test (a node's id) is left out, "" for one that is not."""
    test = node.rpartition("/")[2].partition("[")[0]
    return _REASONS.get(test) or _REASONS.get(f"{test.partition('::')[0]}::*", "")
