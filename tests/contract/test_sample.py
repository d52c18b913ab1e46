"""Every sampling rule: its shape, its neutral value, its place in the config, and what it may change."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tinygpt.core.backend import mx
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.sampler import KNOBS, ORDER, RULES, History, uniform

# Values that do something, for each rule, in the order of its knobs.
STRONG: dict[str, tuple[float, ...]] = {
    "temperature": (0.5,), "top_k": (3,), "top_p": (0.6,), "min_p": (0.2,), "repetition_penalty": (1.5,),
    "presence_penalty": (0.7,), "frequency_penalty": (0.4,), "typical_p": (0.5,), "top_n_sigma": (1.0,),
    "xtc": (1.0, 0.1),
}  # fmt: skip
# Rules that may send away the likeliest token.
BOLD = ("typical_p", "xtc")
PROMPTS, SEEDS = [[1, 2], [3], [4, 4]], [8, 9, 10]


@pytest.fixture
def logits_BV() -> mx.array:
    return mx.random.normal((3, 11), key=mx.random.key(4)) * 2


@pytest.fixture
def history() -> History:
    found = History(PROMPTS, 11, seeds=SEEDS)
    found.add(mx.array([5, 5, 6]))
    found.add(mx.array([5, 7, 1]))
    return found


def test_every_rule_has_a_config_field_and_an_order() -> None:
    assert set(ORDER) == set(RULES.names()) == set(STRONG)
    assert {name: len(knobs) for name, knobs in KNOBS.items()} == {n: len(v) for n, v in STRONG.items()}
    assert ORDER.index("frequency_penalty") < ORDER.index("temperature") < ORDER.index("min_p")


@pytest.mark.parametrize("name", RULES.names())
def test_neutral_value_changes_nothing(name: str, logits_BV: mx.array, history: History) -> None:
    rule = RULES.load(name)
    assert name == "temperature" or getattr(SampleConfig(), KNOBS[name][0]) == rule.NEUTRAL
    # 0 means off there: log 0 and the 0-th largest are not numbers, and 0 deviations leave the largest alone.
    if name not in ("top_k", "min_p", "top_n_sigma"):
        assert mx.allclose(rule.apply(logits_BV, history, rule.NEUTRAL, *STRONG[name][1:]), logits_BV)


@pytest.mark.parametrize("name", RULES.names())
def test_batch_equals_rows_and_the_best_token_stays_possible(
    name: str, logits_BV: mx.array, history: History
) -> None:
    rule = RULES.load(name)
    out_BV = rule.apply(logits_BV, history, *STRONG[name])
    assert out_BV.shape == logits_BV.shape and not mx.array_equal(out_BV, logits_BV)
    for row in range(3):
        one = slice(row, row + 1)
        alone = History(PROMPTS[one], 11, [[[5, 5], [5, 7], [6, 1]][row]], SEEDS[one])
        assert mx.array_equal(alone.counts_BV, history.counts_BV[one])
        assert mx.allclose(rule.apply(logits_BV[one], alone, *STRONG[name]), out_BV[one])
    values = [mx.array([[value]] * 3) for value in STRONG[name]]  # one for each row
    assert mx.allclose(rule.apply(logits_BV, history, *values), out_BV)
    assert mx.isfinite(out_BV.max(axis=-1)).all()
    if name in ORDER[ORDER.index("temperature") :] and name not in BOLD:
        assert mx.array_equal(out_BV.argmax(-1), logits_BV.argmax(-1))


@pytest.mark.parametrize("name", ORDER[ORDER.index("top_k") :])
def test_what_stays_keeps_its_logit(name: str, logits_BV: mx.array, history: History) -> None:
    out_BV = RULES.load(name).apply(logits_BV, history, *STRONG[name])
    kept = out_BV > -mx.inf
    assert 0 < kept.sum().item() < logits_BV.size
    assert mx.array_equal(mx.where(kept, out_BV, 0), mx.where(kept, logits_BV, 0))


def test_rules_on_numbers_worked_out_by_hand() -> None:
    p_BV = mx.array([[0.5, 0.25, 0.15, 0.1]])
    z_BV = mx.log(p_BV)

    def kept(name: str, *values: float) -> list[int]:
        out_BV = RULES.load(name).apply(z_BV, History([[0]], 4, seeds=[3]), *values)
        return [i for i, z in enumerate(out_BV[0].tolist()) if z > -math.inf]

    assert kept("top_k", 2) == [0, 1]
    assert kept("top_k", 9) == [0, 1, 2, 3]
    assert kept("top_p", 0.6) == [0, 1]
    assert kept("top_p", 0.0) == [0]
    assert kept("min_p", 0.29) == [0, 1, 2]
    assert kept("min_p", 1.0) == [0]
    # H = 1.208; the surprises 0.69, 1.39, 1.90, 2.30 are 0.51, 0.18, 0.69, 1.09 away.
    assert kept("typical_p", 0.0) == [1]
    assert kept("typical_p", 0.3) == [0, 1]
    assert kept("typical_p", 0.8) == [0, 1, 2]
    assert kept("xtc", 1.0, 0.12) == [2, 3]
    assert kept("xtc", 1.0, 0.3) == kept("xtc", 1.0, 0.5) == [0, 1, 2, 3]  # fewer than two reach it
    assert kept("top_n_sigma", 1.0) == [0]  # sigma is 0.598, and the next one 0.693 away
    assert kept("top_n_sigma", 1.2) == [0, 1]
    history = History([[0]], 4)
    history.add(mx.array([2]))
    history.add(mx.array([2]))
    x_BV = mx.array([[2.0, 1.0, -1.0, 3.0]])

    def penalised(name: str, value: float) -> list[float]:
        return RULES.load(name).apply(x_BV, history, value)[0].tolist()

    assert penalised("repetition_penalty", 2.0) == [1.0, 1.0, -2.0, 3.0]
    assert penalised("presence_penalty", 0.5) == [2.0, 1.0, -1.5, 3.0]
    assert penalised("frequency_penalty", 0.5) == [2.0, 1.0, -2.0, 3.0]


def test_xtc_acts_where_the_draw_of_the_row_says() -> None:
    rule, z_BV = RULES.load("xtc"), mx.log(mx.array([[0.5, 0.25, 0.15, 0.1]] * 40))
    for step in range(2):
        history = History([[0]] * 40, 4, [[1] * step] * 40, range(40), counts=False)
        acted = [row[0] == -math.inf for row in rule.apply(z_BV, history, 0.4, 0.1).tolist()]
        assert acted == [uniform(seed, step, "xtc") < 0.4 for seed in range(40)]
        assert acted != [uniform(seed, step) < 0.4 for seed in range(40)], "the token has a draw of its own"


def test_sigma_leaves_out_what_may_not_come() -> None:
    rule, z = RULES.load("top_n_sigma"), [2.0, 1.0, -1.0, 0.5]
    out_BV = rule.apply(mx.array([[*z, -math.inf]]), None, 0.8)
    assert mx.array_equal(out_BV[:, :4], rule.apply(mx.array([z]), None, 0.8))


def test_every_rule_file_says_its_paper_and_what_differs() -> None:
    for name in RULES.names():
        found = RULES.describe(name)
        assert found.summary and found.body and found.paper and found.differs, name
    assert {f.name for f in dataclasses.fields(SampleConfig)} >= {k for ks in KNOBS.values() for k in ks}
