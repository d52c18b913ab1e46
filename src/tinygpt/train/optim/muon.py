"""Muon: momentum whose matrices are made orthogonal, so every direction of a matrix learns at the same pace.

`M = mu M + g`, then `w = w - lr s O` with `O ~ U V^T` of the Nesterov momentum `g + mu M = U S V^T`, found by
five Newton-Schulz steps `X <- a X + b (X X^T) X + c (X X^T)^2 X`, and `s = 0.2 sqrt(max(rows, columns))`,
which gives updates the size of AdamW's, so that one learning rate serves both. Matrices in a stack, as those
of experts, are made orthogonal one by one. Embeddings, the output matrix, vectors, single rows and columns
and depthwise kernels take AdamW.

Paper: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982 (scale,
decoupled decay).
Differs: Newton-Schulz runs in float32 (in bfloat16 it can overflow); matrices of one shape are stacked and
done together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.train.optim import adamw
from tinygpt.train.optim._shared import Knobs, is_hidden
from tinygpt.train.protocols import Tensors

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of Muon; the betas and eps are those of the AdamW part."""

    momentum: Annotated[float, "Decay of the momentum of matrices."] = 0.95
    weight_decay: Annotated[float, "Decoupled decay of matrices, times the learning rate."] = 0.1
    beta1: Annotated[float, "First decay of the AdamW part."] = 0.9
    beta2: Annotated[float, "Second decay of the AdamW part."] = 0.95
    eps: Annotated[float, "Added to the root of the second moment in the AdamW part."] = 1e-8


def orthogonal(x: mx.array) -> mx.array:
    """The nearest matrices with singular values about 1, for a stack (..., rows, columns)."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = x.swapaxes(-1, -2) if tall else x
    x = x / (mx.sqrt(x.square().sum(axis=(-2, -1), keepdims=True)) + 1e-7)
    for _ in range(STEPS):
        square = x @ x.swapaxes(-1, -2)
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.swapaxes(-1, -2) if tall else x


class Muon:
    """Pure functions on flat dicts of tensors; the state is `momentum.<name>` for matrices, else AdamW's."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rest = adamw.AdamW(
            adamw.Config(
                beta1=config.beta1, beta2=config.beta2, eps=config.eps, weight_decay=config.weight_decay
            )
        )

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh momentum, all zero."""
        own = {n: w for n, w in weights.items() if is_hidden(n, w)}
        other = {n: w for n, w in weights.items() if n not in own}
        return {f"momentum.{n}": mx.zeros(w.shape) for n, w in own.items()} | self.rest.init(other)

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments."""
        other = {n: w for n, w in weights.items() if not is_hidden(n, w)}
        new_weights, new_state = self.rest.apply(other, gradients, state, lr, step)
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, weight in weights.items():
            if name not in other:
                shapes.setdefault(tuple(weight.shape), []).append(name)
        mu = self.config.momentum
        for shape, names in shapes.items():
            nesterov = []
            for name in names:
                momentum = mu * state[f"momentum.{name}"] + gradients[name]
                new_state[f"momentum.{name}"] = momentum
                nesterov.append(gradients[name] + mu * momentum)
            updates = orthogonal(mx.stack(nesterov)) * (0.2 * max(shape[-2:]) ** 0.5)
            for name, update in zip(names, updates):
                kept = weights[name] * (1 - lr * self.config.weight_decay)
                new_weights[name] = kept - lr * update
        return {n: new_weights[n] for n in weights}, new_state


def build(config: Config) -> Muon:
    """The optimizer of a config."""
    return Muon(config)
