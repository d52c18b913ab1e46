"""The rules of the policy one by one, their order, and what is told, asked, capped and counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nano
from tinygpt.agent import _arguments, policy
from tinygpt.agent.policy import Decision, Policy, Rules
from tinygpt.agent.tool import Outcome, Refusal, Tool
from tinygpt.core.errors import ConfigError, DataError, TinyGPTError

nano.require("jsonschema")
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
NEVER = threading.Event()


def tool(name: str = "tool", *effects: str, call: Callable[..., Outcome] | None = None, **more: Any) -> Tool:
    parameters = {"type": "object", "properties": {"a": TEXT, "n": WHOLE}, "required": ["a"]}
    return Tool(
        name=name, description="It.",
        call=call or (lambda given, seconds, cancel: Outcome(stdout=json.dumps(given))),
        effects=frozenset(effects), **{"parameters": parameters, **more},
    )  # fmt: skip


def run(given: Policy, name: str = "tool", **arguments: Any) -> tuple[Decision, Outcome]:
    return given.run(name, arguments, NEVER)


def test_lists_of_what_is_allowed_and_denied() -> None:
    tools = [tool("read_file"), tool("read_all"), tool("write")]
    given = Policy(tools, Rules(allow=("read_*", "write"), deny=("*_all",)))
    assert [e["function"]["name"] for e in given.entries] == ["read_file", "write"]
    decision, outcome = run(given, "read_all", a="x")
    assert decision.rule == "not-allowed" and "read_file, write" in outcome.stderr
    assert "Did you mean 'read_file'" in run(given, "read_fil", a="x")[1].stderr
    assert not given.harmless("read_all") and given.harmless("read_file")


@pytest.mark.parametrize("rules", [{"allow": ("reed_*",)}, {"deny": ("rite",)}])
def test_a_rule_that_names_no_tool_is_an_error(rules: Any) -> None:
    with pytest.raises(ConfigError, match="no tool is called"):
        Policy([tool("read_file"), tool("write")], Rules(**rules))


@pytest.mark.parametrize(
    "rules",
    [{"yes": frozenset({"read"})}, {"yes": frozenset({"wrte"})}, {"seconds": 0}, {"output": 3}, {"calls": -1}]
)  # fmt: skip
def test_rules_out_of_range(rules: Any) -> None:
    with pytest.raises(ConfigError):
        Rules(**rules)


def test_two_tools_of_one_name() -> None:
    with pytest.raises(ConfigError, match="same name"):
        Policy([tool(), tool()])


def test_the_first_rule_that_forbids_is_the_one_that_is_named() -> None:
    def check(given: Any) -> None:
        raise Refusal("of-the-tool", "no")

    given = Policy([tool("tool", "write", check=check)], Rules(arguments=100, dry_run=True))
    assert run(given, a="x" * 200)[0].rule == "arguments-too-large"
    assert run(given, a=1)[0].rule == "bad-arguments"
    assert run(given, a="x")[0].rule == "of-the-tool"
    assert run(Policy([tool("tool", "write")], Rules(dry_run=True)), a="x")[0].rule == "dry-run"
    assert run(Policy([tool("tool", "write")]), a="x")[0].rule == "confirm"


def test_a_person_is_asked_once_a_call_in_letters_that_only_show() -> None:
    asked: list[str] = []
    answers = iter([True, False])
    made: list[Any] = []

    def call(given: Any, seconds: float, cancel: Any) -> Outcome:
        made.append(given)
        return Outcome()

    given = Policy(
        [tool("tool", "write", "network", "read", call=call)], Rules(yes=frozenset({"network"})),
        confirm=lambda question: asked.append(question) or next(answers),
    )  # fmt: skip
    assert run(given, a="\x1b[2J\u202e evil")[0].rule == "confirmed"
    assert run(given, a="b" * 5000 + "end")[0].rule == "confirm"
    assert made == [{"a": "\x1b[2J\u202e evil"}]
    assert asked[0] == 'tool (network, write) {"a": "\\u001b[2J\\u202e evil"}'
    assert len(asked[1]) < 1700 and asked[1].endswith('end"}') and "letters]" in asked[1]


@pytest.mark.parametrize(("yes", "rule"), [({"write"}, "confirm"), ({"write", "delete"}, "told")])
def test_a_yes_beforehand_is_for_its_effects_alone(yes: set[str], rule: str) -> None:
    assert run(Policy([tool("tool", "write", "delete")], Rules(yes=frozenset(yes))), a="x")[0].rule == rule


def test_a_dry_run_reads_and_tells() -> None:
    given = Policy(
        [tool("read", "read"), tool("tool", "write", call=lambda *_: pytest.fail("it was called"))],
        Rules(dry_run=True), confirm=lambda question: pytest.fail("the person was asked"),
    )  # fmt: skip
    assert run(given, "read", a="x")[1].stdout == '{"a": "x"}'
    decision, outcome = run(given, a="x")
    assert decision.rule == "dry-run" and not decision.allowed and outcome.exit_code == 0
    assert '\'tool\' (write) would have been called with {"a": "x"}' in outcome.stdout


def test_as_many_calls_as_are_allowed() -> None:
    given = Policy([tool()], Rules(calls=3))
    with ThreadPoolExecutor(8) as threads:
        rules = list(threads.map(lambda _: run(given, a="x")[0].rule, range(10)))
    assert sorted(rules) == ["call-budget"] * 7 + ["harmless"] * 3


def test_what_was_judged_is_what_is_called_and_once() -> None:
    arguments = {"a": "good", "n": 1}
    given = Policy([tool()])
    decision = given.judge("tool", arguments)
    arguments["a"] = "bad"
    assert given.call(decision, NEVER)[1].stdout == '{"a": "good", "n": 1}'
    with pytest.raises(AssertionError, match="made already"):
        given.call(decision, NEVER)
    with pytest.raises(AssertionError, match="did not allow"):
        given.call(Decision(tool="tool", arguments={}, rule="told", allowed=True), NEVER)


def test_every_decision_is_logged() -> None:
    log: list[Decision] = []

    def late(given: Any, seconds: float, cancel: Any) -> Outcome:
        raise Refusal("path-link", "swapped")

    given = Policy([tool(), tool("late", call=late)], log=log.append)
    run(given, a="x")
    run(given, "nope")
    decision, outcome = run(given, "late", a="x")
    assert [(d.tool, d.rule, d.allowed) for d in log] == [
        ("tool", "harmless", True), ("nope", "unknown-tool", False), ("late", "harmless", True),
        ("late", "path-link", False),
    ]  # fmt: skip
    assert decision is log[-1] and outcome.exit_code == policy.REFUSED
    assert decision.record == {"rule": "path-link", "allowed": False, "message": outcome.stderr}
    assert log[0].record == {"rule": "harmless", "allowed": True}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("not there"), 1, "not there"),
        (KeyError("x"), policy.BROKEN, "the tool failed: KeyError: 'x'"),
    ],
)
def test_a_tool_that_fails_ends_its_call_alone(error: Exception, code: int, said: str) -> None:
    def call(*_: Any) -> Outcome:
        raise error

    outcome = run(Policy([tool(call=call)]), a="x")[1]
    assert (outcome.exit_code, outcome.stderr) == (code, said)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_tool_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch, cancelled: bool) -> None:
    monkeypatch.setattr(policy, "GRACE", 0.05)
    told, ended = threading.Event(), threading.Event()

    def call(given: Any, seconds: float, cancel: Any) -> Outcome:
        told.wait(20)
        assert cancel.is_set()  # it hears that nobody waits
        ended.set()
        return Outcome()

    stop = threading.Event()
    if cancelled:
        stop.set()
    log: list[Decision] = []
    given = Policy([tool(call=call)], Rules(seconds=30 if cancelled else 0.05), log=log.append)
    decision, outcome = given.run("tool", {"a": "x"}, stop)
    told.set()
    assert decision.rule == "time-limit" == log[-1].rule and outcome.exit_code == 124
    assert ended.wait(20)


def test_the_shorter_time_counts() -> None:
    times: list[float] = []

    def call(given: Any, seconds: float, cancel: Any) -> Outcome:
        times.append(seconds)
        return Outcome()

    for own in (None, 5.0, 50.0):
        run(Policy([tool(call=call, seconds=own)], Rules(seconds=10)), a="x")
    assert times == [10, 5, 10]


@pytest.mark.parametrize(("out", "err"), [(5000, 0), (0, 5000), (5000, 5000), (900, 90), (3000, 10)])
def test_output_is_capped_at_both_ends(out: int, err: int) -> None:
    text = lambda n: ("a" * n)[1:-1].join("<>") if n else ""  # noqa: E731
    outcome = policy.capped(Outcome(stdout=text(out), stderr=text(err), exit_code=3), 1000)
    for given, n in ((outcome.stdout, out), (outcome.stderr, err)):
        assert n == 0 or (given[0], given[-1]) == ("<", ">")
        assert len(given) == n or "letters left out ...]" in given
    assert len(outcome.stdout) + len(outcome.stderr) < 1000 + 250 + 80 and outcome.exit_code == 3
    kept = out + err - outcome.cut
    assert (outcome.cut == 0) == (out + err <= 1000) and kept >= min(out + err, 1000 - 80)


def test_names_that_are_no_text_can_be_shown() -> None:
    assert policy.capped(Outcome(stdout="a\udcffb"), 1000).stdout == "a?b"


# Arguments


@pytest.mark.parametrize(
    ("schema", "arguments", "wrong"),
    [
        ({"properties": {"n": WHOLE}}, {"n": 1}, ""),
        ({"properties": {"n": WHOLE}}, {"n": 1.0}, "not of type 'integer'"),
        ({"properties": {"n": WHOLE}}, {"n": True}, "not of type 'integer'"),
        ({"properties": {"n": {"type": "number"}}}, {"n": False}, "not of type 'number'"),
        ({"properties": {"n": {"type": "number"}}}, {"n": 1}, ""),
        ({"properties": {"n": {"type": "number"}}}, {"n": 10**400}, ""),
        ({"properties": {"n": {"type": "number", "multipleOf": 0.5}}}, {"n": 10**400}, "too large"),
        ({"properties": {"name": TEXT}}, {"nam": "x"}, "Did you mean 'name'"),
        ({"properties": {"name": TEXT}, "additionalProperties": True}, {"nam": "x"}, ""),
        ({"properties": {"a": TEXT}, "required": ["a"]}, {}, "'a' is a required property"),
        ({"properties": {"a": {"type": "array", "items": WHOLE}}}, {"a": [1, "2"]}, "at a/1: '2' is not"),
        (
            {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": TEXT}},
            {"a": 1},
            "at a: 1 is not of type",
        ),
        ({"properties": {"$ref": TEXT}}, {"$ref": "x"}, ""),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, {"a": 1}, "$ref of the schema leads nowhere"),
        ({}, {"a": 1}, "'a' was unexpected"),
    ],
)
def test_arguments_are_what_the_schema_says_and_no_more(schema: Any, arguments: Any, wrong: str) -> None:
    found = _arguments.Checker("tool", {"type": "object", **schema}).wrong(arguments)
    assert wrong in found and bool(found) == bool(wrong) and "\n" not in found


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "objekt"}, "are no JSON Schema"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}, "leads elsewhere"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "leads elsewhere"),
    ],
)
def test_schemas_that_cannot_be_checked(schema: Any, said: str) -> None:
    with pytest.raises(TinyGPTError, match=said):
        Policy([tool(parameters=schema)])


def test_what_is_no_object_of_json() -> None:
    for bad in (
        "[]",
        "x",
        "{",
        [],
        None,
        7,
        {"a": {1, 2}},
        {"a": float("inf")},
        {"a": "\udc00"},
        '{"a": NaN}',
    ):
        with pytest.raises(ValueError):
            _arguments.plain(bad, 1000)
    for large in ({"a": "x" * 1000}, '{"a": "' + "x" * 1000, {"a": [[[]]] * 500}, "[" * 999):
        with pytest.raises((OverflowError, ValueError)):
            _arguments.plain(large, 1000)
    assert _arguments.plain("", 1000) == ({}, 2)
    assert _arguments.plain('{"a": "é"}', 1000) == ({"a": "é"}, 11)
