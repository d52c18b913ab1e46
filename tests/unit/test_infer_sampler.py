"""Drawing tokens: keyed, in proportion, never a token that a rule removed."""

from __future__ import annotations

from collections import Counter

import pytest

from tinygpt.core.backend import mx
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.sampler import Sampler, draw, uniform


def test_uniform_is_a_function_of_seed_and_step() -> None:
    assert uniform(1, 2) == uniform(1, 2) != uniform(2, 1)
    draws = [uniform(seed, step) for seed in range(40) for step in range(50)]
    assert all(0 <= u < 1 for u in draws)
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.02)
    # Neighbouring seeds share nothing: no stream is another one shifted.
    assert len(set(draws)) == len(draws)
    assert uniform(0, 0) == pytest.approx(0.37433815002441406)  # fixed: old seeds must keep their texts


def test_draws_follow_the_probabilities() -> None:
    p = [0.5, 0.3, 0.0, 0.2]
    n = 2000
    logits_BV = mx.broadcast_to(mx.log(mx.array(p)), (n, 4))
    counts = Counter(draw(logits_BV, mx.array([(i + 0.5) / n for i in range(n)])).tolist())
    assert [counts[i] / n for i in range(4)] == pytest.approx(p, abs=2 / n)


def test_the_ends_of_the_range_never_pick_a_removed_token() -> None:
    logits_BV = mx.array([[-mx.inf, 0.3, -0.2, -mx.inf]] * 2)
    assert draw(logits_BV, mx.array([0.0, 1 - 2**-23])).tolist() == [1, 2]


def test_rows_draw_as_if_they_were_alone() -> None:
    config = SampleConfig(temperature=1.3, top_k=6, repetition_penalty=1.2, frequency_penalty=0.3)
    prompts, seeds = [[1, 2], [3], [3]], [11, 12, 11]
    together = Sampler(config, seeds, prompts, 9)
    alone = [Sampler(config, [s], [p], 9) for s, p in zip(seeds, prompts)]
    for step in range(6):
        logits_BV = mx.random.normal((3, 9), key=mx.random.key(step))
        expected = [one(logits_BV[i : i + 1], step).item() for i, one in enumerate(alone)]
        assert together(logits_BV, step).tolist() == expected
    together.select([2, 0])
    logits_BV = mx.random.normal((3, 9), key=mx.random.key(99))
    expected = [alone[i](logits_BV[i : i + 1], 6).item() for i in (2, 0)]
    assert together(logits_BV[mx.array([2, 0])], 6).tolist() == expected


def test_greedy_obeys_penalties_and_ignores_the_rest() -> None:
    logits_BV = mx.array([[1.0, 3.0, 2.9]])
    plain = Sampler(SampleConfig(temperature=0, top_p=0.1, min_p=0.9), [0], [[0]], 3)
    assert plain(logits_BV, 0).item() == 1 and not plain.rules and plain.history is None
    punished = Sampler(SampleConfig(temperature=0, presence_penalty=0.5), [0], [[0]], 3)
    assert [punished(logits_BV, t).item() for t in range(3)] == [1, 2, 1]
