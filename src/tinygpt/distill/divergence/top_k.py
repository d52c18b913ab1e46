"""Sparse KL: the teacher's k likeliest tokens, and one event for all the others.

    K    = the k tokens with the largest p_T
    loss = sum_{v in K} p_T(v) log p_T(v)/p_S(v) + r_T log r_T/r_S          r = 1 - sum_{v in K} p(v)

Without the last term, the tail bucket, a student that gives all of its probability to K would be
rewarded. Merging events can only lower a KL divergence, so this is a lower bound of the forward KL that
closes as k grows. It is what a teacher of which k log-probabilities are stored can give, and what
forward_kl computes from such a store.

Paper: Peng et al. 2024, arXiv:2410.16215 (truncated teacher logits in pretraining).
Differs: the mass of the tokens left out is an event of its own; there the rest is renormalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.distill.divergence._events import kl, rest


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many tokens are told apart."""

    k: Annotated[int, "Tokens at each place whose probability is matched one by one."] = 64

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k must be at least 1, got {self.k}")


def losses(student: mx.array, teacher: mx.array, config: Config) -> mx.array:
    """The divergence (...) of log-probabilities (..., E), in nats."""
    if config.k >= teacher.shape[-1]:
        return kl(teacher, student)
    ids = mx.argpartition(-teacher, config.k, axis=-1)[..., : config.k]
    p, q = (mx.take_along_axis(side, ids, axis=-1) for side in (teacher, student))
    r, s = rest(p), rest(q)
    return kl(p, q) + mx.exp(r) * (r - s)
