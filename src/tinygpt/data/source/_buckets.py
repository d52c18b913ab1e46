"""Rows of few widths: an example a row, short ones among themselves, so that little is padding.

A compiled step keeps a trace for each shape, so there are at most 16 widths. They are chosen for the lengths
at hand: multiples of 8 (more for rows beyond 2,048 tokens) with the least padding in all, by dynamic
programming. A batch has rows of one bucket; what is left of a bucket fills up the first batch of the next
wider one, so that an epoch reads every row once, and has one batch that is not full at most. Batches come in
an order that (seed, epoch) decides.
Differs: groups by the least padding, where `group_by_length` of transformers sorts random blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.data.batch import Batch
from tinygpt.data.pack import Fit, empty, permutation
from tinygpt.data.source._mixture import PERIOD, Mixture
from tinygpt.data.source._source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 16  # widths, and so traces of a compiled step
GRID = 256  # widths that are looked at


def widths(sizes: Sequence[int], most: int, longest: int) -> list[int]:
    """At most `most` widths, rising, with the least padding for rows of these sizes (at least one, all at
    most `longest`); the last holds the largest size."""
    import numpy as np

    grain = 8 * math.ceil(longest / (8 * GRID))
    cells = -(-np.asarray(sizes) // grain)  # the narrowest multiple that holds each
    n = int(cells.max())
    before = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=n + 1)[1:])])
    # best[j]: slots of all rows up to j multiples wide, with as many widths as rounds have gone by.
    best = np.where(np.arange(n + 1) > 0, np.inf, 0.0)
    came: list[NDArray[np.int64]] = []
    j = np.arange(n + 1)
    for _ in range(min(most, n)):
        slots = best[None, :] + (before[:, None] - before[None, :]) * j[:, None]
        slots[j[:, None] <= j[None, :]] = np.inf
        slots[0, 0] = 0
        came.append(slots.argmin(axis=1))
        best = slots.min(axis=1)
        if best[n] == (np.bincount(cells, minlength=n + 1) * j).sum():
            break  # more widths would save nothing
    found: list[int] = []
    at = n
    for step in reversed(came):
        if at:
            found.append(min(at * grain, longest))
            at = int(step[at])
    held = set(np.searchsorted(found[::-1], sizes).tolist())
    return [width for i, width in enumerate(found[::-1]) if i in held]


class Bucketed(Source):
    """A source whose batches have one of few widths each; its rows hold one example each."""

    packed: Fit

    def __init__(self, rows: Fit, *, most: int, **more: Any) -> None:
        import numpy as np

        super().__init__(rows, **more)
        sizes = [rows.row_tokens(r) for r in range(len(rows))]
        most = min(most, max(1, len(rows) // self.batch_size))  # a bucket fills a batch, on average
        self.widths = widths(sizes, most, self.length)
        self.bucket = np.searchsorted(self.widths, sizes)
        self._plans: dict[tuple[int | None, int], list[tuple[int, list[int]]]] = {}

    def __len__(self) -> int:
        return math.ceil(self.n_rows / self.batch_size)

    def n_epochs_at(self, i: int) -> float:
        return i / len(self)

    def n_batches(self, epochs: float) -> int:
        return max(1, math.ceil(epochs * len(self) - 1e-9))

    @property
    def n_slots(self) -> int:
        return sum(width * self.batch_size for width, _ in self._plan(0))

    def __getitem__(self, i: int) -> Batch:
        if i < 0 or (self.seed is None and i >= len(self)):
            raise IndexError(i)
        epoch, at = divmod(i, len(self))
        width, rows = self._plan(epoch)[at]
        batch = empty(self.batch_size, width, self.pad_id)
        for b, r in enumerate(rows):
            self.packed.fill(r, batch, b, epoch)
        return batch

    def widest(self, i: int) -> Batch:
        """The batch of the same epoch that needs most memory."""
        first = i // len(self) * len(self)
        plan = self._plan(i // len(self))
        return self[first + max(range(len(plan)), key=lambda at: plan[at][0])]

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"widths": self.widths}

    def _plan(self, epoch: int) -> list[tuple[int, list[int]]]:
        """(width, rows) of every batch of an epoch."""
        found = self._plans.get((self.seed, epoch))
        if found is not None:
            return found
        key = (0,) if self.seed is None else (self.seed, epoch, *self.stream)
        order = permutation(self.n_rows, *key)
        waiting, batches = list[int](), list[tuple[int, list[int]]]()
        for c, width in enumerate(self.widths):
            waiting += order[self.bucket[order] == c].tolist()
            while len(waiting) >= self.batch_size:
                batches.append((width, waiting[: self.batch_size]))
                waiting = waiting[self.batch_size :]
        if waiting:
            batches.append((self.widths[int(self.bucket[waiting].max())], waiting))
        found = [batches[at] for at in permutation(len(batches), *key, 1)]
        self._plans = {**dict(list(self._plans.items())[-1:]), (self.seed, epoch): found}
        return found


class Dealt(Mixture):
    """Several bucketed sources: every batch comes from one of them, in proportion to the weights."""

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def n_epochs_at(self, i: int) -> float:
        return i / len(self)

    def n_batches(self, epochs: float) -> int:
        return max(1, math.ceil(epochs * len(self) - 1e-9))

    def __getitem__(self, i: int) -> Batch:
        period, at = divmod(i, PERIOD)
        c = int(self.which[at])
        return list(self.parts.values())[c][period * self.counts[c] + int(self.number[at])]

    def widest(self, i: int) -> Batch:
        found = [part.widest(0) for part in self.parts.values()]
        return max(found, key=lambda batch: batch.tokens.shape[1])

    def epochs(self, i: int) -> dict[str, float]:
        return {
            name: round(i * n / PERIOD / len(part), 4)
            for (name, part), n in zip(self.parts.items(), self.counts, strict=True)
        }
