"""The report of a reranker: figures on queries kept back, each with its interval, beside BM25 and chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinygpt.data.bm25 import BM25
from tinygpt.eval.paired import difference
from tinygpt.router import rerank_rows
from tinygpt.router.rerank_metrics import METRICS, chance, measured
from tinygpt.router.rerank_rows import Group

Scores = Callable[[str, Sequence[str]], Sequence[float]]


def report(scores: Scores, test: Sequence[Group], *, candidates: int, seed: int) -> dict[str, Any]:
    """{queries, documents, metrics, baselines}; a figure is {value, low, high}, the mean over queries.

    A query's documents are its own, filled up to `candidates` with those of other queries in the report. Of
    BM25, which counts words over all of them, and of chance there are the figures, and by how much the
    reranker is ahead, paired query by query."""
    lists = rerank_rows.candidates(test, candidates, seed)
    index = BM25(list(dict.fromkeys(text for documents, _ in lists for text in documents)))
    place = {text: i for i, text in enumerate(index.texts)}
    mine, bm25, drawn = list[dict[str, float]](), list[dict[str, float]](), list[dict[str, float]]()
    for group, (documents, right) in zip(test, lists, strict=True):
        mine.append(measured(scores(group.query, documents), right))
        found = index.scores(group.query)
        bm25.append(measured([found.get(place[text], 0.0) for text in documents], right))
        drawn.append(chance(right))
    sizes = [len(documents) for documents, _ in lists]
    return {
        "queries": len(test),
        "documents": {"least": min(sizes), "most": max(sizes), "mean": sum(sizes) / len(sizes)},
        "metrics": {name: _figure(_column(mine, name)) for name in METRICS},
        "baselines": {
            other: {
                name: {
                    **_figure(_column(theirs, name)),
                    "lead": _figure(_column(mine, name), _column(theirs, name)),
                }
                for name in METRICS
            }
            for other, theirs in (("bm25", bm25), ("random", drawn))
        },
    }


def _column(found: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [one[name] for one in found]


def _figure(values: Sequence[float], less: Sequence[float] | None = None) -> dict[str, Any]:
    """A mean, or a mean of paired differences, with its interval by bootstrap over queries; `clear` says of
    a difference that the interval leaves 0 out."""
    found = difference(values, less or [0.0] * len(values), [1.0] * len(values))
    told: dict[str, Any] = {"value": found.value, "low": found.low, "high": found.high}
    return told if less is None else told | {"clear": found.clear}
