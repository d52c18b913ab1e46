"""Benchmarks: what is made of times, and a server under load."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import nano
from fake_openai import FakeOpenAI
from tinygpt.core.errors import ConfigError, DependencyError, RemoteError
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.runs._bench_url import Load
from tinygpt.runs._pieces import ids as _ids
from tinygpt.runs._streams import Stream, listed, measured
from tinygpt.runs.bench import Config, run


def _stream(began: float, *times: float, tokens: int | None = None, prompt: int = 10) -> Stream:
    return Stream(
        began=began, times=list(times), tokens=len(times) if tokens is None else tokens, prompt_tokens=prompt
    )


def test_figures_worked_out_by_hand() -> None:
    first = [_stream(0, 1.0, 1.5, 2.0), _stream(0, 2.0, 3.0)]
    second = [_stream(10, 11.0, 11.5, 12.0, 12.5, 13.0)]
    found = measured([first, second])
    assert found["ttft_ms_p50"] == 1000 and found["ttft_ms_p90"] == pytest.approx(1800)
    assert found["itl_ms_p50"] == 500 and found["itl_ms_p99"] == pytest.approx(970)
    # Medians of two runs: 20 and 10 tokens of prompts a second; one token after 2.0 in a second, four in two.
    assert found["prefill_tok_s"] == 10 and found["decode_tok_s"] == (1.0 + 2.0) / 2
    assert found["tok_s"] == pytest.approx((5 / 3 + 5 / 3) / 2)
    assert [one["tokens"] for one in listed([first, second])] == [5, 5]


def test_pieces_of_several_tokens_count_as_those() -> None:
    found = measured([[_stream(0, 1.0, 2.0, tokens=6)]])
    assert found["decode_tok_s"] == 3.0 and found["tok_s"] == 3.0
    assert "decode_tok_s" not in measured([[_stream(0, 1.0)]]), "one token has nothing after it"


def _answer(usage: bool, pieces: int, cached: int = 0) -> Any:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": "m"}]}
        if body["model"] == "broken":
            return 500, {}, {"error": {"message": "out of order"}}
        chat = path == "/v1/chat/completions"
        said = [{"choices": [{"delta": {"content": "x"}} if chat else {"text": "x"}]}] * pieces
        told = {"choices": [], "usage": {
            "prompt_tokens": 7, "completion_tokens": pieces,
            "prompt_tokens_details": {"cached_tokens": cached},
        }}  # fmt: skip
        return {
            "chunks": [{"choices": [{"delta": {"role": "assistant"}, "text": ""}]}, *said, *[told] * usage]
        }

    return answer


@pytest.mark.parametrize("chat", [False, True])
def test_a_server_is_timed_under_load(chat: bool) -> None:
    with FakeOpenAI(_answer(True, 4)).serving() as server:
        config = Config(
            model=Path("."), url=server.url, concurrency=(1, 3), gen_tokens=4, n_runs=2, chat=chat,
            prompt_tokens=(5,),
        )  # fmt: skip
        found = run(config, Events())
    assert found["model"] == "m" and not found["warnings"]
    one, three = found["settings"]
    assert (one["concurrency"], three["concurrency"], three["prompt_tokens_seen"]) == (1, 3, 7)
    assert one["tok_s"] > 0 and one["ttft_ms_p50"] > 0 and three["itl_ms_p99"] >= 0
    asked = [body for path, body in server.asked if path != "/v1/models"]
    assert len(asked) == (1 + 3) * 3, "one request to warm up and two that count, of each client"
    texts = [body["messages"][0]["content"] if chat else body["prompt"] for body in asked]
    assert len(set(texts)) == len(texts) and all(len(text.split()) == 5 for text in texts)
    assert all(b["stream_options"] == {"include_usage": True} and "ignore_eos" not in b for b in asked)


def test_clients_that_ask_again_are_timed_request_by_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [_stream(0, 1.0, 1.5, 2.0), _stream(2, 4.0, 6.0, 8.0)]
    monkeypatch.setattr(Load, "at_once", lambda *_: asked)
    (found,) = run(Config(model=Path("m"), url="http://x"), Events())["settings"]
    # Medians of 10 and 5 tokens of prompts a second, and of 2 and 0.5 written; 6 tokens in 8 seconds.
    assert (found["prefill_tok_s"], found["decode_tok_s"], found["tok_s"]) == (7.5, 1.25, 0.75)


def test_what_a_server_leaves_out_is_told() -> None:
    common: dict[str, Any] = {"n_runs": 1, "warm_runs": 0}
    with FakeOpenAI(_answer(False, 4)).serving() as server:
        found = run(Config(model=Path("m"), url=server.url, gen_tokens=4, **common), Events())
        assert found["warnings"] == ["1 answers came without usage: pieces were counted, not tokens"]
        with pytest.raises(RemoteError, match="out of order"):
            run(Config(model=Path("broken"), url=server.url, **common), Events())
    with FakeOpenAI(_answer(True, 3)).serving() as server:
        found = run(Config(model=Path("m"), url=server.url, gen_tokens=4, **common), Events())
        assert found["warnings"] == ["1 answers ended early: see --ignore-eos"]
    with FakeOpenAI(_answer(True, 4, cached=6)).serving() as server:
        found = run(Config(model=Path("m"), url=server.url, gen_tokens=4, **common), Events())
        assert found["warnings"] == ["the server knew 6 of 7 tokens of prompts: try another --seed"]


def test_settings_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad, what in (
        ({"batch_sizes": (1, 0)}, "--batch-sizes must"),
        ({"concurrency": (2,)}, "--concurrency means nothing"),
        ({"gen_tokens": 1}, "--gen-tokens must"), ({"url": "http://x", "batch_sizes": (2,)}, "to a server"),
        ({"chat": True}, "--chat means nothing"), ({"plot": Path("x.gif")}, "--plot x.gif is no picture"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=what):
            Config(model=Path("m"), **bad)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match="--plot needs the package 'matplotlib'"):
        run(Config(model=Path("nowhere"), plot=Path("x.png")), Events())


def test_guessing_is_timed_beside_plain_decoding(tmp_path: Path) -> None:
    checkpoint.save(
        tmp_path / "m", nano.model(vocab_size=260), write_tokenizer=byte.load().save, ids=_ids(byte.load())
    )
    common: dict[str, Any] = {"model": tmp_path / "m", "cold": False, "n_runs": 2, "gen_tokens": 12}
    (found,) = run(Config(**common, draft_model=tmp_path / "m", draft_tokens=3), Events())["settings"]
    # The model drafts for itself: of 12 tokens one comes with the prompt, then 3 guesses and one more a pass.
    assert found["acceptance"] == 1.0 and found["tokens_per_pass"] == pytest.approx(11 / 3)
    assert found["speed_ratio"] > 0 and [one["tokens"] for one in found["runs"]] == [12, 12]
    (plain,) = run(Config(**common), Events())["settings"]
    assert not {"acceptance", "tokens_per_pass", "speed_ratio"} & set(plain)
    settings = Config(model=Path("m"), heads=Path("h"), draft_tokens=3, force_heads=True)
    assert settings.words == ["--heads=h", "--draft-tokens=3", "--force-heads"]
    with pytest.raises(ConfigError, match="--speculate ngram says nothing to a server"):
        Config(model=Path("m"), url="http://x", speculate="ngram")
