"""How far two raters agree: Cohen's kappa of classes, Spearman's correlation of ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def kappa(pairs: Sequence[tuple[Any, Any]]) -> float:
    """(p_o - p_e) / (1 - p_e); 0 where chance alone would agree always. Source: Cohen 1960."""
    if not pairs:
        return 0.0
    n = len(pairs)
    left, right = (Counter(one) for one in zip(*pairs))
    seen = sum(a == b for a, b in pairs) / n
    chance = sum(left[value] * right[value] for value in left) / n**2
    return (seen - chance) / (1 - chance) if chance < 1 else 0.0


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's correlation of the ranks, equal values sharing their mean rank; 0 where one side is constant.
    Source: Spearman 1904."""
    a, b = (_ranks(one) for one in zip(*pairs)) if pairs else ([], [])
    middle = (len(pairs) + 1) / 2
    both = sum((x - middle) * (y - middle) for x, y in zip(a, b))
    spread = sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)
    return both / spread**0.5 if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    first: dict[float, int] = {}
    for i, value in enumerate(sorted(values), 1):
        first.setdefault(value, i)
    counts = Counter(values)
    return [first[value] + (counts[value] - 1) / 2 for value in values]
