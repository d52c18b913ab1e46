"""IPO: bring the preference's log-ratio to a fixed distance, so that won pairs do not pull on.

    h    = log p(y_w) / p_ref(y_w) - log p(y_l) / p_ref(y_l)
    loss = (h - 1 / (2 tau))^2

DPO's loss keeps falling as h grows, so labels that never contradict each other drive the model as far from
the reference as it can go. A square has its lowest point at h = 1 / (2 tau), whatever the labels.

Paper: Azar et al. 2023, arXiv:2310.12036, eq. 17.
Differs: each log-ratio is a mean over the answer's tokens, not a sum: the paper does not say so, its authors
confirmed it to TRL, whose loss this is; `--set loss_type.mean=false` has the sums. tau is called beta here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.preference._scores import Facts, Knobs, Pairs


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Where the lowest point is."""

    beta: Annotated[float, "tau: the loss is lowest at a log-ratio of 1 / (2 beta)."] = 0.1
    mean: Annotated[bool, "Mean log-ratio of an answer's tokens; off: their sum."] = True


def losses(scores: Pairs, config: Config) -> tuple[mx.array, Facts]:
    """(losses (B,), facts (B,) by name)."""
    chosen, rejected = scores.ratios()
    facts = scores.facts(config.beta * chosen, config.beta * rejected)
    if config.mean:
        chosen, rejected = (
            chosen / mx.maximum(scores.n_chosen, 1),
            rejected / mx.maximum(scores.n_rejected, 1),
        )
    return (chosen - rejected - 1 / (2 * config.beta)).square(), facts
