"""Response loss: cross-entropy over assistant tokens and their end token; prompts count little or nothing.

`loss = - sum_t w_t log p(x_{t+1} | x_{<=t}) / sum_t w_t` with w_t = 1 where x_{t+1} belongs to an answer and
`prompt_weight` at the prompt's tokens. At 0 the prompt is read but not learned. A model that is trained from
nothing on few tokens learns faster with a little of it (0.1 to 0.3): requests are text too.

Paper: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3.5 (supervised tuning); the weight:
Huerta-Enochian and Ko 2024, arXiv:2401.13586 (prompt loss weight).
Differs: the mean is over the weighted tokens of the whole batch, so a long answer weighs more than a short
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.objective._weighted import Knobs, TokenLoss, real_targets
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.model.lm import LM


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """What counts beside answers."""

    prompt_weight: Annotated[float, "Weight of a prompt's token, where an answer's has 1."] = 0.0
    z_loss: Annotated[float, "Weight of the z-loss; 0: off."] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prompt_weight <= 1:
            raise ConfigError(f"prompt_weight must be from 0 to 1, got {self.prompt_weight}")


class Response(TokenLoss):
    """Learns from answers, and a little from prompts where asked to."""

    def weights(self, batch: Tensors) -> mx.array:
        """(B, L): the batch's own weights, and the prompt's."""
        if not self.config.prompt_weight:
            return batch["weights"]
        return mx.maximum(batch["weights"], self.config.prompt_weight * real_targets(batch))


def build(model: LM, config: Config | None = None) -> Response:
    """The objective over a model."""
    return Response(model, config or Config())
