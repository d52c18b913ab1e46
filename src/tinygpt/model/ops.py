"""The operators a transformer is made of, each in the form that is fast on the device at hand.

On GPUs every function is MLX's own. On CPU MLX's softmax, norms, rotary embedding and cross-entropy are
several passes over memory with scalar exp calls, and autograd adds more; here each is a few fused passes with
a gradient written by hand (`mx.custom_function`). tests/equal/test_ops.py holds every form to its plain-MLX
twin, values and gradients. First gradients only: a hand-written one is not differentiable again.

Shapes: B batch, L queries, S keys, H query heads, G key/value heads (H a multiple of G), R = H / G, K head
dim, N tokens, V vocabulary, D width.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from tinygpt.core.backend import has_cpu_forms, mx
from tinygpt.model._blocked import blocked_attention, exp_minus, finite, fused

Mask = str | None | mx.array
FEW = 512  # scores of single queries that MLX's own attention makes as fast


def _cpu(x: mx.array) -> bool:
    """Whether the CPU forms apply: CPU device, float32 (other types go through MLX's own operators)."""
    return x.dtype == mx.float32 and has_cpu_forms()


# --- elementwise: one fused kernel forward, one backward --------------------------------------------------


@fused
def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@fused
def _swiglu_grad(gate: mx.array, up: mx.array, d: mx.array) -> tuple[mx.array, mx.array]:
    s = 1 / (1 + mx.exp(-gate))  # not mx.sigmoid: see `_blocked.fused`
    a = gate * s
    return d * up * (s + a * (1 - s)), d * a


@mx.custom_function
def _swiglu_cpu(gate: mx.array, up: mx.array) -> mx.array:
    return _swiglu(gate, up)


@_swiglu_cpu.vjp
def _(primals: Any, d: mx.array, _out: Any) -> Any:
    return _swiglu_grad(*primals, d)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up: the gated unit of Shazeer 2020, arXiv:2002.05202."""
    return _swiglu_cpu(gate, up) if _cpu(gate) else _swiglu(gate, up)


@fused
def _gelu_tanh(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@fused
def _gelu_erf(x: mx.array) -> mx.array:
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


def gelu(x: mx.array, approximate: bool = False) -> mx.array:
    """x * Phi(x); `approximate` uses the tanh form (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return _gelu_tanh(x) if approximate else _gelu_erf(x)


@fused
def _geglu_tanh(gate: mx.array, up: mx.array) -> mx.array:
    return 0.5 * gate * (1 + mx.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate * gate * gate))) * up


@fused
def _geglu_erf(gate: mx.array, up: mx.array) -> mx.array:
    return gate * (1 + mx.erf(gate / math.sqrt(2))) / 2 * up


def geglu(gate: mx.array, up: mx.array, approximate: bool = False) -> mx.array:
    """gelu(gate) * up: the gated unit with GELU of Shazeer 2020, arXiv:2002.05202."""
    return _geglu_tanh(gate, up) if approximate else _geglu_erf(gate, up)


def soft_cap(x: mx.array, cap: float) -> mx.array:
    """cap * tanh(x / cap): between -cap and cap, and x where it is small (Gemma 2, arXiv:2408.00118)."""
    return cap * mx.tanh(x / cap)


# --- softmax and cross-entropy ----------------------------------------------------------------------------


@mx.custom_function
def _softmax_cpu(x: mx.array) -> mx.array:
    e = exp_minus(x, x.max(axis=-1, keepdims=True))
    return e * (1 / e.sum(axis=-1))[..., None]


@_softmax_cpu.vjp
def _(_x: mx.array, d: mx.array, p: mx.array) -> mx.array:
    return p * (d - (p * d).sum(axis=-1, keepdims=True))


def softmax(x: mx.array) -> mx.array:
    """exp(x) / sum(exp(x)) over the last axis. A row of -inf alone gives NaN, as in every framework."""
    return _softmax_cpu(x) if _cpu(x) else mx.softmax(x, axis=-1, precise=True)


Parts = tuple[mx.array, mx.array, mx.array, mx.array]


