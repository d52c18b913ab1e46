"""Near duplicates among examples: MinHash finds who may be alike, the shingles themselves say who is.

Of those that are alike the first stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt.data import minhash, near, ngram
from tinygpt.data.sketch import Sketcher

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 500  # texts that are sketched together


@dataclass(frozen=True, kw_only=True)
class Alike:
    """threshold: least Jaccard similarity; shingle: words of one; slots: of a signature."""

    threshold: float
    shingle: int
    slots: int

    def kept(
        self,
        n: int,
        text: Callable[[int], str],
        kinds: Sequence[str],
        folder: Path,
        told: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.bool_]:
        """Which of n texts stay; texts of unlike kinds are never alike. Sets of shingles lie in `folder`
        meanwhile; `told` hears how many are read."""
        import numpy as np

        bands, rows = minhash.split(self.threshold, self.slots)
        sketcher = Sketcher(shingle=self.shingle, slots=self.slots, bands=bands, rows=rows)
        keys = np.empty((n, bands), np.uint64)
        worded = np.zeros(n, np.bool_)
        with contextlib.closing(near.Sets(n, folder)) as sets:
            for begin in range(0, n, CHUNK):
                texts = [(text(i), "") for i in range(begin, min(begin + CHUNK, n))]
                sketch = sketcher(texts)
                keys[begin : begin + len(texts)] = sketch.keys
                worded[begin : begin + len(texts)] = sketch.worded
                plain = [ngram.normal(one, sketcher.normalise) for one, _ in texts]
                hashes, offsets = sketcher.shingles(plain)
                for place in range(len(texts)):
                    sets.add(begin + place, hashes[offsets[place] : offsets[place + 1]])
                told(begin + len(texts), n)
            groups = near.Groups(n)

            def similarity(i: int, j: int) -> float:
                return sets.jaccard(i, j) if kinds[i] == kinds[j] else 0.0

            near.cluster(keys, np.flatnonzero(worded), similarity, self.threshold, groups)
        return np.array([groups.root(i) == i for i in range(n)], np.bool_)
