"""The operators a transformer is made of, each in the form that is fast on the device at hand.

On GPUs every function is MLX's own (`mx.fast`, `mx.nn`). Shapes: B batch, L queries, S keys, H query heads,
G key/value heads (H a multiple of G), K head dim, N tokens, V vocabulary, D width.
"""

from __future__ import annotations

import math

from tinygpt.core.backend import mx

Mask = str | None | mx.array


def softmax(x: mx.array) -> mx.array:
    """exp(x) / sum(exp(x)) over the last axis."""
    return mx.softmax(x, axis=-1, precise=True)


def log_softmax(x: mx.array) -> mx.array:
    """log(softmax(x)) over the last axis, in float32."""
    x = x.astype(mx.float32)
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x)."""
    return x * mx.sigmoid(x)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up: the gated unit of Shazeer 2020, arXiv:2002.05202."""
    return silu(gate) * up


def gelu(x: mx.array, approximate: bool = False) -> mx.array:
    """x * Phi(x); `approximate` uses the tanh form (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    if approximate:
        return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


def rms_norm(x: mx.array, w: mx.array | None, eps: float) -> mx.array:
    """x / sqrt(mean(x^2) + eps) * w over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    return mx.fast.rms_norm(x, w, eps)


def layer_norm(x: mx.array, w: mx.array | None, b: mx.array | None, eps: float) -> mx.array:
    """(x - mean) / sqrt(var + eps) * w + b over the last axis."""
    return mx.fast.layer_norm(x, w, b, eps)


def rope(
    x_BHLK: mx.array,
    *,
    base: float = 10000.0,
    offset: int | mx.array = 0,
    positions: mx.array | None = None,
    dims: int | None = None,
    freqs: mx.array | None = None,
    scale: float = 1.0,
) -> mx.array:
    """Rotary embedding, half-split (llama, traditional=False) layout, on the first `dims` of K.

    Position of token l is offset + l, or `positions` ((L) or (B, L) integers). `freqs` are the wavelengths
    base^(2i/dims) when they are not the plain ones; `scale` multiplies positions.
    """
    dims = dims or x_BHLK.shape[-1]
    if positions is None:
        return mx.fast.rope(
            x_BHLK, dims, traditional=False, base=None if freqs is not None else base, scale=scale,
            offset=offset, freqs=freqs,
        )  # fmt: skip
    if freqs is None:
        freqs = base ** (mx.arange(0, dims, 2, dtype=mx.float32) / dims)
    angle = (positions.astype(mx.float32) * scale)[..., None] / freqs
    if angle.ndim == 3:
        angle = angle[:, None]
    cos, sin = mx.cos(angle).astype(x_BHLK.dtype), mx.sin(angle).astype(x_BHLK.dtype)
    a, b = x_BHLK[..., : dims // 2], x_BHLK[..., dims // 2 : dims]
    return mx.concatenate([a * cos - b * sin, b * cos + a * sin, x_BHLK[..., dims:]], axis=-1)


def attention(
    q_BHLK: mx.array,
    k_BGSK: mx.array,
    v_BGSK: mx.array,
    *,
    scale: float,
    mask: Mask = "causal",
    segments: mx.array | None = None,
) -> mx.array:
    """softmax(scale * q k^T + mask) v, shape of q.

    mask: "causal" (lower-right aligned when L != S), None, bool (True = may attend) or additive, broadcastable to
    (B, 1 or H, L, S). segments: (B, S) integer ids of packed documents, a query then attends only to keys of its
    own id (the queries are the last L positions).
    """
    L, S = q_BHLK.shape[-2], k_BGSK.shape[-2]
    if segments is not None:
        same = segments[:, None, S - L :, None] == segments[:, None, None, :]
        if isinstance(mask, str):
            same = same & (mx.arange(S - L, S)[:, None] >= mx.arange(S)[None])
        elif mask is not None:
            raise ValueError("segments go with mask 'causal' or None")
        mask = same
    return mx.fast.scaled_dot_product_attention(q_BHLK, k_BGSK, v_BGSK, scale=scale, mask=mask)


def cross_entropy(logits_NV: mx.array, targets_N: mx.array) -> mx.array:
    """-log softmax(logits)[target] a token, in float32; shape of targets."""
    logits = logits_NV.astype(mx.float32)
    picked = mx.take_along_axis(logits, targets_N[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - picked
