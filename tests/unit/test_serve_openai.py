"""OpenAI's surface in front of a scripted desk: what the desk is asked, what is written and refused."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import nano
from odd_openai import CHAT, EMBED, FIM, FIX, FIXED, HI, ODD, OF_MODELS, TEXT, TOOL, Odd
from scripted_desk import ScriptedDesk, Served, running
from tinygpt.data.corrections import Corrections
from tinygpt.infer.config import SampleConfig
from tinygpt.serve.job import Chat, Format, Text
from tinygpt.serve.limits import Settings


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    fastapi = nano.require("fastapi")
    from tinygpt.serve import openai

    desk = ScriptedDesk()
    app = fastapi.FastAPI()
    settings = Settings(corrections=Corrections(tmp_path_factory.mktemp("corrections")))
    app.include_router(openai.routes(desk, settings))
    with running(app, desk) as one:
        yield one


def _chat(served: Served, **fields: Any) -> Any:
    reply = served.ask("POST", CHAT, {"messages": [HI], **fields})
    assert reply.status == 200, reply.body
    return reply.json


def _job(served: Served, **fields: Any) -> Chat:
    """What the desk is asked when a client sends this."""
    _chat(served, **fields)
    job = served.desk.jobs[-1]
    assert isinstance(job, Chat)
    return job


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd.path.removeprefix('/v1/')}: {odd.what}")
@pytest.mark.wide
def test_odd_requests(served: Served, odd: Odd) -> None:
    reply = served.ask(odd.method, odd.path, odd.body)
    assert reply.status == odd.status, reply.body[:300]
    if odd.status == 200:
        assert odd.gives in reply.body.decode()
        return
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert error["param"] == odd.param
    assert odd.param is None or odd.param.split("[")[0].split(".")[-1] in error["message"]
    assert ("retry-after" in reply.headers) == (odd.status == 503)


def test_the_page_of_odd_requests_is_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serve-requests.md").read_text(encoding="utf-8").splitlines()
    rows = [odd.row for odd in (*ODD, *OF_MODELS)]
    assert [line for line in page if line in rows] == rows
    assert len(ODD) >= 60


def test_a_chat_reply(served: Served) -> None:
    reply = _chat(served, model="tiny+poet", n=2, reasoning_effort="low")
    assert reply["id"].startswith("chatcmpl-") and reply["object"] == "chat.completion"
    assert reply["model"] == "tiny+poet" and reply["system_fingerprint"] == "fp_0123abc"
    message = {"role": "assistant", "content": "Hello.", "refusal": None, "reasoning_content": "Let me think"}
    assert reply["choices"] == [
        {"index": i, "message": message, "logprobs": None, "finish_reason": "stop"} for i in (0, 1)
    ]
    assert reply["usage"] == {
        "prompt_tokens": 2,  # once, though there are two answers
        "completion_tokens": 6,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {
            "reasoning_tokens": 2, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


def test_what_the_desk_is_asked(served: Served) -> None:
    job = _job(
        served, temperature=0.3, top_p=0.9, top_k=-1, min_p=0.1, seed=-1, stop="END",
        logit_bias={"65": -100, "7": 2}, presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.1,
        max_tokens=9, max_completion_tokens=7,
        n=2, logprobs=True, top_logprobs=3, user="me", parallel_tool_calls=False, stop_token_ids=[5],
        ignore_eos=True, chat_template_kwargs={"enable_thinking": False}, model="tiny",
    )  # fmt: skip
    assert job.config == SampleConfig(
        temperature=0.3, top_p=0.9, top_k=0, min_p=0.1, seed=2**63 - 1, stop=("END",), presence_penalty=1.0,
        frequency_penalty=-1.0, repetition_penalty=1.1, max_tokens=7, logit_bias=("65=-100.0", "7=2.0"),
    )  # fmt: skip
    assert (job.n, job.logprobs, job.user, job.model, job.parallel) == (2, 3, "me", "tiny", False)
    assert (job.stop_ids, job.ignore_stop_ids, job.think, job.prefill) == ([5], True, False, False)
    plain = _job(served)
    assert plain.config == SampleConfig(temperature=1.0, max_tokens=64)  # OpenAI's, and the whole context
    assert (plain.logprobs, plain.format, plain.think, plain.tools) == (None, None, None, [])
    assert _job(served, logprobs=True).logprobs == 0
    rules = {"typical_p": 0.5, "xtc_probability": 0.25, "xtc_threshold": 0.2, "top_n_sigma": 1.5}
    assert _job(served, **rules).config == SampleConfig(temperature=1.0, max_tokens=64, **rules)


def test_messages_as_templates_take_them(served: Served) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
    broken = {"id": "b", "type": "function", "function": {"name": "door", "arguments": '{"on": '}}
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "tool_calls": [call, broken], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "a", "content": parts},
        {"role": "assistant", "content": "It is"},
    ]
    job = _job(served, messages=said, continue_final_message=True)
    lamp, door = (
        {"name": "light", "arguments": {"on": True}},
        {"name": "door", "arguments": {"_raw": '{"on": '}},
    )
    assert job.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo", "name": "Ann"},
        {
            "role": "assistant", "content": "", "reasoning_content": "hm",
            "tool_calls": [
                {"id": "a", "type": "function", "function": lamp},
                {"id": "b", "type": "function", "function": door},
            ],
        },
        {"role": "tool", "content": "one\ntwo", "tool_call_id": "a", "name": "light"},
        {"role": "assistant", "content": "It is"},
    ]  # fmt: skip
    assert job.prefill


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    "fields, format",
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Format(kind="json")),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, Format(kind="schema", value=SCHEMA)),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
         Format(kind="schema", value=SCHEMA)),
        ({"guided_json": SCHEMA}, Format(kind="schema", value=SCHEMA)),
        ({"guided_regex": "a+"}, Format(kind="regex", value="a+")),
        ({"guided_choice": ["a", "b"]}, Format(kind="choice", value=["a", "b"])),
        ({"guided_grammar": 'root ::= "a"'}, Format(kind="gbnf", value='root ::= "a"')),
        ({"grammar": 'start: "a"'}, Format(kind="lark", value='start: "a"')),
        ({"grammar": ' {"type": "null"}'}, Format(kind="schema", value={"type": "null"})),
        ({"json_schema": SCHEMA}, Format(kind="schema", value=SCHEMA)),
        ({"structured_outputs": {"regex": "a"}}, Format(kind="regex", value="a")),
        ({"structured_outputs": {"json_object": True}}, Format(kind="json")),
    ],
)  # fmt: skip
def test_what_an_answer_must_be(served: Served, fields: dict[str, Any], format: Format | None) -> None:
    found = _job(served, **fields).format
    assert found == format
    assert found is None or (found.param or "").split(".")[0] == next(iter(fields))


def test_tools(served: Served) -> None:
    other = {
        "type": "function",
        "function": {"name": "door", "parameters": {"type": "object", "properties": {}}},
    }
    assert _job(served, tools=[TOOL]).tool_choice == "auto"
    assert _job(served).tool_choice == "auto"  # of tools that the server may have
    assert _job(served, tools=[TOOL], tool_choice="none").tool_choice == "none"
    named = _job(served, tools=[TOOL, other], tool_choice={"type": "function", "function": {"name": "door"}})
    assert named.tool_choice == {"name": "door"} and named.tools == [TOOL, other] and not named.closed
    only = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [other]}}
    allowed = _job(served, tools=[TOOL, other], tool_choice=only)
    assert allowed.tool_choice == "required" and allowed.tools == [other] and allowed.closed
    (choice,) = _chat(served, tools=[TOOL], tool_choice="required")["choices"]
    assert choice["finish_reason"] == "tool_calls"
    call = {"id": "call_a", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def test_a_choice_may_be_of_the_servers_tools(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.desk, "own", ("clock",))
    assert _job(served, tool_choice="required").tool_choice == "required"
    for tools in ([], [TOOL]):
        named = _job(served, tools=tools, tool_choice={"type": "function", "function": {"name": "clock"}})
        assert named.tool_choice == {"name": "clock"} and named.tools == tools
    assert _job(served, function_call={"name": "clock"}).tool_choice == {"name": "clock"}


def test_functions_of_old(served: Served) -> None:
    fields = {"functions": [TOOL["function"]], "function_call": {"name": "light"}}
    (choice,) = _chat(served, **fields)["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "light", "arguments": '{"on": true}'}
    job = served.desk.jobs[-1]
    assert job.tools == [TOOL] and job.tool_choice == {"name": "light"} and not job.parallel
    chunks = served.ask("POST", CHAT, {"messages": [HI], "stream": True, **fields}).events
    deltas = [c["choices"][0]["delta"].get("function_call") for c in chunks]
    assert [d for d in deltas if d] == [
        {"name": "light", "arguments": ""}, {"arguments": '{"on"'}, {"arguments": ": true}"}
    ]  # fmt: skip
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_chat_stream(served: Served) -> None:
    asked = {"messages": [HI], "stream": True, "stream_options": {"include_usage": True}, "n": 2}
    reply = served.ask(
        "POST", CHAT, asked | {"reasoning_effort": "high", "logprobs": True, "top_logprobs": 1}
    )
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, last = reply.events
    assert last["choices"] == [] and last["usage"] == _chat(served, n=2)["usage"]
    assert all(c["usage"] is None and c["object"] == "chat.completion.chunk" for c in chunks)
    assert len({c["id"] for c in chunks} | {last["id"]}) == 1
    for index in (0, 1):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert mine[1]["delta"] == {"reasoning_content": "Let me think"}
        assert [m["delta"].get("content", "") for m in mine[2:]] == ["Hel", "lo", ".", ""]
        assert [m["logprobs"]["content"][0]["token"] for m in mine[2:-1]] == ["Hel", "lo", "."]
        assert [m["finish_reason"] for m in mine] == [None] * 5 + ["stop"]


def test_tool_calls_in_a_stream(served: Served) -> None:
    asked = {"messages": [HI], "stream": True, "tools": [TOOL], "tool_choice": "required"}
    chunks = served.ask("POST", CHAT, asked).events
    parts = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks[1:-1]]
    first = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "light", "arguments": ""}}
    assert parts == [
        first,
        {"index": 0, "function": {"arguments": '{"on"'}},
        {"index": 0, "function": {"arguments": ": true}"}},
    ]  # fmt: skip
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("word, kind", [("break", "service_unavailable_error"), ("crash", "server_error")])
def test_an_error_after_the_stream_began(served: Served, word: str, kind: str) -> None:
    reply = served.ask("POST", CHAT, {"messages": [{"role": "user", "content": word}], "stream": True})
    events = [e for e in reply.body.decode().split("\n\n") if e]
    assert reply.status == 200 and len(events) == 3
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == kind


def test_logprobs_of_a_chat(served: Served) -> None:
    content = _chat(served, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert content[0] == {
        "token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108],
        "top_logprobs": [
            {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108]},
            {"token": "y", "logprob": -1.0, "bytes": [121]},
        ],
    }  # fmt: skip


def test_completions_answer_every_prompt(served: Served) -> None:
    served.desk.most = 0
    asked = {"prompt": [[104, 105], [104], [104, 105, 33]], "n": 2, "max_tokens": 5}
    reply = served.ask("POST", TEXT, asked).json
    assert [c["index"] for c in reply["choices"]] == list(range(6))
    assert all(c["text"] == "Hello." and c["finish_reason"] == "stop" for c in reply["choices"])
    assert reply["usage"]["prompt_tokens"] == 6 and reply["usage"]["completion_tokens"] == 18
    prompts = [job.prompt for job in served.desk.jobs[-3:]]
    assert prompts == asked["prompt"] and served.desk.most == 3  # side by side, ids as they were sent
    streamed = served.ask(
        "POST", TEXT, asked | {"stream": True, "stream_options": {"include_usage": True}}
    ).events
    assert streamed[-1]["usage"] == reply["usage"] and streamed[-1]["choices"] == []
    texts = dict.fromkeys(range(6), "")
    for chunk in streamed[:-1]:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert set(texts.values()) == {"Hello."}


def test_scoring_as_lm_eval_asks_it(served: Served) -> None:
    scoring = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    (choice,) = served.ask("POST", TEXT, {"prompt": [104, 105], **scoring}).json["choices"]
    assert choice["text"] == "hiHello."
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["h", "i", "Hel", "lo", "."]
    assert logprobs["token_logprobs"] == [None, -0.25, -0.5, -0.5, -0.5]
    assert logprobs["text_offset"] == [0, 1, 2, 5, 7]
    assert logprobs["top_logprobs"][:2] == [None, {"i": -0.25, "x": -1.0}]
    assert [max(top.values()) for top in logprobs["top_logprobs"][1:]] == logprobs["token_logprobs"][1:]
    job = served.desk.jobs[-1]
    assert isinstance(job, Text) and job.echo and job.prompt == [104, 105] and not job.score_only
    whole = served.ask("POST", TEXT, {"prompt": "hi", **scoring}).json["choices"][0]["logprobs"]
    chunks = served.ask("POST", TEXT, {"prompt": "hi", "stream": True, **scoring}).events
    joined: dict[str, list[Any]] = {key: [] for key in whole}
    for chunk in chunks:
        for key, values in (chunk["choices"][0]["logprobs"] or {}).items():
            joined[key] += values
    assert joined == whole
    only = served.ask("POST", TEXT, {"prompt": "hi", **scoring, "max_tokens": 0}).json["choices"][0]
    assert only["text"] == "hi" and only["finish_reason"] == "length" and served.desk.jobs[-1].score_only


def test_fill_in_the_middle(served: Served) -> None:
    asked = {"prompt": "def f(", "suffix": "):", "max_tokens": 9, "stop": ["\n"]}
    reply = served.ask("POST", FIM, asked).json
    assert reply["choices"][0]["message"]["content"] == "Hello."
    job = served.desk.jobs[-1]
    assert (job.prompt, job.suffix, job.config.max_tokens, job.config.stop) == ("def f(", "):", 9, ("\n",))
    chunks = served.ask("POST", FIM, asked | {"stream": True}).events
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "Hello."


def test_embeddings(served: Served) -> None:
    plain = served.ask("POST", EMBED, {"input": ["a", "abc"]})
    assert plain.headers["x-embedding-pooling"] == "mean"
    assert [d["embedding"] for d in plain.json["data"]] == [[1.0, 0.5, -0.25, 1.0], [3.0, 0.5, -0.25, 1.0]]
    assert plain.json["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    asked = served.desk.embedded = []
    refused = served.ask("POST", EMBED, {"input": ["a", "abc"], "dimensions": 3})
    assert refused.json["error"]["param"] == "dimensions" and asked == [
        ["a"]
    ]  # the width alone was asked for
    packed = served.ask("POST", EMBED, {"input": [97], "encoding_format": "base64"}).json["data"][0]
    assert struct.unpack("<4f", base64.b64decode(packed["embedding"])) == (1.0, 0.5, -0.25, 1.0)


def test_models(served: Served) -> None:
    listed = served.ask("GET", "/v1/models").json
    assert [m["id"] for m in listed["data"]] == ["tiny", "tiny+poet", "org/tiny"]
    one = served.ask("GET", "/v1/models/org%2Ftiny").json
    assert one == listed["data"][2] and one["object"] == "model" and one["created"] == 1_700_000_000
    assert listed["data"][1]["parent"] == "tiny" and one["details"]["embedding_pooling"] == "mean"


def test_the_tokenizer(served: Served) -> None:
    for base in ("", "/v1"):
        asked = {"prompt": "hi", "add_special_tokens": False}
        assert served.ask("POST", f"{base}/tokenize", asked).json["tokens"] == [104, 105]
        assert served.ask("POST", f"{base}/detokenize", {"tokens": [104, 105]}).json["prompt"] == "hi"
        info = served.ask("GET", f"{base}/tokenizer_info").json
        assert info["eos_token"] == "<end>" and info["bos_token"] is None and info["chat_template"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_work_ends_when_the_client_leaves(served: Served, stream: bool, path: str) -> None:
    served.desk.closed.clear()
    asked = {"messages": [{"role": "user", "content": "hang"}], "prompt": ["hang", "hang"], "stream": stream}
    body = json.dumps(asked).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        if stream:
            assert b"200 OK" in client.recv(100)
        else:
            while not served.desk.active:  # the job has begun
                assert not served.desk.closed.wait(0.002)
    assert served.desk.closed.wait(5)


def test_a_waiting_stream_shows_that_it_is_alive(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygpt.serve.openai import answers

    monkeypatch.setattr(answers, "KEEP_ALIVE", 0.02)
    served.desk.closed.clear()
    body = json.dumps({"messages": [{"role": "user", "content": "slow"}], "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        seen = b""
        while seen.count(b": still at work\n\n") < 3:
            seen += client.recv(4096)
        assert b"200 OK" in seen and b"data:" not in seen
    assert served.desk.closed.wait(5)


def test_what_openapi_says_is_there() -> None:
    fastapi = nano.require("fastapi")
    from tinygpt.serve import openai

    app = fastapi.FastAPI()
    desk = ScriptedDesk()
    app.include_router(openai.routes(desk, Settings()))
    paths = app.openapi()["paths"]
    assert {CHAT, TEXT, EMBED, FIM, FIXED, "/v1/models", "/tokenize", "/v1/detokenize"} <= set(paths)
    chat = paths[CHAT]["post"]
    schema = chat["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["messages"] and schema["properties"]["n"]["type"] == ["integer", "null"]
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    with running(app, desk) as closed:  # the route is there, and says what it would need
        reply = closed.ask("POST", FIXED, FIX)
    assert reply.status == 404 and "--corrections-dir" in reply.json["error"]["message"]
