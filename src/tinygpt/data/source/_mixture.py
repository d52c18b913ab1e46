"""Several corpora in one run: each row comes from one of them, in exact proportion to the weights.

Rows are dealt in periods of 65,536, in which corpus c has n_c rows (its share, by largest remainder). Row j
of them stands at the place (j + u_j) / n_c of the period, where u_j in [0, 1) is drawn from the seed, and
places are read in order: after any number of rows every corpus has had its share, within a few rows. What a
corpus gives goes round its own epochs, so each of its rows is read once an epoch of its own. Row n is a pure
function of (seed, n).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.data.batch import Batch
from tinygpt.data.source._source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERIOD = 1 << 16


def deal(weights: Sequence[float], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(corpus of each row of a period, how many rows of that corpus came before it)."""
    import numpy as np

    counts = np.array(shares(weights))
    words = np.random.SeedSequence((seed, len(counts))).generate_state(2, np.uint64)
    drawn = np.random.Philox(key=words).random_raw(PERIOD) >> np.uint64(11)
    which = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(n) for n in counts])
    place = (number + drawn.astype(np.float64) * 2.0**-53) / counts[which]
    order = np.argsort(place, kind="stable")
    return which[order], number[order]


def shares(weights: Sequence[float]) -> list[int]:
    """Rows of a period by weight: whole numbers that sum to it, each less than one from its exact share."""
    exact = [w / sum(weights) * PERIOD for w in weights]
    counts = [int(e) for e in exact]
    for c in sorted(range(len(exact)), key=lambda c: counts[c] - exact[c])[: PERIOD - sum(counts)]:
        counts[c] += 1
    return counts


class Mixture(Source):
    """Training sources mixed by weight. Their held-out parts are measured apart: see `Apart`.

    An epoch of the whole is as many rows as all corpora have; what has been read of each is in `epochs`.
    """

    def __init__(self, parts: Mapping[str, Source], weights: Mapping[str, float] | None = None) -> None:
        """No `weights`: every corpus in proportion to its rows, so that all are read equally often."""
        first = next(iter(parts.values()))
        assert first.seed is not None
        self.parts = dict(parts)
        given = weights or {name: float(part.n_rows) for name, part in parts.items()}
        self.weights = {name: given[name] / sum(given.values()) for name in parts}
        self.counts = shares(list(self.weights.values()))
        if lost := [name for name, n in zip(parts, self.counts) if not n]:
            raise ConfigError(
                f"the weight of the corpus {lost[0]} is less than 1 in {PERIOD} of all", hint="leave it out"
            )
        held = {name: part.held_out for name, part in parts.items() if part.held_out}
        super().__init__(
            first.packed, length=first.length, batch_size=first.batch_size, pad_id=first.pad_id,
            seed=first.seed, facts={}, files=_files(parts.values()),
            held_out=Apart(held, self.weights) if held else None,
        )  # fmt: skip
        self.which, self.number = deal(list(self.weights.values()), first.seed)
        self.recipe = json.dumps([[n, self.weights[n], len(part.files)] for n, part in parts.items()])

    @property
    def n_rows(self) -> int:
        return sum(part.n_rows for part in self.parts.values())

    def put(self, n: int, batch: Batch, b: int) -> None:
        period, at = divmod(n, PERIOD)
        c = int(self.which[at])
        part = list(self.parts.values())[c]
        part.put(period * self.counts[c] + int(self.number[at]), batch, b)

    def epochs(self, i: int) -> dict[str, float]:
        """How often each corpus has been read before batch i."""
        rows = i * self.batch_size
        return {
            name: round(rows * n / PERIOD / part.n_rows, 4)
            for (name, part), n in zip(self.parts.items(), self.counts, strict=True)
        }

    def describe(self) -> dict[str, Any]:
        """The sums of all corpora, and each by its name with its weight."""
        return self.facts | _sums(self.parts, self.weights, self)


class Apart(Source):
    """Evaluation sources one after another. Who measures them takes `parts` one by one and weighs the
    results with `weights`, which sum to 1."""

    def __init__(self, parts: Mapping[str, Source], weights: Mapping[str, float]) -> None:
        first = next(iter(parts.values()))
        self.parts = dict(parts)
        self.weights = {name: weights[name] / sum(weights[n] for n in parts) for name in parts}
        super().__init__(
            first.packed, length=first.length, batch_size=first.batch_size, pad_id=first.pad_id, seed=None,
            facts={}, files=_files(parts.values()),
        )  # fmt: skip

    @property
    def n_rows(self) -> int:
        return sum(part.n_rows for part in self.parts.values())

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __getitem__(self, i: int) -> Batch:
        for part in self.parts.values():
            if 0 <= i < len(part):
                return part[i]
            i -= len(part)
        raise IndexError(i)

    def describe(self) -> dict[str, Any]:
        return _sums(self.parts, self.weights, self)


def _sums(parts: Mapping[str, Source], weights: Mapping[str, float], whole: Source) -> dict[str, Any]:
    each = {name: {"weight": round(weights[name], 6), **part.describe()} for name, part in parts.items()}
    for facts in each.values():
        facts.pop("held_out", None)
    found: dict[str, Any] = {}
    for facts in each.values():
        for name, value in facts.items():
            if isinstance(value, int):
                found[name] = found.get(name, 0) + value
    found |= {"batches_per_epoch": len(whole), "files": len(whole.files)}
    found["packing_efficiency"] = round(found["tokens"] / sum(p.n_slots for p in parts.values()), 4)
    if whole.held_out:
        found["held_out"] = whole.held_out.describe()
    return found | {"corpora": each}


def _files(parts: Any) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(file for part in parts for file in part.files))
