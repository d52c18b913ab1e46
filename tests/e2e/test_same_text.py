"""A live server says on every surface what the engine says in process, alone and among 32 others.

So it is with guesses of every kind, and with what the server remembers.

Texts are compared token by token, so no rounding may decide them. Weights are drawn wide: the two likeliest
tokens of the greedy probes lie at least 1e-3 apart at every place (test_rounding_decides_nothing), and a row
of a batch differs from the row alone by some 1e-5. A drawn token changes with its number alone (seed, place),
and hits a border of that width once in a hundred thousand."""

from __future__ import annotations

import json
import random
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_flatten, tree_unflatten

from serving import Live, serve, tiny_chat_model
from tinygpt.core.backend import mx, nn
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.model import checkpoint
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features
from tinygpt.runs import _engine

SYSTEM = "You are short of words, and what you say is true. "
PLAIN = "The sea is wide and the sea is deep, and the sea"
TALK = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Tell me of the sea."}]
TOKENS = 20
SEED = 11
Body = dict[str, Any]


def post(live: Live, path: str, body: Body) -> Any:
    """The answer; of a stream its events."""
    request = urllib.request.Request(live.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=120) as reply:
        if not body.get("stream"):
            return json.loads(reply.read())
        lines = [line.decode().strip() for line in reply]
    data = [line.removeprefix("data: ") for line in lines if line.startswith(("data: ", "{"))]
    return [json.loads(text) for text in data if text != "[DONE]"]


def completion(live: Live, body: Body) -> str:
    got = post(live, "/v1/completions", body)
    events = got if body.get("stream") else [got]
    return "".join(choice["text"] for event in events for choice in event["choices"])


def chat(live: Live, body: Body) -> str:
    got = post(live, "/v1/chat/completions", body)
    if not body.get("stream"):
        return "\n".join(choice["message"]["content"] or "" for choice in got["choices"])
    return "".join(c["delta"].get("content") or "" for event in got for c in event["choices"])


def ollama(path: str, read: Callable[[Any], str]) -> Callable[[Live, Body], str]:
    def ask(live: Live, body: Body) -> str:
        got = post(live, path, body)
        return "".join(map(read, got if body["stream"] else [got]))

    return ask


def anthropic(live: Live, body: Body) -> str:
    got = post(live, "/v1/messages", body)
    if not body.get("stream"):
        return "".join(part["text"] for part in got["content"])
    return "".join(event["delta"].get("text", "") for event in got if event["type"] == "content_block_delta")


def responses(live: Live, body: Body) -> str:
    got = post(live, "/v1/responses", body)
    if body.get("stream"):
        return "".join(e["delta"] for e in got if e["type"] == "response.output_text.delta")
    return "".join(part["text"] for item in got["output"] for part in item["content"])


@dataclass(frozen=True)
class Probe:
    """One question in a surface's words: its answer is the engine's to the prompt."""

    ask: Callable[[Live, Body], str]
    prompt: Callable[[Engine], list[int]]
    body: Callable[[Engine, float], Body]

    def said(self, live: Live, temperature: float, stream: bool) -> str:
        return self.ask(live, {**self.body(ENGINE[0], temperature), "stream": stream})


def talk(engine: Engine) -> list[int]:
    return engine.encode_chat(TALK)


def plain(engine: Engine) -> list[int]:
    return engine.encode(PLAIN)


def sampled(temperature: float) -> Body:
    return {"temperature": temperature, "seed": SEED, "max_tokens": TOKENS}


def options(temperature: float) -> Body:
    return {"options": {
        "temperature": temperature, "seed": SEED, "num_predict": TOKENS, "top_p": 1, "top_k": 0, "min_p": 0,
        "repeat_penalty": 1,
    }}  # fmt: skip


PROBES: dict[str, Probe] = {
    "completions": Probe(completion, plain, lambda e, t: {"prompt": plain(e), **sampled(t)}),
    "chat": Probe(chat, talk, lambda e, t: {"messages": TALK, **sampled(t)}),
    "generate": Probe(
        ollama("/api/generate", lambda one: one["response"]), plain,
        lambda e, t: {"model": "tiny", "prompt": PLAIN, "raw": True, **options(t)},
    ),
    "ollama-chat": Probe(
        ollama("/api/chat", lambda one: one["message"]["content"]), talk,
        lambda e, t: {"model": "tiny", "messages": TALK, **options(t)},
    ),
    "messages": Probe(
        anthropic, talk,
        lambda e, t: {
            "model": "tiny", "system": SYSTEM, "messages": TALK[1:], "temperature": t, "max_tokens": TOKENS
        },
    ),
    "responses": Probe(
        responses, talk,
        lambda e, t: {
            "model": "tiny", "instructions": SYSTEM, "input": TALK[1]["content"], "temperature": t,
            "max_output_tokens": TOKENS,
        },
    ),
}  # fmt: skip
SEEDED = ("completions", "chat", "generate", "ollama-chat")  # the others take no seed
ENGINE: list[Engine] = []  # one, of the served model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tiny_chat_model(tmp_path_factory.mktemp("model"))
    ENGINE.append(_engine.open_engine(path))
    yield path
    ENGINE.clear()


