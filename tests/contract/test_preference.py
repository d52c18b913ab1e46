"""What every preference loss promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.data.batch import PairBatch
from tinygpt.model.lm import LM
from tinygpt.train.optim import sgd
from tinygpt.train.preference import _objective, dpo, kto
from tinygpt.train.preference._scores import Labelled, Pairs, log_odds
from tinygpt.train.update import Gradient, arrays

LOSSES = Family("tinygpt.train.preference", verb="losses")
Numbers = dict[str, np.ndarray]
# Other knobs than the defaults, so that each is in some formula.
KNOBS: dict[str, list[dict[str, Any]]] = {
    "dpo": [
        {},
        {"beta": 0.4, "label_smoothing": 0.2},
        {"label_smoothing": 0.3, "robust": True},
        {"alpha": 0.7},
    ],
    "ipo": [{}, {"beta": 0.3, "mean": False}],
    "simpo": [{}, {"beta": 2.5, "gamma": 0.3}],
    "orpo": [{}, {"odds": 0.7}],
    "cpo": [{}, {"beta": 0.3, "alpha": 0.5}],
    "kto": [{}, {"beta": 0.5, "desirable": 1.3, "undesirable": 0.6}],
}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def in_numpy(name: str, s: Numbers, c: Any) -> np.ndarray:
    """The loss of every row as its paper writes it, in float64; a new loss adds its own."""
    w, l = s["chosen"] - s["ref_chosen"], s["rejected"] - s["ref_rejected"]
    mean_w, mean_l = s["chosen"] / s["n_chosen"], s["rejected"] / s["n_rejected"]
    if name == "dpo":
        z, e = c.beta * (w - l), c.label_smoothing
        right, wrong = -np.log(sigmoid(z)), -np.log(sigmoid(-z))
        found = ((1 - e) * right - e * wrong) / (1 - 2 * e) if c.robust else (1 - e) * right + e * wrong
        return found - c.alpha * mean_w
    if name == "ipo":
        h = w / s["n_chosen"] - l / s["n_rejected"] if c.mean else w - l
        return (h - 1 / (2 * c.beta)) ** 2
    if name == "simpo":
        return -np.log(sigmoid(c.beta * mean_w - c.beta * mean_l - c.gamma))
    if name == "orpo":
        odds_w, odds_l = (np.exp(m) / (1 - np.exp(m)) for m in (mean_w, mean_l))
        return -mean_w - c.odds * np.log(sigmoid(np.log(odds_w / odds_l)))
    if name == "cpo":
        return -np.log(sigmoid(c.beta * s["chosen"] - c.beta * s["rejected"])) - c.alpha * mean_w
    z0 = max(0.0, float(np.mean(s["other"] - s["ref_other"])))
    good = c.desirable * (1 - sigmoid(c.beta * (w - z0)))
    return np.where(s["good"] > 0, good, c.undesirable * (1 - sigmoid(c.beta * (z0 - w))))


def drawn(n: int = 7) -> Numbers:
    """Sums of log p and lengths of n rows, with the answer to another prompt for KTO."""
    g = np.random.default_rng(3)
    found = {name: -g.uniform(0.5, 40, n) for name in ("chosen", "rejected", "other")}
    found |= {f"ref_{name}": found[name] + g.normal(-1, 4, n) for name in tuple(found)}
    found |= {name: g.integers(2, 20, n).astype(float) for name in ("n_chosen", "n_rejected")}
    return found | {"good": (np.arange(n) % 3 > 0).astype(float)}


def scores(name: str, s: Numbers) -> Pairs | Labelled:
    a = {key: mx.array(value.astype(np.float32)) for key, value in s.items()}
    if LOSSES.config(name).paired:
        return Pairs(*(a[key] for key in Pairs._fields))
    return Labelled(a["chosen"], a["ref_chosen"], a["good"], (a["other"] - a["ref_other"]).mean())


CASES = [(name, knobs) for name in LOSSES.names() for knobs in KNOBS[name]]


@pytest.mark.parametrize(("name", "knobs"), CASES, ids=str)
def test_equals_the_papers_formula(name: str, knobs: dict[str, Any]) -> None:
    config, s = LOSSES.config(name)(**knobs), drawn()
    found, facts = LOSSES.load(name).losses(scores(name, s), config)
    assert found.shape == (7,) and all(value.shape == (7,) for value in facts.values())
    nano.close(found, in_numpy(name, s, config), 1e-5)


def pair_batch(rows: int = 4, width: int = 12) -> PairBatch:
    """Rows of two answers of unequal lengths after prompts of 3; the last row is padding."""
    real = [[12, 7], [5, 12], [9, 9], [4, 6]]
    parts = [nano.batch(rows, width, seed=k, real=[r[k] for r in real], prompt=3) for k in (0, 1)]
    joined = {
        name: np.concatenate([getattr(parts[0], name), getattr(parts[1], name)], axis=1)
        for name in ("tokens", "targets", "weights", "positions", "segments")
    }
    joined["segments"][:, width:] *= 2
    reference = np.random.default_rng(5).normal(-35, 6, (rows, 2)).astype(np.float32)
    return PairBatch(**joined, reference=reference, good=np.array([1, 0, 0, 1], np.float32))


@pytest.fixture
def model() -> LM:
    return nano.model(initializer_range=0.1)


@pytest.fixture(params=LOSSES.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def over(name: str, model: LM, **knobs: Any) -> _objective.Preference:
    return _objective.over(model, LOSSES.load(name).losses, LOSSES.config(name)(**knobs))


def seen(model: LM, batch: PairBatch) -> Numbers:
    """The same numbers from logits, each answer read alone and without padding."""
    half = batch.tokens.shape[1] // 2
    found: dict[str, list[float]] = {"chosen": [], "n_chosen": [], "rejected": [], "n_rejected": []}
    for b in range(len(batch.tokens)):
        for key, at in (("chosen", 0), ("rejected", half)):
            n = int((batch.segments[b, at : at + half] > 0).sum())
            logits = np.array(model(mx.array(batch.tokens[b : b + 1, at : at + n])), np.float64)[0]
            log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            learned = batch.weights[b, at : at + n] > 0
            found[key].append(log_p[np.arange(n), batch.targets[b, at : at + n]][learned].sum())
            found[f"n_{key}"].append(learned.sum())
    s = {key: np.array(value, np.float64) for key, value in found.items()}
    s |= {"ref_chosen": batch.reference[:, 0], "ref_rejected": batch.reference[:, 1], "good": batch.good}
    return s | {"other": s["rejected"], "ref_other": s["ref_rejected"]}


def test_a_batch_goes_by_its_answers_alone(name: str, model: LM) -> None:
    """Lengths are those of answers, not of prompts, and nothing is seen across the two."""
    objective, batch = over(name, model), pair_batch()
    value, facts = objective.loss(arrays(batch))
    expected = in_numpy(name, seen(model, batch), objective.config)
    assert value.item() == pytest.approx(expected.mean(), rel=2e-5)
    assert objective.measure(arrays(batch)).item() == pytest.approx(value.item(), rel=1e-6)
    assert all(v.shape == () and np.isfinite(v.item()) for v in facts.values())


def test_masked_tokens_change_nothing(name: str, model: LM) -> None:
    objective, batch = over(name, model), pair_batch()
    silent = batch.weights == 0
    other = replace(
        batch,
        tokens=np.where(batch.segments == 0, 9, batch.tokens).astype(np.int32),
        targets=np.where(silent, 5, batch.targets).astype(np.int32),
    )
    assert silent.any()
    first, second = (objective.loss(arrays(b))[0].item() for b in (batch, other))
    assert second == pytest.approx(first, rel=1e-6)


def test_rows_without_answers_count_nothing(name: str, model: LM) -> None:
    objective, batch = over(name, model), pair_batch()
    padding = replace(batch, weights=batch.weights * np.array([[1], [1], [0], [1]], np.float32))
    kept = PairBatch(**{key: value[[0, 1, 3]] for key, value in batch.__dict__.items()})
    for a, b in zip(objective.loss(arrays(padding)), objective.loss(arrays(kept))):
        a, b = ({"loss": x} if isinstance(x, mx.array) else x for x in (a, b))
        for key in b:
            assert a[key].item() == pytest.approx(b[key].item(), rel=1e-5), key


def step(objective: Any, batch: PairBatch, **how: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """What a step tells and makes of the weights; sums of gradients are the same but for their order."""
    update = Gradient(objective, sgd.build(sgd.Config()), lambda step: 0.1, clip=0, **how)
    facts = update.step(batch, 1)
    return facts, {key: np.array(value) for key, value in update.weights.items()}


def test_parts_of_a_batch_are_the_batch(name: str) -> None:
    """A pair is never torn apart, figures are by pair, and KTO's KL is that of the whole batch."""
    model = nano.model(initializer_range=0.1, num_hidden_layers=1)
    before, batch = nano.flat(model), pair_batch()
    whole, weights = step(over(name, model), batch, compiled=False)
    model = nano.model(initializer_range=0.1, num_hidden_layers=1)
    parts, split = step(over(name, model), batch, compiled=False, accumulate=4)
    for key, value in whole.items():
        assert parts[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    moved = max(np.abs(weights[key] - before[key]).max() for key in weights)
    worst = max(np.abs(weights[key] - split[key]).max() for key in weights)
    assert moved > 1e-5 and worst < 1e-3 * moved


def test_figures_are_by_pair() -> None:
    """The accuracy counts pairs: comparing the means of a batch would say 1 or 0."""
    s = {key: np.array(value, np.float32) for key, value in {
        "chosen": [-1, -9, -1], "rejected": [-2, -3, -9], "n_chosen": [1, 1, 1], "n_rejected": [1, 1, 1],
        "ref_chosen": [0, 0, 0], "ref_rejected": [0, 0, 0],
    }.items()}  # fmt: skip
    _, facts = dpo.losses(scores("dpo", s | {"good": s["chosen"]}), dpo.Config())
    assert facts["accuracy"].tolist() == [1, 0, 1]
    nano.close(facts["margin"], [0.1, -0.6, 0.8], 1e-5)


def test_figures_of_unpaired_rows_are_of_those_they_are_about(model: LM) -> None:
    objective, batch = over("kto", model), pair_batch()
    _, facts = objective.loss(arrays(batch))
    s = seen(model, batch)
    ratio = 0.1 * (s["chosen"] - s["ref_chosen"])
    assert facts["chosen_reward"].item() == pytest.approx(ratio[batch.good > 0].mean(), rel=1e-4)
    assert facts["rejected_reward"].item() == pytest.approx(ratio[batch.good == 0].mean(), rel=1e-4)
    total = {key: (value.item(), n.item()) for key, (value, n) in objective.report(arrays(batch)).items()}
    assert total["chosen_reward"][1] == 2 and total["loss"][1] == 4


def test_the_reference_point_has_no_gradient_and_is_not_negative() -> None:
    def value(kl: float) -> mx.array:
        one = mx.array([1.0])
        found, _ = kto.losses(Labelled(one, 0 * one, one, mx.array(kl)), kto.Config())
        return found.sum()

    assert value(-3.0).item() == value(0.0).item()
    gradient: Callable[[mx.array], mx.array] = mx.grad(
        lambda kl: kto.losses(Labelled(mx.array([1.0]), mx.array([0.0]), mx.array([1.0]), kl), kto.Config())[
            0
        ].sum()
    )
    assert gradient(mx.array(1.0)).item() == 0


def test_odds_of_sure_and_of_hopeless_answers_are_finite() -> None:
    means = mx.array([0.0, -1e-7, -0.6931, -0.7, -30.0, -300.0])
    value, slope = mx.vjp(log_odds, [means], [mx.ones(6)])
    assert np.isfinite(np.array(value[0])).all() and np.isfinite(np.array(slope[0])).all()
    exact = [float(np.log(np.exp(m) / -np.expm1(m))) for m in (-0.6931, -0.7, -30.0)]
    nano.close(value[0][2:5], exact, 1e-5)


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("dpo", {"beta": 0.0}, "beta must be positive"),
        ("dpo", {"label_smoothing": 0.5}, "below 0.5"),
        ("dpo", {"robust": True}, "label_smoothing"),
        ("simpo", {"gamma": -1.0}, "gamma"),
        ("orpo", {"odds": -0.1}, "odds"),
        ("cpo", {"alpha": -1.0}, "alpha"),
        ("kto", {"desirable": -1.0}, "desirable"),
    ],
)
def test_knobs_that_mean_nothing_are_refused(name: str, knobs: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LOSSES.config(name)(**knobs)
