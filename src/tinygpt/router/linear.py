"""A reader of requests that is learned at once: their runs of bytes under a logistic regression.

    z = V x + b      x_g = (1 + ln n_g) ln(1 + N / N_g) / |.|

x has an entry for each run g of 1 to `grams` bytes that two or more of the N learned requests have: n_g is
how often the request has it, N_g how many learned requests do; |.| makes the whole of length 1. What a short
request asks for is mostly said by a few parts of words, and from a thousand examples a convex problem learns
them better than a table of vectors under AdamW does (docs/log.md). scikit-learn (extra `classify`) solves it;
what is kept is plain arrays. Runs are known by a hash of 32 bits.

Paper: Salton and Buckley 1988, Information Processing & Management 24:513 (sublinear term frequency, idf,
cosine); Weinberger et al. 2009, arXiv:0902.2206 (hashed features).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.core import backend
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.classifier import sklearn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST = 2  # learned requests that have a run which is kept
FACTOR = 1_000_003  # of the rolling hash
STRENGTH = 1000.0  # of the examples against |V|^2 / 2: weights are hardly held back
ROUNDS = 300  # of L-BFGS
HELD = 34  # copies of V in doubles that it takes (measured: 290 classes, 51,000 runs, 4.0 GB)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """G runs with what each weighs, and for C classes V and b."""

    grams: int
    keys: NDArray[np.uint32]  # (G,) hashes, ascending
    idf: NDArray[np.float32]  # (G,)
    weights: NDArray[np.float32]  # (G, C)
    biases: NDArray[np.float32]  # (C,)

    def logits(self, queries: Iterable[str]) -> NDArray[np.float64]:
        """(N, C) of N requests."""
        import numpy as np

        made = [x @ self.weights[g] for g, x in (_features(one, self) for one in queries)]
        return np.stack(made).astype(np.float64) + self.biases

    def arrays(self) -> dict[str, Any]:
        """What a file of tensors holds."""
        return {name: getattr(self, name) for name in ("keys", "idf", "weights", "biases")}


def rebuilt(arrays: Mapping[str, Any], grams: Any, classes: int) -> Linear:
    """The reader of what `arrays` gave; DataError where they do not fit each other."""
    n = len(arrays.get("keys", ()))
    shapes = {"keys": (n,), "idf": (n,), "weights": (n, classes), "biases": (classes,)}
    if {name: array.shape for name, array in arrays.items()} != shapes or not isinstance(grams, int):
        raise DataError("the tensors of the linear reader do not fit each other")
    return Linear(grams=grams, **arrays)


def learned(
    queries: Sequence[str], classes: Sequence[int], weights: Sequence[float], *, grams: int, most: int
) -> Linear:
    """The reader that requests and the numbers of their classes teach; class c counts weights[c]. Of the runs
    the `most` commonest are kept. DependencyError without scikit-learn, ConfigError without the memory."""
    import numpy as np

    solver = sklearn("linear_model")
    from scipy import sparse  # which scikit-learn brings

    keys, counts = np.unique(
        np.concatenate([np.unique(_keys(one, grams)) for one in queries]), return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:most]
    kept = np.sort(order[counts[order] >= LEAST])
    n_classes = len(weights)
    empty = Linear(
        grams=grams, keys=keys[kept], idf=np.log1p(len(queries) / counts[kept]).astype(np.float32),
        weights=np.zeros((len(kept), n_classes), np.float32), biases=np.zeros(n_classes, np.float32),
    )  # fmt: skip
    if not len(kept):
        return empty
    if (least := HELD * 8 * len(kept) * n_classes) > (there := backend.memory()):
        raise ConfigError(
            f"learning {n_classes} classes by {len(kept):,} runs of bytes takes {least // 10**9:,} GB of "
            f"memory, this machine has {there // 10**9:,}",
            hint="lower --vectors, or --grams",
        )
    rows = [_features(one, empty) for one in queries]
    at = np.cumsum([0, *(len(g) for g, _ in rows)])
    x_NG = sparse.csr_matrix(
        (np.concatenate([x for _, x in rows]), np.concatenate([g for g, _ in rows]), at),
        shape=(len(rows), len(kept)),
    )
    solved = solver.LogisticRegression(C=STRENGTH, max_iter=ROUNDS).fit(
        x_NG, np.asarray(classes), sample_weight=np.asarray(weights)[np.asarray(classes)]
    )
    v_CG, b_C = np.asarray(solved.coef_), np.asarray(solved.intercept_)
    if n_classes == 2:  # one row says both
        v_CG, b_C = np.concatenate([-v_CG, v_CG]) / 2, np.concatenate([-b_C, b_C]) / 2
    return Linear(
        grams=grams, keys=empty.keys, idf=empty.idf, weights=np.ascontiguousarray(v_CG.T, np.float32),
        biases=b_C.astype(np.float32),
    )  # fmt: skip


def _features(query: str, of: Linear) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which runs a request has, and their entries in x."""
    import numpy as np

    keys, n = np.unique(_keys(query, of.grams), return_counts=True)
    at = np.minimum(np.searchsorted(of.keys, keys), max(0, len(of.keys) - 1))
    known = of.keys[at] == keys if len(of.keys) else np.zeros(len(keys), bool)
    g, n = at[known], n[known]
    x = (1 + np.log(n)) * of.idf[g]
    return g, (x / max(float(np.sqrt((x * x).sum())), 1e-9)).astype(np.float32)


def _keys(query: str, grams: int) -> NDArray[np.uint32]:
    """The hashes of all runs of 1 to `grams` bytes."""
    import numpy as np

    def each() -> Iterator[NDArray[np.uint32]]:
        read = np.frombuffer(query.encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint32)
        hashed = np.zeros(len(read), np.uint32)
        for n in range(1, min(grams, len(read)) + 1):
            hashed = hashed[: len(read) - n + 1] * np.uint32(FACTOR) + read[n - 1 :] + np.uint32(n)
            yield hashed ^ (hashed >> np.uint32(15))

    return np.concatenate([np.zeros(0, np.uint32), *each()])
