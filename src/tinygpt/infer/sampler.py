"""From logits to a token: the rules in their order, then one keyed draw a row.

The draw of token t under seed s is a hash of (s, t), not the state of a generator. So a request gives the
same text alone, in a batch of 64, on another back end, or when neighbours leave early; only a tie of rounding
errors can change it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.family import Family
from tinygpt.infer.config import SampleConfig
from tinygpt.model import ops

RULES = Family("tinygpt.infer.sample", verb="apply")
ORDER = tuple(f.name for f in dataclasses.fields(SampleConfig) if f.name in RULES.names())
PICKING = ORDER[ORDER.index("temperature") :]


class History:
    """What rules may know of the text so far. B rows, V vocabulary."""

    def __init__(self, prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
        rows = [row for row, ids in enumerate(prompts) for _ in ids]
        self.prompt_BV = mx.zeros((len(prompts), vocab_size), mx.bool_)
        self.prompt_BV[mx.array(rows), mx.array(list(itertools.chain(*prompts)))] = True
        self.counts_BV = mx.zeros((len(prompts), vocab_size))

    def seen(self) -> mx.array:
        """(B, V) whether a token is in the prompt or the answer."""
        return self.prompt_BV | (self.counts_BV > 0)

    def add(self, tokens_B: mx.array) -> None:
        """Count one more token of each answer."""
        self.counts_BV = self.counts_BV.at[mx.arange(tokens_B.shape[0]), tokens_B].add(1)

    def select(self, rows: mx.array) -> None:
        """Keep only these rows."""
        self.prompt_BV, self.counts_BV = self.prompt_BV[rows], self.counts_BV[rows]


def uniform(seed: int, step: int) -> float:
    """The draw of token `step` under `seed`: a number in [0, 1) with 23 bits, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=4).digest()
    return (int.from_bytes(digest, "little") >> 9) / (1 << 23)


class Sampler:
    """Chooses the next token of each row; holds the rows' seeds and, where a rule asks for it, their
    history."""

    def __init__(
        self, config: SampleConfig, seeds: Sequence[int], prompts: Sequence[Sequence[int]], vocab_size: int
    ) -> None:
        self.greedy, self.seeds = config.greedy, list(seeds)
        active = _active(config)
        # Rules before temperature read the history; those from it on never change which token is likeliest.
        first = next((i for i, (name, _, _) in enumerate(active) if name in PICKING), len(active))
        self.rules = [(apply, value) for _, apply, value in (active[:first] if self.greedy else active)]
        self.history = History(prompts, vocab_size) if first else None

    def __call__(self, logits_BV: mx.array, step: int) -> mx.array:
        """Token `step` (0 is the first) of each row, (B,), not yet computed."""
        if not self.greedy:
            logits_BV = logits_BV.astype(mx.float32)
        for apply, value in self.rules:
            logits_BV = apply(logits_BV, self.history, value)
        if self.greedy:
            tokens_B = logits_BV.argmax(axis=-1)
        else:
            tokens_B = draw(logits_BV, mx.array([uniform(seed, step) for seed in self.seeds]))
        if self.history is not None:
            self.history.add(tokens_B)
        return tokens_B

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.seeds = [self.seeds[row] for row in rows]
        if self.history is not None:
            self.history.select(mx.array(list(rows)))


def _active(config: SampleConfig) -> list[tuple[str, Any, float]]:
    """(name, function, value) of the rules that do something, in order."""
    rules = [(name, RULES.load(name), getattr(config, name)) for name in ORDER]
    return [(name, rule.apply, value) for name, rule, value in rules if value != rule.NEUTRAL]


def draw(logits_BV: mx.array, uniform_B: mx.array) -> mx.array:
    """The token at which the running sum of probabilities passes a uniform number: (B,).

    One number a row instead of one a token (Gumbel): 20x less work on CPU. A token at -inf adds nothing to
    the sum and is never chosen; 23 bits of u keep u * total below total.
    """
    sums_BV = mx.cumsum(ops.softmax(logits_BV), axis=-1)
    return (sums_BV > uniform_B[:, None] * sums_BV[:, -1:]).argmax(axis=-1)
