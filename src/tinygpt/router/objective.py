"""The loss of a router: cross-entropy of a request's class, weighed by class; noise that hides tokens.

    loss = sum_b w_(y_b) (-log softmax(z_b)[y_b]) / sum_b w_(y_b)

In training a token is hidden with probability `token_drop`: no other reads it and no mean counts it, so that
what a request asks for is not learned from one word alone.

Source: King and Zeng 2001, Political Analysis 9:137 (weighted likelihood of rare classes); Iyyer et al., ACL
2015, Deep Unordered Composition, section 3.1 (word dropout).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.noise import Noise
from tinygpt.train.protocols import Tensors


@dataclass(frozen=True, kw_only=True)
class Hiding(Noise):
    """Noise that also hides tokens."""

    token_drop: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.token_drop < 1:
            raise ConfigError(f"--token-drop must be at least 0 and below 1, got {self.token_drop:g}")

    def __bool__(self) -> bool:
        return super().__bool__() or bool(self.token_drop)

    def seen(self, segments_BL: mx.array) -> mx.array:
        """(B, L) the segments, 0 where a token is hidden; the first token of a request never is."""
        if not self.token_drop:
            return segments_BL
        keep, shape = 1 - self.token_drop, segments_BL.shape[1:]
        draw = mx.vmap(lambda key: mx.random.bernoulli(keep, shape, key))
        kept_BL = draw(self._keys("router.tokens")) | (mx.arange(shape[0]) == 0)
        return mx.where(kept_BL, segments_BL, mx.zeros_like(segments_BL))


class ToolLoss:
    """The objective. `module` is the encoder."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def weights(self, batch: Tensors) -> mx.array:
        """(B, L): what a request counts, at its first token."""
        return batch["weights"]

    def loss(self, batch: Tensors) -> tuple[mx.array, Tensors]:
        """The mean over requests, as in training."""
        segments_BL, keys = batch["segments"], batch.get("keys")
        if keys is not None and isinstance(self.module.noise, Hiding):
            segments_BL = dataclasses.replace(self.module.noise, keys=keys).seen(segments_BL)
        return self._mean(batch, self.module(batch["tokens"], segments_BL, training=True, keys=keys)), {}

    def measure(self, batch: Tensors) -> mx.array:
        """The same mean without noise."""
        return self._mean(batch, self.module(batch["tokens"], batch["segments"]))

    def report(self, batch: Tensors) -> dict[str, tuple[mx.array, mx.array]]:
        """The loss, weighed as in training, and the share of requests that get the right class."""
        z_BC = self.module(batch["tokens"], batch["segments"])
        w_B, real_B = batch["weights"][:, 0], (batch["weights"][:, 0] > 0).astype(mx.float32)
        right_B = (z_BC.argmax(axis=-1) == _classes(batch)).astype(mx.float32)
        losses_B = ops.cross_entropy(z_BC, _classes(batch))
        return {
            "loss": ((losses_B * w_B).sum(), w_B.sum()),
            "accuracy": ((right_B * real_B).sum(), real_B.sum()),
        }

    def _mean(self, batch: Tensors, z_BC: mx.array) -> mx.array:
        w_B = batch["weights"][:, 0]
        return (ops.cross_entropy(z_BC, _classes(batch)) * w_B).sum() / mx.maximum(w_B.sum(), 1e-9)


def _classes(batch: Tensors) -> mx.array:
    """(B,): the class of each request, 0 for a row of padding, whose targets are the padding's id and no
    class: MLX would write beyond the logits."""
    return mx.where(batch["weights"][:, 0] > 0, batch["targets"][:, 0], 0)
