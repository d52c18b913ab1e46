"""KTO: answers that are good or bad by themselves, not in pairs, measured from where the model is on average.

    r    = log p(y) / p_ref(y),    z0 = max(0, KL(p || p_ref))
    loss = w_D (1 - sigmoid(beta (r - z0)))    where the answer is desirable
           w_U (1 - sigmoid(beta (z0 - r)))    where it is not

People feel gains and losses from where they stand, and less and less the larger they are (prospect theory);
z0 is where the model stands. It is the mean of log p / p_ref over answers that belong to other prompts, over
the whole batch, and has no gradient.

Paper: Ethayarajh et al. 2024, arXiv:2402.01306, eqs. 7 and 8; beta 0.1, learning rate of all weights 5e-7.
Differs: the answer of another prompt is chosen once, for the whole run, so that its reference is computed
once, too; the paper shifts the answers within each batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.preference._scores import Facts, Knobs, Labelled


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """How far the model may go, and what a good and a bad answer weigh."""

    paired = False
    rate = 5e-7
    beta: Annotated[float, "Holds the model to the reference: the larger, the closer it stays."] = 0.1
    desirable: Annotated[float, "Weight of good answers."] = 1.0
    undesirable: Annotated[float, "Weight of bad answers."] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("desirable", "undesirable"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name):g}")


def losses(scores: Labelled, config: Config) -> tuple[mx.array, Facts]:
    """(losses (B,), facts (B,) by name)."""
    ratio, z0 = scores.answer - scores.reference, mx.maximum(mx.stop_gradient(scores.kl), 0.0)
    sign = 2 * scores.good - 1
    weight = config.desirable * scores.good + config.undesirable * (1 - scores.good)
    found = weight * (1 - mx.sigmoid(sign * config.beta * (ratio - z0)))
    reward = config.beta * ratio
    facts = {
        "accuracy": (sign * (ratio - z0) > 0).astype(mx.float32), "kl": mx.broadcast_to(z0, ratio.shape),
        "chosen_reward": reward, "rejected_reward": reward,
        "chosen_logp": scores.answer, "rejected_logp": scores.answer,
    }  # fmt: skip
    return found, {name: mx.stop_gradient(value) for name, value in facts.items()}
