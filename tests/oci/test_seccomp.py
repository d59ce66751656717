"""seccomp filters against their meaning, spelled out here, and against libseccomp's."""

import itertools
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from support import seccomp as judge
from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_oci.seccomp import compile_filter, default_profile, filter_flags
from wherry_oci.seccomp.program import JUMP_EQUAL, Program
from wherry_oci.seccomp.syscalls import COLUMNS, IPC_CALLS, SOCKETCALLS, TABLE, X32_BIT

pytestmark = pytest.mark.unit

LIBRARY = judge.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="needs libseccomp.so.2, of Debian's package libseccomp2")

FAMILIES = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}
ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRACE": 0x7FF00001,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_ERRNO": 0x00050001,
}
OPERATORS: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_EQ": lambda argument, value, _: argument == value,
    "SCMP_CMP_NE": lambda argument, value, _: argument != value,
    "SCMP_CMP_LT": lambda argument, value, _: argument < value,
    "SCMP_CMP_LE": lambda argument, value, _: argument <= value,
    "SCMP_CMP_GT": lambda argument, value, _: argument > value,
    "SCMP_CMP_GE": lambda argument, value, _: argument >= value,
    "SCMP_CMP_MASKED_EQ": lambda argument, mask, value: argument & mask == value & mask,
}
# Where 32 bits end and signs begin.
VALUES = (0, 1, 2, 3, 8, 40, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 - 1, 2**63, 2**64 - 1)

EPERM, ENOSYS, KILL, ALLOW = 0x00050001, 0x00050026, 0, 0x7FFF0000


def number_of(architecture: str, name: str) -> int:
    number = TABLE[name][COLUMNS.index(architecture)]
    return number | X32_BIT if architecture == "x32" and number >= 0 else number


def ask(program: bytes, name: str, *arguments: int, architecture: str = "x86_64") -> int:
    return judge.run(program, judge.NATIVE[architecture], number_of(architecture, name), arguments)


