"""Speculation leaves the law of drawn texts as it is.

The first three tokens of thousands of answers of a model with 12 ids, against the probabilities that full
forward passes and numpy's softmax give; nothing of the sampler is asked."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tinygpt.core.backend import mx
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.speculate import draft, eagle, medusa, ngram
from tinygpt.model.config import ModelConfig
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features
from tinygpt.model.lm import LM, initialize

V, N, LENGTH = 12, 3000, 3
PROMPT = [1, 2, 3, 1, 2, 4, 1, 2]
TEMPERATURE = 0.9
Table = dict[tuple[int, ...], float]


class Twelve(ByteTokenizer):
    """Ids 0 to 11; nothing ends an answer."""

    vocab_size, eos_id, pad_id, stop_ids = V, 11, 0, ()


class Odd:
    """Lets odd ids come after even ones, and any after odd ones."""

    def __init__(self) -> None:
        self.taken = [2]

    def mask(self) -> Any:
        return np.array([_mask(self.taken[-1])], np.int32)

    def take(self, token: int) -> None:
        self.taken.append(token)

    def rollback(self, n: int) -> None:
        del self.taken[len(self.taken) - n :]


def _mask(last: int) -> int:
    return 0xFFF if last % 2 else 0xAAA


def _engine(seed: int) -> Engine:
    config = ModelConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, initializer_range=0.4,
        max_position_embeddings=32,
    )  # fmt: skip
    return Engine(initialize(LM(config), seed), Twelve())


def _drafter(kind: str, engine: Engine) -> Any:
    if kind == "ngram":
        return ngram.build(engine, ngram.Config(tokens=3))
    if kind == "draft":
        return draft.build(engine, draft.Config(tokens=3), draft=_engine(2))
    features = Features(engine.model)
    facts = stored.Facts(kind=kind, width=features.width, hidden=16, vocab_size=V, horizons=2)  # type: ignore[arg-type]
    way: Any = {"medusa": medusa, "eagle": eagle}[kind]
    return way.build(engine, way.Config(tokens=6), heads=stored.build(facts, 2))


def _law(engine: Engine, *, ruled: bool = False) -> Table:
    """The exact probability of each text of three tokens."""
    law: Table = {(): 1.0}
    for _ in range(LENGTH):
        texts = list(law)
        logits = np.array(engine.model(mx.array([[*PROMPT, *ids] for ids in texts]))[:, -1], np.float64)
        if ruled:
            lasts = [([*PROMPT, *ids])[-1] for ids in texts]
            logits[[[not _mask(last) >> i & 1 for i in range(V)] for last in lasts]] = -np.inf
        p = np.exp((logits - logits.max(axis=-1, keepdims=True)) / TEMPERATURE)
        p /= p.sum(axis=-1, keepdims=True)
        law = {
            (*ids, i): law[ids] * p[row, i] for (row, ids), i in itertools.product(enumerate(texts), range(V))
        }
    return law


def _excess(counts: Counter[tuple[int, ...]], law: Table) -> float:
    """Chi-square of counts as a standard normal's value (Wilson and Hilferty's cube root); texts that are
    expected fewer than 8 times are one class."""
    n = counts.total()
    often = [ids for ids, p in law.items() if n * p >= 8]
    seen = [*(counts[ids] for ids in often), n - sum(counts[ids] for ids in often)]
    expected = [*(n * law[ids] for ids in often), n * (1 - sum(law[ids] for ids in often))]
    chi = sum((o - e) ** 2 / e for o, e in zip(seen, expected, strict=True))
    free = len(often)
    return ((chi / free) ** (1 / 3) - (1 - 2 / (9 * free))) / (2 / (9 * free)) ** 0.5


@pytest.mark.parametrize(
    ("kind", "ruled"),
    [("draft", False), ("draft", True), ("ngram", False), ("medusa", False), ("eagle", False)],
)
def test_drawn_texts_have_the_models_law(kind: str, ruled: bool) -> None:
    engine = _engine(1)
    drafter = _drafter(kind, engine)
    lane = Lane(engine, Limits(rows=N, chunk=1 << 20), drafter=drafter)
    answers = [
        lane.submit(
            engine.request(
                PROMPT,
                SampleConfig(temperature=TEMPERATURE, seed=seed, max_tokens=LENGTH + 1),
                constraint=Odd() if ruled else None,
            )
        )
        for seed in range(N)
    ]
    lane.drain()
    counts = Counter(tuple(answer.ids[:LENGTH]) for answer in answers)
    told, law = drafter.told, _law(engine, ruled=ruled)
    assert _excess(counts, law) < 4, str(told)
    assert 0.02 * told.drafted < told.accepted < 0.9 * told.drafted, str(told)
    if kind == "draft":  # whose own law is another, and would be told
        assert _excess(counts, _law(drafter.engine, ruled=ruled)) > 30
