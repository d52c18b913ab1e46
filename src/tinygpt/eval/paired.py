"""Two models on the same windows of text or the same examples: how sure is the difference between them?

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


@dataclass(frozen=True, kw_only=True)
class Change:
    """How much a score rose from `old` to `new` (their means), its 95 % interval, and the chance to see a
    fall (`p_fall`) or a rise (`p_rise`) at least as large where nothing changed; None: not to be had."""

    value: float
    low: float | None
    high: float | None
    p_fall: float | None
    p_rise: float | None
    how: str
    n: int

    @property
    def p(self) -> float | None:
        """Two-sided."""
        if self.p_fall is None or self.p_rise is None:
            return None
        return min(1.0, 2 * min(self.p_fall, self.p_rise))


def change(new: Sequence[float], old: Sequence[float], *, seed: int = 0) -> Change:
    """The same examples answered twice, each score the mean over its passes. Scores of 0 and 1 are tested by
    McNemar's exact test, others by sign flips: where nothing changed, an example's gain is as likely as an
    equal loss.

    Source: McNemar 1947 and Edwards 1948 (the exact form is the binomial test of the pairs that differ);
    Bonett and Price 2012 (interval of 0/1 scores); Fisher 1935, section 21 (sign flips)."""
    assert len(new) == len(old) > 0
    n = len(new)
    gains = [a - b for a, b in zip(new, old)]
    value = math.fsum(gains) / n
    if all(score in (0.0, 1.0) for score in (*new, *old)):
        won, lost = gains.count(1.0), gains.count(-1.0)
        low, high = _bonett_price(won, lost, n)
        return Change(
            value=value, low=low, high=high, p_fall=at_least(lost, won + lost),
            p_rise=at_least(won, won + lost), how="McNemar's exact test", n=n,
        )  # fmt: skip
    spread = difference(new, old, [1.0] * n, seed=seed)
    fall, rise = sign_flips(gains, seed=seed)
    return Change(
        value=value, low=spread.low, high=spread.high, p_fall=fall, p_rise=rise, how="sign flips", n=n
    )


def at_least(k: int, n: int) -> float:
    """The chance of k or more heads among n tosses."""
    return min(1.0, math.fsum(math.comb(n, i) for i in range(k, n + 1)) / 2**n) if n < 1000 else _tail(k, n)


def _tail(k: int, n: int) -> float:
    """The same by logarithms, where 2**n is no number."""
    log = math.lgamma(n + 1) - n * math.log(2)
    terms = (math.exp(log - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(k, n + 1))
    return min(1.0, math.fsum(terms))


def _bonett_price(won: int, lost: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a difference of two paired shares: a Wald interval with one added to each count."""
    p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * math.sqrt(max(0.0, p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)


def sign_flips(gains: Sequence[float], *, draws: int = 5000, seed: int = 0) -> tuple[float, float]:
    """(p of a fall, p of a rise): the share of drawn signs whose sum is as low, or as high. What was seen is
    one of the draws."""
    import numpy as np

    moved = np.asarray([g for g in gains if g], float)
    generator, seen, below, above = np.random.default_rng(seed), float(moved.sum()), 1, 1
    slack = 1e-9 * float(np.abs(moved).sum())  # sums of the same numbers in another order
    for at in range(0, draws, 500):  # in parts: memory does not grow with draws times examples
        signs = generator.integers(0, 2, (min(500, draws - at), len(moved)), np.int8) * 2 - 1
        sums = signs @ moved
        below += int((sums <= seen + slack).sum())
        above += int((sums >= seen - slack).sum())
    return below / (draws + 1), above / (draws + 1)


def shares(new: float, old: float, n_new: int, n_old: int) -> Change:
    """Two shares of which only the counts are known, as if their examples had nothing in common.

    Source: Newcombe 1998, Statistics in Medicine 17:873, method 10 (interval); Wilson's score test with one
    share for both (p)."""
    from tinygpt.core.rows import wilson

    (new_low, new_high), (old_low, old_high) = wilson(new * n_new, n_new), wilson(old * n_old, n_old)
    value = new - old
    low = value - math.hypot(new - new_low, old_high - old)
    high = value + math.hypot(new_high - new, old - old_low)
    both = (new * n_new + old * n_old) / (n_new + n_old)
    spread = math.sqrt(max(both * (1 - both), 1e-12) * (1 / n_new + 1 / n_old))
    return Change(
        value=value, low=low, high=high, p_fall=_normal(value / spread), p_rise=_normal(-value / spread),
        how="two shares", n=min(n_new, n_old),
    )  # fmt: skip


def intervals(
    new: float, old: float, of_new: tuple[float, float], of_old: tuple[float, float], n: int
) -> Change:
    """Two means of which only the 95 % intervals are known, as if they were normal and independent."""
    spread = math.hypot(of_new[1] - of_new[0], of_old[1] - of_old[0]) / (2 * 1.96)
    value = new - old
    z = value / spread if spread else math.copysign(math.inf, value) if value else 0.0
    return Change(
        value=value, low=value - 1.96 * spread, high=value + 1.96 * spread, p_fall=_normal(z),
        p_rise=_normal(-z), how="two intervals", n=n,
    )  # fmt: skip


def _normal(z: float) -> float:
    """P(Z <= z)."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
