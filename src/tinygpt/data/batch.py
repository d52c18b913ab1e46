"""A batch: what one training step reads, arrays of B rows; the first five have the same shape (B, L)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int32]
    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Rows of packed tokens. All arrays are (B rows, L tokens).

    `targets[b, t]` is the token that should follow `tokens[b, t]`; it counts in the loss with `weights[b,
    t]`, 0 meaning not at all. A token attends to earlier tokens with the same number in `segments` (0 is
    padding), and `positions` start again at 0 in every segment, so each document in a row is read as if it
    were alone.
    """

    tokens: Ints
    targets: Ints
    weights: Floats
    positions: Ints
    segments: Ints

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L)."""
        return self.tokens.shape[0], self.tokens.shape[1]

    @property
    def n_tokens(self) -> int:
        """How many slots hold a token, not padding."""
        return int((self.segments > 0).sum())

    @property
    def n_targets(self) -> int:
        """How many targets count in the loss."""
        return int((self.weights > 0).sum())

    def rows(self, i: int, j: int) -> Batch:
        """Rows i to j (not included), for gradient accumulation; the arrays are views."""
        return type(self)(**{f.name: getattr(self, f.name)[i:j] for f in fields(self)})


@dataclass(frozen=True)
class PairBatch(Batch):
    """Rows of two answers each, side by side, every one in its half of the row: segment 1 and segment 2.

    They are a chosen and a rejected answer to one prompt, or an answer (`good[b]`: 1 or 0) and one that
    belongs to another prompt. `weights` are 1 at an answer's tokens alone. `reference[b]` holds the
    log-probabilities of both answers under the reference model, zeros where there is none."""

    reference: Floats  # (B, 2)
    good: Floats  # (B,)


@dataclass(frozen=True)
class TaughtBatch(Batch):
    """Rows with what a teacher finds likely at each place: the ids of its K likeliest tokens and their
    log-probabilities. `known` is 1 where it says anything, else 0."""

    top_ids: Ints  # (B, L, K)
    top_log_p: Floats  # (B, L, K)
    known: Floats  # (B, L)
