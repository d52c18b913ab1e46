"""Sophia-G: momentum over an estimate of the curvature; no weight moves further than the learning rate.

`m = b1 m + (1-b1) g`; every k steps `h = b2 h + (1-b2) h^` with the Gauss-Newton-Bartlett estimate
`h^ = B G^2`, where G is the gradient of the mean loss over B tokens at targets drawn from the model's own
distribution; then `w = w - lr (clip(m / max(rho h, eps), 1) + decay w)`. A flat direction takes a step of lr,
a steep one m / (rho h). Where h is zero, as in what only a router's or another extra loss teaches, the
step is lr in the direction of m. An estimate costs one more pass, and the drawing.

Paper: Liu et al., ICLR 2024, arXiv:2305.14342 (algorithms 2 and 3; rho is its gamma, the defaults are
those of its experiments).
Differs: decay skips tensors of fewer than 2 dimensions; where tokens weigh w, not 0 or 1, the drawn loss has
sqrt(w), which keeps the estimate right; all rows of the batch estimate, not half of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.optim._shared import Knobs, Periodic, positive
from tinygpt.train.protocols import Seen, Tensors


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of Sophia."""

    beta1: Annotated[float, "Decay of the momentum."] = 0.96
    beta2: Annotated[float, "Decay of the curvature, from one estimate to the next."] = 0.99
    rho: Annotated[float, "Factor on the curvature: the larger, the fewer weights take the longest step."] = (
        0.05
    )
    every: Annotated[int, "Steps between two estimates of the curvature."] = 10
    eps: Annotated[float, "Least curvature that is divided by."] = 1e-12
    weight_decay: Annotated[float, "Decoupled decay of matrices, times the learning rate."] = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rho")


class Sophia(Periodic):
    """Pure functions on flat dicts of tensors; the state is `m.<name>` and `h.<name>` in float32."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Momentum and curvature, all zero: the first estimate is due before the first step."""
        return {f"{kind}.{name}": mx.zeros(w.shape) for name, w in weights.items() for kind in "mh"}

    def gradients(self, seen: Seen) -> Tensors:
        """The gradients whose squares tell the curvature."""
        return seen.drawn()

    def refresh(self, state: Tensors, seen: Seen) -> Tensors:
        """The state with a newer curvature."""
        beta = self.config.beta2
        estimates = {f"h.{n}": seen.tokens * g.square() for n, g in self.gradients(seen).items()}  # alg. 2
        return state | {key: beta * state[key] + (1 - beta) * h for key, h in estimates.items()}

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments. The step number plays no part."""
        c = self.config
        new_weights, new_state = {}, {}
        for name, w in weights.items():
            h = state[f"h.{name}"]
            m = c.beta1 * state[f"m.{name}"] + (1 - c.beta1) * gradients[name]
            decayed = w * (1 - lr * c.weight_decay) if w.ndim > 1 else w
            new_weights[name] = decayed - lr * mx.clip(m / mx.maximum(c.rho * h, c.eps), -1, 1)
            new_state[f"m.{name}"], new_state[f"h.{name}"] = m, h
        return new_weights, new_state


def build(config: Config) -> Sophia:
    """The optimizer of a config."""
    return Sophia(config)