def near(model: Path, folder: Path) -> Path:
    """The same model, its weights a little off: a draft that is often right."""
    lm = checkpoint.load(model).model
    moved = [
        (name, w + 0.01 * mx.random.normal(w.shape, key=mx.random.key(i)))
        for i, (name, w) in enumerate(tree_flatten(lm.parameters()))
    ]
    lm.update(tree_unflatten(moved))
    tokenizer = ByteTokenizer()
    ids = {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}
    return checkpoint.save(folder / "near", lm, write_tokenizer=tokenizer.save, ids=ids)


def heads(model: Path, folder: Path) -> Path:
    lm = checkpoint.load(model).model
    facts = stored.Facts(kind="medusa", width=Features(lm).width, hidden=32, vocab_size=260, horizons=3)
    return stored.save(folder / "heads", stored.build(facts, 2), base=model)


WAYS: dict[str, Callable[[Path, Path], Sequence[object]]] = {
    "bare": lambda model, folder: ("--prompt-cache", 0),
    "remembers": lambda model, folder: ("--max-rows", 9, "--prefill-chunk", 64),
    "draft": lambda model, folder: ("--draft-model", near(model, folder), "--draft-tokens", 3),
    "ngram": lambda model, folder: ("--speculate", "ngram"),
    "heads": lambda model, folder: ("--heads", heads(model, folder)),
}


