"""What layers add to the training loss, and what they tell about a step: router losses, expert loads.

Objectives hand a `Terms` down with the frame and take it back full. Without one, as in evaluation and
decoding, layers compute none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinygpt.core.backend import mx, nn

MEASURE = "@"  # begins the names of measures among a step's facts


class Terms:
    """Collects over the layers of one forward pass.

    `add` is for terms of the loss, which are summed over layers as papers have them; `tell` for figures,
    whose mean over layers is shown; `measure` for arrays after which a parameter is moved once the step is
    taken.

    weights_BL: what each target counts in the loss's mean, for terms that are sums over tokens; None: all 1.
    z_loss: weight of the z-loss of the vocabulary's logits, mean (log Z)^2 over what is learned (Chowdhery et
    al. 2022, arXiv:2204.02311, section 5: 1e-4 keeps log Z near 0).
    """

    def __init__(self, weights_BL: mx.array | None = None, *, z_loss: float = 0.0) -> None:
        self.weights_BL, self.z_loss = weights_BL, z_loss
        self._losses: dict[str, list[tuple[float, mx.array]]] = {}
        self._facts: dict[str, list[mx.array]] = {}
        self.measures: dict[str, mx.array] = {}

    def __bool__(self) -> bool:
        return bool(self._losses or self._facts or self.measures)

    def add(self, name: str, weight: float, value: mx.array) -> None:
        """A term of the loss, before it is weighted."""
        self._losses.setdefault(name, []).append((weight, value))

    def tell(self, name: str, value: mx.array) -> None:
        """A figure to show."""
        self._facts.setdefault(name, []).append(mx.stop_gradient(value))

    def measure(self, parameter: str, value: mx.array) -> None:
        """What the parameter of this name is adjusted by after the step."""
        self.measures[parameter] = mx.stop_gradient(value)

    def counts(self, shape_BL: tuple[int, ...]) -> mx.array:
        """(B, L) what each target counts."""
        if self.weights_BL is None:
            self.weights_BL = mx.ones(shape_BL)
        return self.weights_BL

    def mean(self, values_BL: mx.array, counts_BL: mx.array) -> mx.array:
        """Sum of values, each as much as it counts, over what all targets count: divided as the main loss is,
        so that parts of a batch add up."""
        total = self.counts(values_BL.shape).sum()
        return (values_BL * counts_BL).sum() / mx.maximum(total, 1.0)

    def add_z(self, log_z_BL: mx.array, counts_BL: mx.array, share: float = 1.0) -> None:
        """The z-loss of some predictions, whose cross-entropy has this share in the loss."""
        if self.z_loss:
            self.add("z", share * self.z_loss, self.mean(log_z_BL.square(), counts_BL))

    def arrays(self) -> list[mx.array]:
        """Everything collected, in the order that `join` expects."""
        losses = [v for terms in self._losses.values() for _, v in terms]
        return losses + [v for vs in self._facts.values() for v in vs] + list(self.measures.values())

    def join(self, other: Terms, arrays: Sequence[mx.array]) -> None:
        """Take what another collected, with these arrays in the place of its own."""
        left = iter(arrays)
        for name, terms in other._losses.items():
            self._losses.setdefault(name, []).extend((weight, next(left)) for weight, _ in terms)
        for name, values in other._facts.items():
            self._facts.setdefault(name, []).extend(mx.stop_gradient(next(left)) for _ in values)
        for name in other.measures:
            self.measures[name] = mx.stop_gradient(next(left))

    def loss(self) -> mx.array | float:
        """The weighted sum of all terms."""
        return sum(w * v for terms in self._losses.values() for w, v in terms if w)

    def facts(self) -> dict[str, mx.array]:
        """Means over layers of every term, unweighted, and of every figure."""
        values = {name: [v for _, v in terms] for name, terms in self._losses.items()} | self._facts
        return {name: mx.stop_gradient(sum(vs[1:], vs[0])) / len(vs) for name, vs in values.items()}


def adjust(
    model: nn.Module, weights: dict[str, mx.array], measures: Mapping[str, mx.array]
) -> dict[str, mx.array]:
    """Weights after a step, where some are moved by what was measured in it instead of by a gradient."""
    moved = {}
    for name in weights.keys() & measures.keys():
        owner: Any = model
        for part in name.split(".")[:-1]:
            owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
        moved[name] = owner.adjusted(weights[name], measures[name])
    return weights | moved