def section(*syscalls: Mapping[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(syscalls), **more}


def rule(name: str, action: str = "SCMP_ACT_ALLOW", *args: Sequence[Any], **more: Any) -> dict[str, Any]:
    """A rule; *args* are (index, operator without its prefix, value, second value)."""
    keys = ("index", "op", "value", "valueTwo")
    said = [dict(zip(keys, (one[0], f"SCMP_CMP_{one[1]}", *one[2:]), strict=False)) for one in args]
    return {"names": [name], "action": action, "args": said, **more}


# Meaning


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("architecture", ["x86_64", "x86", "x32", "aarch64", "arm"])
def test_every_operator_means_what_it_says(architecture: str, operator: str) -> None:
    """All 64 bits where arguments have them, else 32: for every pair of values around the borders."""
    machine = next(machine for machine, family in FAMILIES.items() if architecture in family)
    bits = 2**64 - 1 if architecture == machine else 2**32 - 1
    for value, second in itertools.product(VALUES, (0, 1, 2**32 + 1, 2**64 - 1)):
        one = {"index": 5, "op": operator, "value": value, "valueTwo": second}
        profile = section({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [one]})
        program = compile_filter({**profile, "architectures": [f"SCMP_ARCH_{architecture.upper()}"]}, machine)
        for argument in VALUES:
            expected = OPERATORS[operator](argument & bits, value & bits, second & bits)
            answer = ask(program, "read", 0, 0, 0, 0, 0, argument, architecture=architecture)
            assert (answer == ALLOW) == expected, (value, second, argument)


@pytest.mark.parametrize("seed", range(40))
def test_a_rule_that_matches_counts_and_else_the_default(seed: int) -> None:
    """
    Profiles at random: rules of one call have one action, so it is enough that one of them matches, all of its
    conditions met, each condition alone if two are on one argument.
    """
    chance = random.Random(seed)
    names = chance.sample(sorted(name for name in TABLE if TABLE[name][0] >= 0), 12)
    its = {name: chance.choice(sorted(ACTIONS)) for name in names}
    rules: list[dict[str, Any]] = [
        {"names": [name], "action": its[name], "args": _random_arguments(chance)}
        for name in chance.choices(names, k=40)
    ]
    program = compile_filter(section(*rules, default="SCMP_ACT_ALLOW"), "x86_64")
    for name in names:
        mine = [one for one in rules if name in one["names"]]
        for _ in range(40):
            arguments = [chance.choice(VALUES) for _ in range(6)]
            matches = any(_matches(one["args"], arguments) for one in mine)
            assert ask(program, name, *arguments) == (ACTIONS[its[name]] if matches else ALLOW)


def _random_arguments(chance: random.Random) -> list[dict[str, Any]]:
    indices = [chance.randrange(6) for _ in range(chance.choice((0, 1, 1, 2, 2, 3)))]
    return [
        {
            "index": index,
            "op": chance.choice(sorted(OPERATORS)),
            "value": chance.choice(VALUES),
            "valueTwo": chance.choice(VALUES),
        }
        for index in indices
    ]


def _matches(conditions: list[dict[str, Any]], arguments: list[int]) -> bool:
    met = [OPERATORS[one["op"]](arguments[one["index"]], one["value"], one["valueTwo"]) for one in conditions]
    if len({one["index"] for one in conditions}) < len(conditions):
        return any(met)
    return all(met)


def test_every_action_and_its_number() -> None:
    """errnoRet belongs to ERRNO and TRACE, and is EPERM unless said."""
    for action, value in ACTIONS.items():
        assert ask(compile_filter(section(rule("read", action)), "x86_64"), "read") == value
    numbered = section(rule("read", "SCMP_ACT_TRACE", errnoRet=7), defaultErrnoRet=95)
    program = compile_filter(numbered, "x86_64")
    assert ask(program, "read") == 0x7FF00007
    assert ask(compile_filter(section(rule("exit"), defaultErrnoRet=95), "x86_64"), "read") == 0x00050000 | 95
    assert ask(compile_filter(section(rule("read", "SCMP_ACT_NOTIFY")), "x86_64"), "read") == 0x7FC00000
    assert ask(compile_filter(section(rule("read", "SCMP_ACT_KILL_THREAD")), "x86_64"), "read") == KILL


def test_the_first_rule_without_conditions_stands_alone() -> None:
    """It covers every call, so neither those before nor those after it have a say."""
    for first, second in itertools.permutations(("SCMP_ACT_ALLOW", "SCMP_ACT_TRAP"), 2):
        conditional = rule("read", "SCMP_ACT_LOG", (0, "EQ", 1))
        program = compile_filter(section(conditional, rule("read", first), rule("read", second), conditional), "x86_64")
        assert ask(program, "read", 1) == ACTIONS[first]


def test_a_rule_with_the_default_action_is_none() -> None:
    """runc leaves it out, so another one for the same call counts."""
    program = compile_filter(section(rule("read", "SCMP_ACT_ERRNO"), rule("read")), "x86_64")
    assert ask(program, "read") == ALLOW


def test_of_overlapping_rules_the_precise_one_counts() -> None:
    """In whatever order they are said."""
    rules = [
        rule("read", "SCMP_ACT_LOG", (0, "LT", 100)),
        rule("read", "SCMP_ACT_TRAP", (0, "LT", 10)),
        rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 5)),
        rule("read", "SCMP_ACT_KILL_PROCESS", (0, "EQ", 5), (1, "EQ", 6)),
    ]
    for order in itertools.permutations(rules):
        program = compile_filter(section(*order), "x86_64")
        assert [ask(program, "read", *arguments) for arguments in ((50, 0), (9, 6), (5, 0), (5, 6), (100, 0))] == [
            0x7FFC0000,
            0x00030000,
            ALLOW,
            0x80000000,
            EPERM,
        ]


