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
from tinygpt.core.errors import ConfigError
from tinygpt.model.terms import MEASURE, Terms
from tinygpt.train.objective._drawn import drawn_loss

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

Arrays = dict[str, mx.array]


def check_z_loss(weight: float) -> None:
    """ConfigError for a weight that would push log Z away from 0."""
    if weight < 0:
        raise ConfigError(f"z_loss must not be negative, got {weight:g}")


def weighted_loss(
    model: LM, batch: Arrays, weights_BL: mx.array, *, z_loss: float = 0.0
) -> tuple[mx.array, dict[str, mx.array]]:
    """Cross-entropy of the targets, averaged with `weights_BL`, and what layers and heads add to it; shared
    by the objectives of this kind. Where something is added, "loss" tells the cross-entropy alone."""
    terms = Terms(weights_BL, z_loss=z_loss)
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


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is added to the cross-entropy."""

    z_loss: Annotated[float, "Weight of the z-loss; 0: off."] = 0.0

    def __post_init__(self) -> None:
        check_z_loss(self.z_loss)


class NextToken:
    """Learns from all text."""

    def __init__(self, model: LM, config: Config) -> None:
        self.module, self.config = model, config

    def weights(self, batch: Arrays) -> mx.array:
        """(B, L): 1 where the token has a next token to predict. Learned targets always count."""
        return mx.maximum(real_targets(batch), (batch["weights"] > 0).astype(mx.float32))

    def loss(self, batch: Arrays) -> tuple[mx.array, dict[str, mx.array]]:
        return weighted_loss(self.module, batch, self.weights(batch), z_loss=self.config.z_loss)

    def measure(self, batch: Arrays) -> mx.array:
        return measured_loss(self.module, batch, self.weights(batch))

    def drawn(self, batch: Arrays) -> mx.array:
        """The mean loss at targets that the model draws itself; see _drawn.py."""
        return drawn_loss(self.module, batch, self.weights(batch))


def build(model: LM, config: Config | None = None) -> NextToken:
    """The objective over a model."""
    return NextToken(model, config or Config())
