"""What is kept of a text to find its duplicates: a fingerprint, keys of its MinHash bands, its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tinygpt.data import minhash, ngram
from tinygpt.data.contamination import Evaluation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sketch(NamedTuple):
    """Of each text: its fingerprint (n, 2), the keys of its bands (n, bands), its letters once normalised,
    whether it has words at all, and the runs that it shares with an evaluation."""

    prints: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    lengths: NDArray[np.int64]
    worded: NDArray[np.bool_]
    overlaps: list[dict[int, str]]


@dataclass(frozen=True, kw_only=True)
class Sketcher:
    """How texts are made alike and hashed. Without bands there are no keys, without an evaluation no
    overlaps."""

    normalise: tuple[str, ...] = ("nfkc", "case", "space")
    shingle: int = 5
    slots: int = 64
    bands: int = 0
    rows: int = 0
    evaluation: Evaluation | None = None

    def __call__(self, given: Sequence[tuple[str, str]]) -> Sketch:
        """Of texts, each with all that its row says beside it, for the evaluation."""
        import numpy as np

        texts = [ngram.normal(text, self.normalise) for text, _ in given]
        prints = np.frombuffer(b"".join(map(ngram.fingerprint, texts)), np.uint64).reshape(-1, 2)
        keys = np.empty((len(texts), 0), np.uint64)
        worded = np.zeros(len(texts), np.bool_)
        if self.bands:
            hashes, offsets = self.shingles(texts)
            keys = minhash.keys(hashes, offsets, self.slots, self.bands, self.rows)
            worded = np.diff(offsets) > 0
        overlaps = self.evaluation.find([whole for _, whole in given]) if self.evaluation else []
        return Sketch(prints, keys, np.array(list(map(len, texts)), np.int64), worded, overlaps)

    def shingles(self, texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The hashes of the shingles of normalised texts; a text of few words has one, of all of them."""
        return ngram.hashes(texts, self.shingle, whole=True)
