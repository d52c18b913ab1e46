"""A second model over the arrays of a first: what is put on one, as an adapter, is not on the other.

Modules are copied, arrays are shared, so a twin costs kilobytes whatever the model weighs. Arrays are never
written to in place: an update of either replaces its own reference.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from tinygpt.core.backend import mx, nn

M = TypeVar("M", bound=nn.Module)


def twin(model: M) -> M:
    """A copy of the modules, with what they share among themselves, over the same arrays."""
    return copy.deepcopy(model, {id(leaf): leaf for leaf in _leaves(model)})


def own_bytes(model: nn.Module, base: nn.Module | None = None) -> int:
    """Bytes of a model's arrays, without those that it shares with `base`; one used twice counts once."""
    taken = set(_arrays(base)) if base is not None else set[int]()
    return sum(x.nbytes for key, x in _arrays(model).items() if key not in taken)


def _arrays(model: nn.Module) -> dict[int, mx.array]:
    return {id(leaf): leaf for leaf in _leaves(model) if isinstance(leaf, mx.array)}


def _leaves(root: Any) -> list[Any]:
    """What is not copied, wherever it is kept: arrays, in parameters and beside them, and their dtypes."""
    found: list[Any] = []
    seen: set[int] = set()
    ahead = [root]
    while ahead:
        one = ahead.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        if isinstance(one, mx.array | mx.Dtype):
            found.append(one)
            continue
        if isinstance(one, dict):
            ahead += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            ahead += one
        ahead += (
            getattr(one, "__dict__", {}).values() if not callable(one) or isinstance(one, nn.Module) else ()
        )
    return found
