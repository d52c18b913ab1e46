"""CPO: DPO with a reference that is the same for all answers and drops out, held by likelihood.

    loss = - log sigmoid(beta log p(y_w) - beta log p(y_l))  -  alpha log p(y_w)

With a uniform reference DPO needs no second model; the second term (behaviour cloning) keeps the model near
the chosen answers, which the reference did before.

Paper: Xu et al. 2024, arXiv:2401.08417, eqs. 3 to 5; beta 0.1.
Differs: the second term is a mean over the chosen answer's tokens, not a sum, so that answers of any length
weigh alike beside the first; the authors' code also takes a mean over tokens, though over those of a whole
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.preference._scores import Facts, Knobs, Pairs, log_sigmoid


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """The two terms' weights."""

    reference = False
    beta: Annotated[float, "Scale of the reward, the answer's log-probability."] = 0.1
    alpha: Annotated[float, "Weight of the chosen answer's likelihood; 0: none."] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha >= 0:
            raise ConfigError(f"alpha must not be negative, got {self.alpha:g}")


def losses(scores: Pairs, config: Config) -> tuple[mx.array, Facts]:
    """(losses (B,), facts (B,) by name)."""
    chosen, rejected = config.beta * scores.chosen, config.beta * scores.rejected
    nll = -scores.means()[0]
    facts = scores.facts(chosen, rejected) | {"nll": mx.stop_gradient(nll)}
    return -log_sigmoid(chosen - rejected) + config.alpha * nll, facts
