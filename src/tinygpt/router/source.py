"""Requests as batches: one to a row, rows of few widths; the class stands at the row's first token.

In such a `Batch` `targets[b, 0]` is the class of request b and `weights[b, 0]` what it counts; all else of
its row is 0. A row of padding counts nothing, and its targets are no classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.data.source._buckets import Bucketed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.batch import Batch
    from tinygpt.data.tokenizer._protocol import Tokenizer

WIDTHS = 6  # of the rows, and so traces of a compiled step


class Requests:
    """Ids of requests with their classes, as rows that a source serves."""

    def __init__(self, ids: Sequence[list[int]], classes: Sequence[int], counts: NDArray[np.float32]) -> None:
        self.ids, self.classes, self.counts = ids, classes, counts

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.ids))

    def row_tokens(self, r: int) -> int:
        """Tokens of request r."""
        return len(self.ids[r])

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        """Write request r into row b, which is all padding."""
        import numpy as np

        n, c = len(self.ids[r]), self.classes[r]
        batch.tokens[b, :n] = self.ids[r]
        batch.segments[b, :n] = 1
        batch.positions[b, :n] = np.arange(n)
        batch.targets[b], batch.weights[b, 0] = 0, self.counts[c]
        batch.targets[b, 0] = c


def encoded(tokenizer: Tokenizer, queries: Sequence[str], context: int) -> list[list[int]]:
    """The ids of requests, the first `context` of each; one without any gets the padding's."""
    return [ids[:context] or [tokenizer.pad_id] for ids in tokenizer.encode_batch(list(queries))]


def build(
    rows: Requests,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    seed: int | None,
    facts: dict[str, Any] | None = None,
    files: Sequence[Path] = (),
    held_out: Bucketed | None = None,
) -> Bucketed:
    """A source of these requests; without a seed each comes once, in few batches."""
    longest = max(map(len, rows.ids))
    given: Any = rows
    return Bucketed(
        given, most=WIDTHS, length=-(-longest // 8) * 8, batch_size=batch_size, pad_id=tokenizer.pad_id,
        seed=seed, facts=facts or {}, files=files, held_out=held_out,
    )  # fmt: skip
