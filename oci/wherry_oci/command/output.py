"""How results are printed: JSON as runc indents it, and tables in columns."""

from wherry_oci.runtime.quickjson import dumps

_INDENT = "  "


def indented(value: object, level: int = 0) -> str:
    """*value* as JSON over several lines; empty objects and lists on one."""
    inner, outer = _INDENT * (level + 1), _INDENT * level
    if isinstance(value, dict) and value:
        lines = [f"{inner}{dumps(str(key))}: {indented(item, level + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    if isinstance(value, list | tuple) and value:
        return "[\n" + ",\n".join(inner + indented(item, level + 1) for item in value) + f"\n{outer}]"
    return dumps(value)


def table(rows: list[list[str]]) -> str:
    """*rows* with their columns below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
