"""What heads beside a model read and write: its features, and the logits and embeddings that it makes itself.

A feature is the stream after the last block, `blocks.N.hook_resid_post`, which every model shows, ours and
mlx_lm's. Shapes: B rows, L tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.lm import LM


class Features:
    """A model seen from a head that learns beside it. The model is no part of the head and stays as it is."""

    def __init__(self, model: Any) -> None:
        self.model, self.vocab_size = model, int(model.config.vocab_size)
        self.point = f"blocks.{len(model.layers) - 1}.hook_resid_post"
        self._native = isinstance(model, LM)
        self.width = int(self.of(mx.zeros((1, 1), mx.int32)).shape[-1])

    def of(self, tokens_BL: mx.array, **how: Any) -> mx.array:
        """The features (B, L, D) of tokens, as a pass without a cache has them."""
        seen: dict[str, mx.array] = {}

        def tap(name: str, x: mx.array) -> mx.array:
            if name == self.point:
                seen[name] = x
            return x

        self.model(tokens_BL, tap=tap, last=1, **how)
        return seen[self.point]

    def logits(self, features_BLD: mx.array) -> mx.array:
        """What the model itself makes of features: its final norm and its output matrix."""
        if self._native:
            return self.model.output(self.model.model.finish(features_BLD))

        def tap(name: str, x: mx.array) -> mx.array:
            return features_BLD.astype(x.dtype) if name == self.point else x

        # What comes before the tap is never computed: nothing asks for it.
        return self.model(mx.zeros(features_BLD.shape[:2], mx.int32), tap=tap)

    def embed(self, tokens_BL: mx.array) -> mx.array:
        """The vectors (B, L, D) that tokens enter the model with."""
        if self._native:
            return self.model.model.embed(tokens_BL)
        seen: dict[str, mx.array] = {}

        def tap(name: str, x: mx.array) -> mx.array:
            if name == "blocks.0.hook_resid_pre":
                seen[name] = x
            return x

        self.model(tokens_BL.reshape(-1, 1), tap=tap)  # each as the first of a text
        return seen["blocks.0.hook_resid_pre"].reshape(*tokens_BL.shape, -1)

    def scales(self, tokens_BL: mx.array) -> tuple[float, float]:
        """Root mean squares of features and of embeddings over these tokens, which heads divide by."""
        found = [
            mx.sqrt(mx.mean(mx.square(x.astype(mx.float32))))
            for x in (self.of(tokens_BL), self.embed(tokens_BL))
        ]
        return float(found[0].item()) or 1.0, float(found[1].item()) or 1.0
