"""Batches by number: what a run reads at step i depends on the seed and i alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.data.batch import Batch
from tinygpt.data.pack import Rows, empty, permutation


class Source:
    """Packed rows served as batches.

    A training source goes on for ever: row n of the run is row `n % n_rows` of epoch `n // n_rows`, and each
    epoch has its own order, so every row is read once an epoch and a batch may end one epoch and begin the
    next. An evaluation source (`seed=None`) goes through the rows once, in order; its last batch is filled up
    with padding.
    `stream` sets the order apart from that of another source with the same seed.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        length: int,
        batch_size: int,
        pad_id: int,
        seed: int | None,
        facts: dict[str, Any],
        files: Sequence[Path] = (),
        held_out: Source | None = None,
        stream: tuple[int, ...] = (),
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"the batch size must be at least 1, got {batch_size}")
        if seed is not None and seed < 0:
            raise ConfigError(f"the seed must not be negative, got {seed}")
        self.packed, self.length, self.batch_size, self.pad_id, self.seed = (
            rows,
            length,
            batch_size,
            pad_id,
            seed,
        )
        self.held_out = held_out
        self.files = tuple(files)
        self.facts = facts
        self.stream = stream
        self._orders: dict[int, Any] = {}

    recipe = ""
    """What a resumed run must have in common beside the files and settings: how they are mixed."""

    @property
    def n_rows(self) -> int:
        """Rows in one epoch."""
        return len(self.packed)

    def __len__(self) -> int:
        """Batches in one epoch, the last one counted even when it is not full."""
        return (self.n_rows + self.batch_size - 1) // self.batch_size

    @property
    def n_slots(self) -> int:
        """Tokens that one epoch has room for."""
        return self.n_rows * self.length

    def n_batches(self, epochs: float) -> int:
        """Steps in which so many epochs are read."""
        return max(1, math.ceil(epochs * self.n_rows / self.batch_size - 1e-9))

    def widest(self, i: int) -> Batch:
        """A batch that takes as much memory as any from batch i on."""
        return self[i]

    def n_epochs_at(self, i: int) -> float:
        """How many epochs have been read before batch i."""
        return i * self.batch_size / self.n_rows

    def epochs(self, i: int) -> dict[str, float]:
        """The same by corpus, where there are several."""
        return {"all": round(self.n_epochs_at(i), 4)}

    def __getitem__(self, i: int) -> Batch:
        if i < 0 or (self.seed is None and i >= len(self)):
            raise IndexError(i)
        batch = empty(self.batch_size, self.length, self.pad_id)
        for b in range(self.batch_size):
            self.put(i * self.batch_size + b, batch, b)
        return batch

    def put(self, n: int, batch: Batch, b: int) -> None:
        """Write row number `n` of the run into row `b` of a batch that is all padding."""
        epoch, row = divmod(n, self.n_rows)
        if self.seed is not None:
            self.packed.fill(int(self._order(epoch)[row]), batch, b, epoch)
        elif epoch == 0:
            self.packed.fill(row, batch, b)

    def describe(self) -> dict[str, Any]:
        """Counts for a run's events: documents, tokens, what was left out, how full the rows are."""
        facts = {**self.facts, "rows": self.n_rows, "batches_per_epoch": len(self), "files": len(self.files)}
        facts |= {
            "tokens": self.packed.n_tokens,
            "packing_efficiency": round(self.packed.n_tokens / self.n_slots, 4),
        }
        if self.held_out:
            facts["held_out"] = self.held_out.describe()
        return facts

    def _order(self, epoch: int) -> Any:
        found = self._orders.get(epoch)
        if found is None:
            assert self.seed is not None
            found = permutation(self.n_rows, self.seed, epoch, *self.stream)
            self._orders = {**dict(list(self._orders.items())[-1:]), epoch: found}  # a batch touches two
        return found
