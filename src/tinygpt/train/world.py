"""Several processes that train one model: every rank takes its share of each batch, and gradients are summed.

Started by MLX's own launcher (`mlx.launch -n 2 tinygpt train ...`: ring, JACCL, NCCL or MPI). All ranks hold
the whole model and read the same batch; rank r of N computes on the r-th of N equal parts of its rows. Parts
count by their learned tokens, so a step equals that of one process at the same batch but for the order in
which floats are added. Rank 0 alone saves and tells; what depends on a clock or a signal is agreed on, so
that no rank waits for one that has left.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlx.utils import tree_flatten

from tinygpt.core import ranks
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch


class World:
    """The processes of a run. `group` is MLX's; None: this process alone, for which every call is free."""

    def __init__(self, group: Any | None = None) -> None:
        self._group = group
        self.rank: int = 0 if group is None else group.rank()
        self.size: int = 1 if group is None else group.size()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which saves and tells."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This rank's rows of a batch that all ranks have read."""
        rows = batch.tokens.shape[0]
        if rows % self.size:
            raise ConfigError(f"a batch of {rows} rows cannot be split over {self.size} processes equally")
        size = rows // self.size
        return batch if self.size == 1 else batch.rows(self.rank * size, (self.rank + 1) * size)

    def sum(self, tensors: Tensors) -> Tensors:
        """The sum over ranks of every tensor, sent in buckets."""
        if self.size == 1:
            return tensors
        means: Any = nn.utils.average_gradients(tensors, self._group)
        return self._arrived({name: mean * self.size for name, mean in tree_flatten(means)})

    def total(self, values: list[float]) -> list[float]:
        """The sums over ranks of some numbers."""
        return values if self.size == 1 else self.sum({"values": mx.array(values)})["values"].tolist()

    def largest(self, value: int) -> int:
        """The largest of the ranks' numbers."""
        if self.size == 1:
            return value
        return int(
            self._arrived(mx.distributed.all_max(mx.array([value], mx.int64), group=self._group)).item()
        )

    def first(self, value: int) -> int:
        """Rank 0's number."""
        return self.largest(value if self.leads else -(2**62))

    def spread(self, tensors: Mapping[str, mx.array]) -> Tensors:
        """Rank 0's tensors, bit for bit: the others' names and shapes must be the same."""
        if self.size == 1:
            return dict(tensors)
        one_at_a_time = ((name, x if self.leads else mx.zeros_like(x)) for name, x in tensors.items())
        return {n: self._arrived(mx.distributed.all_sum(x, group=self._group)) for n, x in one_at_a_time}

    def _arrived(self, found: Any) -> Any:
        try:
            mx.eval(found)
        except RuntimeError as error:  # MLX has no type of its own for a lost connection
            raise RemoteError(
                f"rank {self.rank} lost the other processes of this run: {error}",
                hint="start it again with --resume: it goes on from the last checkpoint",
            ) from error
        return found


@functools.cache
def world() -> World:
    """The processes that a launcher started this one with, or this one alone."""
    if not ranks.launched():
        return World()
    group = mx.distributed.init()
    return World(group if group.size() > 1 else None)
