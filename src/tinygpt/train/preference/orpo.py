"""ORPO: learn the chosen answer, and in the same step make its odds better than those of the rejected one.

    p    = exp(1 / |y| log p(y)),   odds = p / (1 - p)
    loss = - 1 / |y_w| log p(y_w)  -  lambda log sigmoid(log odds(y_w) - log odds(y_l))

One stage in place of two: the first term is supervised tuning, the second takes probability from the style
of answer that is not wanted. There is no reference model.

Paper: Hong et al. 2024, arXiv:2403.07691, eqs. 2 to 7; lambda 0.1 and a learning rate of all weights of 8e-6.
Differs: nothing. (TRL's first term reads the prompts as well, and is a mean over all tokens of a batch.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.preference._scores import Facts, Knobs, Pairs, log_odds, log_sigmoid


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """How much the odds count."""

    reference = False
    rate = 8e-6
    odds: Annotated[float, "lambda: weight of the odds' term beside the chosen answer's likelihood."] = 0.1

    def __post_init__(self) -> None:
        if not self.odds >= 0:
            raise ConfigError(f"odds must not be negative, got {self.odds:g}")


def losses(scores: Pairs, config: Config) -> tuple[mx.array, Facts]:
    """(losses (B,), facts (B,) by name)."""
    chosen, rejected = scores.means()
    ratio = log_odds(chosen) - log_odds(rejected)
    facts = scores.facts(config.odds * chosen, config.odds * rejected)
    facts |= {"nll": mx.stop_gradient(-chosen), "log_odds": mx.stop_gradient(ratio)}
    return -chosen - config.odds * log_sigmoid(ratio), facts
