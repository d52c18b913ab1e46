"""Rerank: whether the passage that answers a query is put before those that do not.

A model is shown the passages under numbers, in an order drawn once for each row, and gives theirs, the best
first: "[2] > [1]". `mrr` is the mean of 1 / rank of the positive, `pairwise_accuracy` the mean share of
negatives that it stands before; what is not named stands behind what is, the positive last. Without a model
BM25 ranks, with the words' weights from all passages of the file: what another reranker has to beat. One
that was trained for it may rank in its place (`reranker`); then `mrr_over_bm25` is the mean of the
difference, query by query.

Paper: Sun et al., EMNLP 2023, arXiv:2304.09542 (asking for an order); Robertson and Zaragoza 2009 (BM25).
Differs: no sliding window over long lists.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import DataError
from tinygpt.data.bm25 import BM25
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, record

SHAPE = "{query, positive, negatives: [text, ...]} or {query, pos_doc, neg_doc}"
BM25S = "bm25"  # the key of an item that holds BM25's reciprocal rank, where another orders
ASK = (
    "Passages:\n{passages}\n\nQuery: {query}\n\n"
    "Order the passages by how well they answer the query, best first, as in [2] > [1], and say nothing else."
)
NUMBER = re.compile(r"\d+")

Scores = Callable[[str, Sequence[str]], Sequence[float]]
"""How well each passage answers a query."""


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of the reranking suite."""

    data: Annotated[
        Path, "JSONL with {query, positive, negatives: [text, ...]} or {query, pos_doc, neg_doc}."
    ]
    reranker: Annotated[
        Path | None, "With --predictions: the reranker of rerank-train that orders them, in place of BM25."
    ] = None


def load(config: Config, reranker: Scores | None = None) -> Examples:
    """The queries, with BM25's order of their passages, and that of a reranker where one is given."""
    found = _rows.load(config, _item, SHAPE)
    texts = [text for item in found.items for text in item["passages"]]
    index, at = BM25(texts), 0
    for item in found.items:
        n = len(item["passages"])
        scores = index.scores(item["query"])
        order = sorted(range(n), key=lambda i: -scores.get(at + i, 0.0))
        item[_rows.GIVEN] = _told(order)
        if reranker is not None:
            theirs = reranker(item["query"], item["passages"])
            item[BM25S] = 1 / (1 + order.index(item["positive"]))
            item[_rows.GIVEN] = _told(sorted(range(n), key=lambda i, s=theirs: -s[i]))
        at += n
    return _rows.of(found.items, found.notes, aside=(BM25S,))


def _item(row: dict[str, Any]) -> dict[str, Any]:
    query, positive = _rows.text(row, "query"), _rows.text(row, "positive", "pos_doc")
    single, negatives = row.get("negative", row.get("neg_doc")), row.get("negatives")
    negatives = [single] if negatives is None and isinstance(single, str) else negatives
    if not isinstance(negatives, list) or not negatives or not all(isinstance(n, str) for n in negatives):
        raise DataError("no list of 'negatives'")
    if positive in negatives:
        raise DataError("the positive passage is among the negatives")
    passages = [positive, *negatives]
    random.Random(f"rerank {query}").shuffle(passages)  # the same for every model
    shown = "\n".join(f"[{i}] {text}" for i, text in enumerate(passages, 1))
    messages = _rows.question(ASK.format(passages=shown, query=query))
    return {
        "messages": messages, "query": query, "passages": passages, "positive": passages.index(positive)
    }  # fmt: skip


def _told(order: list[int]) -> str:
    return " > ".join(f"[{i + 1}]" for i in order)


def gold(example: dict[str, Any]) -> str:
    """The positive before all others."""
    right = example["positive"]
    return _told([right, *(i for i in range(len(example["passages"])) if i != right)])


def predicted(example: dict[str, Any]) -> str:
    """BM25's order."""
    return example[_rows.GIVEN]


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Two rows: mrr and pairwise_accuracy; with a reranker a third, mrr_over_bm25."""
    clock = Clock()
    found = []
    for item, reply in zip(examples.items, _rows.answers(endpoint, examples, config.max_tokens), strict=True):
        n, positive = len(item["passages"]), item["positive"]
        named = [int(number) - 1 for number in NUMBER.findall(reply.answer)]
        order = list(dict.fromkeys(i for i in named if 0 <= i < n))
        rank = order.index(positive) + 1 if positive in order else n
        told = {"rank": rank, "reciprocal": 1 / rank if order else 0.0, "pairs": (n - rank) / (n - 1)}
        told |= {"readable": bool(order), "expected": positive + 1, "got": reply.text}
        if BM25S in item:
            told["over_bm25"] = told["reciprocal"] - item[BM25S]
        found.append(record(item["id"], bool(order) and rank == 1, reply, **told))
    unreadable = sum(not one["readable"] and not one.get("error") for one in found)
    more: dict[str, Any] = {"settings": _rows.settings(config, examples, unreadable=unreadable)}
    at = (found, clock.seconds(), examples.version)
    rows = [
        mean(endpoint, "rerank", metric, *at, key=key, **more)
        for metric, key in (("mrr", "reciprocal"), ("pairwise_accuracy", "pairs"))
    ]
    if found and all("over_bm25" in one for one in found):
        lead = {"key": "over_bm25", "bounded": False}
        rows.append(mean(endpoint, "rerank", "mrr_over_bm25", *at, **lead, **more))
    return SuiteResult(rows=rows, examples=found)
