"""Two models on the same windows of text: losses side by side, and how sure their difference is.

The interval is a paired bootstrap: windows are drawn again with replacement, the same for both models, and
the difference of the mean losses is taken each time. What makes some windows hard for every model cancels, so
far smaller differences can be told from chance than by two intervals that overlap.
Source: Koehn, EMNLP 2004, Statistical Significance Tests for Machine Translation Evaluation, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.eval.endpoint import Endpoint

DRAWS = 2000
AT_ONCE = 64  # windows in one request to the endpoint


@dataclass(frozen=True)
class Window:
    """Ids that are read; all but the first are predicted. `bytes` is their part of the document's bytes."""

    ids: list[int]
    bytes: float

    @property
    def tokens(self) -> int:
        return len(self.ids) - 1


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a model makes of some windows: nats of each, and of all."""

    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    n_bytes: float

    @property
    def loss(self) -> float:
        """Nats a token."""
        return math.fsum(self.nats) / max(1, sum(self.tokens))

    @property
    def perplexity(self) -> float:
        return math.exp(min(700.0, self.loss))

    @property
    def bits_per_byte(self) -> float:
        return math.fsum(self.nats) / math.log(2) / max(1.0, self.n_bytes)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean of one model minus that of another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def windows(endpoint: Endpoint, texts: Sequence[str], *, length: int = 0, most: int = 0) -> list[Window]:
    """The texts in windows of `length` tokens (0: the model's context), one after the other, each read from
    the last token of the one before; `most` of them, spread evenly over all (0: all). They hold for every
    model with this tokenizer."""
    tokenizer = endpoint.tokenizer
    if tokenizer is None:
        raise UnsupportedError(f"{endpoint.name} does not show its tokens, so its loss cannot be measured")
    length = length or endpoint.context
    if not 1 <= length <= endpoint.context:
        raise ConfigError(
            f"windows of {length} tokens do not fit the model's context", hint=f"1 to {endpoint.context}"
        )
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    found: list[Window] = []
    for text, ids in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
        size = len(text.encode()) / max(1, len(ids))
        ids = [start, *ids]
        for at in range(0, len(ids) - 1, length):
            part = ids[at : at + length + 1]
            found.append(Window(part, size * (len(part) - 1)))
    if not found:
        raise DataError("the held-out text is empty", hint="give a file with text in it")
    if most and len(found) > most:
        found = [found[i * len(found) // most] for i in range(most)]
    return found


def measure(endpoint: Endpoint, given: Sequence[Window]) -> Loss:
    """The loss of a model on windows."""
    nats: list[float] = []
    for at in range(0, len(given), AT_ONCE):
        scores = endpoint.token_logprobs([w.ids for w in given[at : at + AT_ONCE]])
        nats += [-math.fsum(row) for row in scores]
    return Loss(nats=tuple(nats), tokens=tuple(w.tokens for w in given), n_bytes=sum(w.bytes for w in given))


def difference(
    new: Sequence[float], old: Sequence[float], weights: Sequence[float], *, seed: int = 0
) -> Difference:
    """sum(new) / sum(weights) - sum(old) / sum(weights), paired item by item, with its interval."""
    import numpy as np

    assert len(new) == len(old) == len(weights)
    gain, weight = np.asarray(new, float) - np.asarray(old, float), np.asarray(weights, float)
    drawn = np.random.default_rng(seed).integers(0, len(gain), (DRAWS, len(gain)))
    means = gain[drawn].sum(axis=1) / np.maximum(weight[drawn].sum(axis=1), 1e-12)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(value=float(gain.sum() / max(weight.sum(), 1e-12)), low=float(low), high=float(high))
