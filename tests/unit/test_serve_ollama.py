"""Ollama's surface over a desk with a script, asked by the real client and by hand."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from fastapi.testclient import TestClient

import fake_desk
import nano
import odd_ollama
from asgi import ask
from fake_desk import FakeDesk, app, calls, served, text, token
from tinygpt.core.errors import BusyError
from tinygpt.serve import ollama as surface
from tinygpt.serve.job import Chat, Delta, Format, Text

HI = [{"role": "user", "content": "hi"}]


def post(desk: FakeDesk, path: str, **body: Any) -> Any:
    reply = TestClient(app(surface, desk)).post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def job(desk: FakeDesk | None = None, **body: Any) -> Chat:
    """The job that a chat request becomes."""
    desk = desk or FakeDesk()
    post(desk, "/api/chat", model="tiny", messages=body.pop("messages", HI), stream=False, **body)
    return desk.jobs[-1]


@pytest.mark.parametrize("odd", odd_ollama.OLLAMA, ids=lambda odd: f"{odd.request} {str(odd.body)[:60]}")
@pytest.mark.wide
def test_odd_requests_answer_as_the_table_says(odd: odd_ollama.Odd):
    method, path = odd.request.split()
    content = odd.body if isinstance(odd.body, bytes) else json.dumps(odd.body).encode()
    reply = fake_desk.client(surface).request(method, path, content=content)
    assert reply.status_code == odd.status, reply.text
    said = reply.json()
    assert odd.says in (said["error"] if odd.status != 200 else json.dumps(said))


def test_the_docs_hold_the_table():
    rows = len(odd_ollama.OLLAMA) + len(odd_ollama.ANTHROPIC) + len(odd_ollama.RESPONSES)
    assert rows >= 60
    assert odd_ollama.PAGE.read_text(encoding="utf-8") == odd_ollama.page()


def test_options_become_settings():
    found = job(
        options={
            "num_predict": 7,
            "temperature": 0,
            "top_k": 3,
            "top_p": 0.5,
            "min_p": 0.1,
            "seed": 4,
            "repeat_penalty": 1.5,
            "presence_penalty": 0.25,
            "frequency_penalty": -0.5,
            "stop": ["x", "y"],
        }
    ).config
    assert (found.max_tokens, found.temperature, found.top_k, found.top_p, found.min_p) == (7, 0, 3, 0.5, 0.1)
    assert (found.repetition_penalty, found.presence_penalty, found.frequency_penalty) == (1.5, 0.25, -0.5)
    assert (found.seed, found.stop) == (4, ("x", "y"))


@pytest.mark.parametrize("options", [{}, {"num_predict": -1}, {"num_predict": -2}, {"num_predict": None}])
def test_an_answer_may_fill_the_context(options: dict[str, Any]):
    assert job(options=options).config.max_tokens == fake_desk.CARD.context


def test_a_servers_default_length_holds_where_none_is_asked_for():
    desk, settings = FakeDesk(), fake_desk.Settings(default_max_tokens=33)
    client = TestClient(app(surface, desk, settings))
    for options in ({}, {"num_predict": -1}):
        client.post("/api/chat", json={"model": "tiny", "messages": HI, "options": options, "stream": False})
    assert [found.config.max_tokens for found in desk.jobs] == [33, fake_desk.CARD.context]


def test_a_repeat_last_n_of_nothing_turns_the_penalty_off():
    assert job(options={"repeat_penalty": 2, "repeat_last_n": 0}).config.repetition_penalty == 1
    assert job(options={"repeat_penalty": 2, "repeat_last_n": -1}).config.repetition_penalty == 2


@pytest.mark.parametrize(
    "said, wanted",
    [
        (1800, 1800),
        (0.5, 0.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        (-1, -1),
        ("-1m", -1),
        ("30", 30),
    ],
)
def test_keep_alive_is_seconds(said: Any, wanted: float):
    desk = FakeDesk()
    job(desk, keep_alive=said)
    assert desk.loads == [("tiny", wanted)]


def test_keep_alive_zero_drops_the_model_after_its_answer():
    desk = FakeDesk()
    desk.script = lambda _: [*text("a")] if not desk.loads else pytest.fail("dropped before its answer")
    job(desk, keep_alive=0)
    assert desk.loads == [("tiny", 0)]
    post(desk, "/api/embed", model="tiny", input="b", keep_alive=0)
    post(desk, "/api/embeddings", model="tiny", prompt="b", keep_alive=0)
    assert desk.loads == [("tiny", 0)] * 3


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"])
@pytest.mark.parametrize("streamed", [True, False])
def test_keep_alive_zero_holds_when_the_client_leaves(path: str, streamed: bool):
    async def main() -> None:
        desk, leave = FakeDesk(hang=True), asyncio.Event()
        body = {"model": "tiny", "messages": HI, "prompt": "a", "input": "a", "stream": streamed}
        work = ask(app(surface, desk), "POST", path, body | {"keep_alive": 0}, leave=leave)
        task = asyncio.create_task(work)
        await desk.begun.wait()
        leave.set()
        await task
        assert desk.loads == [("tiny", 0)]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_load_says_how_long():
    desk = FakeDesk()
    assert post(desk, "/api/generate", model="tiny", keep_alive="10m")["done_reason"] == "load"
    assert post(desk, "/api/chat", model="tiny", messages=[], keep_alive=0)["done_reason"] == "unload"
    assert desk.loads == [("tiny", 600.0), ("tiny", 0.0)] and not desk.jobs


def test_messages_become_what_templates_take():
    call = {"function": {"name": "get", "arguments": {"a": 1}}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "5", "tool_name": "get"},
    ]
    assert job(messages=messages).messages == [
        {"role": "system", "content": "s"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"type": "function", "function": {"name": "get", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "5", "name": "get"},
    ]


def test_a_last_message_of_the_assistants_is_gone_on_with():
    assert job(messages=[*HI, {"role": "assistant", "content": "He"}]).prefill
    assert not job().prefill


def test_think_format_tools_and_logprobs_reach_the_job():
    tool = {
        "type": "function",
        "function": {"name": "f", "description": None, "parameters": {"type": "object"}},
    }
    found = job(think="low", format={"type": "object"}, tools=[tool], logprobs=True, top_logprobs=2)
    assert found.think is True and found.logprobs == 2
    assert found.format == Format(kind="schema", value={"type": "object"})
    assert found.tools == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert job(format="json", think=False).format == Format(kind="json")
    assert job(think=False).think is False and job().think is None


def test_logprobs_are_as_newer_versions_write_them():
    desk = FakeDesk(lambda _: [Delta(text="A", tokens=(token("A", -0.5),)), *text()])
    said = post(desk, "/api/chat", model="tiny", messages=HI, stream=False, logprobs=True, top_logprobs=1)
    other = {"token": "B", "logprob": -2.0, "bytes": [66]}
    assert said["logprobs"] == [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": [other]}]


def test_the_last_line_says_why_and_how_long():
    desk = FakeDesk(lambda _: text("a", reason="length"))
    said = post(desk, "/api/generate", model="tiny", prompt="x", stream=False)
    assert (said["done"], said["done_reason"], said["response"]) == (True, "length", "a")
    assert (said["prompt_eval_count"], said["eval_count"]) == (11, 5)
    assert 500_000_000 <= said["load_duration"] < 5_000_000_000
    assert (said["prompt_eval_duration"], said["eval_duration"]) == (250_000_000, 125_000_000)
    assert said["total_duration"] > 0


def test_stream_is_the_default_and_joins_to_the_whole():
    tools = [{"type": "function", "function": {"name": "f"}}]
    script = calls(("f", '{"a": 1}'), ("g", "{}"), before="Well. ")
    script.insert(0, Delta(reasoning="hm"))
    body = {"model": "tiny", "messages": HI, "tools": tools}
    client = TestClient(app(surface, FakeDesk(lambda _: script)))
    reply = client.post("/api/chat", json=body)
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in reply.text.splitlines()]
    whole = client.post("/api/chat", json=body | {"stream": False}).json()
    found = [call for line in lines for call in line["message"].get("tool_calls", ())]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert whole["message"]["tool_calls"] == found
    assert [call["function"]["arguments"] for call in found] == [{"a": 1}, {}]
    assert whole["message"]["content"] == "".join(line["message"]["content"] for line in lines) == "Well. "
    assert whole["message"]["thinking"] == "hm" and whole["done_reason"] == "stop"


def test_a_call_that_was_cut_off_is_text_not_a_call():
    desk = FakeDesk(lambda _: calls(("f", '{"a": "b'), reason="length"))
    said = post(desk, "/api/chat", model="tiny", messages=HI, stream=False)
    assert "tool_calls" not in said["message"] and said["message"]["content"] == '{"a": "b'
    assert said["done_reason"] == "length"


def test_generate_goes_through_the_template_unless_raw():
    desk = FakeDesk()
    post(desk, "/api/generate", model="tiny", prompt="x", system="s", stream=False)
    post(desk, "/api/generate", model="tiny", prompt="x", raw=True, stream=False)
    post(desk, "/api/generate", model="base", prompt="x", suffix="y", stream=False)
    first, second, third = desk.jobs
    assert isinstance(first, Chat) and [m["content"] for m in first.messages] == ["s", "x"]
    assert isinstance(second, Text) and second.prompt == "x"
    assert isinstance(third, Text) and (third.prompt, third.suffix) == ("x", "y")


def test_a_context_comes_back_and_is_gone_on_with():
    desk, model = FakeDesk(), "tiny"
    first = post(desk, "/api/generate", model=model, prompt="x", stream=False)
    assert first["context"] == [1, ord("x"), *map(ord, "Hello")]
    second = post(desk, "/api/generate", model=model, prompt="y", context=first["context"], stream=False)
    new = [1, ord("y")]
    assert desk.jobs[-1].context == first["context"] and not desk.rendered
    assert second["context"] == first["context"] + new + list(map(ord, "Hello"))
    assert "context" not in post(desk, "/api/generate", model=model, prompt="x", raw=True, stream=False)


def test_embeddings_are_cut_and_of_length_one():
    desk = FakeDesk()
    said = post(desk, "/api/embed", model="tiny", input=["a" * 200, "b"])
    assert said["embeddings"] == [[0.6, 0.8, 0, 0]] * 2 and said["prompt_eval_count"] == 14
    assert desk.embedded == [[[1, *map(ord, "a" * 127)], "b"]]
    wide = {"model": "tiny", "input": "b", "dimensions": 5}
    assert TestClient(app(surface, desk)).post("/api/embed", json=wide).status_code == 400
    assert len(desk.embedded) == 1  # refused before any work
    assert post(desk, "/api/embed", model="tiny", input="b", dimensions=1)["embeddings"] == [[1]]
    assert post(desk, "/api/embeddings", model="tiny", prompt="b")["embedding"] == [3, 4, 0, 0]


def test_show_is_as_continue_reads_it():
    """Its rule for `parameters` (one a line, no blank ones) and for filling in the middle (".Suffix")."""
    import re

    desk = FakeDesk()
    tiny, base = (
        post(desk, "/api/show", **{key: name}) for key, name in (("model", "tiny"), ("name", "base"))
    )
    for line in tiny["parameters"].split("\n"):
        assert re.match(r'^(\S+)\s+(".*"|\S+)$', line)
    assert ".Suffix" in base["template"] and ".Suffix" not in tiny["template"]
    assert tiny["capabilities"] == ["completion", "tools", "thinking", "embedding"]
    assert tiny["model_info"]["llama.context_length"] == 128
    assert tiny["model_info"]["llama.embedding_length"] == 4
    assert tiny["details"]["parameter_size"] == "1.2M"


@pytest.mark.parametrize(
    "error, says",
    [
        (BusyError("the server is ending"), "the server is ending"),
        (ZeroDivisionError("x"), "the server failed while it wrote this answer"),
    ],
    ids=("expected", "mistake"),
)
def test_an_error_in_the_middle_is_a_line(error: Exception, says: str):
    def script(_: Any) -> Any:
        yield Delta(text="a")
        raise error

    reply = TestClient(app(surface, FakeDesk(script))).post(
        "/api/chat", json={"model": "tiny", "messages": HI}
    )
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert lines[0]["message"]["content"] == "a" and lines[1:] == [{"error": says}]


def test_an_error_before_the_first_event_is_a_status():
    def script(_: Any) -> Any:
        raise BusyError("too many")
        yield

    reply = TestClient(app(surface, FakeDesk(script))).post(
        "/api/chat", json={"model": "tiny", "messages": HI}
    )
    assert (reply.status_code, reply.json()) == (503, {"error": "too many"})


@pytest.mark.parametrize("streamed", [True, False])
def test_the_job_ends_when_the_client_leaves(streamed: bool):
    desk = FakeDesk(hang=True)
    body = json.dumps({"model": "tiny", "messages": HI, "stream": streamed}).encode()
    with served(app(surface, desk)) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                b"POST /api/chat HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            if streamed:
                assert client.recv(100)
        assert desk.closed.acquire(timeout=10)


def test_the_root_and_the_version():
    client = TestClient(app(surface, FakeDesk()))
    assert client.get("/").text == "Ollama is running" and client.head("/").status_code == 200
    assert client.head("/api/tags").status_code == client.head("/api/version").status_code == 200
    assert tuple(map(int, client.get("/api/version").json()["version"].split("."))) >= (0, 14, 0)
    assert client.head("/api/blobs/sha256:00").status_code == 404
    assert client.post("/api/chat/api/show", json={}).status_code == 404


@pytest.mark.wide  # the client alone takes seconds to import
def test_ollamas_own_client():
    ollama = nano.require("ollama")
    tool = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
    desk = FakeDesk(
        lambda job: calls(("get", '{"a": 1}')) if getattr(job, "tools", ()) else text("Hel", "lo")
    )
    with served(app(surface, desk)) as url:
        client = ollama.Client(host=url)
        assert [model.model for model in client.list().models] == ["tiny", "base"]
        assert client.ps().models[0].context_length == 128
        assert client.show("tiny").capabilities == ["completion", "tools", "thinking", "embedding"]
        assert client.chat("tiny", HI).message.content == "Hello"
        assert [part.message.content for part in client.chat("tiny", HI, stream=True)] == ["Hel", "lo", ""]
        found = client.chat("tiny", HI, tools=[tool]).message.tool_calls
        assert [(call.function.name, call.function.arguments) for call in found] == [("get", {"a": 1})]
        assert client.generate("tiny", "x").response == "Hello"
        assert client.embed("tiny", ["a", "b"]).embeddings == [[0.6, 0.8, 0, 0]] * 2
        assert [part.status for part in client.pull("tiny", stream=True)] == ["pulling manifest", "success"]
        with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as error:
            client.chat("nope", HI)
        assert error.value.status_code == 404
