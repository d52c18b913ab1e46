"""Lion: every weight moves by the same amount, in the direction of a momentum's sign.

`c = b1 m + (1-b1) g`, `w = w - lr (sign(c) + decay w)`, then `m = b2 m + (1-b2) g`: the step mixes in more
of the newest gradient than the momentum remembers. One moment instead of two. A sign is longer than what
AdamW takes for most weights, so the learning rate is to be 3 to 10 times smaller, and the decay as many
times larger.

Paper: Chen et al., NeurIPS 2023, arXiv:2302.06675 (algorithm 2).
Differs: decay skips tensors of fewer than 2 dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.optim._shared import Knobs
from tinygpt.train.protocols import Tensors


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of Lion."""

    beta1: Annotated[float, "Share of the momentum in the step's direction."] = 0.9
    beta2: Annotated[float, "Decay of the momentum."] = 0.99
    weight_decay: Annotated[float, "Decoupled decay of matrices, times the learning rate."] = 1.0


class Lion:
    """Pure functions on flat dicts of tensors; the state is `momentum.<name>` in float32."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh momentum, all zero."""
        return {f"momentum.{name}": mx.zeros(w.shape) for name, w in weights.items()}

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments. The step number plays no part."""
        c = self.config
        new_weights, new_state = {}, {}
        for name, w in weights.items():
            m, g = state[f"momentum.{name}"], gradients[name]
            decayed = w * (1 - lr * c.weight_decay) if w.ndim > 1 else w
            new_weights[name] = decayed - lr * mx.sign(c.beta1 * m + (1 - c.beta1) * g)
            new_state[f"momentum.{name}"] = c.beta2 * m + (1 - c.beta2) * g
        return new_weights, new_state


def build(config: Config) -> Lion:
    """The optimizer of a config."""
    return Lion(config)
