"""What every reader of traces promises: the whole conversation, its outcome, no secret, no bad row lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.family import Family
from tinygpt.data.traces import _values
from tinygpt.data.traces._trace import Trace

TRACES = Family("tinygpt.data.traces", verb="read")
KEY = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"
FUNCTION = {"name": "weather", "description": "w", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Help."},
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    {"role": "assistant", "content": "It is sunny."},
]
WANTED = [
    *CHAT[:2],
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}, "id": "c1"}],
    },
    CHAT[3] | {"name": "weather"},
    CHAT[4],
]


def atraj(folder: Path, said: str) -> Path:
    steps: list[dict[str, Any]] = [*CHAT[:2], CHAT[2] | {"calls": [WANTED[2]["tool_calls"][0]]}]
    steps += [CHAT[3] | {"call_id": "c1", "name": "weather"}, CHAT[4] | {"content": said}]
    dropped = ("tool_calls", "tool_call_id")
    lines: list[Any] = [{"atraj": 2, "id": "t1", "tools": [TOOL]}]
    lines += [{"step": {k: v for k, v in step.items() if k not in dropped}} for step in steps]
    lines += [{"end": {"outcome": "answered", "reward": {"state": 0.5}}}]
    return _write(folder / "t.atraj", lines)


def openai(folder: Path, said: str) -> Path:
    first = {"choices": [{"message": CHAT[2], "finish_reason": "tool_calls"}]}
    last = {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
    rows = [
        {"request": {"messages": CHAT[:2], "tools": [TOOL]}, "response": first},
        {"request": {"messages": CHAT[:4], "tools": [TOOL]}, "response": last, "rewards": {"state": 0.5}},
    ]
    return _write(folder / "log.jsonl", rows)


def otel(folder: Path, said: str) -> Path:
    def parts(message: dict[str, Any]) -> dict[str, Any]:
        if message["role"] == "tool":
            told: Any = [{"type": "tool_call_response", "id": "c1", "response": message["content"]}]
        elif message.get("tool_calls"):
            told = [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Rome"}}]
        else:
            told = [{"type": "text", "content": message["content"]}]
        return {"role": message["role"], "parts": told}

    def span(n: int, history: list[dict[str, Any]], answer: dict[str, Any]) -> dict[str, Any]:
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": json.dumps([parts(m) for m in history]),
            "gen_ai.output.messages": json.dumps([parts(answer) | {"finish_reason": "stop"}]),
            "gen_ai.tool.definitions": json.dumps([{"type": "function", **FUNCTION}]),
        }
        listed = [{"key": k, "value": {"stringValue": v}} for k, v in attributes.items()]
        judged = {
            "name": "gen_ai.evaluation.result",
            "attributes": [
                {"key": "gen_ai.evaluation.name", "value": {"stringValue": "state"}},
                {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.5}},
            ],
        }
        return {
            "traceId": "aa", "spanId": f"0{n}", "name": "chat m", "startTimeUnixNano": f"{n}000000000000",
            "attributes": listed, "events": [judged] if n == 2 else [],
        }  # fmt: skip

    spans = [span(2, CHAT[:4], CHAT[4] | {"content": said}), span(1, CHAT[:2], CHAT[2])]
    path = folder / "export.json"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}, indent=1))
    return path


MADE = {"atraj": atraj, "openai": openai, "otel": otel}
BAD = {
    "atraj": '{"atraj": 2, "id": "x"}\n{"step": {"role": "robot"}}\n{"end": {"outcome": "a"}}\n',
    "openai": '{"messages": [{"role": "user", "content": "hi"}]}\n',
    "otel": '{"traceId": "b", "spanId": "1", "attributes": {"gen_ai.output.messages": [{"role": 3}]}}\n',
}


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(name: str, *paths: Path) -> tuple[list[Trace], list[str]]:
    bad: list[str] = []
    return list(TRACES.load(name).read(list(paths), lambda place, why: bad.append(f"{place} {why}"))), bad


@pytest.fixture(params=TRACES.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_conversation_is_whole_with_tools_and_results(name: str, tmp_path: Path) -> None:
    path = MADE[name](tmp_path, "It is sunny.")
    assert _values.format_of(path) == name
    (trace,), bad = read(name, path)
    assert not bad and trace.messages == WANTED and trace.tools == [TOOL]
    assert (trace.outcome, trace.reward, trace.place) == ("answered", {"state": 0.5}, str(path))
    assert not trace.redacted and trace.id


def test_secrets_are_masked_and_told(name: str, tmp_path: Path) -> None:
    (trace,), _ = read(name, MADE[name](tmp_path, f"The key is {KEY}."))
    assert trace.messages[-1]["content"] == "The key is [SECRET]." and trace.redacted
    assert KEY not in repr(trace.messages)


def test_what_cannot_be_read_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    broken = tmp_path / ("bad.atraj" if name == "atraj" else "bad.jsonl")
    broken.write_text(BAD[name])
    found, bad = read(name, MADE[name](tmp_path, "It is sunny."), broken)
    assert len(found) == 1 and len(bad) == 1 and str(broken) in bad[0]


def test_no_other_format_is_taken_for_it(name: str, tmp_path: Path) -> None:
    for other in MADE:
        value = next(iter(_values.values(MADE[other](tmp_path, "x"))))[1]()
        assert TRACES.load(name).knows(value) == (name == other)
    assert not any(TRACES.load(name).knows(value) for value in ([], None, 3, {}, {"text": "a"}))
