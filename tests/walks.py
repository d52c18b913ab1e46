"""Random texts under a constraint: what a model without any sense would write, made to come to an end."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.request import Constraint

BYTES = ByteTokenizer()
LIKELY = frozenset(b"ab0")  # what patterns ask for
CLOSING = frozenset(b"\"'}])>;")


def allowed(constraint: Constraint) -> list[int]:
    """Ids that may come next."""
    bits = np.unpackbits(constraint.mask().view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).tolist()


def walk(
    constraint: Constraint,
    rng: random.Random,
    *,
    tokenizer: Any = BYTES,
    stop: float = 0.5,
    eager: int = 40,
    most: int = 500,
    closing: frozenset[int] = CLOSING,
) -> list[int] | None:
    """The ids of one answer, or None where it did not end within `most`. stop: how likely an answer that may
    end does; after `eager` ids it ends, and closes what is open, as soon as it may."""
    ids: list[int] = []
    for n in range(most):
        options = allowed(constraint)
        going = [i for i in options if i not in tokenizer.stop_ids]
        if len(going) < len(options) and (not going or n > eager or rng.random() < stop):
            return ids
        near = [i for i in going if i in closing]
        if n > eager and rng.random() < 0.5:
            near = [i for i in going if i in LIKELY] or near
        if near and (n > eager or rng.random() < 0.3):
            going = near
        ids.append(rng.choice(going))
        constraint.take(ids[-1])
    return None


def takes(constraint: Constraint, ids: list[int]) -> bool:
    """Whether the constraint lets these ids be a whole answer."""
    for id in ids:
        if id not in allowed(constraint):
            return False
        constraint.take(id)
    return any(id in BYTES.stop_ids for id in allowed(constraint))
