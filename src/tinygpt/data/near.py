"""Clusters of near duplicates: what shares a band is compared, what is alike is joined.

A bucket holds the sets that have one band's key in common. Its members are compared pair by pair by their
true Jaccard similarity, except where they are in one cluster already: then the answer changes nothing.
Clusters are the connected parts (single linkage), whatever the order of the comparisons.
"""

from __future__ import annotations

import functools
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt.core.files import unwritable
from tinygpt.data import minhash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 1000  # sets of other clusters that one is compared with in a bucket
KNOWN = 1 << 21  # pairs known to be apart that are remembered; beyond, they may be compared again
HELD = 1 << 10  # sets that stay in memory between comparisons


class Groups:
    """Joined numbers from 0 to n - 1: union-find, the least number stands for its group."""

    def __init__(self, n: int) -> None:
        self.parents = array("q", range(n))

    def root(self, i: int) -> int:
        parents = self.parents
        while (above := parents[i]) != i:
            parents[i] = parents[above]
            i = parents[i]
        return i

    def join(self, i: int, j: int) -> None:
        i, j = self.root(i), self.root(j)
        self.parents[max(i, j)] = min(i, j)


class Sets:
    """Sets of hashes on disk, beside the output: written once, in any order, read when they are compared."""

    def __init__(self, n: int, folder: Path) -> None:
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`, gone with it
        self.at, self.lengths = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.end = 0
        self.get = functools.lru_cache(maxsize=HELD)(self._read)

    def add(self, i: int, hashes: NDArray[np.uint64]) -> None:
        """Keep the set `i`; repeats are taken out."""
        import numpy as np

        kept = np.unique(hashes)
        self.at[i], self.lengths[i] = self.end, len(kept)
        try:
            self.end += self.file.write(kept.tobytes())
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _read(self, i: int) -> NDArray[np.uint64]:
        import numpy as np

        self.file.seek(int(self.at[i]))
        return np.frombuffer(self.file.read(8 * int(self.lengths[i])), np.uint64)

    def jaccard(self, i: int, j: int) -> float:
        return minhash.jaccard(self.get(i), self.get(j))

    def close(self) -> None:
        self.file.close()


def buckets(keys: NDArray[np.uint64], chosen: NDArray[np.int64]) -> Iterator[tuple[int, list[list[int]]]]:
    """(band, its buckets of at least two among the chosen), members in their order."""
    import numpy as np

    for band in range(keys.shape[1]):
        column = keys[chosen, band]
        order = np.argsort(column, kind="stable")
        column = column[order]
        edges = np.flatnonzero(column[1:] != column[:-1]) + 1
        begins, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(column)]])
        wide = ends - begins > 1
        members = chosen[order]
        pairs = zip(begins[wide].tolist(), ends[wide].tolist(), strict=True)
        yield band, [members[i:j].tolist() for i, j in pairs]


def candidates(keys: NDArray[np.uint64], chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of all sets share a bucket with another."""
    import numpy as np

    found = np.zeros(len(keys), np.bool_)
    for _, together in buckets(keys, chosen):
        for members in together:
            found[members] = True
    return found


def cluster(
    keys: NDArray[np.uint64],
    chosen: NDArray[np.int64],
    similarity: Callable[[int, int], float],
    threshold: float,
    groups: Groups,
    told: Callable[[int], None] = lambda band: None,
) -> tuple[int, int]:
    """Join what is at least as similar as the threshold; (pairs compared, pairs left out for `MOST`)."""
    apart: set[int] = set()
    n_compared = n_left_out = 0

    def alike(mine: list[int], others: list[int], left: dict[int, int]) -> bool:
        """Whether any pair is; `left` says how often each of mine may still be compared in this bucket."""
        nonlocal n_compared, n_left_out
        for one in mine:
            for other in others:
                low, high = min(one, other), max(one, other)
                pair = low * len(keys) + high
                if pair in apart:
                    continue
                if not left[one]:
                    n_left_out += 1
                    continue
                left[one] -= 1
                n_compared += 1
                if similarity(low, high) >= threshold:
                    return True
                if len(apart) < KNOWN:
                    apart.add(pair)
        return False

    for band, together in buckets(keys, chosen):
        told(band)
        for members in together:
            joined: dict[int, list[int]] = {}
            for one in members:
                joined.setdefault(groups.root(one), []).append(one)
            parts: list[list[int]] = []  # clusters of this bucket that were compared with each other
            for mine in joined.values() if len(joined) > 1 else ():
                left = dict.fromkeys(mine, MOST)
                met, rest = [mine], list[list[int]]()
                for part in parts:
                    (met if alike(mine, part, left) else rest).append(part)
                for part in met[1:]:
                    groups.join(mine[0], part[0])
                parts = [*rest, [one for part in met for one in part]]
    told(keys.shape[1])
    return n_compared, n_left_out
