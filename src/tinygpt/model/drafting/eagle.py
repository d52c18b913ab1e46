"""EAGLE's head: one layer that writes the model's next feature from this one and the token that came.

`f'_(i+1) = Block(W [e(t_(i+1)) ; f_i])`, `p(t_(i+2)) = out(f'_(i+1))`: the token is known, so what is
uncertain in the next feature is only what follows it. Fed with its own features it writes on, one token at a
time. The layer attends to all pairs before, with a cache of its own.

Paper: Li et al., ICML 2024, arXiv:2401.15077, section 4.1.
Differs: the feature is the stream after the last block, before the final norm; features and embeddings are
divided by their root mean squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.block import Block
from tinygpt.model.config import POSITION, ModelConfig
from tinygpt.model.drafting.heads import Facts
from tinygpt.model.frame import Frame
from tinygpt.model.noise import Noise

HEAD_WIDTH = 64


class Eagle(nn.Module):
    """The layer. B rows, L pairs, D width of features, H width of the layer."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts
        self.noise: Noise = Noise()
        n = max(1, facts.hidden // HEAD_WIDTH)
        config = ModelConfig(
            vocab_size=1, hidden_size=facts.hidden, num_hidden_layers=1,
            num_attention_heads=n if facts.hidden % n == 0 and facts.hidden // n % 2 == 0 else 1,
        )  # fmt: skip
        self.join = nn.Linear(2 * facts.width, facts.hidden, bias=False)
        self.block = Block(config, 0)
        self.out = nn.Linear(facts.hidden, facts.width, bias=False)
        self._position = POSITION.load(config.position.name).build(config)

    @property
    def facts(self) -> Facts:
        """What the head is."""
        return self._facts

    @property
    def config(self) -> Facts:
        """The same, where training asks a module for it."""
        return self._facts

    def __call__(
        self,
        features_BLD: mx.array,
        embedded_BLD: mx.array,
        *,
        segments: mx.array | None = None,
        places: mx.array | None = None,
        cache: Any | None = None,
    ) -> mx.array:
        """The next features (B, L, D), of places i + 1, from those of places i and the vectors of tokens
        i + 1. places: where in the row the pairs stand, when not one after the other."""
        facts = self._facts
        pair_BLP = mx.concatenate(
            [embedded_BLD / facts.embedding_scale, features_BLD / facts.feature_scale], axis=-1
        )
        x_BLH = self.join(pair_BLP)
        frame = Frame(length=x_BLH.shape[1], position=self._position, segments=segments, places=places)
        frame.begin(cache)
        return self.out(self.block(x_BLH, frame, cache)) * facts.feature_scale

    def make_cache(self, left_padding: Sequence[int] | None = None) -> list[Any]:
        """The layer's empty cache, as a model's: alone in a list."""
        cache = self.block.make_cache()
        cache.left_padding = None if left_padding is None else mx.array(list(left_padding))
        return [cache]
