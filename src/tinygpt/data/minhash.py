"""MinHash signatures cut into bands: texts that are near duplicates share a band's key.

Two sets with Jaccard similarity s agree in a slot of their signatures with probability s, and share at least
one of b bands of r slots with probability 1 - (1 - s^r)^b. The split into bands leaves the least area under
that curve below the threshold and above it from 1, among those that find a pair at the threshold itself with
a chance of `SURE`: pairs that are found are compared afterwards, so a false one costs time and a missed one
is lost.

Sources: Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3.4; signatures by
rensa (after Dahlgaard, Knudsen and Thorup 2017, arXiv:1704.04370).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError, DependencyError
from tinygpt.data import ngram

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SURE = 0.98  # chance that a pair at the threshold shares a band
STEPS = 400  # points of the areas under the curve
SEED = 1


def split(threshold: float, slots: int) -> tuple[int, int]:
    """(bands, rows of each) for signatures of so many slots; ConfigError where no split is sure enough."""
    import numpy as np

    s = (np.arange(STEPS) + 0.5) / STEPS
    found: list[tuple[float, int, int]] = []
    for bands in range(1, slots + 1):
        for rows in range(1, slots // bands + 1):
            if chance(threshold, bands, rows) < SURE:
                break
            shared = 1 - (1 - s**rows) ** bands
            error = float(np.where(s < threshold, shared, 1 - shared).mean())
            found.append((error, bands, rows))
    if not found:
        raise ConfigError(
            f"{slots} slots of MinHash cannot find pairs of similarity {threshold:g}",
            hint="give more --minhash-perms, or a higher --near-threshold",
        )
    return min(found)[1:]


def chance(similarity: float, bands: int, rows: int) -> float:
    """That two sets of this Jaccard similarity share a band."""
    return 1 - (1 - similarity**rows) ** bands


def keys(
    hashes: NDArray[np.uint64], offsets: NDArray[np.int64], slots: int, bands: int, rows: int
) -> NDArray[np.uint64]:
    """The key of every band, (sets, bands), of sets that are given as hashes[offsets[i] : offsets[i + 1]].
    Keys of different bands are never to be compared; those of an empty set mean nothing."""
    import numpy as np

    sketch = library().RMinHash
    matrix = sketch.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), slots, SEED)
    signatures = np.array(matrix.to_rows(), np.uint32).reshape(-1, slots)[:, : bands * rows]
    return ngram.joined(signatures.reshape(-1, bands, rows))


def library() -> Any:
    """The package rensa; DependencyError where it is not installed."""
    try:
        import rensa  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("rensa", "dedupe", "finding near duplicates") from error
    return rensa


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Shared elements over all elements of two sets, each sorted and without repeats."""
    import numpy as np

    both = np.concatenate([one, other])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared) if len(both) else 0.0
