"""A teacher with another tokenizer: both are asked wherever they have read the same bytes.

The events that are compared at such a place begin as the tokens that both vocabularies have, one by one. A
token that the other side does not have belongs to the event of the longest one that it begins with: a byte
stands for every word with that byte first. What begins with none is one event more. Then the text that
really follows, up to the next place where both meet, is taken out as an event of its own where it is more
than one token for one of the two; along its s tokens for the student and t for the teacher,

    P_s(text) = prod_{i <= s} p_s(x_i | x_<i)        P_t(text) = prod_{i <= t} p_t(y_i | y_<i)

So each side keeps a distribution that sums to 1, every loss over events works, and with equal tokenizers
nothing but plain tokens is left. Losses that compare no events (uld) get both whole distributions. Where the
two have not read the same, the teacher is silent.

Paper: Patino et al. 2025 (General On-Policy Logit Distillation, GOLD, in TRL), for one-by-one tokens and
merged spans; Boizard et al. 2024 (ULD), arXiv:2402.12030, for what has no partner.
Differs: GOLD scales the whole distribution of a span's first place by the later tokens' probabilities, here
only the span itself has them; what has no partner goes with what it begins with, where GOLD sorts it. Rows
are written in the student's template: control tokens that the teacher does not have are spelled out for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.distill.divergence._events import LEAST, log_softmax
from tinygpt.distill.reread import controls, matched
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
        spelled = {
            t.id_to_bytes(id): k
            for t, i, control in ((own, 0, controls(own)), (other, 1, controls(other)))
            for k, pair in enumerate(pairs)
            if (id := pair[i]) not in control
        }
        self.sides = tuple(
            _Side(t, [pair[i] for pair in pairs], self.n[i], spelled) for i, t in enumerate((own, other))
        )


class _Side:
    """Which event each id of one vocabulary belongs to: `shared` (K,) are those that both sides have;
    `folded` others that begin as one of them, of the event `into`; `rest` what is left. slot (V,): the event
    of an id, -1 for the rest; exact (V,): the same, -1 for those that are folded, too. spelled: the events'
    bytes."""

    def __init__(self, tokenizer: Tokenizer, shared: list[int], n: int, spelled: dict[bytes, int]) -> None:
        exact = {id: k for k, id in enumerate(shared)}
        control, slots = controls(tokenizer), dict(exact)
        for id in range(n):
            if (
                id not in exact
                and id not in control
                and (k := _prefix(tokenizer.id_to_bytes(id), spelled)) >= 0
            ):
                slots[id] = k
        folded, rest = [id for id in slots if id not in exact], sorted(set(range(n)) - slots.keys())
        self.whole = shared == list(range(n))
        self.shared, self.rest, self.folded, self.into = (
            mx.array(ids, mx.int32) if ids else None
            for ids in (shared, rest, folded, [slots[id] for id in folded])
        )
        self.slot, self.exact = (
            mx.array([found.get(id, -1) for id in range(n)], mx.int32) for found in (slots, exact)
        )

    def events(self, log_p: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Log-probabilities (..., V) as those of shared tokens (..., K), of their events (..., K), and of the
        rest (...)."""
        kept = log_p if self.whole or self.shared is None else mx.take(log_p, self.shared, axis=-1)
        events, others = kept, mx.full(log_p.shape[:-1], NONE)
        if self.folded is not None:
            added = mx.zeros(kept.shape).at[..., self.into].add(mx.exp(mx.take(log_p, self.folded, axis=-1)))
            events = mx.where(added > 0, mx.logaddexp(kept, mx.log(mx.maximum(added, 1e-30))), kept)
        if self.rest is not None:
            others = mx.maximum(mx.logsumexp(mx.take(log_p, self.rest, axis=-1), axis=-1), NONE)
        return kept, events, others


def _prefix(spelled: bytes, events: dict[bytes, int]) -> int:
    """The event of the longest token that these bytes begin with; -1: of none."""
    found = (events[spelled[:n]] for n in range(len(spelled), 0, -1) if spelled[:n] in events)
    return next(found, -1)


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
        self.slot, self.exact = mx.take(side.slot, _at(ids, at)), mx.take(side.exact, _at(ids, at))
        self.kept, self.shared, self.rest = side.events(_at(log_p, at))


def _joined(one: _Path, two: _Path, spans: mx.array) -> mx.array:
    """Log-probabilities (B, L, K + 2) of one side: shared events, the text that follows, and the rest."""
    text = mx.where(spans, one.first + one.later, NONE)
    shared = _without(one.shared, mx.where(spans, one.slot, -1), text)
    rest = mx.where(spans & (one.slot < 0), _less(one.rest, text), one.rest)
    # A token of the other side that is the text by itself may be one of this side, too: it is that text.
    whole = spans & (two.n == 1) & (two.exact >= 0)
    alone = mx.take_along_axis(one.kept, mx.maximum(two.exact, 0)[..., None], axis=-1)[..., 0]
    shared = _without(shared, mx.where(whole, two.exact, -1), alone)
    text = mx.where(whole, mx.logaddexp(text, alone), text)
    return mx.concatenate([shared, text[..., None], rest[..., None]], axis=-1)


def _without(shared: mx.array, slot: mx.array, part: mx.array) -> mx.array:
    """Events (B, L, K) of which one loses a part of its probability; slot -1: none does."""
    at = mx.maximum(slot, 0)[..., None]
    one = mx.take_along_axis(shared, at, axis=-1)
    left = mx.where(slot[..., None] >= 0, _less(one, part[..., None]), one)
    return mx.put_along_axis(shared, at, left, axis=-1)


def _less(log_p: mx.array, part: mx.array) -> mx.array:
    """log(p - part), as far down as it matters."""
    return mx.maximum(log_p + _log_rest(mx.minimum(part - log_p, 0.0)), NONE)


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
