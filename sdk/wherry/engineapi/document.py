"""
Documents from and to JSON, by cattrs.

Go's encoder and decoder are what clients know, and so its rules hold: a field that is missing or null has its type's
zero value; names are taken in any case; a value of another type is refused; what no field is named after is ignored.
A field's name in JSON is its own in CamelCase (`host_port`: HostPort), or stands beside it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NewType, TypeVar

import attrs

from wherry_oci.errors import InvalidArgument

# cattrs is dear to import, and who only makes a document needs none of it.
if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

# A list of words, for which Docker's clients may send a single text.
Words = NewType("Words", list[str])
# The set that Go writes as an object: `{"80/tcp": {}}`.
Names = dict[str, Any]

_INT64 = 1 << 63
_JSON, _OMIT_EMPTY = "json", "omitempty"


class Malformed(InvalidArgument):
    """A document has something of another type than the Engine API has there."""


def field(json: str = "", *, default: Any = attrs.NOTHING, factory: Any = None, omitempty: bool = False) -> Any:
    """
    A field whose JSON name is not its own in CamelCase, or that is left out of what is told when it is empty.

    Without *default* or *factory* its zero value is None.
    """
    metadata = {**({_JSON: json} if json else {}), _OMIT_EMPTY: omitempty}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata)
    return attrs.field(default=None if default is attrs.NOTHING else default, metadata=metadata)


def parse(document: object, cls: type[T], what: str = "the body") -> T:
    """*document*, as `json` gives it, as *cls*. Raises Malformed with the place of what is wrong in *what*."""
    from cattrs import BaseValidationError

    try:
        return _converter().structure({} if document is None else document, cls)
    except BaseValidationError as error:
        raise Malformed("; ".join(_problems(error, what))) from None
    except (TypeError, RecursionError) as error:
        raise Malformed(f"{what}: {error}") from None


def told(value: object) -> Any:
    """*value*, a document or a list of them, as what `json` writes: every field, but for those that may be omitted."""
    return _converter().unstructure(value)


def asked(value: object) -> dict[str, Any]:
    """As `told`, without what has its zero value: the engine's own defaults hold for it."""
    found: dict[str, Any] = _asking().unstructure(value)
    return {name: item for name, item in found.items() if item != {}}


@cache
def json_names(cls: type) -> Mapping[str, str]:
    """The names of *cls*' fields in JSON, by their own."""
    return {one.name: _json_name(one) for one in attrs.fields(cls)}


def _json_name(one: "attrs.Attribute[Any]") -> str:
    named: str | None = one.metadata.get(_JSON)
    return named or "".join(word.capitalize() for word in one.name.split("_"))


def _problems(error: Exception, place: str) -> Iterator[str]:
    """What is wrong, and where, in the names of JSON."""
    from cattrs import ClassValidationError, IterableValidationError

    if isinstance(error, ClassValidationError):
        names = json_names(error.cl)
        located, others = error.group_exceptions()
        for inner, note in located:
            yield from _problems(inner, f"{place}.{names.get(note.name, note.name)}")
    elif isinstance(error, IterableValidationError):
        elements, others = error.group_exceptions()
        for inner, element in elements:
            yield from _problems(inner, f"{place}[{element.index}]")
    else:
        others = [error]
    for other in others:
        yield f"{place}: {other}"


@cache
def _converter() -> "Converter":
    return _made(omit_zero=False)


@cache
def _asking() -> "Converter":
    return _made(omit_zero=True)


def _made(*, omit_zero: bool) -> "Converter":
    from cattrs import Converter

    made = Converter(omit_if_default=omit_zero)
    for kind, name in ((str, "a string"), (int, "an integer"), (bool, "true or false")):
        made.register_structure_hook(kind, _exactly(kind, name))
    made.register_structure_hook(Words, lambda value, _: _words(value))
    made.register_structure_hook_factory(attrs.has, lambda cls: _reader(made, cls))
    made.register_unstructure_hook_factory(attrs.has, lambda cls: _writer(made, cls, omit_zero=omit_zero))
    made.register_structure_hook_func(_is(list), lambda value, kind: _array(made, value, kind))
    made.register_structure_hook_func(_is(dict), lambda value, kind: _object(made, value, kind))
    return made


def _is(origin: type) -> Any:
    return lambda kind: getattr(kind, "__origin__", None) is origin


def _exactly(kind: type, name: str) -> Any:
    def check(value: object, _: object) -> object:
        if type(value) is not kind or (kind is int and not -_INT64 <= value < _INT64):  # type: ignore[operator]
            raise TypeError(f"{_shown(value)} is not {name}")
        return value

    return check


def _words(value: object) -> Words:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{_shown(value)} is neither a string nor an array of strings")
    return Words(words)


def _array(converter: "Converter", value: object, kind: Any) -> list[Any]:
    from cattrs import BaseValidationError

    if not isinstance(value, list):
        raise TypeError(f"{_shown(value)} is not an array")
    [inner] = kind.__args__
    found = []
    for number, item in enumerate(value):
        try:
            found.append(converter.structure(item, inner))
        except (TypeError, BaseValidationError) as error:
            raise _at(f"[{number}]", error) from None
    return found


def _object(converter: "Converter", value: object, kind: Any) -> dict[str, Any]:
    from cattrs import BaseValidationError

    if not isinstance(value, dict):
        raise TypeError(f"{_shown(value)} is not an object")
    inner = kind.__args__[1]
    if inner is Any:
        return value
    found = {}
    for key, item in value.items():
        try:
            found[key] = converter.structure(item, inner)
        except (TypeError, BaseValidationError) as error:
            raise _at(f"[{key!r}]", error) from None
    return found


def _at(place: str, error: Exception) -> TypeError:
    return TypeError("; ".join(_problems(error, place)))


def _shown(value: object) -> str:
    return f"{value!r:.80}"


def _reader(converter: "Converter", cls: Any) -> Any:
    from cattrs.gen import make_dict_structure_fn, override

    known = frozenset(json_names(cls).values())
    lowered = {name.lower(): name for name in known}
    renamed: dict[str, Any] = {name: override(rename=shown) for name, shown in json_names(cls).items()}
    inner: Any = make_dict_structure_fn(cls, converter, **renamed)

    def read(value: object, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"{_shown(value)} is not an object")
        return inner(
            {
                name if name in known else lowered.get(name.lower(), name): item
                for name, item in value.items()
                if item is not None
            },
            kind,
        )

    return read


def _writer(converter: "Converter", cls: Any, *, omit_zero: bool) -> Any:
    from cattrs.gen import make_dict_unstructure_fn, override

    names: dict[str, Any] = {}
    for one in attrs.fields(cls):
        omitted = omit_zero or bool(one.metadata.get(_OMIT_EMPTY))
        names[one.name] = override(rename=_json_name(one), omit_if_default=omitted)
    return make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=omit_zero, **names)
