"""Scaledown: how short a context may become before the answer is no longer in it, or no longer found.

Of each context the sentences that fit the question best by BM25 are kept, in their order, up to `keep_frac`
of its words. `kept_ratio` is the mean share of words kept, `answer_retained` the share of rows whose answer
still stands there, word by word. A model that is asked gets the shortened context: `answered` is the share of
its answers that hold the right one. A row that brings `kept` is scored by that text.

Paper: Robertson and Zaragoza 2009 (BM25); Jiang et al., EMNLP 2023, arXiv:2310.05736 (the measure).
Differs: sentences are chosen by their words; no model weighs tokens, as LLMLingua does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.bm25 import BM25, holds, words
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.playback import Playback
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, record, share

SHAPE = "{question, context, answer, kept?}"
ASK = "{context}\n\nQuestion: {question}\n\nAnswer in a few words, from the text above."
SENTENCE = re.compile(r"(?<=[.!?।。！？])\s+|\n+")


@dataclass(frozen=True, kw_only=True)
class Config(_rows.Asking):
    """Knobs of scaledown."""

    data: Annotated[Path, "JSONL with {question, context, answer, kept?}."]
    keep_frac: Annotated[float, "Share of the context's words that may stay."] = 0.3
    threshold: Annotated[float, "Drop sentences that score below this share of the best one; 0: none."] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep_frac <= 1:
            raise ConfigError(f"'keep_frac' must be above 0 and at most 1, got {self.keep_frac}")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"'threshold' must be from 0 to 1, got {self.threshold}")


def load(config: Config) -> Examples:
    """The questions, each with what is kept of its context."""

    def item(row: dict[str, Any]) -> dict[str, Any]:
        question, context, answer = (_rows.text(row, key) for key in ("question", "context", "answer"))
        if not holds(context, answer):
            raise DataError("the answer does not stand in the context")
        kept = row["kept"] if isinstance(row.get("kept"), str) else shorten(context, question, config)
        messages = _rows.question(ASK.format(context=kept, question=question))
        told = {"question": question, "context": context, "answer": answer}
        return {"messages": messages, **told, _rows.GIVEN: kept}

    return _rows.load(config, item, SHAPE, aside=("messages",))


def shorten(context: str, question: str, config: Config) -> str:
    """The sentences that are kept: at least the best one, and the first ones where none fits."""
    sentences = [s.strip() for s in SENTENCE.split(context) if s.strip()]
    scores = BM25(sentences).scores(question)
    best = max(scores.values(), default=0.0)
    room = config.keep_frac * len(words(context))
    kept: list[int] = []
    for i in sorted(range(len(sentences)), key=lambda i: (-scores.get(i, 0.0), i)):
        size = len(words(sentences[i]))
        if not kept or (size <= room and scores.get(i, 0.0) >= config.threshold * best):
            kept.append(i)
            room -= size
    return " ".join(sentences[i] for i in sorted(kept))


def gold(example: dict[str, Any]) -> str:
    """The answer."""
    return example["answer"]


def predicted(example: dict[str, Any]) -> str:
    """What is kept: the row's own text, or ours."""
    return example[_rows.GIVEN]


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """Two rows, kept_ratio and answer_retained; with a model `answered` before them."""
    clock = Clock()
    asked = not isinstance(endpoint, Playback)
    replies = _rows.answers(endpoint, examples, config.max_tokens)
    found = []
    for item, reply in zip(examples.items, replies, strict=True):
        kept = item[_rows.GIVEN]
        told = {"kept": kept, "ratio": len(words(kept)) / len(words(item["context"]))}
        told |= {"retained": holds(kept, item["answer"]), "expected": item["answer"]}
        told |= {"got": reply.text} if asked else {}
        right = holds(reply.answer, item["answer"]) if asked else told["retained"]
        found.append(record(item["id"], right, reply, **told))
    at = (found, clock.seconds(), examples.version)
    more = {"settings": _rows.settings(config, examples)}
    rows = [share(endpoint, "scaledown", "answered", *at, **more)] if asked else []
    rows.append(share(endpoint, "scaledown", "answer_retained", *at, key="retained", **more))
    rows.append(mean(endpoint, "scaledown", "kept_ratio", *at, key="ratio", **more))
    return SuiteResult(rows=rows, examples=found)
