"""
From `linux.seccomp` of a container's configuration to the program that the kernel runs at every system call.

runtime-spec config-linux.md, "Seccomp". Where it leaves a question open the answer is libseccomp's and runc's: what
cannot be resolved is passed over, rules with the default action are none, and the architecture of the machine is
always one of the filter's.
"""

import os

from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_oci.seccomp.program import (
    ARCHITECTURE,
    JUMP_EQUAL,
    JUMP_GREATER,
    JUMP_GREATER_EQUAL,
    MOST_INSTRUCTIONS,
    NUMBER,
    Program,
    high_word,
    low_word,
)
from wherry_oci.seccomp.syscalls import COLUMNS, IPC_CALLS, SOCKETCALLS, TABLE, X32_BIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
}
_WITH_NUMBER = (ERRNO, TRACE)
_EPERM, _ENOSYS, _MOST_ERRNO = 1, 38, 4095

# linux/audit.h. x32 has x86_64's, and a bit in its numbers.
_AUDIT = {
    "x86_64": 0xC000003E,
    "x86": 0x40000003,
    "x32": 0xC000003E,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
_WIDE = ("x86_64", "aarch64")  # whose arguments have 64 bits
_ARCHITECTURES = {
    "SCMP_ARCH_NATIVE": None,
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
# Those of other machines, which profiles name for all at once and no program on this one can use.
_FOREIGN = ("MIPS", "PPC", "S390", "RISCV", "PARISC", "LOONGARCH", "M68K", "SHEB", "SH")

_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # the process that loads it has one thread
    "SECCOMP_FILTER_FLAG_LOG": 0x2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 0x4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
_NEW_LISTENER = 0x8

_MOST_ARGUMENT = 5
_LAST_NUMBER = 0xFFFFFFFF
_LAST_WORD = 0xFFFFFFFF
_LAST_VALUE = 0xFFFFFFFFFFFFFFFF

# An operator's class: of overlapping rules those come first that say most precisely what they mean.
_OPERATORS = {
    "SCMP_CMP_EQ": 0,
    "SCMP_CMP_MASKED_EQ": 0,
    "SCMP_CMP_NE": 0,
    "SCMP_CMP_LT": 1,
    "SCMP_CMP_LE": 1,
    "SCMP_CMP_GT": 2,
    "SCMP_CMP_GE": 2,
}

# what `features` tells
KNOWN_ACTIONS, KNOWN_ARCHITECTURES = tuple(_ACTIONS), tuple(_ARCHITECTURES)
KNOWN_OPERATORS, KNOWN_FLAGS = tuple(_OPERATORS), tuple(_FLAGS)


class _Condition:
    """One comparison of one argument."""

    __slots__ = ("argument", "mask", "operator", "value")

    def __init__(self, argument: int, operator: str, value: int, mask: int) -> None:
        self.argument = argument
        self.operator = operator
        self.value = value
        self.mask = mask

    def rank(self) -> tuple[int, int, int]:
        """Where among overlapping rules: libseccomp's order, later arguments first."""
        smaller_first = self.operator in ("SCMP_CMP_LT", "SCMP_CMP_LE")
        return -self.argument, _OPERATORS[self.operator], self.value if smaller_first else -self.value


class _Rule:
    """What to do with a system call whose arguments meet all conditions."""

    __slots__ = ("action", "conditions")

    def __init__(self, action: int, conditions: list[_Condition]) -> None:
        self.action = action
        self.conditions = conditions

    def rank(self) -> list[tuple[int, int, int]]:
        # The end ranks last, so that what adds a condition to another rule comes before it.
        return [*(condition.rank() for condition in self.conditions), (1, 0, 0)]


_Decision = int | tuple[_Rule, ...]  # an action, or rules to be tried in order


def compile_filter(seccomp: "Mapping[str, Any]", machine: str | None = None) -> bytes:
    """
    The program (an array of struct sock_filter) for the section *seccomp* on *machine* (uname's; None is this one).

    Numbers after the last system call that the section knows of are answered by ENOSYS, when the default action would
    refuse them: programs try what is new, and go on without it only if it seems not to be there. System calls of
    architectures that the section does not name kill the thread.

    Of several rules for one call the first without conditions stands alone; if there is none, the rule that matches
    most precisely counts. Raises InvalidArgument with the path of what is wrong, Unsupported for a program that is too
    long or a notification that cannot work.
    """
    native = machine or os.uname().machine
    if native not in _WIDE:
        raise Unsupported(f"seccomp filters are made for x86_64 and aarch64, this machine is {native}")
    default = _action(seccomp.get("defaultAction"), seccomp.get("defaultErrnoRet"), "$.defaultAction")
    if default == NOTIFY:
        raise Unsupported("$.defaultAction: SCMP_ACT_NOTIFY would stop the process that has to answer")
    names = _architectures(seccomp.get("architectures") or (), native)
    rules = _rules(seccomp.get("syscalls") or (), default)
    program = Program()
    start = program.ret(KILL_THREAD)
    for audit in reversed(list(dict.fromkeys(_AUDIT[name] for name in names))):
        its = [name for name in names if _AUDIT[name] == audit]
        body = program.load(NUMBER, _tree(program, _intervals(its, rules, default), default))
        start = program.jump(JUMP_EQUAL, audit, body, start)
    program.load(ARCHITECTURE, start)
    if len(program) > MOST_INSTRUCTIONS:
        raise Unsupported(f"the seccomp filter has {len(program)} instructions, Linux takes {MOST_INSTRUCTIONS}")
    return program.packed()


def filter_flags(seccomp: "Mapping[str, Any]") -> int:
    """
    The flags for seccomp(2). Without any in the section SPEC_ALLOW, as runc does; with a rule that notifies
    NEW_LISTENER, so that the call gives a descriptor. Raises InvalidArgument.
    """
    said = seccomp.get("flags")
    flags = _FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] if said is None else 0
    for index, name in enumerate(said or ()):
        if name not in _FLAGS:
            raise InvalidArgument(f"$.flags[{index}]: {name!r} is none of {', '.join(_FLAGS)}")
        flags |= _FLAGS[name]
    if any(syscall.get("action") == "SCMP_ACT_NOTIFY" for syscall in seccomp.get("syscalls") or ()):
        return flags | _NEW_LISTENER
    return flags & ~_FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]  # EINVAL without a listener