@pytest.fixture(scope="module", params=WAYS)
def served(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp(request.param)
    with serve(model, folder, "--no-lock", *WAYS[request.param](model, folder)) as live:
        yield request.param, live


@cache
def in_process(name: str, temperature: float) -> tuple[list[int], str]:
    """What the engine answers."""
    engine = ENGINE[0]
    config = SampleConfig(temperature=temperature, seed=SEED, max_tokens=TOKENS)
    answer = engine.generate_batch([PROBES[name].prompt(engine)], config)[0]
    return answer.ids, answer.text


def neighbours(rng: random.Random) -> list[tuple[Callable[[Live, Body], str], Body]]:
    """32 requests of mixed lengths, settings, seeds and constraints; each says the same whenever it is
    asked."""
    found: list[tuple[Callable[[Live, Body], str], Body]] = []
    formats: list[Body] = [
        {"response_format": {"type": "json_object"}, "logit_bias": {"125": 8, "34": 5}},
        {"guided_choice": ["yes", "no", "it depends"]},
        {"guided_regex": "[a-f]{3,9}(-[0-9]{2})?"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {
            "type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
            "required": ["n", "ok"], "additionalProperties": False}}}},
    ]  # fmt: skip
    rules: list[Body] = [
        {}, {"top_p": 0.8}, {"top_k": 7}, {"min_p": 0.05, "repetition_penalty": 1.3}, {"n": 3},
        {"frequency_penalty": 0.7, "presence_penalty": 0.3}, {"stop": ["e", "\n"]}, {"logprobs": True},
        {"stop": ["the", "\u00e9"], "logit_bias": {"101": 2}}, {"typical_p": 0.9},
    ]  # fmt: skip
    for i in range(32):
        body: Body = {
            "temperature": rng.choice([0, 0, 0.7, 1.0, 1.5]), "seed": rng.randrange(1 << 31),
            "max_tokens": rng.randint(1, 45), **rules[i % len(rules)],
        }  # fmt: skip
        if i % 4 == 3:
            body |= formats[i // 4 % len(formats)]
        words = " ".join(
            rng.choice(["sea", "deep", "Is", "7", "\u00fcber"]) for _ in range(rng.randint(1, 35))
        )
        if i % 2:
            found.append((chat, {"messages": [*TALK, {"role": "user", "content": words}], **body}))
        else:
            found.append((completion, {"prompt": words, **body}))
        if i % 5 == 0 and "n" not in body:
            body["stream"] = found[-1][1]["stream"] = True
    return found


def test_rounding_decides_nothing(model: Path) -> None:
    engine = ENGINE[0]
    for name, probe in PROBES.items():
        ids, _ = in_process(name, 0.0)
        prompt = probe.prompt(engine)
        logits_LV = engine.model(mx.array([prompt + ids]))[0, len(prompt) - 1 :]
        top_L2 = mx.sort(logits_LV, axis=-1)[:, -2:]
        assert (top_L2[:, 1] - top_L2[:, 0]).min().item() > 1e-3, name
        assert len(ids) == TOKENS and len(set(ids)) > TOKENS // 3  # no text that is one letter


def test_every_surface_says_what_the_engine_says_alone_and_among_others(served: Any) -> None:
    way, live = served
    asked = [(name, 0.0) for name in PROBES] + [(name, 1.0) for name in SEEDED]
    alone: dict[tuple[str, float], str] = {}
    for name, temperature in asked:
        for stream in (False, True):
            text = PROBES[name].said(live, temperature, stream)
            assert alone.setdefault((name, temperature), text) == text, (name, temperature, stream)
        if temperature == 0 or way != "draft":  # drawn with a draft, the law is the same and not the text
            assert alone[name, temperature] == in_process(name, temperature)[1], (name, temperature)
    if way == "draft":
        for names in (("completions", "generate"), ("chat", "ollama-chat")):
            assert len({alone[name, 1.0] for name in names}) == 1
    said: list[list[str]] = []
    for order in (1, 2):  # whoever comes first, and whatever is remembered by then
        crowd = neighbours(random.Random(5))
        calls: list[Callable[[], str]] = [lambda ask=ask, body=body: ask(live, body) for ask, body in crowd]
        calls += [
            lambda name=name, t=t, stream=stream: PROBES[name].said(live, t, stream)
            for name, t in asked for stream in (False, True)
        ]  # fmt: skip
        places = list(range(len(calls)))
        random.Random(order).shuffle(places)
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = {i: pool.submit(calls[i]) for i in places}
        said.append([futures[i].result() for i in range(len(calls))])
        among = said[-1][len(crowd) :]
        for (name, t), plain_text, streamed in zip(asked, among[::2], among[1::2], strict=True):
            assert plain_text == streamed == alone[name, t], (way, order, name, t)
    assert said[0] == said[1]
    usage = post(live, "/v1/chat/completions", {"messages": TALK, **sampled(0.0)})["usage"]
    cached, details = usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens_details"]
    assert (cached > len(SYSTEM)) == (way not in ("bare", "heads"))
    assert (details["accepted_prediction_tokens"] > 0) == (way in ("draft", "ngram", "heads"))


def full(prompt: list[int], ids: list[int]) -> mx.array:
    """log p of what may follow each token of a text, by one pass over all of it."""
    return nn.log_softmax(ENGINE[0].model(mx.array([prompt + ids]))[0].astype(mx.float32))


def test_log_probabilities_are_those_of_a_full_pass(served: Any) -> None:
    way, live = served
    engine, crowd = ENGINE[0], neighbours(random.Random(8))[:12]
    cases = [(t, k) for t in (0.0, 1.0) for k in (0, 5)]
    texts: list[Body] = [
        {"prompt": plain(engine), "echo": echo, "logprobs": k, **sampled(t)}
        for t, k in cases for echo in (False, True)
    ]  # fmt: skip
    chats: list[Body] = [
        {"messages": TALK, "logprobs": True, "top_logprobs": k, **sampled(t)} for t, k in cases
    ]
    with ThreadPoolExecutor(len(crowd) + len(texts) + len(chats)) as pool:
        beside = [pool.submit(ask, live, body) for ask, body in crowd]
        completions = [pool.submit(post, live, "/v1/completions", body) for body in texts]
        talks = [pool.submit(post, live, "/v1/chat/completions", body) for body in chats]
    assert all(isinstance(one.result(), str) for one in beside)
    for body, future in zip(texts, completions, strict=True):
        said, prompt = future.result()["choices"][0]["logprobs"], plain(engine)
        if way == "draft" and body["temperature"]:
            continue  # the text is another one, and its ids are not told here
        ids = in_process("completions", body["temperature"])[0]
        values, tops = said["token_logprobs"], said["top_logprobs"]
        if body["echo"]:
            assert values.pop(0) is None and tops.pop(0) is None
        table_LV = full(prompt, ids)[0 if body["echo"] else len(prompt) - 1 :]
        following = [*prompt[1:], *ids] if body["echo"] else ids
        assert len(values) == len(tops) == len(following)
        for at, (id, value, top) in enumerate(zip(following, values, tops)):
            assert value == pytest.approx(table_LV[at, id].item(), abs=1e-4), (way, body, at)
            if body["logprobs"]:
                assert max(top.values()) == pytest.approx(table_LV[at].max().item(), abs=1e-4)
    for body, future in zip(chats, talks, strict=True):
        content = future.result()["choices"][0]["logprobs"]["content"]
        ids = [entry["bytes"][0] for entry in content]  # a byte is a token
        if way != "draft" or not body["temperature"]:
            assert ids == in_process("chat", body["temperature"])[0]
        table_LV = full(talk(engine), ids)[len(talk(engine)) - 1 :]
        for at, (id, entry) in enumerate(zip(ids, content)):
            assert entry["logprob"] == pytest.approx(table_LV[at, id].item(), abs=1e-4), (way, body, at)
            best = sorted(table_LV[at].tolist(), reverse=True)[: body["top_logprobs"]]
            assert [one["logprob"] for one in entry["top_logprobs"]] == pytest.approx(best, abs=1e-4)
