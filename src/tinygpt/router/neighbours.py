"""A reader of requests that remembers: the tools of learned requests that a new one shares most words with.

    k_c = sum_(i of class c) (s_i / s_1)^4 / sum_i (s_i / s_1)^4

s_1 >= s_2 >= ... are the BM25 scores of the NEAREST learned requests. A request that is asked again in nearly
the same words is known by it, even where its tool has two examples.

Paper: Dudani 1976, IEEE Transactions on Systems, Man, and Cybernetics 6:325 (weighted neighbours).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinygpt.core.errors import DataError
from tinygpt.data.bm25 import BM25
from tinygpt.router.pairs import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAREST = 10
SHARPNESS = 4


class Neighbours:
    """Learned requests with their classes. `labels` names all of these; DataError where there are others."""

    def __init__(self, pairs: Sequence[Pair], labels: Sequence[str]) -> None:
        self.pairs, self.n_classes = list(pairs), len(labels)
        number = {label: c for c, label in enumerate(labels)}
        if odd := {tool for _, tool in self.pairs} - number.keys():
            raise DataError(f"a learned request has the class '{min(odd)}', which the router does not know")
        self._classes = [number[tool] for _, tool in self.pairs]
        self._index = BM25([query for query, _ in self.pairs])

    def shares(self, queries: Sequence[str]) -> NDArray[np.float64]:
        """(N, C) of N requests; a row of zeros where no word is shared."""
        import numpy as np

        k_NC = np.zeros((len(queries), self.n_classes))
        for n, query in enumerate(queries):
            nearest = self._index.best(query, NEAREST)
            for i, score in nearest:
                k_NC[n, self._classes[i]] += (score / nearest[0][1]) ** SHARPNESS
        return k_NC / np.maximum(k_NC.sum(axis=1, keepdims=True), 1e-12)
