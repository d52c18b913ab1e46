"""The loss of a reranker: what answers a query should be ahead of what does not.

    loss = mean over pairs of log(1 + exp(-(s(query, yes) - s(query, no))))

Paper: Burges et al., ICML 2005, Learning to Rank using Gradient Descent (RankNet, eq. 3).
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.train.protocols import Tensors


class PairLoss:
    """The objective. `module.margins(batch)` gives s(query, yes) - s(query, no) of every row; a row counts
    by the weight of its first token, so that padding counts nothing."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def weights(self, batch: Tensors) -> mx.array:
        """(B, L)."""
        return batch["weights"]

    def loss(self, batch: Tensors) -> tuple[mx.array, Tensors]:
        """The mean over pairs, as in training."""
        return self._mean(batch, self.module.margins(batch, training=True)), {}

    def measure(self, batch: Tensors) -> mx.array:
        """The same mean without noise."""
        return self._mean(batch, self.module.margins(batch))

    def report(self, batch: Tensors) -> dict[str, tuple[mx.array, mx.array]]:
        """The loss, and the share of pairs in the right order."""
        s_B, w_B = self.module.margins(batch).astype(mx.float32), batch["weights"][:, 0]
        right_B = (s_B > 0).astype(mx.float32)
        return {
            "loss": ((_losses(s_B) * w_B).sum(), w_B.sum()),
            "pairs_right": ((right_B * w_B).sum(), w_B.sum()),
        }

    def _mean(self, batch: Tensors, s_B: mx.array) -> mx.array:
        w_B = batch["weights"][:, 0]
        return (_losses(s_B.astype(mx.float32)) * w_B).sum() / mx.maximum(w_B.sum(), 1e-9)


def _losses(s_B: mx.array) -> mx.array:
    return mx.logaddexp(mx.zeros_like(s_B), -s_B)
