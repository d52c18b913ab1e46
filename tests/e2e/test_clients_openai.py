"""Clients of OpenAI's surface, none of them adapted, against a live server with a tiny model."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import nano
from odd_openai import ODD, OF_MODELS, Odd
from scripted_desk import Served
from serving import HI, LONG, NAME, SCHEMA, TOOL, Live, client, live, node, npm

__all__ = ["client", "live"]
pytestmark = pytest.mark.parity
ONE: Any = {"parallel_tool_calls": False}  # random weights would go on calling


def _chat(client: Any, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": NAME, "messages": HI, "max_tokens": 12, **fields})


def test_openai_chat(client: Any) -> None:
    reply = _chat(client, temperature=0, n=2)
    first, second = reply.choices
    assert first.message.content == second.message.content and first.finish_reason in ("stop", "length")
    assert reply.model == NAME and reply.system_fingerprint
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    drawn = [_chat(client, temperature=1, seed=7).choices[0].message.content for _ in range(2)]
    assert drawn[0] == drawn[1] != first.message.content


def test_openai_stream(client: Any) -> None:
    whole = _chat(client, temperature=0)
    *chunks, last = _chat(client, temperature=0, stream=True, stream_options={"include_usage": True})
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "light"}}])
def test_openai_tools(client: Any, choice: Any) -> None:
    fields: Any = {"tools": [TOOL], "tool_choice": choice, "temperature": 0, "max_tokens": 200, **ONE}
    (whole,) = _chat(client, **fields).choices
    (call,) = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls" and call.function.name == "light"
    assert set(json.loads(call.function.arguments)) == {"on"}
    with client.chat.completions.stream(model=NAME, messages=HI, **fields) as stream:
        (streamed,) = stream.get_final_completion().choices
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    chunks = _chat(client, stream=True, **fields)
    first, *rest = [part for c in chunks for part in c.choices[0].delta.tool_calls or ()]
    assert first.id and first.function.name == "light" and first.function.arguments == ""
    assert all(part.index == 0 and part.id is part.function.name is None for part in rest)
    pieces = [part.function.arguments for part in rest]
    assert "".join(pieces) == call.function.arguments and len(pieces) > 4  # a byte is a token
    said = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    again = _chat(client, messages=[*HI, whole.message, said], tools=[TOOL])  # as an agent goes on
    assert again.choices[0].message.role == "assistant"


def test_openai_parse(client: Any) -> None:
    pydantic = nano.require("pydantic")

    Answer = pydantic.create_model("Answer", on=(bool, ...), color=(Literal["red", "green"], ...))
    reply = client.chat.completions.parse(model=NAME, messages=HI, response_format=Answer, max_tokens=400)
    parsed = reply.choices[0].message.parsed
    assert isinstance(parsed, Answer) and parsed.color in ("red", "green")  # type: ignore[attr-defined]


def test_openai_completions(client: Any) -> None:
    reply = client.completions.create(model=NAME, prompt=["a", "bc"], max_tokens=4, n=2, temperature=0)
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    alone = client.completions.create(model=NAME, prompt="bc", max_tokens=4, temperature=0)
    assert reply.choices[2].text == reply.choices[3].text == alone.choices[0].text
    streamed = client.completions.create(model=NAME, prompt="bc", max_tokens=4, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == alone.choices[0].text


def test_openai_logprobs(client: Any, live: Live) -> None:
    content = _chat(client, temperature=0, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    for token in content:
        tops = [top.logprob for top in token.top_logprobs]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True) and tops[0] == token.logprob <= 0
    ids = list(b"what is said")
    (choice,) = client.completions.create(
        model=NAME, prompt=ids, max_tokens=1, logprobs=1, echo=True, temperature=0
    ).choices
    found = choice.logprobs.token_logprobs
    assert found[0] is None and len(found) == len(ids) + 1  # the prompt, and the one token that came
    expected, _ = _logprobs(live.model, ids)
    assert found[1:-1] == pytest.approx(expected, abs=1e-4)
    assert max(choice.logprobs.top_logprobs[-1].values()) == found[-1]  # greedy, and the same float
    ended = client.completions.create(
        model=NAME, prompt=ids, max_tokens=1, logprobs=1, echo=True, logit_bias={"256": 100}
    ).choices[0]
    assert len(ended.logprobs.tokens) == len(ids) + 1  # also where the one token is the end


def _logprobs(model: Path, ids: list[int]) -> tuple[list[float], list[int]]:
    """Of ids[1:] in a plain pass of the model in this process: log-probabilities, and the likeliest ids."""
    from tinygpt.core.backend import mx
    from tinygpt.model import checkpoint

    logits = checkpoint.load(model).model(mx.array([ids]))[0]
    logp = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    return [float(logp[i, id]) for i, id in enumerate(ids[1:])], logp.argmax(axis=-1)[:-1].tolist()


def test_openai_models_and_errors(client: Any) -> None:
    openai = nano.require("openai")
    assert NAME in [m.id for m in client.models.list().data]
    assert client.models.retrieve(NAME).object == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        _chat(client, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=NAME, prompt=[1, 10**6])


def test_a_conversation_beyond_the_context(live: Live, client: Any) -> None:
    openai = nano.require("openai")
    for ask, param in (
        (lambda: _chat(client, messages=LONG), "messages"),
        (lambda: _chat(client, messages=LONG, stream=True), "messages"),
        (lambda: client.completions.create(model=NAME, prompt=LONG[0]["content"]), "prompt"),
        (lambda: client.embeddings.create(model=NAME, input=LONG[0]["content"]), "input"),
        (lambda: client.responses.create(model=NAME, input=LONG[0]["content"]), "input"),
    ):
        with pytest.raises(openai.BadRequestError, match="maximum context length is 4096") as wrong:
            ask()
        assert (wrong.value.code, wrong.value.param) == ("context_length_exceeded", param)
    litellm = _litellm()
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(f"openai/{NAME}", LONG, api_base=f"{live.url}/v1", api_key="none", num_retries=0)


def test_the_tokenizer_says_what_it_is(live: Live) -> None:
    info = nano.require("httpx").get(f"{live.url}/tokenizer_info").json()
    assert (info["eos_token"], info["pad_token"], info["bos_token"]) == ("<|endoftext|>", "<|pad|>", None)
    assert "messages" in info["chat_template"] and info["model_max_length"] == 4096
    asked = {"prompt": info["eos_token"], "add_special_tokens": False}  # so lm-eval finds out its id
    tell = functools.partial(nano.require("httpx").post, f"{live.url}/tokenize")
    assert tell(json=asked).json()["tokens"] == [256]
    assert len(tell(json={**asked, "parse_special": False}).json()["tokens"]) == len(info["eos_token"])


def test_openai_embeddings(client: Any) -> None:
    packed = client.embeddings.create(model=NAME, input=["hi", "ho"])  # the SDK asks for base64 by itself
    plain = client.embeddings.create(model=NAME, input=["hi", "ho"], encoding_format="float")
    alone = client.embeddings.create(model=NAME, input="hi", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, rel=1e-6)
    assert alone.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert len(packed.data) == 2 and math.isfinite(sum(packed.data[1].embedding))
    ids = client.embeddings.create(model=NAME, input=list(b"hi"))
    assert len(ids.data[0].embedding) == len(plain.data[0].embedding)


# Rows of the table whose answers do not hang on what a scripted desk knows.
GENERAL = [o for o in ODD if o.status == 400 and "fail" not in str(o.body) and "dimensions" not in o.what]


@pytest.mark.parametrize("odd", GENERAL, ids=lambda odd: f"{odd.path.removeprefix('/v1/')}: {odd.what}")
def test_odd_requests(live: Live, odd: Odd) -> None:
    reply = Served(live.port, None).ask(odd.method, odd.path, odd.body)
    assert reply.status == 400 and reply.json["error"]["message"], reply.body[:300]


@pytest.mark.parametrize("odd", OF_MODELS, ids=lambda odd: f"{odd.path.removeprefix('/v1/')}: {odd.what}")
def test_what_a_model_refuses(live: Live, odd: Odd) -> None:
    reply = Served(live.port, None).ask(odd.method, odd.path, odd.body)
    assert (reply.status, reply.json["error"].get("param")) == (400, odd.param), reply.body[:300]


def test_npm_openai(live: Live) -> None:
    folder = npm("openai@6", "zod@4")
    seen = json.loads(node(folder, Path(__file__).with_name("openai_client.mjs"), f"{live.url}/v1"))
    assert seen["model"] == seen["retrieved"] == NAME
    assert seen["chat"] == seen["streamed"]
    assert seen["usage"]["completion_tokens"] == seen["streamedUsage"]["completion_tokens"]
    assert seen["call"]["name"] == "light" and seen["finish"] == "tool_calls"
    assert set(json.loads(seen["call"]["arguments"])) == set(seen["parsed"]) == {"on"}
    assert seen["logprobs"]["token_logprobs"][0] is None and len(seen["logprobs"]["tokens"]) >= 3
    assert len(seen["embedding"]) > 1 and seen["error"] == {"status": 400, "param": "temperature"}


def _litellm() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices
        return nano.require("litellm")


def test_litellm(live: Live) -> None:
    litellm = _litellm()
    fields: Any = {
        "model": f"openai/{NAME}",
        "api_base": f"{live.url}/v1",
        "api_key": "none",
        "num_retries": 0,
    }
    whole = litellm.completion(messages=HI, max_tokens=8, temperature=0, **fields)
    chunks = litellm.completion(messages=HI, max_tokens=8, temperature=0, stream=True, **fields)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content and whole.usage.completion_tokens > 0
    called = litellm.completion(messages=HI, tools=[TOOL], tool_choice="required", **ONE, **fields)
    called = called.choices[0].message
    assert called.tool_calls[0].function.name == "light"
    said = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "name": "light", "content": "done"}
    again = litellm.completion(
        messages=[*HI, called.model_dump(), said], tools=[TOOL], max_tokens=4, **fields
    )
    assert again.choices[0].finish_reason in ("stop", "length")
    assert litellm.embedding(input=["hi"], **fields).data[0]["embedding"]
    text = litellm.text_completion(
        prompt="hi", max_tokens=4, **fields | {"model": f"text-completion-openai/{NAME}"}
    )
    assert text.choices[0].finish_reason in ("stop", "length")


def test_langchain(live: Live) -> None:
    langchain = nano.require("langchain_openai")
    fields: Any = {"model": NAME, "base_url": f"{live.url}/v1", "api_key": "none", "max_retries": 0}
    chat = langchain.ChatOpenAI(**fields, temperature=0, max_tokens=200)
    short = langchain.ChatOpenAI(**fields, temperature=0, max_tokens=8)
    whole = short.invoke("hi")
    assert "".join(str(chunk.content) for chunk in short.stream("hi")) == whole.content
    assert whole.usage_metadata["output_tokens"] <= 8
    (call,) = chat.bind_tools([TOOL], tool_choice="any", **ONE).invoke("hi").tool_calls
    assert call["name"] == "light" and set(call["args"]) == {"on"}
    chunks = list(chat.bind_tools([TOOL], tool_choice="any", **ONE).stream("hi"))
    assert sum((c for c in chunks[1:]), chunks[0]).tool_calls[0]["args"] == call["args"]
    assert sum(len(c.tool_call_chunks) for c in chunks) > 4
    with pytest.raises(nano.require("langchain_core.exceptions").ContextOverflowError):
        chat.invoke(LONG[0]["content"])
    schema = {"title": "answer", **SCHEMA}
    for method in ("json_schema", "function_calling"):
        assert set(chat.with_structured_output(schema, method=method).invoke("hi")) == {"on"}
    embeddings = langchain.OpenAIEmbeddings(**fields, check_embedding_ctx_length=False)
    assert len(embeddings.embed_documents(["hi", "ho"])) == 2
    assert langchain.OpenAI(**fields, temperature=0, max_tokens=4).invoke("hi") is not None


def test_llm(live: Live, tmp_path: Path) -> None:
    """The command line tool `llm`, told of the server in its own file."""
    nano.require("llm")
    model = {"model_id": "here", "model_name": NAME, "api_base": f"{live.url}/v1", "supports_schema": True}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML, too

    def llm(*words: str) -> str:
        asked = [sys.executable, "-m", "llm", "-m", "here", "--key", "none", "--no-log", *words, "hi"]
        env = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
        done = subprocess.run(asked, env=env, capture_output=True, text=True, timeout=120, errors="replace")
        assert done.returncode == 0, done.stderr
        return done.stdout

    short = ("-o", "temperature", "0", "-o", "max_tokens", "8")
    assert llm(*short) == llm(*short, "--no-stream") != "\n"
    assert set(json.loads(llm("--schema", json.dumps(SCHEMA)))) == {"on"}


TASKS = {
    "loc_mc": {
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{c}}",
        "doc_to_target": 0, "metric_list": [{"metric": "acc"}],
    },
    "loc_gen": {
        "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{c[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6}, "metric_list": [{"metric": "exact_match"}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lm-eval tasks that need no network, as JSON, which is YAML too."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"q": "1+1=", "c": [" 2", " 3"]}, {"q": "the cat", "c": [" sat", " flew over"]}]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, task in TASKS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        text = json.dumps({"task": name, "test_split": "test", **source, **task})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def _evaluate(kind: str, tasks: Path, names: list[str], chat: bool = False, **arguments: Any) -> Any:
    lm_eval = nano.require("lm_eval")
    manager = nano.require("lm_eval.tasks").TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=kind, model_args={"model": NAME, "num_concurrent": 1, "max_retries": 1, **arguments},
        tasks=names, task_manager=manager, batch_size=2, apply_chat_template=chat, bootstrap_iters=0,
    )  # fmt: skip


def test_lm_eval_completions(live: Live, tasks: Path) -> None:
    url = f"{live.url}/v1/completions"
    done = _evaluate(
        "local-completions", tasks, list(TASKS), base_url=url, tokenizer_backend="remote", max_length=1024
    )
    assert len(done["samples"]["loc_mc"]) == len(done["samples"]["loc_gen"]) == 2
    for sample in done["samples"]["loc_mc"]:
        for (context, continuation), ((found, greedy),) in zip(
            sample["arguments"], sample["resps"], strict=True
        ):
            ids, start = list((context + continuation).encode()), len(context.encode())
            logp, likeliest = _logprobs(live.model, ids)
            assert found == pytest.approx(sum(logp[start - 1 :]), abs=1e-3)
            assert greedy == (likeliest[start - 1 :] == ids[start:])


def test_lm_eval_chat(live: Live, tasks: Path) -> None:
    url = f"{live.url}/v1/chat/completions"
    done = _evaluate("local-chat-completions", tasks, ["loc_gen"], chat=True, base_url=url)
    assert len(done["samples"]["loc_gen"]) == 2
    assert all(isinstance(sample["resps"][0][0], str) for sample in done["samples"]["loc_gen"])
