"""Next-token prediction: mean cross-entropy over every real token, prompts included.

`loss = - sum_t log p(x_{t+1} | x_{<=t}) / n` over the n tokens that have a next token in their document.
With `z_loss` a weight times the mean of (log Z)^2 is added, Z the denominator of the softmax: logits that
drift away from 0 make half precision unstable.

Paper: Radford et al. 2018 (GPT), eq. 1. Of the z-loss: Chowdhery et al. 2022 (PaLM), arXiv:2204.02311,
section 5.
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tinygpt.core.backend import mx
from tinygpt.train.objective._weighted import Knobs, TokenLoss, real_targets
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.model.lm import LM


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """What is added to the cross-entropy."""

    z_loss: Annotated[float, "Weight of the z-loss; 0: off."] = 0.0


class NextToken(TokenLoss):
    """Learns from all text."""

    def weights(self, batch: Tensors) -> mx.array:
        """(B, L): 1 where the token has a next token to predict. Learned targets always count."""
        return mx.maximum(real_targets(batch), (batch["weights"] > 0).astype(mx.float32))


def build(model: LM, config: Config | None = None) -> NextToken:
    """The objective over a model."""
    return NextToken(model, config or Config())
