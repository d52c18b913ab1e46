"""Packing: tokens of many documents laid into rows of one length, each document isolated from its neighbours.

Two ways to fill a row of L tokens. `Cut` takes one long stream of documents and cuts it every L tokens: no
slot is wasted, long documents go on in the next row (`Alone`: each document begins a row). `Fit` keeps
examples whole and lays several into a row where they fit, as a plan says: `PLANS`. In both, a document sees
only itself: it has its own segment number, and its positions start at 0.
Paper: Krell et al. 2021, arXiv:2107.02027 (packing without cross-contamination)
Differs: best-fit decreasing instead of their histogram search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tinygpt.data.batch import Batch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Rows(Protocol):
    """Packed rows. `fill` writes row `r` into row `b` of a batch that is all padding; `epoch` is for rows
    that look different each time."""

    def __len__(self) -> int: ...

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None: ...

    @property
    def n_tokens(self) -> int:
        """Slots of all rows that hold a token."""
        ...


def empty(n_rows: int, length: int, pad_id: int) -> Batch:
    """A batch of padding."""
    import numpy as np

    ids = np.full((n_rows, length), pad_id, np.int32)
    zeros = np.zeros((n_rows, length), np.int32)
    return Batch(ids, ids.copy(), zeros.astype(np.float32), zeros, zeros.copy())


class Cut:
    """Part `begin:end` of a token stream, cut into rows every `length` tokens.

    `starts` are the indexes at which documents begin; every document begins with its start token. Row r reads
    tokens[r L : (r+1) L] of the part, and its targets are the tokens one further on. At the last token of a
    document the target is `eos_id`, whatever begins the next one.
    """

    def __init__(
        self,
        tokens: NDArray[np.unsignedinteger[Any]],
        starts: NDArray[np.int64],
        begin: int,
        end: int,
        *,
        length: int,
        eos_id: int,
    ) -> None:
        self.tokens, self.starts, self.begin, self.end = tokens, starts, begin, end
        self.length, self.eos_id = length, eos_id

    def __len__(self) -> int:
        return (self.n_tokens + self.length - 1) // self.length

    @property
    def n_tokens(self) -> int:
        return self.end - self.begin

    def span(self, r: int) -> tuple[int, int, NDArray[np.int64]]:
        """Row r: its first token, its end, and where documents begin in (0, n]; each ends the one before."""
        import numpy as np

        lo = self.begin + r * self.length
        hi = min(lo + self.length, self.end)
        first, last = np.searchsorted(self.starts, (lo, hi), side="right")
        return lo, hi, self.starts[first:last] - lo

    def follows(self, hi: int) -> tuple[int, float]:
        """(target, weight) of the last token before `hi`, where no document begins."""
        if hi == len(self.tokens):
            return self.eos_id, 1.0
        # A part may end inside a document: its next token belongs to another part.
        return int(self.tokens[hi]), 0.0 if hi == self.end else 1.0

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        import numpy as np

        lo, hi, offsets = self.span(r)
        n = hi - lo
        batch.tokens[b, :n] = self.tokens[lo:hi]
        batch.targets[b, : n - 1] = self.tokens[lo + 1 : hi]
        batch.weights[b, :n] = 1.0
        batch.targets[b, offsets - 1] = self.eos_id
        if hi not in offsets + lo:
            batch.targets[b, n - 1], batch.weights[b, n - 1] = self.follows(hi)
        edges = [0, *(int(o) for o in offsets if o < n), n]
        for segment, (a, z) in enumerate(zip(edges, edges[1:]), 1):
            batch.segments[b, a:z] = segment
            batch.positions[b, a:z] = np.arange(z - a)


class Alone(Cut):
    """The same with one document a row, for models that do not keep documents apart: each begins a row, and
    goes on in the next where it is longer."""

    def __init__(self, *given: Any, **more: Any) -> None:
        import numpy as np

        super().__init__(*given, **more)
        first, last = np.searchsorted(self.starts, (self.begin, self.end))
        edges = [self.begin, *(int(s) for s in self.starts[first:last] if s > self.begin), self.end]
        self.rows = [
            (lo, min(lo + self.length, z))
            for a, z in zip(edges, edges[1:])
            for lo in range(a, z, self.length)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def span(self, r: int) -> tuple[int, int, NDArray[np.int64]]:
        import numpy as np

        lo, hi = self.rows[r]
        ends = bool(np.isin(hi, self.starts))
        return lo, hi, np.array([hi - lo] if ends else [], np.int64)


class Fit:
    """Whole examples, several to a row.

    `ids` and `learn` hold all examples one after another, example e at `edges[e] : edges[e+1]`. An example of
    n tokens takes n-1 slots: its last token is only a target. `learn` says which tokens are targets that
    count, or how much.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        learn: NDArray[np.bool_] | NDArray[np.float32],
        edges: NDArray[np.int64],
        plan: Sequence[Sequence[int]],
    ) -> None:
        self.ids, self.learn, self.edges, self.plan = ids, learn, edges, plan

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def n_tokens(self) -> int:
        return sum(map(self.row_tokens, range(len(self))))

    def row_tokens(self, r: int) -> int:
        """Slots that the examples of a row take."""
        return sum(int(self.edges[e + 1] - self.edges[e]) - 1 for e in self.plan[r])

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        import numpy as np

        at = 0
        for segment, e in enumerate(self.plan[r], 1):
            lo, hi = int(self.edges[e]), int(self.edges[e + 1])
            end = at + hi - lo - 1
            batch.tokens[b, at:end] = self.ids[lo : hi - 1]
            batch.targets[b, at:end] = self.ids[lo + 1 : hi]
            batch.weights[b, at:end] = self.learn[lo + 1 : hi]
            batch.positions[b, at:end] = np.arange(end - at)
            batch.segments[b, at:end] = segment
            at = end


