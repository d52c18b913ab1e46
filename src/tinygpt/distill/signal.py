"""What a teacher says of each place of a batch, and how a student's distribution is laid beside it.

A teacher is a call `teacher(batch) -> Signal`. A signal pairs the student's log-probabilities with its own
over common events (see divergence/_events.py), and says which places it is about. Shapes: B rows, L tokens, V
the student's vocabulary, N the rows of both vocabularies that stand for the same tokens, K tokens kept.
"""

from __future__ import annotations

from typing import Any, Protocol

from tinygpt.core.backend import mx
from tinygpt.distill.divergence._events import log_p_at, log_softmax, rest
from tinygpt.distill.hint._points import looking
from tinygpt.train.protocols import Tensors


class Signal(Protocol):
    """A teacher's word on a batch."""

    def events(self, logits_BLV: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
        """Log-probabilities (B, L, E) of the student, whose logits these are, and of the teacher, over the
        same events."""
        ...

    def apart(self, logits_BLV: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
        """Log-probabilities of both, each over its own tokens: for losses that compare no events."""
        ...

    def places(self, weights_BL: mx.array) -> mx.array:
        """(B, L): what each place counts, of what it counts in the loss: nothing where the teacher is
        silent."""
        ...


class Teacher(Protocol):
    """Reads a batch, and gives what it finds likely at each place. It never learns."""

    def __call__(self, batch: Tensors) -> Signal: ...


class Dense:
    """Logits (B, L, N) of a teacher with the student's tokenizer.

    The rows of an output matrix beyond the tokenizer's ids are padding, of which models have different
    numbers: both are read up to the shorter one, and what is left sums to 1 again."""

    def __init__(self, logits_BLN: mx.array, seen: dict[str, mx.array] | None = None) -> None:
        self.logits_BLN = logits_BLN
        self.seen = seen or {}  # what the teacher's layers showed, where a hint asked for it

    def events(self, logits_BLV: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
        n = min(logits_BLV.shape[-1], self.logits_BLN.shape[-1])
        student, teacher = (
            log_softmax(z[..., :n], temperature) for z in (logits_BLV, mx.stop_gradient(self.logits_BLN))
        )
        return student, teacher

    apart = events

    def places(self, weights_BL: mx.array) -> mx.array:
        return weights_BL


class Sparse:
    """The K likeliest tokens (B, L, K) of a teacher with the student's tokenizer, and their log-probabilities
    at the temperature of the run; all the others are one event. `known` (B, L) is 0 where nothing is."""

    def __init__(self, ids_BLK: mx.array, log_p_BLK: mx.array, known_BL: mx.array, n: int) -> None:
        self.ids_BLK, self.log_p_BLK, self.known_BL, self.n = ids_BLK, log_p_BLK, known_BL, n

    def events(self, logits_BLV: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
        student = log_p_at(logits_BLV[..., : self.n], self.ids_BLK, temperature)
        both = (student, mx.stop_gradient(self.log_p_BLK).astype(mx.float32))
        found = [mx.concatenate([p, rest(p)[..., None]], axis=-1) for p in both]
        return found[0], found[1]

    apart = events

    def places(self, weights_BL: mx.array) -> mx.array:
        return weights_BL * self.known_BL


class LocalTeacher:
    """A model of this process with the student's tokenizer, read at every step. `points` are what its
    signals show of its layers (see hint/)."""

    def __init__(self, model: Any, n_vocab: int) -> None:
        model.freeze()
        self.model, self.n_vocab = model, n_vocab
        self.points: frozenset[str] = frozenset()

    def __call__(self, batch: Tensors) -> Dense:
        seen, tap = looking(self.points)
        logits = self.model(
            batch["tokens"], positions=batch["positions"], segments=batch["segments"], tap=tap
        )
        return Dense(logits[..., : self.n_vocab], seen)
