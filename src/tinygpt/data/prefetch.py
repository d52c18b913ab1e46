"""Prefetch: batch i+1 is laid out in a thread while step i runs.

Only numpy works there: arrays of MLX cannot cross threads. The batches are the same with and without, because
a batch depends on its number alone.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from tinygpt.data.batch import Batch


class Indexable(Protocol):
    """Batches by number."""

    def __getitem__(self, index: int, /) -> Batch: ...


class Prefetched:
    """A source that begins with the next batch when one is taken."""

    def __init__(self, source: Indexable) -> None:
        self.source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: dict[int, Future[Batch]] = {}

    def __getitem__(self, i: int) -> Batch:
        ahead = self._ahead.pop(i, None)
        batch = self.source[i] if ahead is None else ahead.result()
        for other in self._ahead.values():
            other.cancel()  # whoever reads jumped elsewhere
        self._ahead = {i + 1: self._thread.submit(self.source.__getitem__, i + 1)}
        return batch
