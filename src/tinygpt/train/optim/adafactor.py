"""Adafactor: a matrix's second moment from its row and column sums, so the state is as good as free.

`R = b2 R + (1-b2) rows(g^2 + eps)` and `C` likewise over columns give `V = R C / sum(R)`; vectors keep all
of V. `U = g / sqrt(V)` is cut to `U / max(1, rms(U) / clip)`, then `w = w - rho max(scale, rms(w)) U`. The
decay is `b2 = 1 - t^-0.8` at step t, which needs no correction at the start, and there is no first moment.
The relative step is `rho = min(lr, 1/sqrt(t))`.

Paper: Shazeer and Stern, ICML 2018, arXiv:1804.04235 (algorithms 4, 5 and 6; its own rate is --lr 0.01
with the constant schedule).
Differs: decoupled decay of matrices, off unless asked for; matrices in a stack are factored one by one,
and clipped together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.optim._shared import Knobs, not_negative, positive
from tinygpt.train.protocols import Tensors


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of Adafactor."""

    decay_power: Annotated[float, "The second moment's decay at step t is 1 - t^-power."] = 0.8
    clip: Annotated[float, "Bound on the root mean square of a tensor's update."] = 1.0
    eps: Annotated[float, "Added to the squared gradients."] = 1e-30
    relative_step: Annotated[bool, "Bound the learning rate by 1/sqrt(step)."] = True
    parameter_scale: Annotated[
        float, "Multiply a tensor's step by its weights' root mean square, at least this; 0: do not."
    ] = 1e-3
    weight_decay: Annotated[float, "Decoupled decay of matrices, times the learning rate."] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "decay_power", "clip")
        not_negative(self, "parameter_scale")


def rms(x: mx.array) -> mx.array:
    """The root of the mean square of a tensor."""
    return mx.sqrt(x.square().mean())


class Adafactor:
    """Pure functions on flat dicts of tensors; the state is `row.<name>` and `column.<name>` for matrices and
    stacks of matrices, `v.<name>` for vectors."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh sums, all zero."""
        state: Tensors = {}
        for name, w in weights.items():
            if w.ndim > 1:
                state[f"row.{name}"] = mx.zeros(w.shape[:-1])
                state[f"column.{name}"] = mx.zeros((*w.shape[:-2], w.shape[-1]))
            else:
                state[f"v.{name}"] = mx.zeros(w.shape)
        return state

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments."""
        c = self.config
        rho = mx.minimum(lr, mx.rsqrt(step)) if c.relative_step else lr
        new = mx.power(step, -c.decay_power)  # 1 - b2
        new_weights, new_state = {}, {}
        for name, w in weights.items():
            g = gradients[name]
            square = g.square() + c.eps
            if w.ndim > 1:
                row = (1 - new) * state[f"row.{name}"] + new * square.sum(axis=-1)
                column = (1 - new) * state[f"column.{name}"] + new * square.sum(axis=-2)
                new_state[f"row.{name}"], new_state[f"column.{name}"] = row, column
                # The share of a row first: a product of two sums of tiny squares would vanish in float32.
                v = (row / row.sum(axis=-1, keepdims=True))[..., None] * column[..., None, :]
            else:
                v = (1 - new) * state[f"v.{name}"] + new * square
                new_state[f"v.{name}"] = v
            update = g * mx.rsqrt(v)
            update = update / mx.maximum(1.0, rms(update) / c.clip)
            size = rho * mx.maximum(c.parameter_scale, rms(w)) if c.parameter_scale else rho
            decayed = w * (1 - lr * c.weight_decay) if w.ndim > 1 else w
            new_weights[name] = decayed - size * update
        return new_weights, new_state


def build(config: Config) -> Adafactor:
    """The optimizer of a config."""
    return Adafactor(config)
