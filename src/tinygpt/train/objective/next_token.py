"""Next-token prediction: mean cross-entropy over every real token, prompts included.

`loss = - sum_t log p(x_{t+1} | x_{<=t}) / n` over the n tokens that have a next token in their document.

Paper: Radford et al. 2018 (GPT), eq. 1.
Differs: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.core.backend import mx
from tinygpt.model.terms import MEASURE, Terms

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

Arrays = dict[str, mx.array]


def weighted_loss(model: LM, batch: Arrays, weights_BL: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
    """Cross-entropy of the targets, averaged with `weights_BL`, and what layers add to it; shared by the
    objectives of this kind. Where layers add something, "loss" tells the cross-entropy alone."""
    terms = Terms()
    losses_BL = model.losses(
        batch["tokens"], batch["targets"], positions=batch["positions"], segments=batch["segments"],
        terms=terms, keys=batch.get("keys"),
    )  # fmt: skip
    loss = (losses_BL * weights_BL).sum() / mx.maximum(weights_BL.sum(), 1.0)
    if not terms:
        return loss, {}
    measures = {f"{MEASURE}{name}": value for name, value in terms.measures.items()}
    return loss + terms.loss(), {"loss": loss, **terms.facts(), **measures}


def measured_loss(model: LM, batch: Arrays, weights_BL: mx.array) -> mx.array:
    """The same average as evaluation has it: the cross-entropy alone, of the model as it decodes, without
    noise and without what layers do in training only."""
    losses_BL = model.losses(
        batch["tokens"], batch["targets"], positions=batch["positions"], segments=batch["segments"]
    )
    return (losses_BL * weights_BL).sum() / mx.maximum(weights_BL.sum(), 1.0)


def real_targets(batch: Arrays) -> mx.array:
    """(B, L): 1 where the token has a next one in its document, else 0."""
    same = (batch["segments"][:, 1:] == batch["segments"][:, :-1]) & (batch["segments"][:, 1:] > 0)
    return mx.concatenate([same, mx.zeros((same.shape[0], 1), same.dtype)], axis=1).astype(mx.float32)


class NextToken:
    """Learns from all text."""

    def __init__(self, model: LM) -> None:
        self.module = model

    def weights(self, batch: Arrays) -> mx.array:
        """(B, L): 1 where the token has a next token to predict. Learned targets always count."""
        return mx.maximum(real_targets(batch), (batch["weights"] > 0).astype(mx.float32))

    def loss(self, batch: Arrays) -> tuple[mx.array, dict[str, mx.array]]:
        return weighted_loss(self.module, batch, self.weights(batch))

    def measure(self, batch: Arrays) -> mx.array:
        return measured_loss(self.module, batch, self.weights(batch))


def build(model: LM) -> NextToken:
    """The objective over a model."""
    return NextToken(model)
