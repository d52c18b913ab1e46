"""How good orders of documents are: reciprocal rank, discounted gain, the first place, within the first ten.

    mrr@10 = 1 / rank of the first document that answers, 0 behind the tenth
    ndcg@10 = sum over places i <= 10 of g_i / log2(i + 1), over the same of the best order
    hit@1 = g_1

g is 1 for documents that answer, else 0. `chance` is the mean of these over all orders, told and not drawn.

Source: Voorhees, TREC-8 QA track report, 1999 (MRR); Järvelin and Kekäläinen, TOIS 20:422, 2002 (NDCG).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

K = 10
METRICS = ("mrr@10", "ndcg@10", "hit@1")


def order(scores: Sequence[float]) -> list[int]:
    """The documents, the best first; of equals the one that was given first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def measured(scores: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    """The figures of one query; at least one document is right."""
    gains = [right[i] for i in order(scores)][:K]
    first = next((rank for rank, yes in enumerate(gains, 1) if yes), 0)
    return dict(
        zip(METRICS, (1 / first if first else 0.0, _dcg(gains) / _ideal(right), float(gains[0])), strict=True)
    )


def chance(right: Sequence[bool]) -> dict[str, float]:
    """The same, the mean over all orders of these documents."""
    n, p = len(right), sum(right)
    # The first of p right ones stands at rank r in C(n - r, p - 1) of the C(n, p) sets of places.
    ranks = range(1, min(K, n - p + 1) + 1)
    mrr = sum(math.comb(n - r, p - 1) / r for r in ranks) / math.comb(n, p)
    return dict(zip(METRICS, (mrr, _dcg([p / n] * min(K, n)) / _ideal(right), p / n), strict=True))


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))


def _ideal(right: Sequence[bool]) -> float:
    return _dcg([1.0] * min(K, sum(right)))
