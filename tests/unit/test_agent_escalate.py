"""Handing over: who asks for it, what would leave, who says yes, and what it costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tinygpt.agent import escalate
from tinygpt.agent.escalate import (
    ENTRY,
    NAME,
    REASON,
    Escalation,
    Preview,
    Price,
    Tally,
    Told,
    outgoing,
    wanted,
    without,
)  # fmt: skip
from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.data.atraj import MASK
from tinygpt.data.escalating import Escalating, decision

KEY = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"
SYSTEM = {"role": "system", "content": "Help."}
USER = {"role": "user", "content": "What is in a.txt?"}
LS = {
    "type": "function",
    "function": {"name": "ls", "description": "List.", "parameters": {"type": "object", "properties": {}}},
}


def call(name: str, id_: str = "", **arguments: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: dict[str, Any], content: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(content: str, id_: str = "", name: str = "ls") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id_, "name": name}


@pytest.mark.parametrize(
    ("text", "defers", "reason"),
    [
        ('{"defer_to_cloud": true, "reason": "too hard"}', True, "too hard"),
        ('{"reason": "too hard", "defer_to_cloud": true}', True, "too hard"),
        ('```json\n{"defer_to_cloud": true}\n```', True, ""),
        ('<think>Can I? {"defer_to_cloud": false}</think>\n{"defer_to_cloud": true}', True, ""),
        ('{"defer_to_cloud": true, "reason": "the answer was cut o', True, ""),
        ('{"defer_to_cloud": true} and more', True, ""),
        ('{"defer_to_cloud": true, "reason": {"a": 1}}', True, '{"a": 1}'),
        ('{"defer_to_cloud": false, "response": "4"}', False, ""),
    ],
)
def test_a_decision_is_read(text: str, defers: bool, reason: str) -> None:
    found = decision(text)
    assert found is not None and (found.defer, found.reason) == (defers, reason)
    assert wanted({"role": "assistant", "content": text}) == ((reason or REASON) if defers else None)


@pytest.mark.parametrize(
    "text",
    [
        "", "4", "{}", "[]",
        '{"defer_to_cloud": "true"}', '{"defer_to_cloud": 1}', '["defer_to_cloud", true]',
        'Answer {"defer_to_cloud": true} to hand over.', '{"a": {"defer_to_cloud": true}}',
        '{"a": {"defer_to_cloud": true}',
    ],
)  # fmt: skip
def test_what_only_speaks_of_it_decides_nothing(text: str) -> None:
    assert decision(text) is None
    assert wanted({"role": "assistant", "content": text}) is None


def test_rows_that_teach_it_are_read_back() -> None:
    make = Escalating("too hard")
    rows = [
        {"prompt": "1?", "response": 'say "1"', "local_correct": True},
        {"prompt": "2?", "response": "2", "local_correct": False, "cloud_correct": True},
    ]
    kept, deferred = (decision((make(row) or {})["response"]) for row in rows)
    assert kept is not None and (kept.defer, kept.response) == (False, 'say "1"')
    assert deferred is not None and (deferred.defer, deferred.reason) == (True, "too hard")


def test_a_call_asks_for_it() -> None:
    assert wanted(calls(call("ls"), call(NAME, question="Why?"))) == "Why?"
    assert wanted(calls(call(NAME))) == REASON
    assert wanted(calls(call("ls"))) is None and wanted(USER) is None
    assert list(ENTRY["function"]["parameters"]["properties"]) == ["question"]


def test_the_whole_conversation_goes_out_with_calls_and_results() -> None:
    said = [
        SYSTEM, USER, calls(call("ls", "x:1", path="."), call("cat", "x:2", path="a"), content="I look."),
        result("a.txt", "x:1"), result("hello", "x:2", "cat"), calls(call(NAME, question="Why?")),
    ]  # fmt: skip
    out = outgoing(said, reason="Why?", tools=[LS, ENTRY])
    system, user, asked, first, second, last = out.messages
    assert (system, user) == (SYSTEM, USER) and asked["content"] == "I look."
    assert [one["id"] for one in asked["tool_calls"]] == ["call_1", "call_2"]
    assert asked["tool_calls"][1]["function"] == {"name": "cat", "arguments": {"path": "a"}}
    assert (first["tool_call_id"], second["tool_call_id"]) == ("call_1", "call_2")
    assert (first["content"], second["content"]) == ("a.txt", "hello")
    assert last["role"] == "user" and "Why?" in last["content"]
    assert [tool["function"]["name"] for tool in out.tools] == ["cat", "ls"]
    assert out.tools[1] == LS and out.tools[0]["function"]["parameters"] == {"type": "object"}


def test_calls_without_results_and_results_without_calls() -> None:
    said = [
        result("old", "gone"), USER, calls(call("ls", "a"), call("ls", "b")), result("second", "b"),
        {"role": "assistant", "content": '{"defer_to_cloud": true}'},
        {"role": "assistant", "content": '{"defer_to_cloud": false, "response": "yes"}'},
    ]  # fmt: skip
    first, user, asked, told, plain = outgoing(said).messages
    assert first == {"role": "user", "content": "[result of ls]\nold"} and user == USER
    assert [one["id"] for one in asked["tool_calls"]] == ["call_1"] and told["content"] == "second"
    assert plain == {"role": "assistant", "content": "yes"}
    in_order = outgoing([USER, calls(call("ls"), call("ls")), result("1"), result("2")]).messages
    assert [one["tool_call_id"] for one in in_order[2:]] == ["call_1", "call_2"]


def test_secrets_are_taken_out_before() -> None:
    said = [
        {"role": "user", "content": f"my key is {KEY}"},
        calls(call("curl", "1", headers={"Authorization": f"Bearer {KEY}"}, **{KEY: "as a name"})),
        result(f"api_key = {KEY}", "1", "curl"),
    ]
    tool = {"type": "function", "function": {"name": "curl", "description": f"uses {KEY}", "parameters": {}}}
    out = outgoing(said, reason=f"{KEY} does not work", tools=[tool])
    assert KEY not in json.dumps([out.messages, out.tools]) and KEY not in out.text
    assert out.n_masked == 6 and out.text.count(MASK) == 6
    told = outgoing([{"role": "user", "content": f"{MASK} was taken out before"}])
    assert told.n_masked == 0


class Cloud:
    """Answers at once, and remembers."""

    def __init__(self, told: Told | None = None, *, leaves: bool = True) -> None:
        self.host, self.model, self.key, self.encrypted = "api.example", "big", "A_KEY", True
        self.leaves, self.told = leaves, told
        self.asked: list[tuple[Sequence[Any], Sequence[Any]]] = []

    def ask(self, messages: Any, tools: Any = (), *, on_text: Any = print, cancel: Any = None) -> Told:
        self.asked.append((messages, tools))
        if self.told is None:
            raise RemoteError("it does not answer")
        on_text(self.told.text)
        return self.told


TOLD = Told(text="blue", finish_reason="stop", model="big", n_in=1000, n_out=100, seconds=2.0)


def test_what_is_shown_is_what_is_sent() -> None:
    shown: list[Preview] = []
    cloud = Cloud(TOLD)
    found = Escalation(cloud, lambda preview: not shown.append(preview), tools=[LS])
    heard: list[str] = []
    said = [SYSTEM, USER, calls(call("ls", "1", path="\u00e9 x")), result(f"key {KEY}", "1")]
    assert found.ask(said, "hard", heard.append, threading.Event()) == "blue" and heard == ["blue"]
    ((messages, tools),) = cloud.asked
    assert (messages, tools) == (shown[0].out.messages, shown[0].out.tools)
    whole = "\n".join(shown[0].lines(None))
    for message in messages:
        assert f"[{message['role']}]" in whole and message["content"] in whole
    assert 'ls({"path": "\u00e9 x"})' in whole and json.dumps(LS, ensure_ascii=False) in whole
    first, second, third, *_ = shown[0].lines()
    assert first == "to api.example: big"
    n = sum(len(m["content"]) for m in messages) + len('ls({"path": "\u00e9 x"})') + len(json.dumps(LS))
    assert second == f"messages: {len(messages)}, tools: 1, letters: {n}, key: A_KEY"
    assert third == "secrets that are taken out: 1"
    assert shown[0].facts()["letters"] == n


def test_a_preview_is_shortened_in_the_middle() -> None:
    out = outgoing([{"role": "user", "content": "a" * 5000 + "z" * 5000}])
    shown = Preview(host="h", model="", key="", encrypted=False, out=out)
    text = "\n".join(shown.lines(100))
    assert "a" * 40 in text and "z" * 50 in text and "9,907 letters are not shown" in text
    assert "HTTP that others can read" in text and "the first model that it lists" in text
    assert "key: none" in text and len(text) < 400 < len("\n".join(shown.lines(None)))


def test_no_is_no() -> None:
    cloud = Cloud(TOLD)
    found = Escalation(cloud, lambda preview: False)
    assert found.ask([USER], "hard", print, threading.Event()) is None
    assert not cloud.asked and found.tally.summary()["refused"] == 1 and found.tally.answered == 0


def test_a_model_of_this_machine_needs_no_yes() -> None:
    cloud = Cloud(TOLD, leaves=False)

    def never(preview: Preview) -> bool:
        raise AssertionError("nothing leaves, nobody is asked")

    assert Escalation(cloud, never).tell([USER]) == TOLD
    with pytest.raises(ConfigError, match="says nothing"):
        Escalation(cloud, never).tell([{"role": "user", "content": ""}])


def test_counts_and_cost() -> None:
    cloud = Cloud(TOLD)
    found = Escalation(cloud, lambda _: True, Price.of([3.0, 15.0]))
    told = found.tell([USER])
    assert told is not None and told.cost == pytest.approx((1000 * 3 + 100 * 15) / 1e6)
    cloud.told = Told(text="bl", finish_reason="cut", model="big", error="it broke")
    assert found.ask([USER], "hard", lambda _: None, threading.Event()) == "bl\n[it broke]"
    cloud.told = Told(text="b", finish_reason="cancelled", model="big", n_in=1, n_out=1, error="cancelled")
    assert found.tell([USER]) is not None
    cloud.told = None
    with pytest.raises(RemoteError):
        found.tell([USER])
    cost = ((1000 + 1) * 3 + (100 + 1) * 15) / 1e6
    assert found.tally.summary() == {
        "answered": 1, "refused": 0, "failed": 1, "cut": 1, "cancelled": 1, "uncounted": 1, "masked": 0,
        "tokens_in": 1001, "tokens_out": 101, "seconds": 2.0, "cost": pytest.approx(cost),
    }  # fmt: skip


def test_no_price_is_no_cost() -> None:
    tally = Tally()
    tally.add(TOLD)
    assert tally.cost is None and Price.of([]) is None
    for wrong in ([1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, 2.0, 3.0]):
        with pytest.raises(ConfigError, match="--price"):
            Price.of(wrong)


def test_a_key_that_is_repeated_is_taken_out() -> None:
    assert without("plain words", "no plain words here") == f"no {MASK} here"
    assert without("", f"wrong key {KEY}") == f"wrong key {MASK}"
    assert escalate.Escalation(Cloud(TOLD), lambda _: True).entry is ENTRY
