"""
Go's templates as docker's users write them, for `--format` and log tags (pkg.go.dev/text/template, and docker's own
functions).

There are fields (`{{.Config.Image}}`), `if`, `range` and `with` with `else`, variables of `range`, pipelines, texts and
numbers, parentheses, `-` at an action's end, and FUNCTIONS. Anything else is refused by its name.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from wherry_oci.errors import InvalidArgument

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+)|(?P<field>(?:\.[A-Za-z_]\w*)+|\.)"""
    r"""|(?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[(),|]))"""
)
_CONSTANTS = {"true": True, "false": False, "nil": None}


def render(template: str, value: Any) -> str:
    """*template* with *value* for its `.`. Raises InvalidArgument."""
    return Template(template).render(value)


class Template:
    """A template that has been read. Raises InvalidArgument for what it does not know."""

    def __init__(self, text: str) -> None:
        self._body = _Parser(text).parse()

    def render(self, value: Any) -> str:
        """With *value* for its `.`. Raises InvalidArgument for a field that is not there."""
        return "".join(_run(self._body, _Scope(value, {"$": value})))


# reading


@attrs.frozen
class _Operand:
    """`kind` is constant, dot, variable, word or group; `path` are the fields asked of it."""

    kind: str
    value: Any = None
    path: tuple[str, ...] = ()


_Command = list[_Operand]
_Pipeline = list[_Command]


@attrs.frozen
class _Block:
    """`if`, `range` or `with`."""

    kind: str
    names: tuple[str, ...]
    pipeline: _Pipeline
    body: "list[_Node]"
    otherwise: "list[_Node]"


_Node = str | _Pipeline | _Block


class _Parser:
    def __init__(self, text: str) -> None:
        self._pieces = list(_pieces(text))

    def parse(self) -> list[_Node]:
        body, ended = self._body()
        if ended:
            raise InvalidArgument(f"template: {ended!r} has nothing to end")
        return body

    def _body(self) -> tuple[list[_Node], str]:
        """Up to the `end` or `else` that ends it, or to the template's end."""
        found: list[_Node] = []
        while self._pieces:
            is_action, text = self._pieces.pop(0)
            word = text.split(maxsplit=1)[0] if is_action and text.split() else ""
            if not is_action:
                found.append(text)
            elif text.startswith("/*"):
                continue
            elif word in ("end", "else"):
                return found, text
            elif word in ("if", "range", "with"):
                found.append(self._block(word, text[len(word) :]))
            else:
                found.append(_Reader(text).pipeline())
        return found, ""

    def _block(self, kind: str, text: str) -> _Block:
        reader = _Reader(text)
        names = reader.names()
        pipeline = reader.pipeline()
        body, ended = self._body()
        otherwise: list[_Node] = []
        if ended.startswith("else"):
            rest = ended.removeprefix("else").strip()
            if rest.startswith("if "):  # one `end` is for both
                return _Block(kind, names, pipeline, body, [self._block("if", rest[2:])])
            otherwise, ended = self._body()
        if ended != "end":
            raise InvalidArgument(f"template: {kind} without end")
        return _Block(kind, names, pipeline, body, otherwise)


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Texts and the insides of actions in turn."""
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        yield False, before.rstrip() if match[1] else before
        yield True, match[2].strip()
        at, trim = match.end(), bool(match[3])
    rest = text[at:]
    if "{{" in rest:
        raise InvalidArgument(f"template: {rest[rest.index('{{') :]!r} is not closed")
    yield False, rest.lstrip() if trim else rest


class _Reader:
    """One action."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise InvalidArgument(f"template: {text[at:].strip()!r} is not understood")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
            if self._tokens[-1][1] == ")" and (path := re.compile(r"(?:\.[A-Za-z_]\w*)+").match(text, at)):
                self._tokens.append(("path", path[0]))
                at = path.end()
        self._text = text.strip()

    def names(self) -> tuple[str, ...]:
        """`$a, $b :=` in front, if it is there."""
        signs = [token for _, token in self._tokens]
        if ":=" not in signs:
            return ()
        end = signs.index(":=")
        names = tuple(token for kind, token in self._tokens[:end] if kind == "variable")
        del self._tokens[: end + 1]
        return names

    def pipeline(self) -> _Pipeline:
        found = self._pipeline()
        if self._tokens:
            raise InvalidArgument(f"template: {self._tokens[0][1]!r} is not expected in {self._text!r}")
        return found

    def _pipeline(self) -> _Pipeline:
        commands: _Pipeline = [[]]
        while self._tokens and self._tokens[0][1] != ")":
            kind, token = self._tokens.pop(0)
            if token == "|":
                commands.append([])
            else:
                commands[-1].append(self._operand(kind, token))
        if not all(commands):
            raise InvalidArgument(f"template: a value is missing in {self._text!r}")
        return commands

    def _operand(self, kind: str, token: str) -> _Operand:
        if kind == "text":
            return _Operand("constant", token[1:-1] if token[0] == "`" else json.loads(token))
        if kind == "number":
            return _Operand("constant", int(token))
        if kind == "field":
            return _Operand("dot", None, tuple(token.split(".")[1:]) if token != "." else ())
        if kind == "variable":
            name, *fields = token.split(".")
            return _Operand("variable", name, tuple(fields))
        if kind == "word":
            if token in _CONSTANTS:
                return _Operand("constant", _CONSTANTS[token])
            if token not in FUNCTIONS:
                raise InvalidArgument(f"template: no function {token!r}; there are {', '.join(sorted(FUNCTIONS))}")
            return _Operand("word", token)
        if token == "(":
            inside = self._pipeline()
            if not self._tokens:
                raise InvalidArgument(f"template: a parenthesis is not closed in {self._text!r}")
            self._tokens.pop(0)
            path: tuple[str, ...] = ()
            if self._tokens and self._tokens[0][0] == "path":
                path = tuple(self._tokens.pop(0)[1].split(".")[1:])
            return _Operand("group", inside, path)
        raise InvalidArgument(f"template: {token!r} is not expected in {self._text!r}")


