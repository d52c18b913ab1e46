"""What a preference loss goes by: how likely the model finds whole answers, one number a row.

A loss is a pure function `losses(scores, config) -> (losses_B, facts)` of such numbers; `_objective.py`
makes them from a batch. Each row counts the same in the mean, however long its answers are. Facts are of
rows, too; those whose name begins with "chosen" or "rejected" are about the rows that have such an answer.
B: rows.
"""

from __future__ import annotations

from typing import NamedTuple

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError

Facts = dict[str, mx.array]
SMALLEST = -1e-6  # the largest mean log p that odds are taken of: at p = 1 they have no end


class Knobs:
    """What a loss says of itself beside its knobs."""

    reference = True  # whether it compares with a model that stays as it was
    paired = True  # whether a row has two answers, or one with a label
    rate = 1e-6  # learning rate where all weights learn

    def __post_init__(self) -> None:
        beta = getattr(self, "beta", 1.0)
        if not beta > 0:
            raise ConfigError(f"beta must be positive, got {beta:g}")


class Pairs(NamedTuple):
    """Two answers a row. `chosen` and `rejected` are sums of log p over an answer's tokens (B,), the counts
    are how many these are, `ref_*` the same sums of the reference model (zeros where a loss has none)."""

    chosen: mx.array
    rejected: mx.array
    n_chosen: mx.array
    n_rejected: mx.array
    ref_chosen: mx.array
    ref_rejected: mx.array

    def ratios(self) -> tuple[mx.array, mx.array]:
        """log p - log p_ref of the chosen and of the rejected answers, (B,) each."""
        return self.chosen - self.ref_chosen, self.rejected - self.ref_rejected

    def means(self) -> tuple[mx.array, mx.array]:
        """Mean log p of an answer's token, (B,) each."""
        return self.chosen / mx.maximum(self.n_chosen, 1), self.rejected / mx.maximum(self.n_rejected, 1)

    def facts(self, chosen: mx.array, rejected: mx.array) -> Facts:
        """What is told of every pair, from the rewards (B,) that the loss implies."""
        found = {
            "accuracy": (chosen > rejected).astype(mx.float32), "margin": chosen - rejected,
            "chosen_reward": chosen, "rejected_reward": rejected,
            "chosen_logp": self.chosen, "rejected_logp": self.rejected,
        }  # fmt: skip
        return {name: mx.stop_gradient(value) for name, value in found.items()}


class Labelled(NamedTuple):
    """One answer a row: its sum of log p (B,), the reference model's, 1 where it is a good one and 0 where
    not, and how far the model has moved from the reference, one number for the whole batch."""

    answer: mx.array
    reference: mx.array
    good: mx.array
    kl: mx.array


def log_sigmoid(x: mx.array) -> mx.array:
    """log sigmoid(x), also where x is large on either side."""
    return -mx.logaddexp(mx.array(0.0), -x)


def log_odds(mean: mx.array) -> mx.array:
    """log(p / (1 - p)) of p = exp(mean), mean < 0; 1 - p is computed in the way that keeps its digits."""
    mean = mx.minimum(mean, SMALLEST)
    near = mean > -0.6931  # p > 1/2; the unused branch must be finite, or its gradient is no number
    log_rest = mx.where(
        near,
        mx.log(-mx.expm1(mx.where(near, mean, -1.0))),
        mx.log1p(-mx.exp(mx.where(near, -1.0, mean))),
    )
    return mean - log_rest
