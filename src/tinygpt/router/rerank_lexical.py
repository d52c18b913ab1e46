"""A reranker of five numbers: how many words a query and a document share, how, and how rare they are.

    s = w . (recall, precision, jaccard, phrase, bm25) + b

With Q and D the sets of their words, recall is |Q and D| / |Q|, precision |Q and D| / |D|, jaccard
|Q and D| / |Q or D|; phrase is 1 where the query's words stand in the document one after the other; bm25 is
BM25's score over the most that the query's words could get. How many documents have a word is counted on the
documents that were learned from and kept by the word's hash, so that no text of theirs is in the file.

Paper: Robertson and Zaragoza 2009 (BM25).
Differs: bm25 is divided by its bound, (k1 + 1) times the query's idf, which changes no order.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import DataError
from tinygpt.data.batch import Batch
from tinygpt.data.bm25 import words
from tinygpt.data.pack import empty
from tinygpt.data.source._source import Source
from tinygpt.model.noise import Noise
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEATURES = ("recall", "precision", "jaccard", "phrase", "bm25")
THEIRS = FEATURES[:4]  # those of the original's file
BUCKETS = 1 << 16
K1, B = 1.5, 0.75
STEPS = 50  # of Newton's method


class Rarity:
    """In how many documents each word stands, by the word's hash."""

    def __init__(self, counts: NDArray[np.int32], documents: int, mean: float) -> None:
        if counts.shape != (BUCKETS,):
            raise DataError(f"counts of words have the shape {counts.shape}, ({BUCKETS},) was expected")
        self.counts, self.documents, self.mean = counts, documents, mean

    @classmethod
    def of(cls, texts: Iterable[str]) -> Rarity:
        """Counted on some documents."""
        import numpy as np

        counts, n, total = np.zeros(BUCKETS, np.int32), 0, 0
        for text in texts:
            found = words(text)
            counts[list({bucket(word) for word in found})] += 1
            n, total = n + 1, total + len(found)
        return cls(counts, n, total / max(1, n))

    def idf(self, word: str) -> float:
        """ln(1 + (N - n + 1/2) / (n + 1/2))."""
        n = int(self.counts[bucket(word)])
        return math.log(1 + (self.documents - n + 0.5) / (n + 0.5))

    def level(self, word: str, levels: int) -> int:
        """How rare a word is, from 0, which every document has, to levels - 1."""
        most = math.log(1 + (self.documents + 0.5) / 0.5)
        return min(levels - 1, int(levels * self.idf(word) / most))


def bucket(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS


def features(query: str, document: str, rarity: Rarity) -> list[float]:
    """(F,) of a query and a document; all 0 where one of them has no word."""
    q, d = words(query), words(document)
    if not q or not d:
        return [0.0] * len(FEATURES)
    counts, asked = Counter(d), set(q)
    shared = asked & counts.keys()
    phrase = any(d[i : i + len(q)] == q for i in range(len(d) - len(q) + 1))
    spread = 1 - B + B * len(d) / max(rarity.mean, 1e-9)
    bound, score = 0.0, 0.0
    for word in q:
        idf, f = rarity.idf(word), counts[word]
        bound += idf
        score += idf * f / (f + K1 * spread)
    n = len(shared)
    return [n / len(asked), n / len(counts), n / len(asked | counts.keys()), float(phrase), score / bound]


class Lexical(nn.Module):
    """features (B, F) -> scores (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = mx.zeros((len(FEATURES),))
        self.noise: Noise = Noise()
        self.recompute = False
        self.config: Any = None  # it has no blocks

    def __call__(self, features_BF: mx.array) -> mx.array:
        return features_BF @ self.weight

    def margins(self, batch: Tensors, *, training: bool = False) -> mx.array:
        """(B,): by how much what answers is ahead of what does not."""
        return self(batch["features"])


@dataclass(frozen=True)
class FeatureBatch(Batch):
    """Pairs by the difference of their features (B, F); each counts by the weight of its row's one token."""

    features: NDArray[np.float32]


def with_features(batch: Batch) -> FeatureBatch:
    """The batch with room for features, all 0."""
    import numpy as np

    return FeatureBatch(**vars(batch), features=np.zeros((len(batch.tokens), len(FEATURES)), np.float32))


def best(values: NDArray[np.float32]) -> list[float]:
    """(F,) the weights of the least loss log(1 + exp(-w . x)) over differences (N, F), by Newton's method,
    with a decay so small that it only decides between weights that fit as well."""
    import numpy as np

    x, w = np.asarray(values, float), np.zeros(len(FEATURES))
    decay = 1e-3 * len(x) / 100 + 1e-6
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(np.clip(x @ w, -30, 30)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + decay * np.eye(len(w))
        move = np.linalg.solve(hessian, x.T @ p - decay * w)
        w = w + move * min(1.0, 5.0 / max(1e-12, float(np.abs(move).max())))
        if np.abs(move).max() < 1e-6:
            break
    return w.tolist()


@dataclass
class Differences:
    """Rows: the features of what answers less those of what does not."""

    values: NDArray[np.float32]
    n_tokens: int = field(default=0)

    def __post_init__(self) -> None:
        self.n_tokens = len(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        batch.segments[b, 0], batch.weights[b, 0] = 1, 1.0
        if isinstance(batch, FeatureBatch):
            batch.features[b] = self.values[r]


class Pairs(Source):
    """A source of such rows."""

    def __getitem__(self, i: int) -> Batch:
        if i < 0 or (self.seed is None and i >= len(self)):
            raise IndexError(i)
        batch = with_features(empty(self.batch_size, 1, self.pad_id))
        for b in range(self.batch_size):
            self.put(i * self.batch_size + b, batch, b)
        return batch


def differences(pairs: Sequence[tuple[str, str, str]], rarity: Rarity) -> Differences:
    """Of (query, a document that answers, one that does not)."""
    import numpy as np

    found = [np.subtract(features(q, yes, rarity), features(q, no, rarity)) for q, yes, no in pairs]
    return Differences(np.array(found, np.float32).reshape(len(pairs), len(FEATURES)))