def test_unknown_names_are_passed_over() -> None:
    """A profile of a newer world works here too."""
    program = compile_filter(section(rule("not_yet_invented"), rule("read"), rule("arm_fadvise64_64")), "x86_64")
    assert ask(program, "read") == ALLOW


# Architectures


def test_every_named_architecture_has_its_own_numbers() -> None:
    """The machine's is always there; others are killed."""
    named: dict[str, Any] = {
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_S390X", "SCMP_ARCH_AARCH64"]
    }
    everything = compile_filter(section(rule("openat"), rule("uname"), **named), "x86_64")
    native = compile_filter(section(rule("openat"), rule("uname")), "x86_64")
    for architecture in FAMILIES["x86_64"]:
        assert ask(everything, "openat", architecture=architecture) == ALLOW
        assert ask(everything, "getpid", architecture=architecture) == EPERM
        expected = ALLOW if architecture == "x86_64" else KILL
        assert ask(native, "openat", architecture=architecture) == expected
    for program in (everything, native):
        for foreign in (judge.NATIVE["aarch64"], judge.NATIVE["arm"], 0):
            assert judge.run(program, foreign, 0) == KILL


def test_the_machine_may_be_another_one() -> None:
    """Filters for aarch64 are made on x86_64 too."""
    program = compile_filter(section(rule("openat"), architectures=["SCMP_ARCH_ARM"]), "aarch64")
    assert ask(program, "openat", architecture="aarch64") == ALLOW
    assert ask(program, "openat", architecture="arm") == ALLOW
    assert ask(program, "openat", architecture="x86_64") == KILL
    with pytest.raises(Unsupported, match="this machine is riscv64"):
        compile_filter(section(), "riscv64")


