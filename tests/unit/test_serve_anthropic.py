"""Anthropic's surface over a desk with a script, asked by the real client and by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

import fake_desk
import nano
import odd_ollama
from asgi import ask, fake_registry
from fake_desk import USAGE, FakeDesk, app, calls, served, text
from tinygpt.core.errors import BusyError
from tinygpt.serve import anthropic as surface
from tinygpt.serve.job import Chat, Delta, Format
from tinygpt.serve.limits import Settings

HI = [{"role": "user", "content": "hi"}]
VERSION = {"anthropic-version": "2023-06-01"}
TOOL = {"name": "get", "description": "Get it.", "input_schema": {"type": "object"}}


def post(desk: FakeDesk, **body: Any) -> Any:
    body = {"model": "tiny", "max_tokens": 50, "messages": HI} | body
    reply = TestClient(app(surface, desk)).post("/v1/messages", json=body)
    assert reply.status_code == 200, reply.text
    return reply


def job(**body: Any) -> Chat:
    """The job that a request becomes."""
    desk = FakeDesk()
    post(desk, **body)
    return desk.jobs[-1]


def events(desk: FakeDesk, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream; each one's name is its type."""
    found = []
    for block in post(desk, stream=True, **body).text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@pytest.mark.parametrize("odd", odd_ollama.ANTHROPIC, ids=lambda odd: f"{odd.request} {str(odd.body)[:60]}")
def test_odd_requests_answer_as_the_table_says(odd: odd_ollama.Odd):
    method, path = odd.request.split()
    content = odd.body if isinstance(odd.body, bytes) else json.dumps(odd.body).encode()
    reply = fake_desk.client(surface).request(method, path, content=content)
    assert reply.status_code == odd.status, reply.text
    said = reply.json()
    if odd.status != 200:
        kind = {400: "invalid_request_error", 404: "not_found_error"}[odd.status]
        assert (said["type"], said["error"]["type"]) == ("error", kind)
    assert odd.says in (said["error"]["message"] if odd.status != 200 else json.dumps(said))


def test_settings_reach_the_job():
    found = job(
        temperature=0,
        top_p=0.5,
        top_k=3,
        stop_sequences=["x"],
        system=[{"type": "text", "text": "s"}],
        metadata={"user_id": "u"},
    )
    assert (found.config.temperature, found.config.top_p, found.config.top_k) == (0, 0.5, 3)
    assert (found.config.max_tokens, found.config.stop, found.user) == (50, ("x",), "u")
    assert found.messages == [{"role": "system", "content": "s"}, *HI]


@pytest.mark.parametrize(
    "choice, wanted, parallel",
    [
        (None, "auto", True),
        ({"type": "auto"}, "auto", True),
        ({"type": "none"}, "none", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "get"}, {"name": "get"}, True),
    ],
)
def test_choices_of_tools(choice: Any, wanted: Any, parallel: bool):
    found = job(tools=[TOOL], tool_choice=choice)
    assert (found.tool_choice, found.parallel) == (wanted, parallel)
    function = {"name": "get", "parameters": {"type": "object"}, "description": "Get it."}
    assert found.tools == [{"type": "function", "function": function}]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "clock"}], ids=str)
def test_a_choice_may_be_of_the_servers_tools(choice: Any):
    desk = FakeDesk(own=("clock",))
    post(desk, tool_choice=choice)
    assert desk.jobs[-1].tool_choice in ("required", {"name": "clock"}) and not desk.jobs[-1].tools


@pytest.mark.parametrize(
    "thinking, model, wanted",
    [
        (None, "tiny", None),
        ({"type": "adaptive"}, "tiny", None),
        ({"type": "disabled"}, "tiny", False),
        ({"type": "enabled", "budget_tokens": 20}, "tiny", True),
        ({"type": "enabled", "budget_tokens": 20}, "base", None),
    ],
)
def test_thinking_is_asked_of_models_that_can(thinking: Any, model: str, wanted: bool | None):
    assert job(thinking=thinking, model=model).think is wanted


