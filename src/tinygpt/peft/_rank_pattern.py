"""AdaLoRA's file: peft leaves out the triplets that were given up; `rank_pattern` says which those are.

What trains has all r0 triplets of each matrix, since a value may come back; a finished adapter needs those
alone whose value is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.peft import _format

Tensors = dict[str, mx.array]
PARTS = ("lora_A", "lora_B", "lora_E")


def part(name: str) -> str:
    """Which part of a triplet a tensor of this name holds; "" when it is none."""
    last = name.rsplit(".", 1)[-1]
    return last if last in PARTS else ""


def compact(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """A finished adapter's tensors without the triplets whose value is zero, and what adapter_config.json
    says of them; where nothing was given up, or nothing learned, all of them."""
    values = {name: value for name, value in tensors.items() if part(name) == "lora_E"}
    pattern: dict[str, Any] = {name: (value.squeeze(-1) != 0).tolist() for name, value in values.items()}
    if all(map(all, pattern.values())) or not any(map(any, pattern.values())):
        return tensors, {}
    found = dict(tensors)
    for name, kept in pattern.items():
        for other, axis in _triplet(name):
            found[other] = mx.take(tensors[other], _indices(kept), axis=axis)
    return found, {"rank_pattern": {name.removeprefix(_format.PREFIX): k for name, k in pattern.items()}}


def expand(tensors: Tensors, data: Mapping[str, Any]) -> Tensors:
    """A file's tensors with zeros where triplets were left out, as adapter_config.json has it; without the
    `ranknum` of older peft, which is always r0."""
    found = {name: value for name, value in tensors.items() if not name.endswith(".ranknum")}
    pattern = data.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        raise CheckpointError(f"rank_pattern cannot be {pattern!r}", hint=_format.KNOWN)
    for name, kept in pattern.items():
        if not isinstance(kept, list) or not all(isinstance(keep, bool) for keep in kept):
            raise CheckpointError(f"rank_pattern of {name} cannot be {kept!r}", hint=_format.KNOWN)
        where = _indices(kept)
        for other, axis in _triplet(_format.PREFIX + name):
            value = found.get(other)
            if value is None or value.ndim != 2 or value.shape[axis] != where.size:
                has = "is not there" if value is None else f"has shape {value.shape}"
                raise CheckpointError(
                    f"{other} {has}, and rank_pattern keeps {where.size}", hint="the file is damaged"
                )
            size = list(value.shape)
            size[axis] = len(kept)
            at = (slice(None), where) if axis else where
            found[other] = mx.zeros(size).at[at].add(value) if where.size else mx.zeros(size)
    return found


def _triplet(name: str) -> list[tuple[str, int]]:
    """The tensors of a matrix whose lambda has this name, each with the axis that counts triplets."""
    stem = name.removesuffix("lora_E")
    return [(stem + which, int(which == "lora_B")) for which in PARTS]


def _indices(kept: list[bool]) -> mx.array:
    return mx.array([i for i, keep in enumerate(kept) if keep], mx.int32)