def fit_plan(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which examples share a row: longest first, each into the fullest row that still has room for it.

    Every size must be between 1 and `length`. Best-fit decreasing needs at most 11/9 of the fewest rows
    possible, plus one.
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # free slots -> rows that have exactly so many
    rooms = 0  # bit f is set when with_room[f] is not empty, so that a shift finds the smallest f >= size
    for example in sorted(range(len(sizes)), key=lambda e: -sizes[e]):
        size = sizes[example]
        assert 0 < size <= length, f"example {example} has {size} slots"
        fitting = rooms >> size
        if fitting:
            free = size + (fitting & -fitting).bit_length() - 1
            row = with_room[free].pop()
            if not with_room[free]:
                rooms &= ~(1 << free)
        else:
            free, row = length, len(rows)
            rows.append([])
        rows[row].append(example)
        if free > size:
            with_room.setdefault(free - size, []).append(row)
            rooms |= 1 << (free - size)
    return rows


def sequential_plan(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Examples in their order, each in the row of the one before where there is room: less full, but rows do
    not put long examples first."""
    rows: list[list[int]] = []
    free = 0
    for example, size in enumerate(sizes):
        assert 0 < size <= length, f"example {example} has {size} slots"
        if size > free:
            rows.append([])
            free = length
        rows[-1].append(example)
        free -= size
    return rows


def single_plan(sizes: Sequence[int], length: int) -> list[list[int]]:
    """One example a row."""
    assert all(0 < size <= length for size in sizes)
    return [[example] for example in range(len(sizes))]


PLANS = {"best_fit": fit_plan, "sequential": sequential_plan, "bucket": single_plan, "none": single_plan}
"""How examples are laid into rows, by the name that --pack has."""


def permutation(n: int, *key: int) -> NDArray[np.int64]:
    """0..n-1 in an order that `key` (seed, epoch) alone decides.

    Ranks of Philox's raw output, which is the same in every numpy version, process and machine.
    """
    import numpy as np

    words = np.random.SeedSequence(key).generate_state(2, np.uint64)
    return np.argsort(np.random.Philox(key=words).random_raw(n), kind="stable")