def test_a_conversation_with_tools_becomes_what_templates_take():
    found = job(
        messages=[
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "Well."},
                    {"type": "tool_use", "id": "t1", "name": "get", "input": {"a": 1}},
                    {"type": "tool_use", "id": "t2", "name": "put", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True},
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "5"}]},
                    {"type": "text", "text": "go on"},
                ],
            },
            {"role": "user", "content": "please"},
        ]
    ).messages
    made = [
        {"type": "function", "id": "t1", "function": {"name": "get", "arguments": {"a": 1}}},
        {"type": "function", "id": "t2", "function": {"name": "put", "arguments": {}}},
    ]
    assert found == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "Well.", "reasoning_content": "hm", "tool_calls": made},
        {"role": "tool", "content": "Error: no", "name": "put", "tool_call_id": "t2"},
        {"role": "tool", "content": "5", "name": "get", "tool_call_id": "t1"},
        {"role": "user", "content": "go on\nplease"},
    ]


def test_an_assistants_last_words_are_gone_on_with():
    assert job(messages=[*HI, {"role": "assistant", "content": "He"}]).prefill and not job().prefill


@pytest.mark.parametrize("where", [{"output_config": 1}, {"output_format": 1}], ids=str)
def test_a_schema_becomes_a_format(where: dict[str, Any]):
    schema = {"type": "object"}
    asked: Any = {"type": "json_schema", "schema": schema}
    name = next(iter(where))
    found = job(**{name: {"format": asked} if name == "output_config" else asked})
    assert found.format == Format(kind="schema", value=schema)


@pytest.mark.parametrize(
    "script, max_tokens, wanted",
    [
        (text("a"), 50, ("end_turn", None)),
        (text("a", stop_text="END"), 50, ("stop_sequence", "END")),
        (text("a", reason="length"), USAGE.completion_tokens, ("max_tokens", None)),
        (text("a", reason="length"), 50, ("model_context_window_exceeded", None)),
        (calls(("get", "{}")), 50, ("tool_use", None)),
    ],
)
def test_why_an_answer_ended(script: list[Any], max_tokens: int, wanted: tuple[str, str | None]):
    desk = FakeDesk(lambda _: script)
    whole = post(desk, max_tokens=max_tokens).json()
    delta = events(desk, max_tokens=max_tokens)[-2]["delta"]
    assert (whole["stop_reason"], whole["stop_sequence"]) == wanted
    assert (delta["stop_reason"], delta["stop_sequence"]) == wanted


