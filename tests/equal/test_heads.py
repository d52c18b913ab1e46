"""Heads guess at the offset they learned: on a source of known law they are right as often as can be."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.cli._render import Output
from tinygpt.cli.tune import train_heads
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.batch import Batch
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.infer.speculate import eagle, medusa
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features
from tinygpt.model.lm import LM, initialize
from tinygpt.model.noise import Noise, row_keys
from tinygpt.runs import _pieces, heads
from tinygpt.runs._drafters import Drafters, Speculation
from tinygpt.runs._held_out import held_out_loss
from tinygpt.train.heads import HeadsLoss
from tinygpt.train.loop import Plan, Result, fit
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

STATES, STAY, JUMP = 16, 0.9, 5
"""The source: after state s comes s + 1 with probability STAY, else s + JUMP."""


def _source() -> LM:
    """A model that is this source: its last hidden state names the token, its output matrix has the law."""
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=False
    )
    model = initialize(LM(config), 0)
    names = np.zeros((260, 32), np.float32)
    names[:, 31] = 1.0
    names[np.arange(STATES), np.arange(STATES)] = 1.0
    law = np.full((260, 32), 0.0, np.float32)
    law[:, 31] = -30.0
    for s in range(STATES):
        law[:STATES, s], law[s, 31] = -30.0, 0.0
        law[(s + 1) % STATES, s], law[(s + JUMP) % STATES, s] = np.log(STAY), np.log(1 - STAY)
    model.model.embed_tokens.weight = mx.array(names)
    model.lm_head.weight = mx.array(law / 4.0)  # the norm makes one 1 / sqrt(2 / 32) = 4
    layer = model.model.layers[0]
    layer.self_attn.o_proj.weight = layer.self_attn.o_proj.weight * 0
    layer.mlp.down_proj.weight = layer.mlp.down_proj.weight * 0
    return model


def _walk(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    steps = np.where(rng.random((rows, length)) < STAY, 1, JUMP)
    return ((rng.integers(0, STATES, (rows, 1)) + np.cumsum(steps, axis=1)) % STATES).astype(np.int32)


class Rows:
    """Batch i is a pure function of i."""

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Batch:
        ids = _walk(np.random.default_rng(self.first + i), 8, 65)
        shape = ids[:, 1:].shape
        return Batch(
            tokens=ids[:, :-1], targets=ids[:, 1:], weights=np.ones(shape, np.float32),
            positions=np.broadcast_to(np.arange(64, dtype=np.int32), shape).copy(),
            segments=np.ones(shape, np.int32),
        )  # fmt: skip


def _trained(kind: Any, steps: int, noise: float = 0.0) -> tuple[Any, Features, dict[str, float]]:
    features = Features(_source())
    scales = features.scales(mx.array(Rows()[0].tokens))
    facts = stored.Facts(
        kind=kind, width=32, hidden=64, vocab_size=260, horizons=2 if kind == "medusa" else 1,
        feature_scale=scales[0], embedding_scale=scales[1],
    )  # fmt: skip
    made = stored.build(facts, 3)
    made.noise = Noise(features=noise)
    objective = HeadsLoss(made, features)
    before = held_out_loss(objective, Rows(10_000), 4)(0)
    update = Gradient(
        objective, adamw.build(adamw.Config(weight_decay=0.0)), lambda step: 2e-2 * (1.01 - step / steps)
    )
    fit(Rows(), update, Plan(steps=steps), Events(MemorySink()))
    found = held_out_loss(objective, Rows(10_000), 4)(steps)
    assert found["loss"] < 0.5 * before["loss"], (before, found)
    return made, features, found


def test_medusas_guesses_are_as_good_as_the_source_allows() -> None:
    made, features, found = _trained("medusa", 120)
    # The best guess is the way without a jump. The model's own choice is the same where no jump came before.
    assert found["accept_1"] == pytest.approx(STAY, abs=0.03)
    assert found["sampled_1"] == pytest.approx(STAY**2, abs=0.03)
    assert found["accept_2"] == pytest.approx(STAY**2, abs=0.04)
    assert found["sampled_2"] == pytest.approx(STAY**3, abs=0.04)
    engine = Engine(features.model, ByteTokenizer())
    rate = _decoded(engine, medusa.build(engine, medusa.Config(tokens=2, width=1), heads=made))
    assert rate == pytest.approx(_ideal(2), abs=0.05)
    made.into.reverse()  # heads used one place from where they learned
    made.out.reverse()
    off = _decoded(engine, medusa.build(engine, medusa.Config(tokens=2, width=1), heads=made))
    assert off < 0.3 * rate


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_eagles_guesses_are_as_good_as_the_source_allows(noise: float) -> None:
    made, features, found = _trained("eagle", 100, noise)
    assert found["accept_1"] > 0.97  # it knows the next token, so the one after has one likeliest value
    assert found["sampled_1"] == pytest.approx(STAY, abs=0.03)
    engine = Engine(features.model, ByteTokenizer())
    way = eagle.build(engine, eagle.Config(tokens=1, depth=1, width=1), heads=made)
    assert _decoded(engine, way) == pytest.approx(found["sampled_1"], abs=0.04)  # what training said of it
    way = eagle.build(engine, eagle.Config(tokens=2, depth=2, width=1), heads=made)
    assert _decoded(engine, way) == pytest.approx(_ideal(2, knows_next=True), abs=0.05)


def test_eagle_reads_noisy_features_in_training_alone() -> None:
    """Li et al.: U(-0.1, 0.1) on what is read; what is aimed at stays, and so does what is measured."""
    features, sizes = (
        Features(_source()),
        {"width": 32, "hidden": 64, "vocab_size": 260, "feature_scale": 0.3},
    )
    made: Any = stored.build(stored.Facts(kind="eagle", **sizes), 3)
    objective, batch = HeadsLoss(made, features), arrays(Rows()[0])
    clean = objective.loss(batch)[0].item()
    made.noise = heads.Config(base=Path("m"), out=Path("o"), corpus=(), type="eagle").noise
    keyed = batch | {"keys": row_keys(1, 2, 8)}
    assert objective.measure(keyed).item() == pytest.approx(clean, rel=1e-6)
    seen: list[Any] = []
    real = type(made).__call__

    def spy(self: Any, features_BLD: Any, *given: Any, **how: Any) -> Any:
        seen.append(np.array(features_BLD))
        return real(self, features_BLD, *given, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made), "__call__", spy)
        noisy = objective.loss(keyed)[0].item()
    off = (seen[0] - np.array(features.of(batch["tokens"]))) / 0.3
    assert noisy != clean and 0.099 < np.abs(off).max() < 0.1001 and abs(off.std() - 0.1 / 3**0.5) < 1e-3
    assert not heads.Config(base=Path("m"), out=Path("o"), corpus=()).noise
    with pytest.raises(ConfigError, match="--feature-noise is EAGLE's"):
        heads.Config(base=Path("m"), out=Path("o"), corpus=(), feature_noise=0.1)


def _decoded(engine: Engine, drafter: Any) -> float:
    """Guesses a pass that were right, over texts drawn from the model."""
    lane = Lane(engine, drafter=drafter)
    for seed in range(12):
        config = SampleConfig(temperature=1.0, seed=seed, max_tokens=120)
        lane.submit(engine.request([seed, seed + 1], config, stop_ids=()))
    lane.drain()
    return drafter.told.accepted / drafter.told.passes


def _ideal(k: int, *, knows_next: bool = False) -> float:
    """The same of one who guesses as well as can be: from the last passed token, or from the one after it."""
    rng, accepted, passes = random.Random(1), 0, 0

    def follows(s: int) -> int:
        return (s + (1 if rng.random() < STAY else JUMP)) % STATES

    passed, known = 0, follows(0)
    for _ in range(40_000):
        start = known if knows_next else passed + 1
        guesses = [(start + i) % STATES for i in range(1, k + 1)]
        passes += 1
        passed, known = known, follows(known)
        for guess in guesses:
            if known != guess:
                break
            accepted += 1
            passed, known = known, follows(known)
    return accepted / passes


@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_a_stopped_run_goes_on_bit_for_bit_and_its_heads_guess(tmp_path: Path, kind: Any) -> None:
    tokenizer, corpus = ByteTokenizer(), tmp_path / "text.txt"
    corpus.write_text("she sells sea shells by the sea shore. " * 60)
    base = tmp_path / "base"
    lm = nano.model(vocab_size=260)
    before = nano.flat(lm)
    checkpoint.save(base, lm, write_tokenizer=tokenizer.save, ids=_pieces.ids(tokenizer))
    found = []
    for name in ("straight", "stopped"):
        config = heads.Config(
            base=base, type=kind, corpus=(corpus,), out=tmp_path / name, steps=4, batch=2, context=32,
            save_every=2, seed=1, lock=False, held_out=0.2,
        )  # fmt: skip
        result = heads.run(config, Events(MemorySink()))
        if name == "stopped":
            for gone in ("final", "steps/000004"):
                shutil.rmtree(config.out / gone)
            result = heads.run(replace(config, resume=True), Events(MemorySink()))
        assert result.status == "done" and 0 <= result.metrics["accept_1"] <= 1
        found.append(nano.flat(stored.load(config.out / "final", base=base)))
    assert all(np.array_equal(found[0][n], found[1][n]) for n in found[0])
    engine = Engine(checkpoint.load(base).model, tokenizer)
    assert all(np.array_equal(before[n], value) for n, value in nano.flat(engine.model).items())
    chosen = Speculation(heads=tmp_path / "straight", draft_tokens=3)
    plain = [p.token for p in engine.generate([1, 2], SampleConfig(seed=1, max_tokens=12), stop_ids=())]
    engine.drafter = Drafters(chosen, base)(engine)
    assert engine.drafter is not None and engine.drafter.most == 3
    again = [p.token for p in engine.generate([1, 2], SampleConfig(seed=1, max_tokens=12), stop_ids=())]
    assert again == plain and engine.drafter.told.drafted


def test_what_to_try_wears_what_the_base_wore(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Result(step=1, status="done", seconds=1.0, metrics={})
    monkeypatch.setattr(train_heads, "run", lambda config, events: done)
    config = heads.Config(base=Path("m"), corpus=(Path("c"),), out=Path("o"), adapter=(Path("a"),))
    train_heads.call(config, Output(json=False, quiet=True))
    assert "try: tinygpt sample m --adapter=a --heads o/final" in capsys.readouterr().out


def test_two_ways_to_guess_are_one_too_many() -> None:
    for settings in ({"speculate": "ngram", "heads": Path("x")}, {"draft_tokens": 3}, {"force_heads": True}):
        with pytest.raises(ConfigError):
            Speculation(**settings)


def test_heads_are_kept_with_the_identity_of_their_model(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    checkpoint.save(base, nano.model())
    checkpoint.save(other, nano.model(seed=1))
    for kind in ("medusa", "eagle"):
        facts = stored.Facts(kind=kind, width=32, hidden=32, vocab_size=64, horizons=2, feature_scale=1.5)  # type: ignore[arg-type]
        made = stored.build(facts, 1)
        path = stored.save(tmp_path / kind, made, base=base, step=3)
        again = stored.load(path, base=base)
        assert again.facts == facts
        assert all(np.array_equal(value, nano.flat(again)[name]) for name, value in nano.flat(made).items())
        with pytest.raises(CheckpointError, match="trained on other weights.*--force-heads"):
            stored.load(path, base=other)
        stored.load(path, base=other, force=True)
    with pytest.raises(CheckpointError, match="holds no heads but a model"):
        stored.load(base)
