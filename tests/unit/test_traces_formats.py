"""Formats of traces: how values lie in files, shapes of logs, conventions of spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import DataError
from tinygpt.data.traces import _values, atraj, openai, otel


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def choice(text: str, **more: Any) -> dict[str, Any]:
    return {"message": bot(text), **more}


def test_values_of_files_however_they_are_laid(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in (
        '{"a": 1}\n{"a": 2}\n',
        '[{"a": 1}, {"a": 2}]',
        '{\n "a": 1\n}\n{\n "a": 2\n}\n',
        '[\n{"a":1}\n,{"a": 2}]',
    ):
        path.write_text(text)
        assert [read() for _, read in _values.values(path)] == [{"a": 1}, {"a": 2}], text
    path.write_text('{"a": 1}\n{"b"\n{"a": 2}\n')
    found = list(_values.values(path))
    assert found[1][0] == f"{path}:2" and len(found) == 3
    with pytest.raises(DataError, match="not JSON"):
        found[1][1]()
    path.write_text('{\n "a": \n}')
    with pytest.raises(DataError, match="a.json:3 is no JSON"):
        list(_values.values(path))


def test_files_of_folders(tmp_path: Path) -> None:
    names = (
        "b/x.atraj",
        "a.jsonl",
        ".hidden.jsonl",
        "made.jsonl",
        "made.card.json",
        "notes.txt",
        "c.json.gz",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = [str(p.relative_to(tmp_path)) for p in _values.find([tmp_path])]
    assert found == ["a.jsonl", "b/x.atraj", "c.json.gz"]
    with pytest.raises(DataError, match="there is no file"):
        _values.find([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no files of traces"):
        _values.find([tmp_path / "empty"])


def test_an_unfinished_run_and_version_1(tmp_path: Path) -> None:
    cut = tmp_path / "cut.atraj"
    told: list[Any] = [
        {"atraj": 2, "id": "x"},
        {"step": user("Do.")},
        {"step": bot("Done.") | {"error": "e"}},
    ]
    cut.write_text("".join(json.dumps(one) + "\n" for one in told) + '{"st')
    steps = [
        user("Do."),
        bot("") | {"tool_call": {"name": "ls", "arguments_json": "{}"}},
        bot("") | {"tool_call": {"name": "cat", "arguments_json": "{}"}},
        {"role": "tool", "content": "a", "tool_result": {"name": "ls", "stdout": "a", "exit_code": 0}},
        bot("Done.") | {"reward": 1.0},
    ]  # fmt: skip
    old = tmp_path / "old.atraj"
    old.write_text(
        json.dumps({"version": 1, "id": "u", "steps": steps, "summary": {}, "checkpoint_path": "m"})
    )
    one, two = atraj.read([cut, old], lambda place, why: pytest.fail(why))
    assert (one.outcome, one.errors) == ("unfinished", {1: "e"})
    assert [c["name"] for c in two.messages[1]["tool_calls"]] == ["ls", "cat"] and two.steps is None
    assert two.reward == {"reward": 1.0} and two.messages[2]["tool_call_id"] == "call_1_0"


@pytest.mark.parametrize(
    ("row", "answers", "outcome"),
    [
        ({"messages": [user("1?")], "response": "one"}, ["one"], "unknown"),
        ({"messages": [user("1?")], "response": '{"n": 1}'}, ['{"n": 1}'], "unknown"),
        ({"messages": [user("1?"), bot("one")], "tools": []}, ["one"], "unknown"),
        (
            {"messages": {"data": [user("1?")]}, "choices": [choice("one", finish_reason="length")]},
            ["one"],
            "length",
        ),
        (
            {"body": {"messages": [user("1?")]}, "response": {"body": {"choices": [choice("one")]}}},
            ["one"],
            "unknown",
        ),
        (
            {
                "request": {"messages": [user("1?")]},
                "response": {"choices": [choice("a", finish_reason="stop"), choice("b")]},
            },
            ["a", "b"],
            "answered",
        ),
    ],
)  # fmt: skip
def test_shapes_of_logs(tmp_path: Path, row: dict[str, Any], answers: list[str], outcome: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(row | {"metadata": {"task": "sums", "success": True, "reward": 0.5}}) + "\n")
    found = list(openai.read([path], lambda place, why: pytest.fail(why)))
    assert [t.messages[-1]["content"] for t in found] == answers and found[0].outcome == outcome
    assert all((t.task, t.success, t.reward) == ("sums", True, {"reward": 0.5}) for t in found)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [user("a")], "status": "failure"}, "the request failed"),
        ({"messages": [user("a")], "response": {"error": {"message": "x"}}}, "the request failed"),
        ({"messages": [user("a")], "response": {"choices": []}}, "no choice"),
        ({"messages": [user("a")], "response": {"output": []}}, "no 'choices'"),
        ({"messages": [user("a")], "choices": [{"delta": {}}]}, "has no message"),
        ({"messages": [{"role": "robot"}], "response": "a"}, "unknown role"),
        ({"other": 1}, "no 'messages'"),
        ([1], "no JSON object"),
    ],
)  # fmt: skip
def test_what_is_no_exchange_is_told(tmp_path: Path, row: Any, why: str) -> None:
    path, told = tmp_path / "log.jsonl", list[str]()
    path.write_text(
        json.dumps({"pad": 1, "messages": [user("a")], "response": "b"}) + "\n" + json.dumps([row]) + "\n"
    )
    assert len(list(openai.read([path], lambda place, why: told.append(why)))) == 1
    assert len(told) == 1 and why in told[0]


LS = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
EVENTS = [
    ("gen_ai.system.message", {"content": "Help."}),
    ("gen_ai.user.message", {"content": "Do."}),
    ("gen_ai.assistant.message", {"tool_calls": [LS]}),
    ("gen_ai.tool.message", {"content": "a", "id": "c1"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": bot("Done.")}),
]  # fmt: skip


def spans(form: str) -> list[dict[str, Any]]:
    """A chat as conventions of several ages tell it."""
    span: dict[str, Any] = {
        "trace_id": "t",
        "span_id": "s",
        "name": "chat",
        "start_time": "2026-01-01T00:00:00Z",
    }
    about: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.agent.name": "helper", "judge": 7}
    call = {"id": "c1", "name": "ls", "arguments": "{}"}
    if form == "events":
        told = [
            {
                "name": n,
                "timestamp": f"2026-01-01T00:00:0{i}Z",
                "attributes": {"gen_ai.event.content": json.dumps(b)},
            }
            for i, (n, b) in enumerate(EVENTS)
        ]
        return [{"context": span, "name": "chat", "attributes": about, "events": told[::-1]}]
    if form == "records":
        base = {"traceId": "t", "spanId": "s"}
        return [
            *(
                {**base, "timeUnixNano": str(i * 10**9 + 10**18), "attributes": {"event.name": n}, "body": b}
                for i, (n, b) in enumerate(EVENTS)
            ),
            span | {"attributes": about},
        ]
    if form == "texts":
        told = [
            m | {"content": m.get("content", "")}
            for m in ({"role": n.split(".")[1], **b} for n, b in EVENTS[:4])
        ]
        told[3]["tool_call_id"] = told[3].pop("id")
        about |= {"gen_ai.prompt": json.dumps(told), "gen_ai.completion": "Done."}
        return [span | {"attributes": about}]
    if form == "numbered":
        about |= {
            "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "Help.",
            "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": '[{"type": "text", "text": "Do."}]',
            "gen_ai.prompt.2.role": "assistant",
            **{f"gen_ai.prompt.2.tool_calls.0.{k}": v for k, v in call.items()},
            "gen_ai.prompt.3.role": "tool", "gen_ai.prompt.3.content": "a",
            "gen_ai.prompt.3.tool_call_id": "c1",
            "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Done.",
            "gen_ai.completion.0.finish_reason": "stop",
        }  # fmt: skip
        return [span | {"attributes": about}]
    answer = [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "Done."}],
            "finish_reason": "stop",
        }
    ]
    asked = [
        {"role": "user", "parts": [{"type": "text", "content": "Do."}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "ls", "arguments": {}}]},
        {"role": "user", "parts": [{"type": "tool_call_response", "id": "c1", "result": "a"}]},
    ]
    told = {
        "gen_ai.input.messages": asked,
        "gen_ai.output.messages": answer,
        "gen_ai.system_instructions": [{"type": "text", "content": "Help."}],
    }
    return [span | {"attributes": about, "events": [{"name": otel.DETAILS, "attributes": told}]}]


@pytest.mark.parametrize("form", ["events", "records", "texts", "numbered", "details"])
def test_conventions_of_all_ages_tell_the_same(tmp_path: Path, form: str) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in spans(form)))
    assert _values.format_of(path) == "otel"
    (found,) = otel.read([path], lambda place, why: pytest.fail(why), score="judge")
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("system", "Help."), ("user", "Do."), ("assistant", ""), ("tool", "a"), ("assistant", "Done."),
    ]  # fmt: skip
    assert found.messages[2]["tool_calls"] == [{"id": "c1", "name": "ls", "arguments": {}}]
    assert found.messages[3]["tool_call_id"] == "c1" and (found.task, found.reward) == (
        "helper",
        {"judge": 7.0},
    )
    assert found.outcome == ("unknown" if form == "texts" else "answered")


def test_spans_without_a_chat_are_no_bad_ones(tmp_path: Path) -> None:
    path, told = tmp_path / "spans.jsonl", list[str]()
    tool = {"traceId": "t", "spanId": "1", "name": "execute_tool", "attributes": {"gen_ai.tool.name": "ls"}}
    image = [{"role": "user", "parts": [{"type": "blob", "content": "x"}]}]
    odd = {
        "gen_ai.input.messages": image,
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "a"}]}],
    }
    path.write_text(
        "".join(
            json.dumps(one) + "\n"
            for one in (
                tool,
                {"traceId": "t", "spanId": "2", "name": "c", "attributes": odd},
                {"attributes": {"gen_ai.x": 1}},
            )
        )
    )
    assert not list(otel.read([path], lambda place, why: told.append(why)))
    assert told == ["a span without a trace's id", "a part of type 'blob' cannot be learned, only text"]


def test_spans_whose_messages_were_not_recorded_are_told(tmp_path: Path) -> None:
    path, told = tmp_path / "spans.jsonl", list[str]()
    mute = {"traceId": "t", "name": "chat m", "attributes": {"gen_ai.operation.name": "chat"}}
    path.write_text("".join(json.dumps({**mute, "spanId": id}) + "\n" for id in "12"))
    assert not list(otel.read([path], lambda place, why: told.append(why)))
    assert told == ["its messages were not recorded"] * 2
    foreign = {"traceId": "t", "spanId": "1", "name": "llm", "attributes": {"llm.input_messages": "x"}}
    path.write_text(json.dumps({**foreign, "events": [{"name": "first token"}]}) + "\n")
    told.clear()
    assert not list(otel.read([path], lambda place, why: told.append(why)))
    assert told == ["no span says anything by the conventions for generative models (gen_ai.*)"]
