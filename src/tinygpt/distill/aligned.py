"""A teacher with another tokenizer: both are asked wherever they have read the same bytes.

The events that are compared at such a place are tokens that both vocabularies have, one by one; the text that
really follows up to the next such place, where it is more than one token for one of the two; and everything
else, as one event. Along the text that follows, of s tokens for the student and t for the teacher,

    P_s(text) = prod_{i <= s} p_s(x_i | x_<i)        P_t(text) = prod_{i <= t} p_t(y_i | y_<i)

and that much is taken from the event of the first token, of which it is a part. So each side keeps a
distribution that sums to 1, every loss over events works, and with equal tokenizers nothing but plain
tokens is left. Losses that compare no events (uld) get both whole distributions. Where the two have not read
the same, the teacher is silent.

Paper: Patino et al. 2025 (General On-Policy Logit Distillation, GOLD, in TRL), for one-by-one tokens and
merged spans; Boizard et al. 2024 (ULD), arXiv:2402.12030, for what has no partner.
Differs: GOLD scales the whole distribution of a span's first place by the later tokens' probabilities, here
only the span itself has them; what has no partner is one event rather than a sorted rest, unless the loss
sorts. Rows are written in the student's template: control tokens that the teacher does not have are spelled
out for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.distill.divergence._events import LEAST, log_softmax
from tinygpt.distill.reread import matched
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

NONE = math.log(LEAST)  # the log-probability of an event that is none


class Vocabularies:
    """Two vocabularies beside each other. n_own, n_other: rows of the output matrices, which may be more or
    fewer than there are ids."""

    def __init__(self, own: Tokenizer, other: Tokenizer, *, n_own: int, n_other: int) -> None:
        self.n = (min(n_own, own.vocab_size), min(n_other, other.vocab_size))
        pairs = [(a, b) for a, b in matched(own, other) if a < self.n[0] and b < self.n[1]]
        self.n_shared = len(pairs)
        self.sides = tuple(_Side([pair[i] for pair in pairs], self.n[i]) for i in range(2))


class _Side:
    """Which ids of one vocabulary are events of their own: `shared` (K,), `rest` all others; `slot` (V,) is
    the event of an id, -1 for none."""

    def __init__(self, shared: list[int], n: int) -> None:
        rest = sorted(set(range(n)) - set(shared))
        slots = {id: k for k, id in enumerate(shared)}
        self.whole = shared == list(range(n))
        self.shared = mx.array(shared, mx.int32)
        self.rest = mx.array(rest, mx.int32) if rest else None
        self.slot = mx.array([slots.get(id, -1) for id in range(n)], mx.int32)

    def events(self, log_p: mx.array) -> tuple[mx.array, mx.array]:
        """Log-probabilities (..., V) as those of shared events (..., K) and of the rest (...)."""
        kept = log_p if self.whole else mx.take(log_p, self.shared, axis=-1)
        if self.rest is None:
            return kept, mx.full(log_p.shape[:-1], NONE)
        others = mx.logsumexp(mx.take(log_p, self.rest, axis=-1), axis=-1)
        return kept, mx.maximum(others, NONE)


class Aligned:
    """Logits (B, M, N) of a teacher's places, which `batch` (a Reread's arrays) lays beside the student's."""

    def __init__(self, logits_BMN: mx.array, batch: Tensors, words: Vocabularies) -> None:
        self.logits_BMN, self.batch, self.words = mx.stop_gradient(logits_BMN), batch, words

    def apart(self, logits_BLV: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
        n, m = self.words.n
        theirs_BLN = _at(self.logits_BMN[..., :m], self.batch["taught_at"])
        return log_softmax(logits_BLV[..., :n], temperature), log_softmax(theirs_BLN, temperature)

    def events(self, logits_BLV: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
        batch, (own, other) = self.batch, self.words.sides
        n, m = self.words.n
        at, to = batch["taught_at"], batch["taught_to"]
        log_p_BLV = log_softmax(logits_BLV[..., :n], temperature)
        log_q_BMN = log_softmax(self.logits_BMN[..., :m], temperature)
        places = mx.broadcast_to(mx.arange(at.shape[1])[None], at.shape)
        theirs = mx.concatenate([batch["taught_tokens"][:, 1:], batch["taught_tokens"][:, -1:]], axis=1)
        student = _Path(own, log_p_BLV, batch["targets"], places, to)
        teacher = _Path(other, log_q_BMN, theirs, at, _at(at, to))
        spans = (student.n > 0) & ((student.n > 1) | (teacher.n > 1))
        return _joined(student, teacher, spans), _joined(teacher, student, spans)

    def places(self, weights_BL: mx.array) -> mx.array:
        return weights_BL * self.batch["taught_known"]


class _Path:
    """One side at the places where both meet: its shared events and the rest, its first token, and the text
    up to the next such place, which is `n` (B, L) tokens long."""

    def __init__(self, side: _Side, log_p: mx.array, next_ids: mx.array, at: mx.array, to: mx.array) -> None:
        self.n = to - at
        ids = mx.minimum(next_ids, log_p.shape[-1] - 1)
        each = mx.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
        before = mx.concatenate([mx.zeros_like(each[:, :1]), mx.cumsum(each, axis=1)], axis=1)
        self.first = _at(each, at)
        self.later = mx.where(self.n > 1, _at(before, to) - _at(before, mx.minimum(at + 1, to)), 0.0)
        self.slot = mx.take(side.slot, _at(ids, at))
        self.shared, self.rest = side.events(_at(log_p, at))

    def mass(self, slot: mx.array) -> mx.array:
        """The log-probability of a shared event; next to nothing where there is none."""
        found = mx.take_along_axis(self.shared, mx.maximum(slot, 0)[..., None], axis=-1)[..., 0]
        return mx.where(slot >= 0, found, NONE)


def _joined(one: _Path, two: _Path, spans: mx.array) -> mx.array:
    """Log-probabilities (B, L, K + 2) of one side: shared events, the text that follows, and the rest."""
    left = _log_rest(one.later)  # of the first token, what does not go on as the text does
    text = mx.where(spans, one.first + one.later, NONE)
    # A token that is the text by itself is that event, on both sides.
    whole = spans & (two.n == 1) & (two.slot >= 0)
    text = mx.where(whole, mx.logaddexp(text, one.mass(two.slot)), text)
    kept = mx.where((one.n == 1) & spans, NONE, mx.maximum(one.first + left, NONE))
    events = mx.arange(one.shared.shape[-1])
    own = (spans & (one.slot >= 0))[..., None] & (events == one.slot[..., None])
    shared = mx.where(own, kept[..., None], one.shared)
    shared = mx.where(whole[..., None] & (events == two.slot[..., None]), NONE, shared)
    without = one.rest + _log_rest(mx.minimum(one.first + one.later - one.rest, 0.0))
    rest = mx.where(spans & (one.slot < 0), mx.maximum(without, NONE), one.rest)
    return mx.concatenate([shared, text[..., None], rest[..., None]], axis=-1)


def _log_rest(log_p: mx.array) -> mx.array:
    """log(1 - p) of log-probabilities, as far down as it matters."""
    return mx.log(mx.maximum(-mx.expm1(log_p), LEAST))


def _at(values: mx.array, places: mx.array) -> mx.array:
    """values (B, M, ...) at places (B, L)."""
    more = places.reshape(*places.shape, *([1] * (values.ndim - 2)))
    return mx.take_along_axis(values, more, axis=1)


class AlignedTeacher:
    """A model of this process with a tokenizer of its own."""

    def __init__(self, model: Any, words: Vocabularies) -> None:
        model.freeze()
        self.model, self.words = model, words

    def __call__(self, batch: Tensors) -> Aligned:
        logits_BMN = self.model(
            batch["taught_tokens"], positions=batch["taught_positions"], segments=batch["taught_segments"]
        )
        return Aligned(logits_BMN, batch, self.words)