def test_socketcall_and_ipc_are_no_way_around() -> None:
    """On x86 a call can come by its own number or through the old door; a rule is for both."""
    x86: dict[str, Any] = {"architectures": ["SCMP_ARCH_X86"]}
    deny = compile_filter(
        section(rule("connect", "SCMP_ACT_ERRNO"), rule("shmget", "SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW", **x86),
        "x86_64",
    )
    for name, door, call in (("connect", "socketcall", 3), ("shmget", "ipc", 23)):
        assert ask(deny, name, architecture="x86") == EPERM
        for other in range(1, 25):
            expected = EPERM if other == call else ALLOW
            assert ask(deny, door, other, architecture="x86") == expected
    allow = compile_filter(section(rule("accept"), rule("semop"), **x86), "x86_64")
    assert ask(allow, "socketcall", SOCKETCALLS["accept"], architecture="x86") == ALLOW
    assert ask(allow, "socketcall", SOCKETCALLS["bind"], architecture="x86") == EPERM
    assert ask(allow, "ipc", IPC_CALLS["semop"], architecture="x86") == ALLOW


# What is newer than the profile


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"])
def test_calls_after_the_last_known_one_seem_not_to_be_there(default: str) -> None:
    """Programs try new calls and go on without them at ENOSYS; EPERM or a signal would end them."""
    profile = section(rule("openat2"), rule("clone3", default), rule("futex", default), default=default)
    program = compile_filter(profile, "x86_64")
    assert ask(program, "openat2") == ALLOW
    assert ask(program, "clone3") == ACTIONS[default], "a mention with the default action is a mention"
    last = number_of("x86_64", "openat2")
    assert judge.run(program, judge.NATIVE["x86_64"], last + 1) == ENOSYS
    assert judge.run(program, judge.NATIVE["x86_64"], 0x3FFFFFFF) == ENOSYS
    assert judge.run(program, judge.NATIVE["x86_64"], X32_BIT) == KILL


def test_a_default_that_lets_pass_lets_new_calls_pass() -> None:
    """And so does one that is ENOSYS itself, and a profile without any call."""
    for default in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        program = compile_filter(section(rule("read", "SCMP_ACT_TRAP"), default=default), "x86_64")
        assert judge.run(program, judge.NATIVE["x86_64"], 999) == ACTIONS[default]
    assert judge.run(compile_filter(section(default="SCMP_ACT_KILL"), "x86_64"), judge.NATIVE["x86_64"], 999) == KILL


# Mistakes


@pytest.mark.parametrize(
    ("profile", "error", "message"),
    [
        ({}, InvalidArgument, r"^\$\.defaultAction: None is none of"),
        (section(default="SCMP_ACT_DENY"), InvalidArgument, r"^\$\.defaultAction: 'SCMP_ACT_DENY' is none of"),
        (section(default="SCMP_ACT_NOTIFY"), Unsupported, r"^\$\.defaultAction: SCMP_ACT_NOTIFY would stop"),
        (section(defaultErrnoRet=-1), InvalidArgument, r"^\$\.defaultAction: the number .* from 0 to 4095, not -1"),
        (section(rule("read", "X")), InvalidArgument, r"^\$\.syscalls\[0\]\.action: 'X' is none of"),
        (section(rule("read", "SCMP_ACT_ERRNO", errnoRet=9999)), InvalidArgument, r"^\$\.syscalls\[0\]\.action"),
        (section({"names": [], "action": "SCMP_ACT_ALLOW"}), InvalidArgument, r"^\$\.syscalls\[0\]\.names"),
        (
            section(rule("read"), rule("read", "SCMP_ACT_ALLOW", (6, "EQ", 0))),
            InvalidArgument,
            r"\[1\]\.args\[0\]\.index",
        ),
        (section(rule("read", "SCMP_ACT_ALLOW", (0, "IS", 0))), InvalidArgument, r"\.args\[0\]\.op: 'SCMP_CMP_IS'"),
        (section(rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 2**64))), InvalidArgument, r"\.args\[0\]\.value: must be"),
        (section(rule("read", "SCMP_ACT_ALLOW", (0, "EQ", -1))), InvalidArgument, r"\.args\[0\]\.value: must be"),
        (section(rule("write", "SCMP_ACT_NOTIFY")), Unsupported, r"^\$\.syscalls\[0\]: SCMP_ACT_NOTIFY for write"),
        (section(architectures=["SCMP_ARCH_VAX"]), InvalidArgument, r"^\$\.architectures\[0\]: 'SCMP_ARCH_VAX'"),
        (
            section(*(rule("read", "SCMP_ACT_ALLOW", (0, "NE", 2 * one), (1, "NE", 1)) for one in range(600))),
            Unsupported,
            r"instructions, Linux takes 4096",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_path(profile: dict[str, Any], error: type[Exception], message: str) -> None:
    """Never compiled to something else than was said."""
    with pytest.raises(error, match=message):
        compile_filter(profile, "x86_64")


def test_flags() -> None:
    """SPEC_ALLOW unless something is said; a listener if a rule notifies; a mistake is refused."""
    assert filter_flags(section()) == 0x4
    assert filter_flags(section(flags=[])) == 0
    assert filter_flags(section(flags=["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])) == 0x2
    assert filter_flags(section(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])) == 0
    notifying = section(rule("mkdir", "SCMP_ACT_NOTIFY"), flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    assert filter_flags(notifying) == 0x28
    with pytest.raises(InvalidArgument, match=r"^\$\.flags\[0\]: 'FAST'"):
        filter_flags(section(flags=["FAST"]))


# Programs


def test_a_jump_that_is_too_far_is_made_in_steps() -> None:
    """Conditional jumps have 8 bits."""
    program = Program()
    first, second = program.ret(1), program.ret(2)
    place = program.load(0, second)
    for value in range(600):
        place = program.jump(JUMP_EQUAL, value, first if value % 2 else second, place)
        place = program.load(0, place)
    packed = program.packed()
    assert judge.run(packed, 0, 7) == 1
    assert judge.run(packed, 0, 8) == 2
    assert judge.run(packed, 0, 599) == 1
    assert judge.run(packed, 0, 1000) == 2
    assert len(packed) == 8 * len(program)


def test_a_long_list_of_calls_is_searched_not_walked() -> None:
    """A call costs a dozen comparisons, however long the profile is."""
    names = sorted(name for name in TABLE if TABLE[name][0] >= 0)
    program = compile_filter(section(*(rule(name) for name in names[::2])), "x86_64")
    assert max(_steps(program, number_of("x86_64", name)) for name in names) <= 15
    for index, name in enumerate(names):
        expected = ENOSYS if number_of("x86_64", name) > max(number_of("x86_64", one) for one in names[::2]) else EPERM
        assert ask(program, name) == (ALLOW if index % 2 == 0 else expected)


def _steps(program: bytes, number: int) -> int:
    """How many instructions run until the action, if nothing but the number is looked at."""
    data = {0: number, 4: judge.NATIVE["x86_64"]}
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = steps = accumulator = 0
    while instructions[at][0] != 0x06:
        code, true, false, value = instructions[at]
        steps, at = steps + 1, at + 1
        if code == 0x20:
            accumulator = data[value]
        elif code == 0x05:
            at += value
        else:
            at += true if (accumulator == value if code == 0x15 else accumulator >= value) else false
    return steps


# libseccomp's opinion


@needs_library
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("one_action", [True, False])
def test_libseccomp_agrees(machine: str, one_action: bool) -> None:
    """
    Profiles at random, system calls at random, side by side, on every architecture of the machine.

    Left out is what libseccomp 2.5 gets wrong: several rules for one call that compare ranges or several arguments
    (it does not try the next one when the first fails half-way), and names that one of the architectures lacks.
    """
    assert LIBRARY is not None
    chance = random.Random(f"{machine} {one_action}")
    names = [name for name in sorted(TABLE) if _known_everywhere(name, machine)]
    assert len(names) > 300
    compared = 0
    for _ in range(200):
        profile, used, architectures = _random_profile(chance, names, machine, one_action)
        try:
            theirs = judge.export(LIBRARY, profile, machine, architectures)
        except judge.Refused:
            assert not one_action
            continue
        ours = compile_filter(profile, machine)
        for _ in range(60):
            architecture = chance.choice([machine, *architectures])
            number = number_of(architecture, chance.choice(used))
            arguments = [chance.choice(VALUES) for _ in range(6)]
            if architecture == "x86" and chance.random() < 0.3:
                number, arguments[0] = TABLE[chance.choice(("socketcall", "ipc"))][1], chance.randrange(25)
            audit = judge.NATIVE[architecture]
            assert judge.run(ours, audit, number, arguments) == judge.run(theirs, audit, number, arguments)
            compared += 1
    assert compared > 5000


def _known_everywhere(name: str, machine: str) -> bool:
    assert LIBRARY is not None
    family = FAMILIES[machine]
    if judge.resolve(LIBRARY, "x86_64", name) < 0:
        return False
    return all(
        number_of(architecture, name) >= 0
        and (architecture == "x86" or judge.resolve(LIBRARY, architecture, name) >= 0)
        for architecture in family
    )


def _random_profile(
    chance: random.Random, names: list[str], machine: str, one_action: bool
) -> tuple[dict[str, Any], list[str], list[str]]:
    used = chance.sample(names, chance.randint(1, 25))
    kinds = {name: chance.choice(("one", "values", "plain", "mixed")) for name in used}
    actions = {name: chance.choice(sorted(ACTIONS)) for name in used}
    place = {name: chance.randrange(6) for name in used}
    rules: list[dict[str, Any]] = []
    done: set[str] = set()
    for name in chance.choices(used, k=chance.randint(1, 40)):
        args: list[dict[str, Any]] = []
        if kinds[name] == "one":
            if name in done:
                continue
            for index in chance.sample(range(6), chance.randint(1, 4)):
                operator = chance.choice(sorted(OPERATORS))
                value, second = chance.choice(VALUES), chance.choice(VALUES)
                args.append({"index": index, "op": operator, "value": value, "valueTwo": second})
        elif kinds[name] == "values" or (kinds[name] == "mixed" and chance.random() < 0.6):
            args = [{"index": place[name], "op": "SCMP_CMP_EQ", "value": chance.choice(VALUES)}]
        done.add(name)
        action = actions[name] if one_action else chance.choice(sorted(ACTIONS))
        rules.append({"names": [name], "action": action, "args": args})
    architectures = [one for one in FAMILIES[machine][1:] if chance.random() < 0.5]
    default = chance.choice(("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"))
    profile = section(*rules, default=default, architectures=[f"SCMP_ARCH_{one.upper()}" for one in architectures])
    if default == "SCMP_ACT_ERRNO":
        profile["defaultErrnoRet"] = 38  # nothing is newer than such a profile
    return profile, used, architectures


@needs_library
def test_libseccomp_agrees_about_overlapping_ranges() -> None:
    """Where it compares 32 bits, its tree is a list: smaller limits first."""
    assert LIBRARY is not None
    chance = random.Random(7)
    for _ in range(300):
        operators = chance.choice((("EQ", "LT", "LE"), ("EQ", "GT", "GE")))
        values = chance.sample(range(1, 1000, 3), 5)
        rules = [
            rule("read", action, (2, chance.choice(operators), value))
            for action, value in zip(chance.sample(sorted(ACTIONS), 5), values, strict=True)
        ]
        profile = section(*rules, defaultErrnoRet=38, architectures=["SCMP_ARCH_ARM"])
        theirs = judge.export(LIBRARY, profile, "aarch64", ["arm"])
        ours = compile_filter(profile, "aarch64")
        for value in [*values, *(value + 1 for value in values), *(value - 1 for value in values)]:
            number = number_of("arm", "read")
            assert judge.run(ours, judge.NATIVE["arm"], number, (0, 0, value)) == judge.run(
                theirs, judge.NATIVE["arm"], number, (0, 0, value)
            )


@needs_library
def test_libseccomp_knows_the_same_numbers() -> None:
    """All of its table that is in ours; it may be older, or newer."""
    assert LIBRARY is not None
    compared = 0
    for name in TABLE:
        for architecture in COLUMNS:
            if architecture == "x86" and (name in SOCKETCALLS or name in IPC_CALLS):
                continue  # it has pseudo numbers for these
            theirs = judge.resolve(LIBRARY, architecture, name)
            if theirs >= 0:
                assert number_of(architecture, name) == theirs, (name, architecture)
                compared += 1
    assert compared > 1500


@needs_library
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("capabilities", [[], ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYSLOG"]])
def test_libseccomp_agrees_about_the_default_profile(machine: str, capabilities: list[str]) -> None:
    """Each call that the installed version knows on all of the architectures."""
    assert LIBRARY is not None
    profile = default_profile(capabilities, machine, (6, 1))
    profile["defaultErrnoRet"] = 38  # so that what is newer than the profile is no matter
    family = FAMILIES[machine]
    known = [name for name in sorted(TABLE) if _known_everywhere(name, machine)]
    kept = [{**one, "names": [name for name in one["names"] if name in known]} for one in profile["syscalls"]]
    profile["syscalls"] = [one for one in kept if one["names"]]
    theirs = judge.export(LIBRARY, profile, machine, family[1:])
    ours = compile_filter(profile, machine)
    for name, architecture, argument in itertools.product(known, family, (*VALUES, 16, 38, 0x20008, 0x10000000)):
        audit, number = judge.NATIVE[architecture], number_of(architecture, name)
        assert judge.run(ours, audit, number, (argument,)) == judge.run(theirs, audit, number, (argument,)), name
