"""SGD: one step against the gradient, with momentum where asked for; it keeps no state without.

`m = momentum m + g`, `w = w - lr (m + decay w)`; with momentum 0 it is `w = w - lr (g + decay w)`. Steps are
as long as gradients are, so the learning rate depends on the model and the loss far more than AdamW's does.
Evolution strategies (`es`) take their steps with it: memory stays that of the weights.

Paper: Robbins and Monro, Ann. Math. Stat. 1951 (the step); Polyak, USSR Comp. Math. 1964 (momentum), as
Sutskever et al., ICML 2013, write it.
Differs: the velocity is not multiplied by the learning rate, as in PyTorch; decay is decoupled from the
momentum and skips tensors of fewer than 2 dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.optim._shared import Knobs
from tinygpt.train.protocols import Tensors


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of SGD."""

    momentum: Annotated[float, "Share of the last step's direction that is kept; 0: none, and no state."] = (
        0.0
    )
    weight_decay: Annotated[float, "Decay of matrices, times the learning rate."] = 0.0


class SGD:
    """Pure functions on flat dicts of tensors; the state is `momentum.<name>` in float32, or nothing."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh momentum, all zero."""
        if not self.config.momentum:
            return {}
        return {f"momentum.{name}": mx.zeros(w.shape) for name, w in weights.items()}

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments. The step number plays no part."""
        c = self.config
        new_weights, new_state = {}, {}
        for name, w in weights.items():
            m = gradients[name]
            if c.momentum:
                m = c.momentum * state[f"momentum.{name}"] + m
                new_state[f"momentum.{name}"] = m
            decayed = w * (1 - lr * c.weight_decay) if w.ndim > 1 else w
            new_weights[name] = decayed - lr * m
        return new_weights, new_state


def build(config: Config) -> SGD:
    """The optimizer of a config."""
    return SGD(config)
