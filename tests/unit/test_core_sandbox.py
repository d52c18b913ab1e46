"""The sandbox's parts: plain values by exact type, the filter's answers, a program's names, refusals."""

from __future__ import annotations

import collections
import enum
import math
import os
import struct
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError, SandboxError, UnsupportedError
from tinygpt.core.sandbox import judge, kernel, limits, macos, run, seccomp, sides, wire

PLAIN = [
    None, True, False, 0, -1, 16**5000, 1.5, -0.0, math.inf, 1 + 2j, "", "a\ud800é", b"\0\xff",
    [], [1, [2]], (), (1,),
    {1, 2}, frozenset("a"), {"a": [1], (1, 2): None},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_values_come_back_as_they_were(value: object) -> None:
    back = wire.load(wire.dump(value))
    assert back == value and type(back) is type(value)


def test_not_a_number_is_equal_to_nothing() -> None:
    nan = math.nan
    back = wire.load(wire.dump([nan, nan]))
    assert back != [nan, nan] and back[0] is not back[1]


def test_subclasses_arrive_as_what_they_hold() -> None:
    class Same(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Kind(enum.IntEnum):
        ONE = 1

    class Empty(list[int]):
        def __iter__(self) -> Any:
            return iter(())

    sent = [Same(7), Kind.ONE, Empty([1, 2]), collections.Counter("aab"), collections.OrderedDict(a=1)]
    back = wire.load(wire.dump(sent))
    assert back == [7, 1, [1, 2], {"a": 2, "b": 1}, {"a": 1}]
    assert [type(v) for v in back] == [int, int, list, dict, dict]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"X",
        b"i",
        b"N" * 2,
        b"l" + struct.pack("<Q", 1 << 60),
        b"s" + struct.pack("<Q", 3) + b"a",
        b"R" + b"N",
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(wire.NotPlain):
        wire.load(data)


def test_deep_and_circular_values_are_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(wire.NotPlain, match="nested"):
        wire.dump(circle)
    with pytest.raises(wire.NotPlain, match="nested"):
        wire.load((b"l" + struct.pack("<Q", 1)) * 999 + b"N")
    with pytest.raises(wire.NotPlain, match="object"):
        wire.dump([object()])


def _filtered(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter answers to a call: its program, run by hand."""
    own = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    data = struct.pack(
        "=IIQ6Q", number, own if audit is None else audit, 0, *arguments, *[0] * (6 - len(arguments))
    )
    code = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    at = word = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        match op:
            case 0x20:
                word = struct.unpack_from("=I", data, k)[0]
            case 0x06:
                return k
            case 0x15 | 0x35 | 0x45:
                at += yes if {0x15: word == k, 0x35: word >= k, 0x45: bool(word & k)}[op] else no
            case _:
                raise AssertionError(op)


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
CALLS = [
    # what, x86-64, AArch64, arguments, answer
    ("read", 0, 63, (), ALLOW), ("openat", 257, 56, (), ALLOW), ("mmap", 9, 222, (), ALLOW),
    ("getrandom", 318, 278, (), ALLOW), ("exit_group", 231, 94, (), ALLOW), ("futex", 202, 98, (), ALLOW),
    ("execve", 59, 221, (), EPERM), ("execveat", 322, 281, (), EPERM), ("socket", 41, 198, (2, 1), EPERM),
    ("connect", 42, 203, (), EPERM), ("ptrace", 101, 117, (), EPERM), ("mount", 165, 40, (), EPERM),
    ("unshare", 272, 97, (), EPERM), ("setns", 308, 268, (), EPERM), ("bpf", 321, 280, (), EPERM),
    ("io_uring_setup", 425, 425, (), EPERM), ("memfd_create", 319, 279, (), EPERM),
    ("keyctl", 250, 219, (), EPERM),
    ("fork", 56, 220, (17,), ALLOW), ("clone into namespaces", 56, 220, (0x10000011,), EPERM),
    ("clone3", 435, 435, (), ENOSYS), ("a call of the future", 600, 600, (), ENOSYS),
    ("a terminal?", 16, 29, (0, 0x5401), ALLOW), ("terminal input", 16, 29, (0, 0x5412), EPERM),
    ("the thread's name", 157, 167, (15,), ALLOW), ("another filter", 157, 167, (22,), EPERM),
    ("own limits", 302, 261, (0,), ALLOW), ("limits of another", 302, 261, (1,), EPERM),
    ("a pair", 53, 199, (1,), ALLOW), ("a pair of another kind", 53, 199, (2,), EPERM),
    ("mode", 91, 52, (3, 0o755), ALLOW), ("setuid mode", 91, 52, (3, 0o4755), EPERM),
]  # fmt: skip


@pytest.mark.parametrize(("what", "x86", "arm", "arguments", "answer"), CALLS, ids=[c[0] for c in CALLS])
def test_what_the_filter_answers(
    what: str, x86: int, arm: int, arguments: tuple[int, ...], answer: int
) -> None:
    assert _filtered("x86_64", x86, *arguments) == answer
    assert _filtered("aarch64", arm, *arguments) == answer


def test_another_architecture_is_killed() -> None:
    assert _filtered("x86_64", 0, audit=0x40000003) == KILL  # 32 bits
    assert _filtered("x86_64", 0x40000000) == ENOSYS  # x32
    assert _filtered("aarch64", 63, audit=0xC000003E) == KILL


def test_names_that_are_the_programs() -> None:
    tests = "import math as m\ndef check(f):\n    assert f(1) == poly(m.pi) == g(len(x)) and h\n"
    tests += "x = 1\ncheck(solve)\n"
    assert judge._foreign("def poly(a): return a\n", tests) == ["g", "h", "solve"]


def test_definitions_leave_out_the_task_itself() -> None:
    prompt = 'import math\n\ndef poly(x):\n    return x\n\ndef solve(y):\n    """Solve it."""\n'
    assert judge.definitions(prompt, "solve") == "import math\n\ndef poly(x):\n    return x"
    assert judge.definitions("def solve(y):", "solve") == ""
    with pytest.raises(DataError, match="prompt is no Python"):
        judge.definitions("def solve(y", "solve")


def test_exceptions_come_by_name() -> None:
    assert type(sides._exception(["JSONDecodeError", "ValueError", "Exception"], "x")) is ValueError
    for name in ("StopIteration", "SystemExit", "Own", "print", "GeneratorExit", "Exception"):
        assert type(sides._exception([name, "Exception", "BaseException"], "x")) is sides.ProgramError


def test_limits_are_more_than_nothing() -> None:
    with pytest.raises(ConfigError, match="processes is 0"):
        limits.Limits(processes=0)


def test_files_stay_in_the_folder() -> None:
    for name in ("/a", "../a", "a/../../b", "", "."):
        with pytest.raises(ConfigError, match="a program's file is called"):
            run.run("", files={name: b""})


def test_a_strange_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.setattr(kernel, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match="there is no sandbox for linux.*--unsafe-no-sandbox"):
        run.run("")
    monkeypatch.setattr(run.sys, "platform", "darwin")
    monkeypatch.setattr(macos, "SANDBOX", "/absent")
    with pytest.raises(SandboxError, match="there is no sandbox for darwin"):
        run.check()


def test_the_profile_of_macos_denies_first() -> None:
    text = macos.profile(read=["/py/lib"], write='/scratch "x"', executable="/py/bin/python3")
    lines = text.splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"] and lines[-1] == "(deny network*)"
    reads = next(line for line in lines if line.startswith("(allow file-read* (literal"))
    assert '(subpath "/py/lib")' in reads and '(subpath "/")' not in text and "(allow default" not in text
    assert [line for line in lines if "write*" in line] == [
        '(allow file-write* (subpath "/scratch \\"x\\""))'
    ]
    assert text.count("(") == text.count(")")
    inner = macos.command(["/bin/sh", "-c", "x"], read=[], write="/scratch")
    assert inner[:2] == [macos.SANDBOX, "-p"] and inner[3:] == [os.path.realpath("/bin/sh"), "-c", "x"]


def test_a_program_without_walls_is_marked() -> None:
    """Limits, files and verdicts, without what this machine's kernel may lack."""
    outcome = run.run("print(open('d/a').read())", files={"d/a": b"text"}, unsafe=True)
    assert (outcome.verdict, outcome.stdout, outcome.unsafe) == ("ok", "text\n", True)


def test_judged_without_walls() -> None:
    program = "class P:\n    def __init__(self, a): self.a = a\ndef f(p): return (p.a, [x for x in p.a])\n"
    tests = "p = P([1])\np.a = [2]\nassert f(p) == ([2], [2])\n"
    assert judge.judge(program, tests, unsafe=True).ok
    failed = judge.judge(program, "assert f(P([1])) == f(P([2]))", unsafe=True)
    assert (failed.verdict, failed.message) == ("failed", "assert f(P([1])) == f(P([2])): AssertionError")
    with pytest.raises(UnsupportedError, match="function"):
        judge.judge(program, "f(lambda: 1)", unsafe=True)
    deep = "def f(a):\n    for _ in range(199): a = [a]\n    return a\n"
    failed = judge.judge(deep, "f(f(1))", unsafe=True)
    assert failed.verdict == "failed" and "nested too deeply" in failed.message, "the program's own fault"
    with pytest.raises(DataError, match="tests is no Python|tests"):
        judge.judge(program, "assert (", unsafe=True)
