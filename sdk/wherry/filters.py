"""Filters of lists and prunes, as docker has them: a name, and one value or several of which one must fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wherry_oci.errors import InvalidArgument

_TRUE, _FALSE = ("1", "true", "t"), ("0", "false", "f")


@attrs.frozen
class Filters:
    """Name → values, all texts."""

    _values: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None, known: Sequence[str]) -> "Filters":
        """Of `{"label": "a=b"}`, `{"label": ["a", "b"]}` or `{"dangling": True}`. Raises InvalidArgument."""
        found = {}
        for name, value in (given or {}).items():
            if name not in known:
                raise InvalidArgument(f"filters: {name!r} is none of {', '.join(known)}")
            values = value if isinstance(value, list | tuple | set | frozenset) else [value]
            found[name] = tuple(str(one).lower() if isinstance(one, bool) else str(one) for one in values)
        return cls(found)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def of(self, name: str) -> tuple[str, ...]:
        """The values given for *name*."""
        return self._values.get(name, ())

    def contains(self, name: str, text: str) -> bool:
        """Whether *text* has one of the values in it, or none is given."""
        return name not in self._values or any(value in text for value in self._values[name])

    def equals(self, name: str, text: str) -> bool:
        """Whether *text* is one of the values, or none is given."""
        return name not in self._values or text in self._values[name]

    def begins(self, name: str, text: str) -> bool:
        """Whether *text* begins with one of the values, or none is given."""
        return name not in self._values or text.startswith(self._values[name])

    def is_so(self, name: str, fact: bool) -> bool:
        """Whether the *fact* is as it is asked for, or nothing is. Raises InvalidArgument for what is no truth."""
        return name not in self._values or self.is_true(name) == fact

    def is_true(self, name: str) -> bool:
        """Whether it is given, and true. Raises InvalidArgument for what is neither true nor false."""
        for value in self._values.get(name, ()):
            if value.lower() not in (*_TRUE, *_FALSE):
                raise InvalidArgument(f"filters: {name}={value!r} is neither true nor false")
            return value.lower() in _TRUE
        return False

    def labels_fit(self, labels: Mapping[str, str]) -> bool:
        """Whether *labels* have every `label` (a name, or name=value), and none of `label!`."""
        return all(_has(labels, one) for one in self.of("label")) and not any(
            _has(labels, one) for one in self.of("label!")
        )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