def test_a_stream_has_blocks_one_after_another():
    script = [Delta(reasoning="hm"), Delta(text="We"), *calls(("get", '{"a": 1}'), before="ll")]
    desk = FakeDesk(lambda _: script)
    found = events(desk)
    types = [(event["type"], event.get("index")) for event in found]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert types == [
        ("message_start", None),
        ("ping", None),
        *((name, 0) for name in block),
        (block[0], 1),
        (block[1], 1),
        (block[1], 1),
        (block[2], 1),
        (block[0], 2),
        (block[1], 2),
        (block[1], 2),
        (block[2], 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
    started = [event["content_block"]["type"] for event in found if event["type"] == block[0]]
    assert started == ["thinking", "text", "tool_use"]
    pieces = [
        e["delta"]["partial_json"] for e in found if e.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert json.loads("".join(pieces)) == {"a": 1}
    assert not desk.rendered  # what is counted at the start is what was asked
    assert found[0]["message"]["usage"]["input_tokens"] == 3 and found[0]["message"]["content"] == []
    usage = found[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (8, 3, 5)


def test_omitted_thinking_is_a_block_without_text():
    desk = FakeDesk(lambda _: [Delta(reasoning="hm"), *text("a")])
    thinking = {"type": "enabled", "budget_tokens": 20, "display": "omitted"}
    assert post(desk, thinking=thinking).json()["content"][0]["thinking"] == ""
    assert "hm" not in json.dumps(events(desk, thinking=thinking))


def test_an_error_in_the_middle_is_an_event():
    def script(_: Any) -> Any:
        yield Delta(text="a")
        raise BusyError("the server is ending")

    error = {"type": "overloaded_error", "message": "the server is ending"}
    assert events(FakeDesk(script))[-1]["error"] == error


def test_a_mistake_in_the_middle_is_an_event():
    def script(_: Any) -> Any:
        yield Delta(text="a")
        raise ZeroDivisionError

    error = {"type": "api_error", "message": "the server failed while it wrote this answer"}
    assert events(FakeDesk(script))[-1]["error"] == error


@pytest.mark.parametrize(
    "query, names, more",
    [
        ("", "abcd", False),
        ("?limit=3", "abc", True),
        ("?limit=2&after_id=a", "bc", True),
        ("?after_id=d", "", False),
        ("?limit=2&before_id=d", "bc", True),
        ("?after_id=a&before_id=c", "b", False),
    ],
)
def test_models_are_listed_in_pages(query: str, names: str, more: bool):
    desk = FakeDesk(cards=tuple(replace(fake_desk.CARD, name=name) for name in "abcd"))
    found = TestClient(app(surface, desk)).get(f"/v1/models{query}", headers=VERSION).json()
    assert ["".join(model["id"] for model in found["data"]), found["has_more"]] == [names, more]
    assert (found["first_id"], found["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=1001", "?limit=many", "?limit=", "?after_id=x", "?before_id=x"]
)
def test_pages_that_are_not_there(query: str):
    reply = TestClient(app(surface, FakeDesk())).get(f"/v1/models{query}", headers=VERSION)
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"


def test_models_are_each_surfaces_own():
    from tinygpt.serve import app as whole

    desk = FakeDesk()
    served_app = whole.make_app(desk, fake_registry(), Settings(log=False), whole.surfaces())

    async def main() -> None:
        for path in ("/v1/models", "/v1/models/tiny", "/v1/models/nope"):
            theirs, ours = [(await ask(served_app, "GET", path, headers=h)).json for h in ({}, VERSION)]
            assert ("object" in theirs or "param" in theirs["error"]) and "object" not in ours
            assert "param" not in ours.get("error", {})
        assert ours["error"]["type"] == "not_found_error"

    asyncio.run(main())


@pytest.mark.wide  # the client alone takes seconds to import
def test_anthropics_own_client():
    anthropic = nano.require("anthropic")
    desk = FakeDesk(
        lambda job: calls(("get", '{"a": 1}'), before="Well.") if job.tools else text("Hel", "lo")
    )
    with served(app(surface, desk)) as url:
        client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        body = {"model": "tiny", "max_tokens": 50, "messages": HI}
        assert client.messages.create(**body).content[0].text == "Hello"
        with client.messages.stream(**body) as stream:
            assert list(stream.text_stream) == ["Hel", "lo"]
        with client.messages.stream(**body, tools=[TOOL], tool_choice={"type": "any"}) as stream:
            found = stream.get_final_message()
        whole = client.messages.create(**body, tools=[TOOL])
        assert (
            found.content[1].input == whole.content[1].input == {"a": 1} and found.stop_reason == "tool_use"
        )
        assert found.usage.input_tokens == whole.usage.input_tokens == 8
        assert client.messages.count_tokens(model="tiny", messages=HI).input_tokens == 3
        assert [model.id for model in client.models.list(limit=1)] == ["tiny", "base"]  # two pages
        model = client.models.retrieve("tiny")
        assert (model.type, model.id, model.display_name) == ("model", "tiny", "tiny")
        assert model.created_at.timestamp() == fake_desk.CARD.created and model.max_input_tokens == 128
        with pytest.raises(anthropic.NotFoundError, match="does not exist") as missing:
            client.models.retrieve("nope")
        assert missing.value.body["error"]["type"] == "not_found_error"
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            client.messages.create(**body | {"model": "nope"})
        with pytest.raises(anthropic.BadRequestError, match="must be at least 1"):
            client.messages.create(**body | {"max_tokens": 0})