# Reading the section


def _action(name: object, number: object, path: str) -> int:
    if not isinstance(name, str) or name not in _ACTIONS:
        raise InvalidArgument(f"{path}: {name!r} is none of {', '.join(_ACTIONS)}")
    action = _ACTIONS[name]
    if action not in _WITH_NUMBER:
        return action
    if number is None:
        number = _EPERM
    most = _MOST_ERRNO if action == ERRNO else 0xFFFF
    if not isinstance(number, int) or not 0 <= number <= most:
        raise InvalidArgument(f"{path}: the number for {name} must be from 0 to {most}, not {number!r}")
    return action | number


def _architectures(said: "list[Any] | tuple[Any, ...]", native: str) -> list[str]:
    """The columns that count, the machine's first."""
    names = [native]
    for index, name in enumerate(said):
        if name not in _ARCHITECTURES:
            if isinstance(name, str) and name.removeprefix("SCMP_ARCH_").startswith(_FOREIGN):
                continue
            raise InvalidArgument(f"$.architectures[{index}]: {name!r} is no architecture that is known")
        column = _ARCHITECTURES[name] or native
        family = ("x86_64", "x86", "x32") if native == "x86_64" else ("aarch64", "arm")
        if column not in names and column in family:
            names.append(column)
    return names


def _rules(syscalls: "list[Any] | tuple[Any, ...]", default: int) -> list[tuple[str, _Rule | None]]:
    """Name and rule in the section's order; None for a name that a rule mentions with the default action."""
    found: list[tuple[str, _Rule | None]] = []
    for index, syscall in enumerate(syscalls):
        path = f"$.syscalls[{index}]"
        action = _action(syscall.get("action"), syscall.get("errnoRet"), f"{path}.action")
        names = syscall.get("names")
        if not isinstance(names, list | tuple) or not names:
            raise InvalidArgument(f"{path}.names: at least one system call must be named")
        if action == NOTIFY and "write" in names:
            raise Unsupported(f"{path}: SCMP_ACT_NOTIFY for write would stop the process that has to answer")
        conditions = [
            _condition(argument, f"{path}.args[{number}]") for number, argument in enumerate(syscall.get("args") or ())
        ]
        rules = [None] if action == default else _alternatives(action, conditions)
        found += [(str(name), rule) for name in names for rule in rules]
    return found


