"""GaLore: AdamW whose moments live in a few directions of each matrix, found anew from the gradient.

A gradient `G` with no more rows than columns is read as `R = P^T G`, where `P` holds the first `rank` left
singular vectors of the gradient at the last refresh, every `every` steps. Adam works on `R` and gives `N`;
the weights take `W = W - lr scale P N`. A gradient with more rows than columns is projected on the right,
`R = G P`. The state of an m x n matrix, m <= n, is `m r + 2 n r` numbers instead of `2 m n`. Vectors,
embeddings, the output matrix and matrices that are not wider than the rank take AdamW.

Paper: Zhao et al., ICML 2024, arXiv:2403.03507 (algorithm 2; moments stay as they are at a refresh).
Differs: a singular vector's sign, which is free, is that of its predecessor, so that the moments still
fit; eps is added to the corrected root and decay comes before the step, as in AdamW here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.optim import adamw
from tinygpt.train.optim._shared import Periodic, counts, is_hidden, positive
from tinygpt.train.protocols import Seen, Tensors


@dataclass(frozen=True, kw_only=True)
class Config(adamw.Config):
    """Knobs of GaLore: those of AdamW, and the projection."""

    rank: Annotated[int, "Directions kept of each matrix."] = 64
    every: Annotated[int, "Steps between two refreshes of the directions."] = 200
    scale: Annotated[float, "Factor on the learning rate of projected matrices."] = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        counts(self, "rank")
        positive(self, "scale")


def is_wide(x: mx.array) -> bool:
    """Whether a matrix has no more rows than columns, so that its rows are projected."""
    return x.shape[-2] <= x.shape[-1]


def down(projector: mx.array, gradient: mx.array) -> mx.array:
    """A gradient's coordinates: (rank, columns) of a wide matrix, (rows, rank) of a tall one."""
    return projector.swapaxes(-1, -2) @ gradient if is_wide(gradient) else gradient @ projector


def up(projector: mx.array, low: mx.array, wide: bool) -> mx.array:
    """The matrix that coordinates stand for."""
    return projector @ low if wide else low @ projector.swapaxes(-1, -2)


def directions(gradient: mx.array, old: mx.array) -> mx.array:
    """The first singular vectors of the short side, (short, rank), with the signs of the old ones.

    A QR takes the long side off first: the singular vectors of what remains are those of the gradient, and
    512 x 2048 costs 0.2 s instead of 0.9. A gradient that is not finite leaves the old ones."""
    tall = gradient.swapaxes(-1, -2) if is_wide(gradient) else gradient
    finite = mx.isfinite(tall).all()
    _, r = mx.linalg.qr(mx.where(finite, tall, 0.0), stream=mx.cpu)
    u, _, _ = mx.linalg.svd(r.swapaxes(-1, -2), stream=mx.cpu)
    new = u[..., : old.shape[-1]]
    new = mx.where((new * old).sum(axis=-2, keepdims=True) < 0, -new, new)
    return mx.where(finite, new, old)


class GaLore(Periodic):
    """Pure functions on flat dicts of tensors. The state of a projected matrix is `projector.<name>`, and
    `m.<name>` and `v.<name>` of the projected size; of other tensors AdamW's."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.adamw = adamw.AdamW(config)

    def is_projected(self, name: str, weight: mx.array) -> bool:
        """Whether a tensor is a hidden matrix, or a stack of them, with more directions than are kept."""
        return is_hidden(name, weight) and min(weight.shape[-2:]) > self.config.rank

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh moments and projectors, all zero: the first refresh is due before the first step."""
        own = {n: w for n, w in weights.items() if self.is_projected(n, w)}
        if not own:
            raise ConfigError(
                f"GaLore has nothing to project: no hidden matrix is wider than {self.config.rank} both ways",
                hint="lower optimizer.rank, or use adamw",
            )
        rank, state = self.config.rank, self.adamw.init({n: w for n, w in weights.items() if n not in own})
        for name, w in own.items():
            *stack, rows, columns = w.shape
            state[f"projector.{name}"] = mx.zeros((*stack, min(rows, columns), rank))
            low = (rank, columns) if rows <= columns else (rows, rank)
            state |= self.adamw.init({name: mx.zeros((*stack, *low))})
        return state

    def refresh(self, state: Tensors, seen: Seen) -> Tensors:
        """The state with directions from the gradients. Not to be compiled: LAPACK runs on the CPU."""
        found = {}
        for name, gradient in seen.gradients.items():
            if (key := f"projector.{name}") in state:
                found[key] = directions(gradient, state[key])
                mx.eval(found[key])  # one at a time, for memory
        return state | found

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments."""
        own = [n for n, w in weights.items() if self.is_projected(n, w)]
        other = {n: w for n, w in weights.items() if n not in own}
        new_weights, new_state = self.adamw.apply(other, gradients, state, lr, step)
        projectors = {n: state[f"projector.{n}"] for n in own}
        low = {n: down(projectors[n], gradients[n]) for n in own}
        # From weights of zero, which decay leaves there, AdamW gives the step itself: -lr N.
        still = {n: mx.zeros(x.shape) for n, x in low.items()}
        steps, moments = self.adamw.apply(still, low, state, lr, step)
        for name, projector in projectors.items():
            w = weights[name]
            move = up(projector, steps[name], is_wide(w))
            new_weights[name] = w * (1 - lr * self.config.weight_decay) + self.config.scale * move
            new_state[f"projector.{name}"] = projector
        return {n: new_weights[n] for n in weights}, new_state | moments


def build(config: Config) -> GaLore:
    """The optimizer of a config."""
    return GaLore(config)
