"""Tests of a change: exact small cases, a published example, and the share of false alarms."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from tinygpt.eval.paired import at_least, change, intervals, shares, sign_flips


def test_mcnemar_counts_only_pairs_that_differ() -> None:
    found = change([0.0] * 5 + [1.0] * 20, [1.0] * 5 + [1.0] * 20)
    assert found.value == pytest.approx(-0.2) and found.how == "McNemar's exact test" and found.n == 25
    assert found.p_fall == pytest.approx(1 / 32) and found.p_rise == 1.0
    assert found.p == pytest.approx(1 / 16)
    mirrored = change([1.0] * 25, [0.0] * 5 + [1.0] * 20)
    assert (mirrored.p_rise, mirrored.p_fall) == (found.p_fall, found.p_rise)
    assert mirrored.low is not None and found.high is not None
    assert mirrored.low == pytest.approx(-found.high)


def test_the_tail_of_a_binomial() -> None:
    for k, n in ((0, 0), (0, 7), (7, 7), (8, 10), (530, 1000), (700, 1300), (1, 1500)):
        exact = Fraction(sum(math.comb(n, i) for i in range(k, n + 1)), 2**n)
        assert at_least(k, n) == pytest.approx(float(exact), rel=1e-9)


def test_sign_flips_of_few_examples_are_exact() -> None:
    """All 2^6 signs: a peer goes through them, we draw."""
    gains = [-0.5, -0.25, -1.0, 0.25, -0.5, -0.75]
    ways = [sum(g if bits >> i & 1 else -g for i, g in enumerate(gains)) for bits in range(64)]
    exact = sum(way <= sum(gains) + 1e-12 for way in ways) / 64
    fall, rise = sign_flips(gains)
    assert fall == pytest.approx(exact, abs=0.012) and rise > 0.95


def test_scores_between_0_and_1_are_tested_by_sign_flips() -> None:
    old = [0.5 + 0.01 * (i % 7) for i in range(60)]
    new = [score - (0.1 if i % 3 else -0.02) for i, score in enumerate(old)]
    found = change(new, old)
    assert found.how == "sign flips" and found.p_fall is not None and found.p_fall < 0.001
    assert found.low is not None and found.high is not None and found.low < found.value < found.high < 0


def test_the_interval_of_two_shares_is_newcombes() -> None:
    """His table II: 56/70 against 48/80 is 0.2 (0.0524 to 0.3339)."""
    found = shares(56 / 70, 48 / 80, 70, 80)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_two_intervals() -> None:
    found = intervals(5.5, 6.0, (5.0, 6.0), (5.5, 6.5), 10)
    z = 0.5 / (math.hypot(1, 1) / (2 * 1.96))
    assert found.p_fall == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)))
    assert intervals(5.0, 6.0, (5.0, 5.0), (6.0, 6.0), 10).p_fall == 0.0


def test_no_change_is_no_fall() -> None:
    for found in (change([1.0] * 9, [1.0] * 9), change([0.5] * 9, [0.5] * 9), shares(0.5, 0.5, 9, 9)):
        assert found.value == 0 and found.p_fall is not None and found.p_fall >= 0.5


def test_intervals_hold_the_truth() -> None:
    """95 % intervals of paired shares, over draws of pairs whose true difference is -0.05."""
    draw, held = random.Random(5), 0
    for _ in range(400):
        pairs = draw.choices(((1, 1), (0, 0), (0, 1), (1, 0)), (0.7, 0.15, 0.1, 0.05), k=100)
        found = change([float(new) for new, _ in pairs], [float(old) for _, old in pairs])
        assert found.low is not None and found.high is not None
        held += found.low <= -0.05 <= found.high
    assert 0.92 <= held / 400 <= 0.99
