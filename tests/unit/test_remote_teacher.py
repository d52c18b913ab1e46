"""A teacher behind a server: what it says of tokens, in ids or in texts, or why it is of no use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nano
from fake_openai import FakeOpenAI
from tinygpt.core.errors import ConfigError, RemoteError, UnsupportedError
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import byte
from tinygpt.runs._openai import Client
from tinygpt.runs._remote_teacher import Endpoint, texts
from tinygpt.train.state import arrays

TOKENIZER = byte.load()
K = 3
Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def likely(id: int) -> dict[int, float]:
    """What the server finds likely after a token: four tokens, the last one beyond K."""
    found = [(id * 7 + 3 * i) % 120 + 1 for i in range(4)]
    return dict(zip(found, (-0.5, -1.5, -2.5, -4.0), strict=True))


def named(id: int, by_id: bool) -> str:
    return f"token_id:{id}" if by_id else TOKENIZER.id_to_bytes(id).decode()


def server(change: Change = lambda body, reply: reply) -> FakeOpenAI:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/models"):
            return {"data": [{"id": "big"}]}
        prompt, by_id = body["prompt"], body.get("return_tokens_as_token_ids", False)
        tops: list[Any] = [None]
        tops += [{named(one, by_id): value for one, value in likely(id).items()} for id in prompt]
        choice: dict[str, Any] = {"text": TOKENIZER.decode(prompt) + "x"}
        if "logprobs" in body:
            choice["logprobs"] = {"top_logprobs": tops}
        return change(body, {"choices": [choice]})

    return FakeOpenAI(answer)


def ask(url: str, *, k: int = K, events: Events | None = None) -> tuple[Endpoint, Any, Any, Any]:
    endpoint = Endpoint(url, "", TOKENIZER, k, events or Events())
    endpoint.client = Client(url, tries=3, pause=lambda _: None)
    batch = nano.batch(2, 9, real=[9, 6], prompt=3)
    batch.segments[0, 5:] = 2  # a second document
    batch.tokens[:] = batch.tokens % 60 + 32  # letters
    counts = batch.weights > 0
    return endpoint, batch, counts, lambda: endpoint(arrays(batch), counts)


def test_each_place_has_the_likeliest_tokens_after_it() -> None:
    with server().serving() as fake:
        endpoint, batch, counts, run = ask(fake.url)
        found = run()
        assert endpoint.model == "big"
    prompts = [body["prompt"] for _, body in fake.asked if "logprobs" in body]
    wanted = [batch.tokens[0, :5], batch.tokens[0, 5:], batch.tokens[1, :6]]
    assert sorted(prompts) == sorted(part.tolist() for part in wanted)
    for b, places in enumerate(found):
        assert places.known.all() and len(places.ids) == counts[b].sum()
        for id, ids, log_p in zip(batch.tokens[b][counts[b]], places.ids, places.log_p, strict=True):
            assert dict(zip(ids.tolist(), log_p.tolist(), strict=True)) == dict(list(likely(id).items())[:K])


def test_tokens_named_by_text_are_looked_up_and_others_are_counted(memory: Any) -> None:
    def by_text(body: dict[str, Any], reply: Any) -> Any:
        for told in (reply["choices"][0].get("logprobs") or {"top_logprobs": []})["top_logprobs"]:
            for name in list(told or ()):
                id = int(name.removeprefix("token_id:"))
                told[TOKENIZER.id_to_bytes(id).decode() if id != 42 else "no token"] = told.pop(name)
        return reply

    with server(by_text).serving() as fake:
        endpoint, batch, counts, run = ask(fake.url, events=Events(memory))
        found = run()
    for b, places in enumerate(found):
        for id, ids, known in zip(batch.tokens[b][counts[b]], places.ids, places.known, strict=True):
            wanted = list(likely(id))[:K]
            assert known == (42 not in wanted) and (not known or ids.tolist() == wanted)
    assert endpoint.asked == counts.sum() and endpoint.lost == sum((~p.known).sum() for p in found)
    endpoint.lost = 2
    endpoint.end()
    assert "2 of" in memory.events[-1].text


def test_texts_of_bytes_and_of_two_ids() -> None:
    class Two:
        vocab_size = 4

        def id_to_bytes(self, id: int) -> bytes:
            return [b"a", b"\xe2\x80", b"b", b"b"][id]

    two: Any = Two()
    assert texts(two) == {"a": 0, "bytes:\\xe2\\x80": 1}


def test_what_may_pass_is_asked_again() -> None:
    failed = list[int]()

    def sometimes(body: dict[str, Any], reply: Any) -> Any:
        if "logprobs" in body and len(failed) < 2:
            failed.append(1)
            return 503, {}, {"error": {"message": "busy"}}
        return reply

    with server(sometimes).serving() as fake:
        *_, counts, run = ask(fake.url)
        assert [len(p.ids) for p in run()] == counts.sum(1).tolist() and len(failed) == 2


def replaced(**changes: Any) -> Change:
    def change(body: dict[str, Any], reply: Any) -> Any:
        if "logprobs" in body:
            reply["choices"][0] |= changes
        return reply

    return change


def odd(value: Any) -> Change:
    def change(body: dict[str, Any], reply: Any) -> Any:
        for told in (reply["choices"][0].get("logprobs") or {"top_logprobs": []})["top_logprobs"]:
            if told:
                told["token_id:1"] = value
        return reply

    return change


@pytest.mark.parametrize(
    ("change", "k", "error", "why"),
    [
        (lambda body, reply: {"choices": [{"text": "zz"}]}, K, ConfigError, "another tokenizer"),
        (lambda body, reply: {"choices": []}, K, RemoteError, "gave no answer"),
        (lambda body, reply: (400, {}, {"error": "no"}), K, RemoteError, "HTTP 400: no"),
        (
            lambda body, reply: (400, {}, {"error": "logprobs: 2 at most"}) if "logprobs" in body else reply,
            K,
            ConfigError,
            "does not tell 3 tokens of a place",
        ),
        (replaced(logprobs=None), K, UnsupportedError, "does not tell the likeliest tokens"),
        (
            replaced(logprobs={"top_logprobs": [{"a": -1.0}]}),
            K,
            UnsupportedError,
            "does not tell the likeliest",
        ),
        (lambda body, reply: reply, 5, UnsupportedError, "tells 4 tokens at a place, not 5"),
        (odd("x"), K, RemoteError, "tells no log-probability: x"),
        (odd(True), K, RemoteError, "tells no log-probability"),
        (odd(math.nan), K, RemoteError, "tells no log-probability"),
    ],
)
def test_a_server_that_is_of_no_use_is_refused(change: Change, k: int, error: Any, why: str) -> None:
    with server(change).serving() as fake, pytest.raises(error, match=why):
        ask(fake.url, k=k)[-1]()


def test_an_id_that_the_tokenizer_has_not_is_refused() -> None:
    def beyond(body: dict[str, Any], reply: Any) -> Any:
        for told in (reply["choices"][0].get("logprobs") or {"top_logprobs": []})["top_logprobs"]:
            if told:
                told["token_id:9999"] = -0.1
        return reply

    with server(beyond).serving() as fake, pytest.raises(RemoteError, match="id 9999"):
        ask(fake.url)[-1]()


def test_a_server_whose_texts_are_nearly_all_lost_is_refused() -> None:
    with server().serving() as fake:
        endpoint, *_, run = ask(fake.url)
        endpoint.asked, endpoint.lost = 100, 90
        with pytest.raises(UnsupportedError, match="places are lost"):
            run()
        assert np.isclose(endpoint.lost / endpoint.asked, 0.9, atol=0.1)
