"""Every sampling rule: its shape, its neutral value, its place in the config, and what it may change."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tinygpt.core.backend import mx
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.sampler import ORDER, RULES, History

# A value that does something, for each rule.
STRONG = {
    "temperature": 0.5, "top_k": 3, "top_p": 0.6, "min_p": 0.2, "repetition_penalty": 1.5,
    "presence_penalty": 0.7, "frequency_penalty": 0.4,
}  # fmt: skip


@pytest.fixture
def logits_BV() -> mx.array:
    return mx.random.normal((3, 11), key=mx.random.key(4)) * 2


@pytest.fixture
def history() -> History:
    found = History([[1, 2], [3], [4, 4]], 11)
    found.add(mx.array([5, 5, 6]))
    found.add(mx.array([5, 7, 1]))
    return found


def test_every_rule_has_a_config_field_and_an_order() -> None:
    assert set(ORDER) == set(RULES.names()) == set(STRONG)
    assert ORDER.index("frequency_penalty") < ORDER.index("temperature") < ORDER.index("min_p")


@pytest.mark.parametrize("name", RULES.names())
def test_neutral_value_changes_nothing(name: str, logits_BV: mx.array, history: History) -> None:
    rule = RULES.load(name)
    assert name == "temperature" or getattr(SampleConfig(), name) == rule.NEUTRAL
    if name not in ("top_k", "min_p"):  # 0 means off there, and log 0 and the 0-th largest are not numbers
        assert mx.allclose(rule.apply(logits_BV, history, rule.NEUTRAL), logits_BV)


@pytest.mark.parametrize("name", RULES.names())
def test_batch_equals_rows_and_the_best_token_stays_possible(
    name: str, logits_BV: mx.array, history: History
) -> None:
    rule = RULES.load(name)
    out_BV = rule.apply(logits_BV, history, STRONG[name])
    assert out_BV.shape == logits_BV.shape and not mx.array_equal(out_BV, logits_BV)
    for row in range(3):
        alone = History([[1, 2], [3], [4, 4]][row : row + 1], 11)
        alone.counts_BV = history.counts_BV[row : row + 1]
        assert mx.allclose(rule.apply(logits_BV[row : row + 1], alone, STRONG[name]), out_BV[row : row + 1])
    assert mx.isfinite(out_BV.max(axis=-1)).all()
    if name in ORDER[ORDER.index("temperature") :]:
        assert mx.array_equal(out_BV.argmax(-1), logits_BV.argmax(-1))


@pytest.mark.parametrize("name", ORDER[ORDER.index("top_k") :])
def test_what_stays_keeps_its_logit(name: str, logits_BV: mx.array) -> None:
    out_BV = RULES.load(name).apply(logits_BV, None, STRONG[name])
    kept = out_BV > -mx.inf
    assert 0 < kept.sum().item() < logits_BV.size
    assert mx.array_equal(mx.where(kept, out_BV, 0), mx.where(kept, logits_BV, 0))


def test_rules_on_numbers_worked_out_by_hand() -> None:
    p_BV = mx.array([[0.5, 0.25, 0.15, 0.1]])
    z_BV = mx.log(p_BV)

    def kept(name: str, value: float) -> list[int]:
        return [
            i for i, z in enumerate(RULES.load(name).apply(z_BV, None, value)[0].tolist()) if z > -math.inf
        ]

    assert kept("top_k", 2) == [0, 1]
    assert kept("top_k", 9) == [0, 1, 2, 3]
    assert kept("top_p", 0.6) == [0, 1]
    assert kept("top_p", 0.0) == [0]
    assert kept("min_p", 0.29) == [0, 1, 2]
    assert kept("min_p", 1.0) == [0]
    history = History([[0]], 4)
    history.add(mx.array([2]))
    history.add(mx.array([2]))
    x_BV = mx.array([[2.0, 1.0, -1.0, 3.0]])

    def penalised(name: str, value: float) -> list[float]:
        return RULES.load(name).apply(x_BV, history, value)[0].tolist()

    assert penalised("repetition_penalty", 2.0) == [1.0, 1.0, -2.0, 3.0]
    assert penalised("presence_penalty", 0.5) == [2.0, 1.0, -1.5, 3.0]
    assert penalised("frequency_penalty", 0.5) == [2.0, 1.0, -2.0, 3.0]


def test_every_rule_file_says_its_paper_and_what_differs() -> None:
    for name in RULES.names():
        found = RULES.describe(name)
        assert found.summary and found.body and found.paper and found.differs, name
    assert {f.name for f in dataclasses.fields(SampleConfig)} >= set(RULES.names())
