"""Every way to decode is the same: cached, compiled, streamed, batched; and scores equal a plain pass."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tinygpt.core.backend import compile_works, mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer import decode, engine
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

SHAPES = {
    "llama": {"num_key_value_heads": 2},
    "gpt2": {
        "position": Pick("learned"),
        "norm": Pick("layernorm"),
        "mlp": Pick("gelu"),
        "attention_bias": True,
    },
}


def _engine(shape: str) -> Engine:
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=48,
        initializer_range=0.3, **SHAPES[shape],
    )  # fmt: skip
    return Engine(initialize(LM(config), 1), ByteTokenizer())


def _prompts(n: int, longest: int) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(256) for _ in range(rng.randint(1, longest))] for _ in range(n)]


@pytest.fixture(params=SHAPES)
def made(request: pytest.FixtureRequest) -> Engine:
    return _engine(request.param)


def test_compiled_step_equals_the_uncached_model(made: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "BLOCK", 4)  # several growths in a short text
    ids = _prompts(1, 1)[0] * 5 + list(range(60, 75))
    decoder = decode.Decoder(made.model, [0], decode.fixed_step(made.model))
    decoder.read(mx.array([ids[:3]]))
    logits = [decoder.read(mx.array([ids[3:5]]), last=1)[:, 0]]
    logits += [decoder.step(mx.array([id])) for id in ids[5:]]
    plain_LV = made.model(mx.array([ids]))[0, 4:]
    assert mx.abs(mx.concatenate(logits) - plain_LV).max().item() < 1e-4
    assert decoder.fixed is not None or made.model.config.position.name == "learned" or not compile_works()


def test_compiled_step_of_rows_equals_the_uncached_model(
    made: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "BLOCK", 4)
    monkeypatch.setattr(decode, "SETTLED", 1)
    texts = [list(range(60, 60 + n)) for n in (15, 20, 12)]
    pads = [20 - len(text) for text in texts]
    tokens_BL = mx.array([[0] * pad + text for pad, text in zip(pads, texts)])
    decoder = decode.Decoder(made.model, pads, decode.fixed_step(made.model))
    decoder.read(tokens_BL[:, :14])
    logits = [decoder.step(tokens_BL[:, i]) for i in range(14, 20)]
    for row, text in enumerate(texts):
        plain_LV = made.model(mx.array([text]))[0, -6:]
        assert mx.abs(mx.stack([one[row] for one in logits]) - plain_LV).max().item() < 1e-4
    assert decoder.fixed is not None or made.model.config.position.name == "learned" or not compile_works()


def test_compiled_step_sees_new_weights(made: Engine) -> None:
    config = SampleConfig(temperature=0, max_tokens=6)
    before = [p.token for p in made.generate([5, 6], config)]
    initialize(made.model, 2)
    after = [p.token for p in made.generate([5, 6], config)]
    assert after != before
    assert after == [p.token for p in Engine(made.model, made.tokenizer).generate([5, 6], config)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_equals_one_by_one(made: Engine, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "Lane", lambda made: Lane(made, Limits(rows=7, chunk=100)))
    # Prompts up to one below the context: some rows have room for a single token, others leave early.
    prompts = _prompts(16, 47)
    config = SampleConfig(temperature=temperature, seed=3, max_tokens=14, top_k=40, repetition_penalty=1.1)
    stops = list(range(0, 250, 9))
    together = made.generate_batch(prompts, config, stop_ids=stops, logprobs=True)
    for i, (prompt, batch) in enumerate(zip(prompts, together)):
        one = SampleConfig(
            temperature=temperature, seed=3 + i, max_tokens=14, top_k=40, repetition_penalty=1.1
        )
        pieces = list(made.generate(prompt, one, stop_ids=stops, logprobs=True))
        assert "".join(p.text for p in pieces) == batch.text
        assert pieces[-1].finish_reason == batch.finish_reason
        assert sum(p.logprob or 0 for p in pieces) == pytest.approx(batch.logprob_sum, abs=1e-3)


def test_scores_equal_a_plain_pass_and_what_generation_reports(
    made: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "LOGITS", 260 * 20)  # several chunks
    rows = [row for row in _prompts(9, 49) if len(row) > 1]
    for row, scores in zip(rows, made.logprobs(rows)):
        table_LV = nn.log_softmax(made.model(mx.array([row[:-1]])))[0]
        plain = [table_LV[i, id].item() for i, id in enumerate(row[1:])]
        assert scores == pytest.approx(plain, abs=1e-4)
    config = SampleConfig(temperature=0, max_tokens=5)
    pieces = list(made.generate([1, 2], config, stop_ids=(), logprobs=True))
    ids = [1, 2, *(p.token for p in pieces)]
    assert made.logprobs([ids])[0][1:] == pytest.approx([p.logprob for p in pieces], abs=1e-4)
    with pytest.raises(Exception, match="2 to 49"):
        made.logprobs([list(range(50))])


WINDOWED: dict[str, Any] = {"window": 9, "sinks": 3, "temperature": 0.0}


def test_sinks_let_text_outgrow_the_context_and_rows_are_as_if_alone() -> None:
    made = _engine("llama")  # a context of 48
    prompts = _prompts(5, 70)
    config = SampleConfig(max_tokens=60, **WINDOWED)
    together = made.generate_batch(prompts, config, stop_ids=())
    assert [(len(a.ids), a.finish_reason) for a in together] == [(60, "length")] * 5
    for prompt, answer in zip(prompts, together):
        alone = [piece.token for piece in made.generate(prompt, config, stop_ids=())]
        assert alone == answer.ids
    short = prompts[0][:5]
    plain = SampleConfig(max_tokens=7, temperature=0.0)
    few = SampleConfig(max_tokens=7, **WINDOWED)
    same = [[p.token for p in made.generate(short, c, stop_ids=())] for c in (plain, few)]
    assert same[0] == same[1], "sinks and window hold the whole text"


def test_sinks_are_refused_before_anything_is_written() -> None:
    with pytest.raises(ConfigError, match="position 'learned' adds positions"):
        _engine("gpt2").generate([1, 2], SampleConfig(**WINDOWED))
    with pytest.raises(
        ConfigError, match="--sinks 3 and --window 60 are 63 places, the model's context only"
    ):
        _engine("llama").generate([1, 2], SampleConfig(sinks=3, window=60))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"sinks": 2}, "'sinks' means nothing without 'window'"),
        ({"sinks": 0, "window": 5}, "'sinks' must be at least 1, got 0"),
        ({"window": -1}, "'window' must not be negative, got -1"),
    ]
    for wrong, sentence in refused:
        with pytest.raises(ConfigError, match=sentence):
            SampleConfig(**wrong)
