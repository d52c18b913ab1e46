"""Response-only loss: cross-entropy over assistant tokens and their end token, nothing else.

`loss = - sum_t w_t log p(x_{t+1} | x_{<=t}) / sum_t w_t` with w_t = 1 exactly where x_{t+1} belongs to an
answer. The prompt is read but not learned.

Paper: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3.5 (supervised tuning).
Differs: the mean is over answer tokens of the whole batch, so a long answer weighs more than a short one.
"""

from __future__ import annotations

from tinygpt.core.backend import mx
from tinygpt.model.lm import LM
from tinygpt.train.objective.next_token import Arrays, weighted_loss


class Response:
    """Learns from answers only."""

    def __init__(self, model: LM) -> None:
        self.module = model

    def weights(self, batch: Arrays) -> mx.array:
        """(B, L): the batch's own weights."""
        return batch["weights"]

    def loss(self, batch: Arrays) -> tuple[mx.array, dict[str, mx.array]]:
        return weighted_loss(self.module, batch, batch["weights"])


def build(model: LM) -> Response:
    """The objective over a model."""
    return Response(model)
