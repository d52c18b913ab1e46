"""Batches that carry what a teacher found likely, read from a store; the teacher itself is not there.

A source is wrapped: it gives the same batches as before, with three arrays more, whatever lays its rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.data.batch import Batch, TaughtBatch
from tinygpt.distill.signal import Sparse
from tinygpt.distill.store import Store, row_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.source._source import Source
    from tinygpt.train.protocols import Tensors


class CachedTeacher:
    """Says what a batch carries. `n` is the vocabulary over which its probabilities sum to 1."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, batch: Tensors) -> Sparse:
        return Sparse(batch["top_ids"], batch["top_log_p"], batch["known"], self.n)


def counts(batch: Batch, prompts: bool) -> NDArray[np.bool_]:
    """(B, L): the places that count in the loss, `prompts`: those of prompts, too."""
    import numpy as np

    found = batch.weights > 0
    if prompts:
        same = (batch.segments[:, 1:] == batch.segments[:, :-1]) & (batch.segments[:, 1:] > 0)
        found = found | np.pad(same, ((0, 0), (0, 1)))
    return found


def read(source: Source, steps: int) -> Iterator[Batch]:
    """The batches of the first `steps` steps, until every row was among them."""
    for i in range(steps):
        # Epochs are told to 4 places, so the last rows of one may seem to be read before they are.
        if i and min(source.epochs(i).values()) >= 1.0001:
            return
        yield source[i]


def read_held_out(source: Source | None, n: int) -> Iterator[Batch]:
    """Those that a held-out loss over n batches reads; 0: all."""
    parts: Any = getattr(source, "parts", {}) if source is not None else {}
    each = list(parts.values()) or ([source] if source is not None else [])
    n = -(-n // len(each)) if each else 0
    for part in each:
        for i in range(min(n, len(part)) if n else len(part)):
            yield part[i]


class Cached:
    """A source whose batches are TaughtBatch."""

    def __init__(self, source: Source, store: Store, *, prompts: bool) -> None:
        self._source, self._store, self._prompts = source, store, prompts
        inside: dict[str, Source] = getattr(source, "parts", {})  # the sources that are mixed
        self.parts = {name: Cached(part, store, prompts=prompts) for name, part in inside.items()}
        self.weights: dict[str, float] = getattr(source, "weights", {})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> TaughtBatch:
        return self._taught(self._source[i])

    def widest(self, i: int) -> TaughtBatch:
        """The widest batch, for its size: rows of it that the run does not read have no teacher."""
        return self._taught(self._source.widest(i), whole=False)

    def _taught(self, batch: Batch, *, whole: bool = True) -> TaughtBatch:
        import numpy as np

        k = self._store.key.k
        # Places that count nothing have numbers too, with which a loss is finite.
        ids = np.broadcast_to(np.arange(k, dtype=np.int32), (*batch.shape, k)).copy()
        log_p = np.full((*batch.shape, k), -math.log(k + 1), np.float32)
        known, places = np.zeros(batch.shape, np.float32), counts(batch, self._prompts)
        for b in np.flatnonzero(places.any(1)).tolist():
            row = row_hash(batch, b, places[b])
            if row not in self._store:
                if whole:
                    raise DataError(
                        f"{self._store.path} lacks a row that the run reads",
                        hint="begin the run again: it asks the teacher for what is missing",
                    )
                continue
            found = self._store.read(row)
            at = np.flatnonzero(places[b])[found.known]
            ids[b, at], log_p[b, at], known[b, at] = found.ids[found.known], found.log_p[found.known], 1.0
        given = {f.name: getattr(batch, f.name) for f in dataclasses.fields(Batch)}
        return TaughtBatch(**given, top_ids=ids, top_log_p=log_p, known=known)
