"""SimPO: the mean log-probability of a token is the reward, and the chosen answer must win by a margin.

    loss = - log sigmoid(beta / |y_w| log p(y_w) - beta / |y_l| log p(y_l) - gamma)

Generation looks for answers of high mean log-probability, so that is what is trained: no reference model,
and no gain from longer answers. The margin gamma asks for more than just being ahead.

Paper: Meng et al. 2024, arXiv:2405.14734, eq. 6; beta 2 to 2.5, gamma 0.3 to 1.6, learning rates of all
weights 3e-7 to 1e-6 (section 3 and appendix).
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.preference._scores import Facts, Knobs, Pairs, log_sigmoid


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """The reward's scale and the margin."""

    reference = False
    beta: Annotated[float, "Scale of the reward, the mean log-probability of an answer's token."] = 2.0
    gamma: Annotated[float, "By how much the chosen answer's reward should be larger."] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma < 0:
            raise ConfigError(f"gamma must not be negative, got {self.gamma:g}")


def losses(scores: Pairs, config: Config) -> tuple[mx.array, Facts]:
    """(losses (B,), facts (B,) by name)."""
    chosen, rejected = (config.beta * mean for mean in scores.means())
    return -log_sigmoid(chosen - rejected - config.gamma), scores.facts(chosen, rejected)