# rendering


@attrs.frozen
class _Scope:
    dot: Any
    variables: Mapping[str, Any]

    def within(self, dot: Any, names: Sequence[str] = (), values: Sequence[Any] = ()) -> "_Scope":
        return _Scope(dot, {**self.variables, **dict(zip(names, values, strict=False))})


def _run(body: list[_Node], scope: _Scope) -> Iterator[str]:
    for node in body:
        if isinstance(node, str):
            yield node
        elif isinstance(node, _Block):
            yield from _run_block(node, scope)
        else:
            yield text_of(_value(node, scope))


def _run_block(block: _Block, scope: _Scope) -> Iterator[str]:
    value = _value(block.pipeline, scope)
    if block.kind == "range" and value:
        items = sorted(value.items()) if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            values = (item,) if len(block.names) == 1 else (key, item)
            yield from _run(block.body, scope.within(item, block.names, values))
    elif value:
        dot = value if block.kind == "with" else scope.dot
        yield from _run(block.body, scope.within(dot, block.names, (value,)))
    else:
        yield from _run(block.otherwise, scope)


def _value(pipeline: _Pipeline, scope: _Scope) -> Any:
    last: list[Any] = []
    for first, *rest in pipeline:
        arguments = [_operand_value(one, scope) for one in rest] + last
        if first.kind == "word":
            last = [_called(FUNCTIONS[first.value], first.value, arguments)]
            continue
        value = _operand_value(first, scope)
        if callable(value):
            value = _called(value, ".".join(first.path), arguments)
        elif arguments:
            raise InvalidArgument(
                f"template: {'.'.join(first.path) or 'a value'} is no function, and takes no arguments"
            )
        last = [value]
    return last[0]


def _called(function: Callable[..., Any], name: str, arguments: Sequence[Any]) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InvalidArgument(f"template: {name} cannot be done: {error}") from None


def _operand_value(operand: _Operand, scope: _Scope) -> Any:
    if operand.kind == "constant":
        return operand.value
    if operand.kind == "word":
        return _called(FUNCTIONS[operand.value], operand.value, ())
    if operand.kind == "group":
        value = _value(operand.value, scope)
    elif operand.kind == "variable":
        if operand.value not in scope.variables:
            raise InvalidArgument(f"template: undefined variable {operand.value!r}")
        value = scope.variables[operand.value]
    else:
        value = scope.dot
    for name in operand.path:
        value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    if value is None:
        raise InvalidArgument(f"template: nothing is there to have a field {name!r}")
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"template: what should have a field {name!r} is {text_of(value)!r}")
    if name not in value:
        near = sorted(str(key) for key in value)
        raise InvalidArgument(f"template: no field {name!r}; there are {', '.join(near) or 'none'}")
    return value[name]


def text_of(value: Any) -> str:
    """As Go's fmt prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{text_of(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(text_of, value))}]"
    return str(value)


class FieldsOf(dict[str, Any]):
    """*document* as templates see it, by the names of *fields*; `json` gives the document itself."""

    def __init__(self, document: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.document = document


def _json(value: Any) -> str:
    if isinstance(value, FieldsOf):
        value = value.document
    shown = {key: item for key, item in value.items() if not callable(item)} if isinstance(value, Mapping) else value
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    rest = iter(values)

    def one(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        if match[2] not in "svdq":
            raise ValueError(f"%{match[2]} is not known; %s, %v, %d and %q are")
        text = text_of(next(rest, ""))
        return f"%{match[1]}s" % (json.dumps(text) if match[2] == "q" else text)

    return re.sub(r"%(-?\d*)(.)", one, form)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "eq": lambda first, *others: any(first == other for other in others),
    "index": _index,
    "join": lambda items, separator="": str(separator).join(map(text_of, items)),
    "json": _json,
    "len": len,
    "lower": lambda text: str(text).lower(),
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "print": lambda *values: "".join(map(text_of, values)),
    "printf": _printf,
    "println": lambda *values: " ".join(map(text_of, values)) + "\n",
    "split": lambda text, separator: str(text).split(separator),
    "title": lambda text: str(text).title(),
    "truncate": lambda text, size: str(text)[:size],
    "upper": lambda text: str(text).upper(),
}