def cross_entropy_parts(logits: mx.array, targets: mx.array) -> Parts:
    """-log p(target), log Z = logsumexp(logits), the maximum m (..., 1) and Z / exp(m), of float32 logits.

    Nobody differentiates this: `cross_entropy_grad` is its gradient."""
    m = logits.max(axis=-1, keepdims=True)
    total = exp_minus(logits, m).sum(axis=-1)
    picked = mx.take_along_axis(logits, targets[..., None], axis=-1)
    return mx.log(total) + (m - picked).squeeze(-1), mx.log(total) + m.squeeze(-1), m, total


@mx.custom_function
def _cross_entropy_cpu(logits: mx.array, targets: mx.array) -> Parts:
    return cross_entropy_parts(logits, targets)


@fused
def _softmax_times(logits: mx.array, m: mx.array, d: mx.array) -> mx.array:
    return mx.exp(logits - m) * d


def cross_entropy_grad(
    logits: mx.array, targets: mx.array, m: mx.array, total: mx.array, d_loss: mx.array, d_log_z: mx.array
) -> mx.array:
    """Gradient of the logits from those of the loss and of log Z: p (d_loss + d_log_z), less d_loss at the
    target."""
    # exp(x - max) / total, not exp(x - logsumexp): the logsumexp of large logits is rounded too coarsely.
    full, at = _softmax_times(logits, m, ((d_loss + d_log_z) / total)[..., None]), targets[..., None]
    picked = mx.take_along_axis(full, at, axis=-1) - d_loss[..., None]
    return mx.put_along_axis(full, at, picked, axis=-1)


@_cross_entropy_cpu.vjp
def _(primals: Any, d: Any, out: Any) -> Any:
    (logits, targets), (_loss, _log_z, m, total) = primals, out
    return cross_entropy_grad(logits, targets, m, total, d[0], d[1]), mx.zeros_like(targets)


def cross_entropy(logits_NV: mx.array, targets_N: mx.array) -> mx.array:
    """-log softmax(logits)[target] a token, in float32; shape of targets."""
    return cross_entropy_and_log_z(logits_NV, targets_N)[0]


def cross_entropy_and_log_z(logits_NV: mx.array, targets_N: mx.array) -> tuple[mx.array, mx.array]:
    """-log softmax(logits)[target] and logsumexp(logits) a token, in float32; shape of targets."""
    logits = logits_NV.astype(mx.float32)
    if _cpu(logits):
        loss, log_z, _, _ = _cross_entropy_cpu(logits, targets_N)
        return loss, log_z
    log_z = mx.logsumexp(logits, axis=-1)
    return log_z - mx.take_along_axis(logits, targets_N[..., None], axis=-1).squeeze(-1), log_z


LOGITS = 1 << 25  # logits held at once where that can be chosen (float32: 128 MB)


# --- norms ------------------------------------------------------------------------------------------------


@fused
def _scale_rows(x: mx.array, r: mx.array, w: mx.array) -> mx.array:
    return x * r * w


@fused
def _norm_grad(d: mx.array, w: mx.array, x: mx.array, dot: mx.array, r: mx.array) -> mx.array:
    return d * w * r - x * dot


@functools.lru_cache(maxsize=32)
def _norm_function(eps: float) -> Any:
    @mx.custom_function
    def norm(x: mx.array, w: mx.array) -> tuple[mx.array, mx.array]:
        r = mx.rsqrt((x * x).mean(axis=-1) + eps)[..., None]
        return _scale_rows(x, r, w), r

    @norm.vjp
    def _(primals: Any, d: Any, out: Any) -> Any:
        (x, w), r, d = primals, out[1], d[0]
        dxw = _scale_rows(d, x, r)  # summed over rows it is w's gradient
        dot = r[..., 0] * r[..., 0] * (dxw @ w) / x.shape[-1]
        dw = dxw.reshape(-1, x.shape[-1]).sum(axis=0)
        return _norm_grad(d, w, x, dot[..., None], r), dw

    return norm