def _condition(argument: "Mapping[str, Any]", path: str) -> _Condition:
    index, operator = argument.get("index"), argument.get("op")
    if not isinstance(index, int) or not 0 <= index <= _MOST_ARGUMENT:
        raise InvalidArgument(f"{path}.index: must be from 0 to {_MOST_ARGUMENT}, not {index!r}")
    if not isinstance(operator, str) or operator not in _OPERATORS:
        raise InvalidArgument(f"{path}.op: {operator!r} is none of {', '.join(_OPERATORS)}")
    value = _word(argument.get("value", 0), f"{path}.value")
    second = _word(argument.get("valueTwo", 0), f"{path}.valueTwo")
    if operator == "SCMP_CMP_MASKED_EQ":
        return _Condition(index, operator, second & value, value)  # the first value is the mask
    return _Condition(index, operator, value, _LAST_VALUE)


def _word(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST_VALUE:
        raise InvalidArgument(f"{path}: must be a number of 64 bits without sign, not {value!r}")
    return value


def _alternatives(action: int, conditions: list[_Condition]) -> list[_Rule | None]:
    """
    One rule that wants all conditions; but where an argument has several, each condition is a rule of its own: so runc
    has always read it, and profiles count on that.
    """
    if len({condition.argument for condition in conditions}) < len(conditions):
        return [_Rule(action, [condition]) for condition in conditions]
    return [_Rule(action, sorted(conditions, key=lambda condition: condition.argument))]


# From rules to decisions


def _intervals(names: list[str], rules: list[tuple[str, _Rule | None]], default: int) -> list[tuple[int, _Decision]]:
    """First number and decision of stretches that cover all numbers, for architectures that share an audit number."""
    found: list[tuple[int, _Decision]] = []
    for name in names:
        base = X32_BIT if name == "x32" else 0
        found += [(base + number, decision) for number, decision in _of_architecture(name, rules, default)]
    if names == ["x86_64"]:
        found.append((X32_BIT, KILL_THREAD))
    merged: list[tuple[int, _Decision]] = []
    for number, decision in found:
        if not merged or merged[-1][1] != decision:
            merged.append((number, decision))
    return merged


def _of_architecture(name: str, rules: list[tuple[str, _Rule | None]], default: int) -> list[tuple[int, _Decision]]:
    """First number and decision of stretches from 0 on; the last one has no end."""
    column = COLUMNS.index(name)
    by_number: dict[int, list[_Rule]] = {}
    last = -1
    for syscall, rule in rules:
        for number, its in _placed(name, column, syscall, rule):
            last = max(last, number)
            if its is not None:
                by_number.setdefault(number, []).append(its)
    found: list[tuple[int, _Decision]] = [(0, default)]
    for number in sorted(by_number):
        found += [(number, _decision(by_number[number], name)), (number + 1, default)]
    if last >= 0 and _refuses(default):
        found.append((last + 1, ERRNO | _ENOSYS))
    # Where two begin at one number the later one counts.
    return sorted(dict(found).items())


def _refuses(default: int) -> bool:
    return default not in (ALLOW, LOG, ERRNO | _ENOSYS)


def _placed(name: str, column: int, syscall: str, rule: _Rule | None) -> list[tuple[int, _Rule | None]]:
    """The number, or numbers, by which the architecture calls it; none if it cannot."""
    numbers = TABLE.get(syscall)
    found: list[tuple[int, _Rule | None]] = []
    if name == "x86":
        for door, calls in (("socketcall", SOCKETCALLS), ("ipc", IPC_CALLS)):
            if syscall in calls:
                through = rule and _through(rule, calls[syscall])
                found.append((TABLE[door][column], through))
    if numbers is not None and numbers[column] >= 0:
        found.append((numbers[column], rule))
    return found


def _through(rule: _Rule, call: int) -> _Rule:
    """
    The rule for a call that comes through socketcall(2) or ipc(2). Its arguments are behind a pointer where no filter
    sees them; libseccomp then takes the condition on the first one for met, and so does this.
    """
    others = [condition for condition in rule.conditions if condition.argument != 0]
    return _Rule(rule.action, [_Condition(0, "SCMP_CMP_EQ", call, _LAST_VALUE), *others])


def _decision(rules: list[_Rule], name: str) -> _Decision:
    every_bit = _LAST_VALUE if name in _WIDE else _LAST_WORD
    narrowed = [_narrowed(rule, every_bit) for rule in rules]
    for rule in narrowed:
        if not rule.conditions:
            return rule.action
    return tuple(sorted(narrowed, key=_Rule.rank))


def _narrowed(rule: _Rule, every_bit: int) -> _Rule:
    """The rule as an architecture with arguments of that many bits sees it; what is true of every value is left out."""
    conditions = [
        _Condition(condition.argument, condition.operator, condition.value & every_bit, condition.mask & every_bit)
        for condition in rule.conditions
    ]
    return _Rule(rule.action, [condition for condition in conditions if condition.mask])


# From decisions to instructions


def _tree(program: Program, stretches: list[tuple[int, _Decision]], default: int) -> int:
    """A search for the number that was loaded."""
    if len(stretches) == 1:
        decision = stretches[0][1]
        return program.ret(decision) if isinstance(decision, int) else _tried(program, decision, default)
    middle = len(stretches) // 2
    upper = _tree(program, stretches[middle:], default)
    lower = _tree(program, stretches[:middle], default)
    return program.jump(JUMP_GREATER_EQUAL, stretches[middle][0], upper, lower)


def _tried(program: Program, rules: tuple[_Rule, ...], default: int) -> int:
    """One rule after the other, then the default action."""
    otherwise = program.ret(default)
    for group in reversed(_groups(rules)):
        if len(group) > 1:
            otherwise = _one_of(program, group, otherwise)
        else:
            matched = program.ret(group[0].action)
            for condition in reversed(group[0].conditions):
                matched = _compared(program, condition, matched, otherwise)
            otherwise = matched
    return otherwise


def _groups(rules: tuple[_Rule, ...]) -> list[list[_Rule]]:
    """Neighbours that compare one argument with values of the same high word, and so can share the loads."""
    groups: list[list[_Rule]] = []
    shared: tuple[int, int] | None = None
    for rule in rules:
        first = rule.conditions[0]
        mine = None
        if len(rule.conditions) == 1 and first.operator == "SCMP_CMP_EQ":
            mine = (first.argument, first.value >> 32)
        if mine is not None and mine == shared:
            groups[-1].append(rule)
        else:
            groups.append([rule])
        shared = mine
    return groups


def _one_of(program: Program, rules: list[_Rule], otherwise: int) -> int:
    """Like _tried, for rules of one group."""
    first = rules[0].conditions[0]
    start = otherwise
    for rule in reversed(rules):
        start = program.jump(JUMP_EQUAL, rule.conditions[0].value & _LAST_WORD, program.ret(rule.action), start)
    start = program.load(low_word(first.argument), start)
    if not first.mask >> 32:
        return start
    start = program.jump(JUMP_EQUAL, first.value >> 32, start, otherwise)
    return program.load(high_word(first.argument), start)


def _compared(program: Program, condition: _Condition, true: int, false: int) -> int:
    """Compare one argument, high word first where there is one."""
    operator = condition.operator
    if operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):  # the contrary of
        operator = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}[operator]
        true, false = false, true
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"):
        return _equal(program, condition, true, false)
    return _greater(program, condition, operator, true, false)


def _equal(program: Program, condition: _Condition, true: int, false: int) -> int:
    start = true
    for shift, offset in ((0, low_word(condition.argument)), (32, high_word(condition.argument))):
        mask = condition.mask >> shift & _LAST_WORD
        if mask:
            start = program.jump(JUMP_EQUAL, condition.value >> shift & _LAST_WORD, start, false)
            if mask != _LAST_WORD:
                start = program.mask(mask, start)
            start = program.load(offset, start)
    return start


def _greater(program: Program, condition: _Condition, operator: str, true: int, false: int) -> int:
    test = JUMP_GREATER if operator == "SCMP_CMP_GT" else JUMP_GREATER_EQUAL
    start = program.jump(test, condition.value & _LAST_WORD, true, false)
    start = program.load(low_word(condition.argument), start)
    if condition.mask >> 32:
        high = condition.value >> 32
        start = program.jump(JUMP_EQUAL, high, start, false)
        start = program.jump(JUMP_GREATER, high, true, start)
        start = program.load(high_word(condition.argument), start)
    return start
