"""What updaters have in common: weights in float32, parts of a batch, a saved state that must fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlx.utils import tree_flatten

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch


def masters(module: nn.Module) -> Tensors:
    """What learns, in float32 whatever the file's dtype was."""
    found = {name: w.astype(mx.float32) for name, w in tree_flatten(module.trainable_parameters())}
    if not found:
        raise ConfigError(
            "the model has nothing to learn", hint="every parameter is frozen: check the adapter's targets"
        )
    return found


def fits(held: Mapping[str, mx.array], tensors: Mapping[str, mx.array]) -> None:
    """CheckpointError where saved tensors are not named and shaped as those held."""
    if odd := sorted(held.keys() ^ tensors.keys()):
        raise CheckpointError(
            f"the saved optimizer state does not fit: {odd[0]} and {len(odd) - 1} more differ"
        )
    for name, now in held.items():
        if tensors[name].shape != now.shape:
            raise CheckpointError(
                f"the saved optimizer state does not fit: {name} has shape {tensors[name].shape}, "
                f"not {now.shape}"
            )


def arrays(batch: Batch) -> Tensors:
    """A numpy batch as MLX arrays."""
    return {f.name: mx.array(getattr(batch, f.name)) for f in dataclasses.fields(batch)}


def in_parts(batch: Batch, n: int) -> list[Tensors]:
    """The arrays of n parts of a batch, of equally many rows each."""
    rows = batch.tokens.shape[0]
    if rows % n:
        raise ConfigError(f"a batch of {rows} rows cannot be split into {n} equal parts")
    size = rows // n
    return [arrays(batch.rows(i, i + size)) for i in range(0, rows, size)]
