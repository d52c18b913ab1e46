"""Pointer head: the next token is written from the vocabulary, or copied from a place in the text so far.

One attention over the tokens before shares its mass between them and a sentinel g; what falls on the sentinel
goes to the usual softmax:
`a = softmax([q_t k_1, ..., q_t k_t, q_t s])`, `p(w) = a_g softmax(W h_t)_w + sum_(j: x_j = w) a_j`.
To copy a name that it never saw, a model need not learn 1,500 identities: pointing at the place is enough.
That is worth most when training is short; it costs one attention head.

Paper: Merity et al., ICLR 2017, arXiv:1609.07843 (pointer sentinel mixture).
Differs: keys are projected, half of their features from the token before (what led here is what to look up),
and q is linear, without tanh; all tokens of the context can be pointed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import ModelConfig
from tinygpt.model.earlier import earlier
from tinygpt.model.frame import Frame
from tinygpt.model.head.linear import next_losses
from tinygpt.model.output import Output

NEVER = -1e9  # a score that no token survives


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the pointer head."""

    width: Annotated[int, "Features of a query and of a key."] = 64

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"the pointer head's width must be at least 1, got {self.width}")


class PointerHead(nn.Module):
    """Shapes: B batch, L new tokens, S tokens so far, D width, K query width, V vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_vocab = config.vocab_size
        self.key_width = width = config.head.options.width
        self.query = nn.Linear(config.hidden_size, width, bias=False)
        self.key = nn.Linear(config.hidden_size, width, bias=False)
        self.sentinel = mx.ones((width,))
        self.scale = width**-0.5

    def make_cache(self) -> KVCache:
        """Keys, with the tokens they stand for as values."""
        return KVCache(tailed=True)

    def logits(
        self,
        x_BLD: mx.array,
        output: Output,
        tokens_BL: mx.array,
        frame: Frame,
        cache: Any | None,
        last: int,
    ) -> mx.array:
        """Logits (B, last, V) of what follows the last tokens: log-probabilities, moved back to where the
        vocabulary's own logits have their zero, which repetition_penalty goes by."""
        mass_BLS, rest_BL, tokens_BS = self._mass(x_BLD, tokens_BL, frame, cache, last)
        z_BLV = output(x_BLD[:, -last:]).astype(mx.float32)
        p_BLV = ops.softmax(z_BLV) * rest_BL[..., None]
        B, n, _ = mass_BLS.shape
        rows, places = mx.arange(B)[:, None, None], mx.arange(n)[None, :, None]
        p_BLV = p_BLV.at[rows, places, tokens_BS[:, None]].add(mass_BLS)
        return _log(p_BLV) + mx.logsumexp(z_BLV, axis=-1, keepdims=True)

    def losses(
        self, x_BLD: mx.array, output: Output, tokens_BL: mx.array, targets_BL: mx.array, frame: Frame
    ) -> mx.array:
        """-log p of each target (B, L), without the table of all probabilities."""
        mass_BLS, rest_BL, tokens_BS = self._mass(x_BLD, tokens_BL, frame, None, x_BLD.shape[1])
        written_BL = rest_BL * mx.exp(-next_losses(x_BLD, output, targets_BL, frame, self.n_vocab))
        here_BLS = (tokens_BS[:, None] == targets_BL[..., None]).astype(mass_BLS.dtype)
        return -_log(written_BL + (mass_BLS * here_BLS).sum(axis=-1))

    def _mass(
        self, x_BLD: mx.array, tokens_BL: mx.array, frame: Frame, cache: Any | None, last: int
    ) -> tuple[mx.array, mx.array, mx.array]:
        """Mass on every place (B, last, S), mass left for the vocabulary (B, last), tokens so far (B, S)."""
        own_BLH, given_BLH = mx.split(x_BLD, [x_BLD.shape[2] // 2], axis=2)
        k_BLK = self.key(mx.concatenate([own_BLH, *earlier(given_BLH, 1, frame, cache, "pointer")], axis=2))
        q_BLK = self.query(x_BLD[:, -last:]) * self.scale
        allowed = frame.mask(cache)
        k_BSK, tokens_BS = k_BLK, tokens_BL
        if cache is not None:
            keys, values = cache.update_and_fetch(k_BLK[:, None], tokens_BL[:, None, :, None])
            k_BSK, tokens_BS = keys[:, 0], values[:, 0, :, 0]
        scores_BLS = (q_BLK @ k_BSK.swapaxes(1, 2)).astype(mx.float32)
        L, S = tokens_BL.shape[1], tokens_BS.shape[1]
        if isinstance(allowed, str):
            allowed = mx.arange(S - L, S)[:, None] >= mx.arange(S)
        elif allowed is not None:
            allowed = allowed[:, 0]
        if frame.segments is not None and allowed is not None:
            allowed = allowed & (frame.segments[:, :, None] == frame.segments[:, None])
        if allowed is not None:
            scores_BLS = mx.where(allowed[..., -last:, :], scores_BLS, NEVER)
        sentinel_BL1 = (q_BLK @ self.sentinel[:, None]).astype(mx.float32)
        a = ops.softmax(mx.concatenate([scores_BLS, sentinel_BL1], axis=-1))
        return a[..., :-1], a[..., -1], tokens_BS


def _log(p: mx.array) -> mx.array:
    """log p, at least -69, so that nothing is infinite."""
    return mx.log(p + 1e-30)


def build(config: ModelConfig) -> nn.Module:
    """The head of a model."""
    return PointerHead(config)
