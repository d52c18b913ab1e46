"""Cross-entropy as a weighted mean over tokens: what objectives that differ in their weights share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.terms import MEASURE, Terms
from tinygpt.train.objective._drawn import drawn_loss
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.model.lm import LM


class Knobs:
    """Refuses a z-loss that would push log Z away from 0."""

    z_loss: float

    def __post_init__(self) -> None:
        if not self.z_loss >= 0:
            raise ConfigError(f"z_loss must not be negative, got {self.z_loss:g}")


class TokenLoss(ABC):
    """The mean of -log p(target), each target as much as `weights` says."""

    def __init__(self, model: LM, config: Any) -> None:
        self.module, self.config = model, config

    @abstractmethod
    def weights(self, batch: Tensors) -> mx.array:
        """(B, L): what each target counts."""

    def loss(self, batch: Tensors) -> tuple[mx.array, Tensors]:
        """The mean, and what layers and heads add to it. Where something is added, "loss" tells the
        cross-entropy alone."""
        weights_BL = self.weights(batch)
        terms = Terms(weights_BL, z_loss=self.config.z_loss)
        loss = self._mean(batch, weights_BL, terms=terms, keys=batch.get("keys"))
        if not terms:
            return loss, {}
        measures = {f"{MEASURE}{name}": value for name, value in terms.measures.items()}
        return loss + terms.loss(), {"loss": loss, **terms.facts(), **measures}

    def measure(self, batch: Tensors) -> mx.array:
        """The mean as evaluation has it: the cross-entropy alone, of the model as it decodes, without noise
        and without what layers do in training only."""
        return self._mean(batch, self.weights(batch))

    def drawn(self, batch: Tensors) -> mx.array:
        """The mean loss at targets that the model draws itself; see _drawn.py."""
        return drawn_loss(self.module, batch, self.weights(batch))

    def _mean(self, batch: Tensors, weights_BL: mx.array, **how: Any) -> mx.array:
        losses_BL = self.module.losses(
            batch["tokens"],
            batch["targets"],
            positions=batch["positions"],
            segments=batch["segments"],
            **how,
        )
        return (losses_BL * weights_BL).sum() / mx.maximum(weights_BL.sum(), 1.0)


def real_targets(batch: Tensors) -> mx.array:
    """(B, L): 1 where the token has a next one in its document, else 0."""
    same = (batch["segments"][:, 1:] == batch["segments"][:, :-1]) & (batch["segments"][:, 1:] > 0)
    return mx.concatenate([same, mx.zeros((same.shape[0], 1), same.dtype)], axis=1).astype(mx.float32)