def rms_norm(x: mx.array, w: mx.array | None, eps: float) -> mx.array:
    """x / sqrt(mean(x^2) + eps) * w over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    if w is None or w.dtype != mx.float32 or not _cpu(x):
        return mx.fast.rms_norm(x, w, eps)
    return _norm_function(eps)(x, w)[0]


def layer_norm(x: mx.array, w: mx.array | None, b: mx.array | None, eps: float) -> mx.array:
    """(x - mean) / sqrt(var + eps) * w + b over the last axis."""
    return mx.fast.layer_norm(x, w, b, eps)


# --- rotary embedding -------------------------------------------------------------------------------------


@fused
def _rotate(x: mx.array, flipped: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    return x * cos + flipped * sin


def _rotate_halves(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """x (B, H, L, K) seen as (B, H, L, 2, K/2): half 0 gets a cos - b sin, half 1 gets b cos + a sin."""
    halves = x.reshape(*x.shape[:-1], 2, -1)
    sin = mx.stack([-sin, sin], axis=-2)
    return _rotate(halves, halves[..., ::-1, :], cos[..., None, :], sin).reshape(x.shape)


@mx.custom_function
def _rope_cpu(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    return _rotate_halves(x, cos, sin)


@_rope_cpu.vjp
def _(primals: Any, d: mx.array, _out: Any) -> Any:
    _x, cos, sin = primals
    return _rotate_halves(d, cos, -sin), mx.zeros_like(cos), mx.zeros_like(sin)


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
    """Rotary embedding (Su et al. 2021, arXiv:2104.09864) on the first `dims` of K, halves rotated as in
    llama.

    The position of token l is offset + l (offset an int, a scalar or a (B,) array), or `positions`, (L) or
    (B, L). freqs: the wavelengths base^(2i/dims) where they are not the plain ones; scale multiplies
    positions.
    """
    dims = dims or x_BHLK.shape[-1]
    if positions is None and not _cpu(x_BHLK):
        base_or_none = None if freqs is not None else base
        return mx.fast.rope(
            x_BHLK, dims, traditional=False, base=base_or_none, scale=scale, offset=offset, freqs=freqs
        )
    if positions is None:
        start = mx.array(offset)[..., None] if isinstance(offset, mx.array) else offset
        positions = start + mx.arange(x_BHLK.shape[-2])
    if freqs is None:
        freqs = mx.exp(mx.arange(0, dims, 2, dtype=mx.float32) * (math.log(base) / dims))
    angle = (positions.astype(mx.float32) * scale)[..., None] / freqs
    angle = angle[:, None] if angle.ndim == 3 else angle
    cos, sin = mx.cos(angle), mx.sin(angle)
    head = x_BHLK if dims == x_BHLK.shape[-1] else x_BHLK[..., :dims]
    if _cpu(head):
        out = _rope_cpu(head, cos, sin)
    else:
        out = _rotate_halves(head, cos.astype(head.dtype), sin.astype(head.dtype))
    return out if head is x_BHLK else mx.concatenate([out, x_BHLK[..., dims:]], axis=-1)


# --- attention --------------------------------------------------------------------------------------------


def _causal(L: int, S: int, window: int = 0) -> mx.array:
    """(L, S): which keys each of the last L positions may read."""
    apart = mx.arange(S - L, S)[:, None] - mx.arange(S)
    return (apart >= 0) & (apart < window) if window else apart >= 0


def _masked(bias: mx.array, mask: mx.array | None) -> mx.array:
    """Bias and mask as one additive array."""
    if mask is None:
        return bias
    return mx.where(mask, bias, -mx.inf) if mask.dtype == mx.bool_ else bias + mask


def _capped(
    q_BHLK: mx.array,
    k_BGSK: mx.array,
    v_BGSK: mx.array,
    cap: float,
    mask: mx.array | None,
    bias: mx.array | None,
) -> mx.array:
    """Attention of scaled queries whose scores are bounded, which no fused kernel does; in float32."""
    (B, H, L, K), (_, G, S, _) = q_BHLK.shape, k_BGSK.shape
    q = q_BHLK.reshape(B, G, H // G, L, K)
    scores = (q @ k_BGSK[:, :, None].swapaxes(-1, -2)).reshape(B, H, L, S).astype(mx.float32)
    scores = soft_cap(scores, cap)
    scores = scores if bias is None else scores + bias
    if mask is not None:  # a huge number and no infinity: a row without any key gives a mean, not NaN
        scores = mx.where(mask, scores, -1e30) if mask.dtype == mx.bool_ else scores + mask
    p = softmax(scores).astype(v_BGSK.dtype).reshape(B, G, H // G, L, S)
    return (p @ v_BGSK[:, :, None]).reshape(B, H, L, -1)


def _one_query(
    q_BH1K: mx.array, k_BGSK: mx.array, v_BGSK: mx.array, mask: Mask, bias: mx.array | None
) -> mx.array:
    """Attention of one scaled query a head: where rows are many, MLX's own spends its time in exp."""
    (B, H, _, K), G = q_BH1K.shape, k_BGSK.shape[1]
    scores = q_BH1K.reshape(B, G, H // G, K) @ k_BGSK.swapaxes(-1, -2)
    if isinstance(mask, mx.array):
        bias = _masked(mx.array(0.0) if bias is None else bias, mask)
    if bias is not None:
        bias = bias.reshape(*[1] * (4 - bias.ndim), *bias.shape)
        heads = (G, H // G) if bias.shape[1] == H else (1, 1)
        scores = scores + bias.reshape(bias.shape[0], *heads, bias.shape[3])
    p = exp_minus(scores, finite(scores.max(axis=-1))[..., None])
    share = 1 / mx.maximum(p.sum(axis=-1), 1e-30)  # the sum is 0 only where nothing may be attended to
    return ((p @ v_BGSK) * share[..., None]).reshape(B, H, 1, -1)


def attention(
    q_BHLK: mx.array,
    k_BGSK: mx.array,
    v_BGSK: mx.array,
    *,
    scale: float,
    mask: Mask = "causal",
    segments: mx.array | None = None,
    bias: mx.array | None = None,
    window: int = 0,
    cap: float = 0.0,
) -> mx.array:
    """softmax(scale * q k^T + bias + mask) v: (B, H, L, width of v).

    mask: "causal" (lower-right aligned when L != S), None, bool (True = may attend) or additive; arrays
    broadcast to (B, H, L, S). segments: (B, S) integer ids of packed documents, a query then attends only to
    keys of its own id (the queries are the last L positions). bias: what a position technique adds to scores,
    broadcasts like a mask; on CPU it is fastest where keys lie first in memory. window: with mask "causal" or
    None, a query reads the last so many keys up to its own (0: all). cap: bounds scores before bias and mask,
    cap * tanh(scores / cap) (0: no bound); all scores are then made at once. On CPU and without a cap,
    queries that may attend to nothing give zeros.
    """
    (B, H, L, K), (_, G, S, _) = q_BHLK.shape, k_BGSK.shape
    if window >= S or isinstance(mask, mx.array):
        window = 0
    if segments is not None and isinstance(mask, mx.array):
        raise ValueError("segments go with mask 'causal' or None")
    if window and L == 1:  # what it may read is one piece of the cache
        k_BGSK, v_BGSK = k_BGSK[:, :, -window:], v_BGSK[:, :, -window:]
        segments = None if segments is None else segments[:, -window:]
        bias = None if bias is None else bias[..., -window:]
        S, window = window, 0
    if not _cpu(q_BHLK) or L == 1 or cap:
        if isinstance(mask, str) and (window or cap or segments is not None or bias is not None):
            mask = _causal(L, S, window)
        if segments is not None:
            same = segments[:, None, S - L :, None] == segments[:, None, None, :]
            mask = same if mask is None else same & mask
        if cap:
            return _capped(q_BHLK * scale, k_BGSK, v_BGSK, cap, mask, bias)
        if _cpu(q_BHLK) and B * H * S > FEW:
            return _one_query(q_BHLK * scale, k_BGSK, v_BGSK, mask, bias)
        if bias is not None:
            mask = _masked(bias, mask).astype(q_BHLK.dtype)
        return mx.fast.scaled_dot_product_attention(q_BHLK, k_BGSK, v_BGSK, scale=scale, mask=mask)
    q = (q_BHLK * scale).reshape(B, G, H // G, L, K)
    k, v = (mx.contiguous(x)[:, :, None] for x in (k_BGSK, v_BGSK))  # else every block's product copies them
    if isinstance(mask, mx.array):
        bias = _masked(mx.array(0.0) if bias is None else bias, mask)
    if bias is not None:
        bias = bias.reshape(*[1] * (4 - bias.ndim), *bias.shape)
        bias = mx.broadcast_to(bias, (*bias.shape[:2], L, S)).swapaxes(-1, -2)
        bias = bias[:, :, None] if bias.shape[1] == 1 else bias.reshape(-1, G, H // G, S, L)
    causal = isinstance(mask, str)
    out = blocked_attention(q, k, v, causal=causal, window=window, bias=bias, segments=segments)
    return out.reshape(B, H, L, -1)
