"""
JSON for the start path: what `json` gives, without the 6 ms that its import costs (it brings `re` along).

It stands on `_json`, json's own accelerator; where an interpreter has none, json itself is used.
"""

TYPE_CHECKING = False  # importing typing for it costs 9 ms

if TYPE_CHECKING:
    from typing import Any

try:
    from _json import encode_basestring, make_scanner
except ImportError:
    _accelerated = False
else:
    _accelerated = True


class _Context:
    """What json.JSONDecoder is to the scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


def loads(text: "str | bytes") -> "Any":
    """The value that *text* is. Raises ValueError with the place."""
    if isinstance(text, bytes):
        text = text.decode()
    if not _accelerated:
        import json

        return json.loads(text)
    text = text.strip(" \t\n\r")
    try:
        value, end = make_scanner(_Context)(text, 0)  # type: ignore[arg-type] # it takes whatever has these attributes
    except StopIteration as stop:
        raise ValueError(f"no JSON value at character {stop.value}") from None
    if end != len(text):
        raise ValueError(f"text after the JSON value, at character {end}")
    return value


def dumps(value: object) -> str:
    """*value* as compact JSON; dicts, lists, tuples, str, int, float, bool and None. Raises TypeError for others."""
    if not _accelerated:
        import json

        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts)


def _write(value: object, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(encode_basestring(value))
    elif value is None or value is True or value is False:
        parts.append("null" if value is None else "true" if value else "false")
    elif isinstance(value, int):
        parts.append(int.__repr__(value))  # an IntEnum shows itself otherwise
    elif isinstance(value, float):
        parts.append(float.__repr__(value))
    elif isinstance(value, dict):
        separator = "{"
        for key, item in value.items():
            parts.append(f"{separator}{encode_basestring(key)}:")
            _write(item, parts)
            separator = ","
        parts.append("}" if separator == "," else "{}")
    elif isinstance(value, list | tuple):
        separator = "["
        for item in value:
            parts.append(separator)
            _write(item, parts)
            separator = ","
        parts.append("]" if separator == "," else "[]")
    else:
        raise TypeError(f"{type(value).__name__} is not JSON")
