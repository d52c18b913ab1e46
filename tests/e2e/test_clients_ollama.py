"""Clients of Ollama's and Anthropic's surface and of /v1/responses, unadapted, against a live server."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import nano
import rough
from serving import HI, LONG, NAME, SCHEMA, TOOL, Live, client, live, node, npm
from tinygpt.agent.escalate import outgoing
from tinygpt.core.events import Events
from tinygpt.runs._cloud import Target, open_cloud

__all__ = ["client", "live"]
pytestmark = pytest.mark.parity
GREEDY = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def ollama(live: Live) -> Any:
    return nano.require("ollama").Client(host=live.url)


@pytest.fixture(scope="module")
def anthropic(live: Live) -> Any:
    return nano.require("anthropic").Anthropic(base_url=live.url, api_key="none", max_retries=0)


# Ollama


def test_ollama_lists_and_shows(ollama: Any) -> None:
    (model,) = ollama.list().models
    assert model.model == NAME and re.fullmatch("[0-9a-f]{64}", model.digest) and model.size > 0
    ollama.generate(NAME, keep_alive="5m")
    (running,) = ollama.ps().models
    assert running.model == NAME and running.context_length == 4096 and running.expires_at > model.modified_at
    shown = ollama.show(NAME)
    assert {"completion", "tools", "embedding"} <= set(shown.capabilities)
    assert shown.modelinfo["llama.context_length"] == 4096 and "messages" in shown.template


def test_ollama_chats(ollama: Any) -> None:
    whole = ollama.chat(NAME, HI, options=GREEDY)
    parts = list(ollama.chat(NAME, HI, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count)
    assert whole.total_duration >= whole.eval_duration > 0 and whole.prompt_eval_count > 2
    short = ollama.chat(NAME, HI, options={"temperature": 0, "num_predict": 3})
    assert (short.done_reason, short.eval_count) == ("length", 3)


def test_ollama_generates(ollama: Any) -> None:
    whole = ollama.generate(NAME, "hi", options=GREEDY)
    assert whole.response == ollama.chat(NAME, HI, options=GREEDY).message.content
    assert (
        "".join(part.response for part in ollama.generate(NAME, "hi", options=GREEDY, stream=True))
        == whole.response
    )
    raw = ollama.generate(NAME, "hi", raw=True, options=GREEDY)
    assert raw.prompt_eval_count < whole.prompt_eval_count and raw.context is None
    again = ollama.generate(NAME, "more", context=whole.context, options=GREEDY)
    assert (
        again.prompt_eval_count > len(whole.context) and again.context[: len(whole.context)] == whole.context
    )


def test_ollama_formats_and_tools(ollama: Any) -> None:
    for seed in range(3):
        options = {"num_predict": 300, "temperature": 1, "seed": seed}
        said = ollama.chat(NAME, HI, format=SCHEMA, options=options).message.content
        assert list(json.loads(said)) == ["on"]
    with_tools = ollama.chat(NAME, HI, tools=[TOOL], options=GREEDY)
    assert with_tools.prompt_eval_count > ollama.chat(NAME, HI, options=GREEDY).prompt_eval_count
    call = {"function": {"name": "light", "arguments": {"on": True}}}
    turns = [
        *HI,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_name": "light", "content": "ok"},
    ]
    assert ollama.chat(NAME, turns, tools=[TOOL], options=GREEDY).message.role == "assistant"


def test_ollama_reports_and_embeds(ollama: Any) -> None:
    found = ollama.chat(NAME, HI, options=GREEDY, logprobs=True, top_logprobs=2).logprobs
    assert all(entry.top_logprobs[0].logprob == entry.logprob <= 0 for entry in found)
    both = ollama.embed(NAME, ["a", "bc"]).embeddings
    assert both[1] == pytest.approx(ollama.embed(NAME, "bc").embeddings[0], abs=1e-5)
    assert sum(x * x for x in both[0]) == pytest.approx(1)
    assert len(ollama.embed(NAME, "bc", dimensions=4).embeddings[0]) == 4
    assert len(ollama.embeddings(NAME, "bc").embedding) == len(both[0])


def test_ollama_errors_are_its_own(ollama: Any) -> None:
    error = nano.require("ollama").ResponseError
    for call in (lambda: ollama.chat("nope", HI), lambda: ollama.pull("nope"), lambda: ollama.show("nope")):
        with pytest.raises(error, match="model 'nope' not found") as found:
            call()
        assert found.value.status_code == 404
    with pytest.raises(error, match="'options.top_p' must be from 0 to 1"):
        ollama.chat(NAME, HI, options={"top_p": 3})
    assert ollama.pull(NAME).status == "success"
    with pytest.raises(error, match="the input length exceeds the context length") as found:
        ollama.chat(NAME, LONG)
    assert found.value.status_code == 400


def test_ollama_lets_go_of_a_model(ollama: Any) -> None:
    for streamed in (False, True):
        answer = ollama.chat(NAME, HI, options=GREEDY, keep_alive=0, stream=streamed)
        assert [part.done_reason for part in answer][-1] if streamed else answer.done
        assert ollama.ps().models == []


def test_ollama_lets_go_of_a_model_whose_client_left(live: Live, ollama: Any) -> None:
    """The answer would fill the context; its reader goes after the first part."""
    before = rough.figures(live.port)["tinygpt_models_dropped"]
    options = {"num_predict": -1, "temperature": 0}  # 301 tokens
    parts = ollama.generate(NAME, "hi", options=options, keep_alive=0, stream=True)
    assert next(parts).response is not None
    parts.close()
    rough.wait(live.port, lambda seen: seen["tinygpt_models_dropped"] == before + 1)
    assert ollama.ps().models == []


def test_npm_ollama(live: Live, ollama: Any) -> None:
    seen = json.loads(node(npm("ollama@0.6"), Path(__file__).with_name("ollama_client.mjs"), live.url, NAME))
    assert seen["list"] == seen["ps"] == [NAME] and "completion" in seen["show"]
    expected = ollama.chat(NAME, HI, options=GREEDY).message.content
    assert seen["chat"] == seen["streamed"] == seen["generate"] == expected
    assert seen["last"]["done"] is True and list(json.loads(seen["format"])) == ["on"]
    assert (seen["tools"], seen["embed"]) == ("assistant", 2)
    assert seen["error"][0] == 404 and "model 'nope' not found" in seen["error"][1]


# Continue


def _post(live: Live, path: str, body: Any) -> Any:
    """Without a content type, as litellm sends it."""
    request = urllib.request.Request(live.url + path, json.dumps(body).encode(), {"Content-Type": ""})
    return urllib.request.urlopen(request, timeout=60)


def test_a_session_of_continue(live: Live) -> None:
    """What its editor extension asks one after another."""
    with urllib.request.urlopen(f"{live.url}/api/tags", timeout=60) as reply:
        (model,) = json.load(reply)["models"]
    shown = json.load(_post(live, "/api/show", {"name": model["name"]}))
    for line in shown["parameters"].split("\n"):
        assert re.fullmatch(r'(\S+)\s+(".*"|\S+)', line)
    assert ".Suffix" not in shown["template"]  # this model does not fill in the middle
    options = {"temperature": 0, "num_predict": 12, "stop": ["</s>"], "num_ctx": 4096, "top_k": None}
    body = {"model": model["name"], "messages": HI, "options": options, "keep_alive": 1800, "stream": True}
    lines = [json.loads(line) for line in _post(live, "/api/chat", body)]
    assert lines[-1]["done"] and all("error" not in line for line in lines)
    whole = json.load(_post(live, "/api/chat", body | {"stream": False, "tools": [TOOL]}))
    assert whole["message"]["role"] == "assistant"


def test_continues_adapters(live: Live, ollama: Any) -> None:
    folder = npm("@continuedev/openai-adapters@1.37")
    seen = json.loads(node(folder, Path(__file__).with_name("continue_client.mjs"), live.url, NAME))
    expected = ollama.chat(NAME, HI, options=GREEDY).message.content
    for provider in ("ollama", "anthropic"):
        assert seen[provider]["whole"] == seen[provider]["streamed"] == expected


def test_a_session_of_open_webui(live: Live) -> None:
    """What it asks of a connection of either kind, whose key is empty."""

    def ask(path: str, **body: Any) -> str:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(live.url + path, data, {"Authorization": "Bearer "})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read().decode()

    (model,) = json.loads(ask("/v1/models"))["data"]
    (tag,) = json.loads(ask("/api/tags"))["models"]
    assert model["id"] == tag["model"] == NAME and "." in json.loads(ask("/api/version"))["version"]
    asked = {"model": NAME, "messages": HI, "stream": True}
    more = {"stream_options": {"include_usage": True}, "params": {}, "tool_ids": None, "features": {}}
    reply = ask("/v1/chat/completions", **asked, **more, max_tokens=12, temperature=0)
    *frames, end = reply.strip().split("\n\n")
    *chunks, last = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert end == "data: [DONE]" and last["usage"]["completion_tokens"] > 0
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    lines = [json.loads(line) for line in ask("/api/chat", **asked, options=GREEDY).splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == text
    assert NAME in ask("/api/ps") and json.loads(ask("/api/show", name=NAME))["details"]["family"]
    assert len(json.loads(ask("/api/embed", model=NAME, input=["a"]))["embeddings"]) == 1
    assert json.loads(ask("/api/generate", model=NAME, keep_alive=0))["done_reason"] == "unload"


# Anthropic


def test_anthropic_messages(anthropic: Any, ollama: Any) -> None:
    body = {"model": NAME, "max_tokens": 12, "messages": HI, "extra_body": {"temperature": 0}}
    whole = anthropic.messages.create(**body)
    assert whole.content[0].text == ollama.chat(NAME, HI, options=GREEDY).message.content
    with anthropic.messages.stream(**body) as stream:
        text, final = "".join(stream.text_stream), stream.get_final_message()
    assert text == whole.content[0].text and final.stop_reason == whole.stop_reason
    read = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert anthropic.messages.count_tokens(model=NAME, messages=HI).input_tokens == read
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens == read
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_anthropic_tools(anthropic: Any) -> None:
    tool = {"name": "light", "description": "Switch it.", "input_schema": SCHEMA}
    body = {
        "model": NAME,
        "max_tokens": 300,
        "extra_body": {"temperature": 0},
        "tools": [tool],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    whole = anthropic.messages.create(**body, messages=HI)
    (call,) = [block for block in whole.content if block.type == "tool_use"]
    assert whole.stop_reason == "tool_use" and call.name == "light" and set(call.input) == {"on"}
    with anthropic.messages.stream(**body, messages=HI) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert json.loads("".join(pieces)) == call.input and len(pieces) > 4  # a byte is a token
    assert [block.input for block in final.content if block.type == "tool_use"] == [call.input]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    turns = [*HI, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
    again = anthropic.messages.create(
        **body | {"tool_choice": {"type": "none"}, "max_tokens": 5}, messages=turns
    )
    assert again.role == "assistant" and again.stop_reason in ("max_tokens", "end_turn")


def test_anthropic_models(anthropic: Any, client: Any) -> None:
    (model,) = anthropic.models.list()
    (other,) = client.models.list()
    assert (model.type, model.id, other.object, other.id) == ("model", NAME, "model", NAME)
    assert model.created_at.timestamp() == other.created and anthropic.models.retrieve(NAME) == model
    with pytest.raises(nano.require("anthropic").NotFoundError) as found:
        anthropic.models.retrieve("nope")
    assert found.value.body["error"]["type"] == "not_found_error"


def test_anthropic_errors_are_its_own(anthropic: Any) -> None:
    errors = nano.require("anthropic")
    with pytest.raises(errors.NotFoundError) as found:
        anthropic.messages.create(model="nope", max_tokens=5, messages=HI)
    assert found.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(errors.BadRequestError, match="'temperature' must be from 0 to 2"):
        anthropic.messages.create(model=NAME, max_tokens=5, messages=HI, extra_body={"temperature": 3})
    with pytest.raises(errors.BadRequestError, match=r"prompt is too long: \d+ tokens > 4096 maximum"):
        anthropic.messages.create(model=NAME, max_tokens=5, messages=LONG)


# Responses


def test_openai_responses(client: Any, ollama: Any) -> None:
    body = {"model": NAME, "input": "hi", "temperature": 0, "max_output_tokens": 12}
    whole = client.responses.create(**body)
    assert whole.output_text == ollama.chat(NAME, HI, options=GREEDY).message.content
    with client.responses.stream(**body) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (
        "".join(event.delta for event in events if event.type == "response.output_text.delta")
        == whole.output_text
    )
    assert events[-1].response.usage == whole.usage
    more = client.responses.create(**body, previous_response_id=whole.id)
    assert more.usage.input_tokens > whole.usage.input_tokens + whole.usage.output_tokens
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    client.responses.delete(whole.id)
    with pytest.raises(nano.require("openai").NotFoundError):
        client.responses.retrieve(whole.id)


def test_openai_responses_parse_and_tools(client: Any) -> None:
    Answer = nano.require("pydantic").create_model("Answer", on=(bool, ...))
    parsed = client.responses.parse(model=NAME, input="hi", text_format=Answer, max_output_tokens=300)
    assert isinstance(parsed.output_parsed.on, bool)
    tool = {"type": "function", "name": "light", "parameters": SCHEMA, "strict": True}
    body: Any = {"model": NAME, "tools": [tool], "max_output_tokens": 300, "temperature": 0}
    body["parallel_tool_calls"] = False
    called = client.responses.create(**body, input="hi", tool_choice="required")
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert call.name == "light" and set(json.loads(call.arguments)) == {"on"}
    with client.responses.stream(**body, input="hi", tool_choice="required") as stream:
        pieces = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call.arguments and len(pieces) > 4
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    again = client.responses.create(
        **body, input=[output], previous_response_id=called.id, tool_choice="none"
    )
    assert again.output[0].type == "message"


def test_our_own_client_says_the_same_over_two_apis(live: Live) -> None:
    tool = {"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}
    talk = [
        {"role": "system", "content": "Be brief."}, *HI,
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "a", "function": {"name": "light", "arguments": {"on": True}}}]},
        {"role": "tool", "content": "done", "tool_call_id": "a"},
    ]  # fmt: skip
    out = outgoing(talk, reason="it is dark", tools=[tool])
    told = [
        open_cloud(Target(provider=f"{live.url}/v1", api=api, model=NAME, max_tokens=9), Events()).ask(
            out.messages, out.tools
        )
        for api in ("openai", "anthropic")
    ]
    assert told[0].n_in == told[1].n_in and told[0].n_in is not None and told[0].n_in > 100
    assert [one.n_out for one in told] == [9, 9] and {one.finish_reason for one in told} == {"length"}
