"""A second model over the arrays of a first: what is put on one, as an adapter, is not on the other.

Modules are copied, arrays are shared, so a twin costs kilobytes whatever the model weighs. Arrays are never
written to in place: an update of either replaces its own reference.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from mlx.utils import tree_flatten

from tinygpt.core.backend import mx, nn

M = TypeVar("M", bound=nn.Module)


def twin(model: M) -> M:
    """A copy of the modules, with what they share among themselves, over the same arrays."""
    shared: dict[int, Any] = {id(x): x for x in _arrays(model)}
    return copy.deepcopy(model, shared)


def own_bytes(model: nn.Module, base: nn.Module | None = None) -> int:
    """Bytes of a model's arrays, without those that it shares with `base`; one used twice counts once."""
    taken = {id(x) for x in _arrays(base)} if base is not None else set[int]()
    return sum(x.nbytes for x in {id(x): x for x in _arrays(model)}.values() if id(x) not in taken)


def _arrays(model: nn.Module) -> list[mx.array]:
    """Every array of a model: its parameters, and what modules keep beside them, as frequencies are."""
    found = [x for _, x in tree_flatten(model.parameters())]
    for module in model.modules():
        for value in [*module.values(), *vars(module).values()]:
            if isinstance(value, mx.array):
                found.append(value)
    return found
