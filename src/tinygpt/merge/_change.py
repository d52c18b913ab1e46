"""What merge methods share: changes from a base, weights, trimming, electing signs, dropping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family

MERGES = Family("tinygpt.merge", verb="combine")


@dataclass(frozen=True)
class Parts:
    """One tensor of every model, of the same shape, in float32. `base` is the one they all grew from, None
    where there is none; `weights` are one number a model, `name` the tensor's."""

    name: str
    tensors: Sequence[mx.array]
    weights: Sequence[float]
    base: mx.array | None = None

    def changes(self) -> list[mx.array]:
        """What each model has learned: its tensor minus the base's (the task vectors of Ilharco et al.)."""
        assert self.base is not None, self.name
        return [tensor - self.base for tensor in self.tensors]


def check_base(method: str, based: bool) -> None:
    """Refuse to merge without a base what is defined by changes from one."""
    if not based:
        raise ConfigError(
            f"the merge method '{method}' adds up changes from a base, and none is given",
            hint="give the model that they all grew from as --base, or take --method linear or slerp",
        )


def check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise ConfigError(f"--density must be above 0 and at most 1, got {density:g}")


def check_weights(method: str, weights: Sequence[float]) -> None:
    """Weights that are divided by their sum must have one."""
    if sum(weights) <= 0 or any(w < 0 for w in weights):
        raise ConfigError(
            f"the merge method '{method}' takes shares, so --weights must not be negative or all zero: "
            f"{', '.join(f'{w:g}' for w in weights)}",
            hint="give one number a model, none below zero",
        )


def added(changes: Sequence[mx.array], weights: Sequence[float], *, normalize: bool) -> mx.array:
    """sum w_t x_t, divided by sum w_t where `normalize` says so."""
    total = changes[0] * weights[0]
    for change, weight in zip(changes[1:], weights[1:], strict=True):
        total = total + change * weight
    return total / sum(weights) if normalize else total


def trimmed(change: mx.array, density: float) -> mx.array:
    """The int(density n) values of the largest magnitude; the others are 0. Where magnitudes are equal at the
    edge, those that come first in memory stay."""
    keep = int(density * change.size)
    if keep >= change.size:
        return change
    if keep == 0:
        return mx.zeros_like(change)
    size = mx.abs(change).reshape(-1)
    edge = mx.partition(size, change.size - keep)[change.size - keep]  # the keep-th largest
    above, level = size > edge, size == edge
    stays = above | (level & (mx.cumsum(level.astype(mx.int32)) <= keep - above.sum()))
    return mx.where(stays.reshape(change.shape), change, 0.0)


def agreed(changes: Sequence[mx.array], weights: Sequence[float], *, normalize: bool) -> mx.array:
    """Elect a sign for each value, and the mean of the changes that have it.

    The sign is that of sum w_t x_t. The mean over the set A that agrees is sum_A w_t x_t / sum_A w_t, or with
    `normalize` off sum_A w_t x_t / |A|, as peft has it; with equal weights of 1 both are the paper's."""
    elected = mx.where(added(changes, weights, normalize=False) >= 0, 1.0, -1.0)
    total = count = mx.zeros(changes[0].shape)
    for change, weight in zip(changes, weights, strict=True):
        agrees = mx.sign(change) == elected
        total = total + mx.where(agrees, weight * change, 0.0)
        count = count + mx.where(agrees, weight if normalize else 1.0, 0.0)
    return mx.where(count > 0, total / mx.where(count > 0, count, 1.0), 0.0)
