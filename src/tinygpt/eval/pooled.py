"""Figures over all examples at once, such as F1 or kappa: what each example brings, and how two are compared.

Such a figure is no mean of examples, so a record says the example's part of it (`pooled`: the statistic's
name and the part), and the figure can be had again from any choice of examples. Where the same examples were
answered twice, the interval of the difference is a paired bootstrap's, and p is that of approximate
randomisation: where nothing changed, an example's two answers may change places.

Source: Efron 1979 (bootstrap); Noreen 1989 and Yeh, COLING 2000, More accurate tests for the statistical
significance of result differences (randomisation of F1); Cohen 1960 (kappa); Spearman 1904.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.eval.paired import Change

DRAWS = 1000


def ratio(parts: Sequence[tuple[float, float, bool]]) -> float:
    """The sum of hits over the sum of what they are out of: precision, recall, F1 (2 hits out of reported
    and expected). Parts are (hits, out of, clean); out of nothing it is 1 where all are clean, else 0."""
    out_of = math.fsum(of for _, of, _ in parts)
    return math.fsum(hits for hits, _, _ in parts) / out_of if out_of else float(all(c for *_, c in parts))


def macro_f1(parts: Sequence[tuple[Any, Any]]) -> float:
    """The mean F1 of the expected classes; parts are (given, expected)."""
    given, expected = (Counter(one) for one in zip(*parts)) if parts else (Counter[Any](), Counter[Any]())
    hits = Counter(a for a, b in parts if a == b)
    scores = [2 * hits[name] / (given[name] + n) for name, n in expected.items()]
    return sum(scores) / len(scores) if scores else 0.0


def macro_mean(parts: Sequence[tuple[str, float]]) -> float:
    """The mean of the groups' means; parts are (group, score)."""
    of: dict[str, list[float]] = {}
    for group, score in parts:
        of.setdefault(group, []).append(score)
    return sum(sum(scores) / len(scores) for scores in of.values()) / len(of) if of else 0.0


def absolute_mean(parts: Sequence[float]) -> float:
    """How far the mean is from 0."""
    return abs(math.fsum(parts)) / len(parts) if parts else 0.0


def kappa(parts: Sequence[tuple[Any, Any]]) -> float:
    """(p_o - p_e) / (1 - p_e) of the classes of two raters; 0 where chance alone would agree always."""
    if not parts:
        return 0.0
    n = len(parts)
    left, right = (Counter(one) for one in zip(*parts))
    seen = sum(a == b for a, b in parts) / n
    chance = sum(left[value] * right[value] for value in left) / n**2
    return (seen - chance) / (1 - chance) if chance < 1 else 0.0


def spearman(parts: Sequence[tuple[float, float]]) -> float:
    """Pearson's correlation of the ranks of two raters, equal values sharing their mean rank; 0 where one
    side is constant."""
    a, b = (_ranks(one) for one in zip(*parts)) if parts else ([], [])
    middle = (len(parts) + 1) / 2
    both = sum((x - middle) * (y - middle) for x, y in zip(a, b))
    spread = sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)
    return both / spread**0.5 if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    first: dict[float, int] = {}
    for i, value in enumerate(sorted(values), 1):
        first.setdefault(value, i)
    counts = Counter(values)
    return [first[value] + (counts[value] - 1) / 2 for value in values]


STATISTICS: dict[str, Callable[[Sequence[Any]], float]] = {
    one.__name__: one for one in (ratio, macro_f1, macro_mean, absolute_mean, kappa, spearman)
}


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One figure in one or several passes: its statistic, and in each pass the examples' parts by id."""

    how: str
    passes: Sequence[Mapping[str, Any]]

    def only(self, other: Pooled) -> Pooled:
        """Only the examples that the other has too."""
        ids = other.passes[0].keys()
        return Pooled(
            how=self.how, passes=[{i: p for i, p in one.items() if i in ids} for one in self.passes]
        )


def figure(how: str, parts: Sequence[Any]) -> float:
    """A figure by its statistic's name. DataError of parts that are none of its."""
    if how not in STATISTICS:
        raise DataError(f"the records name the statistic '{how}'; known: {', '.join(STATISTICS)}")
    try:
        return STATISTICS[how](parts)
    except (TypeError, ValueError) as error:
        raise DataError(f"the records' parts of the statistic '{how}' are none: {error}") from error


def change(new: Pooled, old: Pooled, *, sign: int = 1, draws: int = DRAWS, seed: int = 0) -> Change:
    """How much a figure rose (`sign` -1: fell), on the examples of `old`. DataError where `new` lacks one. p
    is the bootstrap's where the two have different numbers of passes."""
    import numpy as np

    ids = list(old.passes[0])
    if gone := next((id for id in ids for one in new.passes if id not in one), None):
        raise DataError(f"it has no record of example {gone}, which the baseline has")
    if new.how != old.how:
        raise DataError(f"its statistic is '{new.how}', the baseline's '{old.how}'")
    now, was = ([[one[id] for id in ids] for one in side.passes] for side in (new, old))
    n, generator = len(ids), np.random.default_rng(seed)

    def difference(a: Sequence[Sequence[Any]], b: Sequence[Sequence[Any]]) -> float:
        means = (statistics.fmean(figure(new.how, parts) for parts in side) for side in (a, b))
        return sign * (next(means) - next(means))

    def drawn() -> float:
        picks = generator.integers(0, n, n).tolist()
        return difference([[p[i] for i in picks] for p in now], [[p[i] for i in picks] for p in was])

    def swapped() -> float:
        flips = generator.integers(0, 2, n).tolist()
        pairs = list(zip(now, was))
        left = [[b if flip else a for a, b, flip in zip(p, q, flips)] for p, q in pairs]
        right = [[a if flip else b for a, b, flip in zip(p, q, flips)] for p, q in pairs]
        return difference(left, right)

    value, spread = difference(now, was), [drawn() for _ in range(draws)]
    low, high = (float(x) for x in np.quantile(spread, [0.025, 0.975]))
    alike = len(now) == len(was)
    null = [swapped() for _ in range(draws)] if alike else [one - value for one in spread]
    slack = 1e-9 * (1 + abs(value))
    fall, rise = sum(x <= value + slack for x in null), sum(x >= value - slack for x in null)
    return Change(
        value=value, low=min(low, value), high=max(high, value), p_fall=(fall + 1) / (draws + 1),
        p_rise=(rise + 1) / (draws + 1), n=n,
        how="approximate randomisation" if alike else "paired bootstrap",
    )  # fmt: skip
