"""AdamW: per-weight step sizes from first and second moments, with decoupled weight decay.

`m = b1 m + (1-b1) g`, `v = b2 v + (1-b2) g^2`, both corrected for their start at zero, then `w = w - lr (m^ /
(sqrt(v^) + eps) + decay w)`. Decay acts on matrices only: norms and biases are scales and shifts.

Paper: Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101 (algorithm 2); Kingma and Ba, arXiv:1412.6980.
Differs: decay is multiplied by the current learning rate, as PyTorch does, and skips tensors of fewer than 2
dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.optim._shared import Knobs
from tinygpt.train.protocols import Tensors


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of AdamW."""

    beta1: Annotated[float, "Decay of the first moment."] = 0.9
    beta2: Annotated[float, "Decay of the second moment."] = 0.95
    eps: Annotated[float, "Added to the root of the second moment."] = 1e-8
    weight_decay: Annotated[float, "Decoupled decay of matrices, times the learning rate."] = 0.1


class AdamW:
    """Pure functions on flat dicts of tensors; the state is `m.<name>` and `v.<name>` in float32."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh moments, all zero."""
        return {f"{kind}.{name}": mx.zeros(w.shape) for name, w in weights.items() for kind in "mv"}

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step. lr and step (1 for the first) are float32 scalars held in arrays, so one compiled trace
        serves all."""
        c = self.config
        # Both corrections folded into two scalars: lr m^/(sqrt(v^)+eps) = size m/(sqrt(v)+eps').
        correction2 = mx.sqrt(1 - mx.power(c.beta2, step))
        size = lr * correction2 / (1 - mx.power(c.beta1, step))
        eps = c.eps * correction2
        new_weights, new_state = {}, {}
        for name, w in weights.items():
            g = gradients[name]
            m = c.beta1 * state[f"m.{name}"] + (1 - c.beta1) * g
            v = c.beta2 * state[f"v.{name}"] + (1 - c.beta2) * (g * g)
            decayed = w * (1 - lr * c.weight_decay) if w.ndim > 1 else w
            new_weights[name] = decayed - size * (m / (mx.sqrt(v) + eps))
            new_state[f"m.{name}"], new_state[f"v.{name}"] = m, v
        return new_weights, new_state


def build(config: Config) -> AdamW:
    """The optimizer of a config."""
    return AdamW(config)
