"""Noise of training: dropout, dropped layers and noisy embeddings, drawn from keys that the updater hands in.

Every row of a batch has a key of its own, made of (seed, step, the row's number in the whole batch), and
every draw folds the name of its place into it. So a row meets the same noise alone, in a part of the batch,
on another core, after a resumption, and again where a block is recomputed in the backward pass. Evaluation
and decoding have no keys and no noise.

Papers: dropout: Srivastava et al. 2014, JMLR 15, at the places of GPT-2 (embeddings and what each sublayer
adds to the stream), scaled by 1 / (1 - p) in training. LayerDrop: Fan et al., ICLR 2020, arXiv:1909.11556: a
block is left out with probability p, and all are used afterwards. NEFTune: Jain et al. 2023,
arXiv:2310.05914: uniform noise of size alpha / sqrt(L D) on the embeddings of a text of L tokens. Noise on
the features that a layer learns to write on from: Li et al., ICML 2024, arXiv:2401.15077, section 4.2.
Differs: no dropout on attention's probabilities, which fused attention never holds. A block is left out row
by row, not for a whole step, so nothing is saved in time. In packed rows, NEFTune's L is the length of the
token's own document in the row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.seeds import key_of


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Rates, and in a training pass the rows' keys (B, 2) uint32. Shapes: B rows, L tokens, D width."""

    dropout: float = 0.0
    layer_drop: float = 0.0
    neftune: float = 0.0
    features: float = 0.0
    keys: mx.array | None = None

    def __post_init__(self) -> None:
        for flag, rate in (("dropout", self.dropout), ("layer-drop", self.layer_drop)):
            if not 0 <= rate < 1:
                raise ConfigError(f"--{flag} must be at least 0 and below 1, got {rate:g}")
        if self.neftune < 0:
            raise ConfigError(f"--neftune-alpha must not be negative, got {self.neftune:g}")
        if self.features < 0:
            raise ConfigError(f"--feature-noise must not be negative, got {self.features:g}")

    def __bool__(self) -> bool:
        return bool(self.dropout or self.layer_drop or self.neftune or self.features)

    def of(self, keys_B2: mx.array) -> Noise:
        """The noise of one pass over rows with these keys."""
        return replace(self, keys=keys_B2)

    def drop(self, x_BLD: mx.array, place: str) -> mx.array:
        """x with a share `dropout` of its values set to 0 and the others scaled, so that the mean stays."""
        if not self.dropout:
            return x_BLD
        keep = 1 - self.dropout
        shape = x_BLD.shape[1:]
        kept_BLD = mx.vmap(lambda key: mx.random.bernoulli(keep, shape, key))(self._keys(place))
        return mx.where(kept_BLD, x_BLD * (1 / keep), mx.zeros((), x_BLD.dtype))

    def kept(self, place: str) -> mx.array | None:
        """(B,) whether each row goes through the block of this name; None: all do."""
        if not self.layer_drop:
            return None
        return mx.vmap(lambda key: mx.random.bernoulli(1 - self.layer_drop, (), key))(
            self._keys(f"{place}.layer_drop")
        )

    def disturb(self, x_BLD: mx.array, segments_BL: mx.array | None) -> mx.array:
        """Embeddings with uniform noise (Jain et al., algorithm 1). What padding gets, nothing reads."""
        if not self.neftune:
            return x_BLD
        n_tokens = mx.array(float(x_BLD.shape[1]))
        if segments_BL is not None:
            same_BLL = segments_BL[:, :, None] == segments_BL[:, None]
            n_tokens = same_BLL.sum(axis=-1, keepdims=True).astype(mx.float32)
        size = self.neftune / mx.sqrt(n_tokens * x_BLD.shape[2])
        return x_BLD + (self._uniform(x_BLD, "neftune") * size).astype(x_BLD.dtype)

    def off(self, x_BLD: mx.array) -> mx.array:
        """Features whose mean square is 1, with uniform noise from -features to features."""
        return x_BLD + (self._uniform(x_BLD, "features") * self.features).astype(x_BLD.dtype)

    def _uniform(self, x_BLD: mx.array, place: str) -> mx.array:
        shape = x_BLD.shape[1:]
        return mx.vmap(lambda key: mx.random.uniform(-1, 1, shape, key=key))(self._keys(place))

    def _keys(self, place: str) -> mx.array:
        """(B, 2) the rows' keys for one place: another key for every name."""
        assert self.keys is not None, "noise is drawn in training passes only"
        digest = hashlib.sha256(place.encode()).digest()
        words = [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]
        return self.keys ^ mx.array(words, mx.uint32)


def row_keys(seed: int, step: int, rows: int) -> mx.array:
    """(rows, 2) uint32: the keys of a step's rows."""
    return mx.random.split(key_of(seed, step, "noise"), rows)
