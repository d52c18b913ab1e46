"""What constraints let a draft write: their masks along tokens that are guessed one after the other.

A guess that a constraint forbids is never right, so a draft that may write anything is of little use beside
one. Constraints are led along the guesses and back again; that the text heeds them is the pass's to see to.
Shapes as in _protocol.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygpt.core.backend import mx
from tinygpt.core.errors import TinyGPTError
from tinygpt.infer.batch import unpacked
from tinygpt.infer.request import Answer, Constraint


@dataclass(eq=False)
class _Led:
    """A row's constraint, `n` tokens ahead of the text. `ended`: nothing follows, or it has no way on."""

    row: int
    constraint: Constraint
    stop_ids: frozenset[int]
    n: int = 0
    ended: bool = False
    failed: bool = False


class Ahead:
    """The constraints of a batch's rows, while guesses are made. A row whose constraint has ended guesses
    freely."""

    def __init__(self, rows: Sequence[Answer], vocab_size: int) -> None:
        self._n_rows, self._vocab_size = len(rows), vocab_size
        self._led = [
            _Led(i, constraint, row.request.stop_ids)
            for i, row in enumerate(rows)
            if (constraint := row.request.constraint) is not None
        ]

    def allowed(self, logits_BV: mx.array) -> mx.array | None:
        """(B, V): what may be guessed next, of what the draft can write at all; None where no row has a
        constraint."""
        if not self._led:
            return None
        import numpy as np

        table = np.full((self._n_rows, -(-self._vocab_size // 32)), -1, np.int32)
        for one in self._led:
            if one.ended:
                continue
            try:
                mask = np.asarray(one.constraint.mask())[: table.shape[1]]
            except TinyGPTError:  # the pass meets it too, if the text comes here
                one.ended = one.failed = True
                continue
            table[one.row, : len(mask)], table[one.row, len(mask) :] = mask, 0
        allowed_BV = unpacked(table, self._vocab_size)
        # A draft with fewer ids may have none of them, and a draw from nothing has no probabilities.
        some_B1 = (allowed_BV & (logits_BV > -mx.inf)).any(axis=-1, keepdims=True)
        return allowed_BV | ~some_B1

    def take(self, tokens_B: mx.array) -> None:
        """These were guessed."""
        tokens = tokens_B.tolist() if self._led else []
        for one in self._led:
            if one.ended or tokens[one.row] in one.stop_ids:
                one.ended = True
                continue
            try:
                one.constraint.take(tokens[one.row])
                one.n += 1
            except TinyGPTError:
                one.ended = True

    def back(self) -> None:
        """Leave the constraints as they were."""
        for one in self._led:
            if one.n or one.failed:
                one.constraint.rollback(one.n)
