"""Figures over all examples: by hand, from records, and compared by examples."""

from __future__ import annotations

import dataclasses
import random
import statistics
from typing import Any

import pytest

from gates import score
from tinygpt.core.config import from_dict
from tinygpt.core.errors import DataError
from tinygpt.core.rows import EvalRow
from tinygpt.eval import pooled
from tinygpt.eval.gate.evidence import Key, Side
from tinygpt.eval.gate.spec import Spec
from tinygpt.eval.gate.verdict import judge
from tinygpt.eval.pooled import Pooled

CLASSES = ("a", "b", "c")
KEY = Key("t", "", "kappa")


def pairs(n: int, right: float, seed: int) -> list[tuple[str, str]]:
    """(given, expected) of a rater who is right so often."""
    draw = random.Random(seed)
    expected = [draw.choice(CLASSES) for _ in range(n)]
    return [(e if draw.random() < right else draw.choice(CLASSES), e) for e in expected]


def of(*passes: list[Any], how: str = "kappa") -> Pooled:
    return Pooled(how=how, passes=[{str(i): part for i, part in enumerate(one)} for one in passes])


def side(parts: list[Any], how: str = "kappa", *, records: bool = True, **more: Any) -> Side:
    value = pooled.STATISTICS[how](parts)
    row = score(value, len(parts), metric="kappa", run_id=f"r{value}", **more).row
    told = [
        {"run_id": row["run_id"], "id": i, "task": "t", "subtasks": [None],
         "pooled": {"kappa": {"how": how, "part": list(part)}}}
        for i, part in enumerate(parts)
    ]  # fmt: skip
    return Side(rows=[from_dict(EvalRow, row)], records=told if records else [])


def test_figures_by_hand() -> None:
    assert pooled.ratio([(2, 3, False), (0, 1, False)]) == 0.5
    assert pooled.ratio([(0, 0, True)]) == 1.0 and pooled.ratio([(0, 0, True), (0, 0, False)]) == 0.0
    # a: 2*1/(2+1); b: 2*1/(1+2); the class c, which is never expected, does not count
    assert pooled.macro_f1([("a", "a"), ("a", "b"), ("b", "b"), ("c", "b")]) == pytest.approx(
        (2 / 3 + 2 / 4) / 2
    )
    assert pooled.macro_mean([("x", 1.0), ("x", 0.0), ("y", 1.0)]) == 0.75
    assert pooled.absolute_mean([-1.0, 0.0]) == 0.5
    assert all(figure([]) in (0.0, 1.0) for figure in pooled.STATISTICS.values())


@pytest.mark.wide
def test_false_alarms_and_real_falls_of_kappa() -> None:
    """Two raters who are alike differ at the 5 % level in about one of twenty; a worse one is caught."""
    false, caught = 0, 0
    for seed in range(60):
        old = of(pairs(80, 0.8, seed))
        again = [
            (random.Random(f"{seed}.{i}").choice([g, e, *CLASSES]), e)
            for i, (g, e) in enumerate(old.passes[0].values())
        ]
        other = [
            (random.Random(f"{seed}:{i}").choice([g, e, *CLASSES]), e)
            for i, (g, e) in enumerate(old.passes[0].values())
        ]
        p = pooled.change(of(again), of(other), draws=120, seed=seed).p_fall
        assert p is not None
        false += p <= 0.05
        fell = pooled.change(of(pairs(80, 0.4, seed)), of(pairs(80, 0.8, seed)), draws=120, seed=seed)
        caught += fell.p_fall is not None and fell.p_fall <= 0.05
    assert false <= 8 and caught >= 55  # 3 of 60 are expected; 9 come once in 300 times


def test_the_paired_interval_is_that_of_the_difference() -> None:
    """Figures of the same hard and easy examples move together: their difference is surer than each."""
    old = pairs(200, 0.7, 1)
    new = [(e, e) if i % 4 == 0 else (g, e) for i, (g, e) in enumerate(old)]
    found = pooled.change(of(new), of(old), draws=300)
    alone = [pooled.kappa(random.Random(i).choices(old, k=200)) for i in range(300)]
    assert found.low is not None and found.high is not None
    assert found.low <= found.value <= found.high and found.value == pooled.kappa(new) - pooled.kappa(old)
    assert found.high - found.low < 2 * statistics.stdev(alone)
    assert found.p_rise is not None and found.p_rise < 0.05
    assert found.p_fall is not None and found.p_fall > 0.9
    worse = pooled.change(of(new), of(old), draws=300, sign=-1)
    assert worse.value == -found.value and worse.p_fall == found.p_rise


def test_passes_count_together_and_need_not_be_as_many() -> None:
    old = [pairs(60, 0.8, seed) for seed in range(3)]
    same = pooled.change(of(*old), of(*old), draws=50)
    assert same.value == 0 and same.p_fall == 1.0 and same.how == "approximate randomisation"
    other = pooled.change(of(old[0]), of(*old), draws=50)
    assert other.how == "paired bootstrap" and other.low is not None and other.low <= other.value


def test_the_gate_pairs_such_figures() -> None:
    """Without records of the examples the same fall would have two intervals that overlap."""
    old = pairs(200, 0.8, 3)
    new = [("a", e) if i % 12 == 0 else (g, e) for i, (g, e) in enumerate(old)]
    (one,), _ = judge(Spec(), side(new), side(old))
    assert one.verdict == "fail" and one.change is not None
    assert one.change.how == "approximate randomisation" and one.change.p_fall is not None
    wide = {"interval": [0.5, 0.9]}
    (bare,), _ = judge(Spec(), side(new, records=False, **wide), side(old, records=False, **wide))
    assert bare.change is not None and bare.change.p_fall is not None
    assert one.change.p_fall < 0.01 < bare.change.p_fall


def test_records_that_do_not_give_their_row_are_not_believed() -> None:
    good = side(pairs(40, 0.8, 0))
    row = good.rows[0]
    assert good.pooled(KEY, [row]) is not None
    for change, says in (
        ({"score": row.score - 0.1}, "the records give"), ({"n_examples": 41}, "records of 40 examples"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=says):
            good.pooled(KEY, [dataclasses.replace(row, **change)])
    for part, says in (
        ({"how": "magic", "part": ["a", "a"]}, "several statistics"), ({"part": ["a"]}, "no 'how'"),
        ({"how": "kappa", "part": 3}, "are none"),
    ):  # fmt: skip
        records = [dict(one) for one in good.records]
        records[0]["pooled"] = {"kappa": part}
        with pytest.raises(DataError, match=says):
            Side(rows=[row], records=records).pooled(KEY, [row])
    with pytest.raises(DataError, match="'magic'; known: ratio"):
        pooled.figure("magic", [])


def test_an_example_that_is_gone_or_another_statistic_is_said() -> None:
    old = of(pairs(10, 0.8, 0))
    with pytest.raises(DataError, match="no record of example 9"):
        pooled.change(of(pairs(9, 0.8, 0)), old, draws=5)
    with pytest.raises(DataError, match="'macro_f1', the baseline's 'kappa'"):
        pooled.change(of(pairs(10, 0.8, 0), how="macro_f1"), old, draws=5)
