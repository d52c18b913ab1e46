"""What a step of gradient descent is made of: an objective, an optimizer, what a refresh may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tinygpt.core.backend import mx, nn

Tensors = dict[str, mx.array]
Transform = Callable[[str, mx.array], mx.array]
SURVEY = "survey."  # begins the names of what a batch carries of its survey


class Objective(Protocol):
    """What a step makes smaller. `weights` says what the mean is over, so that accumulation can weigh its
    parts; `measure` is the loss as evaluation has it, of the model as it decodes."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, batch: Tensors) -> tuple[mx.array, dict[str, mx.array]]: ...

    def weights(self, batch: Tensors) -> mx.array: ...

    def measure(self, batch: Tensors) -> mx.array: ...


@runtime_checkable
class Drawing(Objective, Protocol):
    """An objective that predicts tokens, and can tell its mean loss at targets that the model draws itself,
    with the rows' keys `batch["draws"]` (B, 2)."""

    def drawn(self, batch: Tensors) -> mx.array: ...


@runtime_checkable
class Surveying(Objective, Protocol):
    """An objective whose loss depends on figures of the whole batch. `survey` gives sums over the rows of a
    part; added up over all parts they come back to `loss` as `batch[SURVEY + name]` (rows,), without
    gradient."""

    def survey(self, batch: Tensors) -> Tensors: ...


class Optimizer(Protocol):
    """Pure functions on flat dicts of tensors. `apply` may be given some of the weights only, and returns the
    state of these; where several calls return a tensor of one name, it is their sum."""

    def init(self, weights: Mapping[str, mx.array]) -> Tensors: ...

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]: ...


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a refresh may go by."""

    gradients: Tensors  # the step's mean gradients, before clipping
    tokens: mx.array  # over how many tokens the mean is, as they weigh
    key: mx.array  # of (seed, step), for draws
    drawn: Callable[[], Tensors]  # the same gradients at targets that the model draws; one more pass


@runtime_checkable
class Refreshing(Optimizer, Protocol):
    """An optimizer that renews some of its state now and then by what cannot be compiled, or costs too much
    for every step. `apply` of a step that is due starts from the state that `refresh` returns: same names,
    same shapes. A step that is left out refreshes nothing; the next one does."""

    def due(self, step: int) -> bool: ...

    def refresh(self, state: Tensors, seen: Seen) -> Tensors: ...


@runtime_checkable
class Settling(Optimizer, Protocol):
    """An optimizer that, after some steps, changes weights by what concerns all of them together: `apply` may
    see a part of them only. Same names, same shapes; not compiled."""

    def settles(self, step: int) -> bool: ...

    def settle(self, weights: Tensors, state: Tensors, step: int) -> tuple[Tensors, Tensors]: ...
