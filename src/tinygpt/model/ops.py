"""The operators a transformer is made of, each in the form that is fast on the device at hand.

On GPUs every function is MLX's own. On CPU MLX's softmax, norms, rotary embedding and cross-entropy are several
passes over memory with scalar exp calls, and autograd adds more; here each is a few fused passes with a gradient
written by hand (`mx.custom_function`). tests/equal/test_ops.py holds every form to its plain-MLX twin, values and
gradients. First gradients only: a hand-written one is not differentiable again.

Shapes: B batch, L queries, S keys, H query heads, G key/value heads (H a multiple of G), R = H / G, K head dim,
N tokens, V vocabulary, D width.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from tinygpt.core.backend import compile, mx, setup

Mask = str | None | mx.array

_BLOCK = 128
"""Queries a block of causal attention: smaller skips more masked scores, larger gives bigger products."""


_fused = functools.partial(compile, max_traces=64)
"""One kernel out of elementwise expressions. Two traps (both make MLX run a piece unfused, exp then costs 11 ns):
a lone operation is not fused, and neither is a value that two kernels share, which is why forward and backward below
spell their common parts differently."""


def _cpu(x: mx.array) -> bool:
    """Whether the CPU forms apply: CPU device, float32 (other types go through MLX's own operators)."""
    return x.dtype == mx.float32 and setup().device == "cpu"


# --- elementwise: one fused kernel forward, one backward --------------------------------------------------


@_fused
def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@_fused
def _swiglu_grad(gate: mx.array, up: mx.array, d: mx.array) -> tuple[mx.array, mx.array]:
    s = 1 / (1 + mx.exp(-gate))  # not mx.sigmoid: see _fused
    a = gate * s
    return d * up * (s + a * (1 - s)), d * a


@mx.custom_function
def _swiglu_cpu(gate: mx.array, up: mx.array) -> mx.array:
    return _swiglu(gate, up)


@_swiglu_cpu.vjp
def _(primals: Any, d: mx.array, _out: Any) -> Any:
    return _swiglu_grad(*primals, d)


@_fused
def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x)."""
    return x * mx.sigmoid(x)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up: the gated unit of Shazeer 2020, arXiv:2002.05202."""
    return _swiglu_cpu(gate, up) if _cpu(gate) else _swiglu(gate, up)


@_fused
def _gelu_tanh(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@_fused
def _gelu_erf(x: mx.array) -> mx.array:
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


def gelu(x: mx.array, approximate: bool = False) -> mx.array:
    """x * Phi(x); `approximate` uses the tanh form (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return _gelu_tanh(x) if approximate else _gelu_erf(x)


# --- softmax and cross-entropy ----------------------------------------------------------------------------


@_fused
def _exp_minus(x: mx.array, m: mx.array) -> mx.array:
    return mx.exp(x - m)


def _finite(m: mx.array) -> mx.array:
    """A maximum to subtract: rows without any finite entry keep 0, so that exp gives zeros and not NaN."""
    return mx.where(m == -mx.inf, 0.0, m)


@mx.custom_function
def _softmax_cpu(x: mx.array) -> mx.array:
    e = _exp_minus(x, x.max(axis=-1, keepdims=True))
    return e * (1 / e.sum(axis=-1, keepdims=True))


@_softmax_cpu.vjp
def _(_x: mx.array, d: mx.array, p: mx.array) -> mx.array:
    return p * (d - (p * d).sum(axis=-1, keepdims=True))


def softmax(x: mx.array) -> mx.array:
    """exp(x) / sum(exp(x)) over the last axis. A row of -inf alone gives NaN, as in every framework."""
    return _softmax_cpu(x) if _cpu(x) else mx.softmax(x, axis=-1, precise=True)


def _logsumexp(x: mx.array) -> mx.array:
    m = x.max(axis=-1, keepdims=True)
    return mx.log(_exp_minus(x, m).sum(axis=-1, keepdims=True)) + m


@mx.custom_function
def _log_softmax_cpu(x: mx.array) -> mx.array:
    return x - _logsumexp(x)


@_log_softmax_cpu.vjp
def _(_x: mx.array, d: mx.array, out: mx.array) -> mx.array:
    return d - _exp_minus(out, mx.array(0.0)) * d.sum(axis=-1, keepdims=True)


def log_softmax(x: mx.array) -> mx.array:
    """log(softmax(x)) over the last axis, in float32."""
    x = x.astype(mx.float32)
    return _log_softmax_cpu(x) if _cpu(x) else x - mx.logsumexp(x, axis=-1, keepdims=True)


@mx.custom_function
def _cross_entropy_cpu(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    m = logits.max(axis=-1, keepdims=True)
    total = _exp_minus(logits, m).sum(axis=-1, keepdims=True)
    picked = mx.take_along_axis(logits, targets[..., None], axis=-1)
    return (mx.log(total) + (m - picked)).squeeze(-1), m, total


@_fused
def _cross_entropy_grad(logits: mx.array, m: mx.array, d: mx.array) -> mx.array:
    return mx.exp(logits - m) * d


@_cross_entropy_cpu.vjp
def _(primals: Any, d: Any, out: Any) -> Any:
    (logits, targets), (_loss, m, total), d = primals, out, d[0][..., None]
    # exp(x - max) / total, not exp(x - logsumexp): the logsumexp of large logits is rounded too coarsely.
    full = _cross_entropy_grad(logits, m, d / total)
    at = targets[..., None]
    return mx.put_along_axis(full, at, mx.take_along_axis(full, at, axis=-1) - d, axis=-1), mx.zeros_like(
        targets
    )


def cross_entropy(logits_NV: mx.array, targets_N: mx.array) -> mx.array:
    """-log softmax(logits)[target] a token, in float32; shape of targets."""
    logits = logits_NV.astype(mx.float32)
    if _cpu(logits):
        return _cross_entropy_cpu(logits, targets_N)[0]
    picked = mx.take_along_axis(logits, targets_N[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - picked


# --- norms ------------------------------------------------------------------------------------------------


@_fused
def _scale_rows(x: mx.array, r: mx.array, w: mx.array) -> mx.array:
    return x * r * w


@functools.lru_cache(maxsize=32)
def _norm_function(eps: float) -> Any:
    @mx.custom_function
    def norm(x: mx.array, w: mx.array) -> tuple[mx.array, mx.array]:
        r = mx.rsqrt((x * x).mean(axis=-1, keepdims=True) + eps)
        return _scale_rows(x, r, w), r

    @norm.vjp
    def _(primals: Any, d: Any, out: Any) -> Any:
        (x, w), r, d = primals, out[1], d[0]
        dxw = _scale_rows(d, x, r)  # summed over rows it is w's gradient
        dot = dxw @ w[:, None] / x.shape[-1]
        dw = dxw.reshape(-1, x.shape[-1]).sum(axis=0)
        return (d * w - x * (r * dot)) * r, dw

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


@_fused
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
    """Rotary embedding (Su et al. 2021, arXiv:2104.09864) on the first `dims` of K, halves rotated as in llama.

    The position of token l is offset + l (offset an int, a scalar or a (B,) array), or `positions`, (L) or (B, L).
    freqs: the wavelengths base^(2i/dims) where they are not the plain ones; scale multiplies positions.
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


@_fused
def _add(x: mx.array, y: mx.array) -> mx.array:
    return x + y


@_fused
def _scores_grad(p: mx.array, dp: mx.array, dot: mx.array) -> mx.array:
    return p * (dp - dot)


def _forward(
    q: mx.array, k: mx.array, v: mx.array, bias: mx.array | None
) -> tuple[mx.array, mx.array, mx.array]:
    """Attention of one block of scaled queries: output (…, L, K), exp(scores - max) (…, S, L), their sums (…, 1, L).

    Scores are kept transposed (keys first): maxima and sums over keys then run down columns, which MLX vectorises.
    """
    s = k @ q.swapaxes(-1, -2)
    if bias is not None:
        s = _add(s, bias)
    p = _exp_minus(s, _finite(s.max(axis=-2, keepdims=True)))
    total = mx.maximum(p.sum(axis=-2, keepdims=True), 1e-30)  # 0 only where nothing may be attended to
    return (p.swapaxes(-1, -2) @ v) * (1 / total).swapaxes(-1, -2), p, total


@functools.lru_cache(maxsize=64)
def _causal_bias(n_queries: int, n_keys: int) -> mx.array:
    """(n_keys, n_queries) float32: -inf where the key lies after the query; the last key meets the last query."""
    ahead = mx.arange(n_keys)[:, None] - (n_keys - n_queries) > mx.arange(n_queries)[None]
    bias = mx.where(ahead, -mx.inf, 0.0)
    mx.eval(bias)
    return bias


def _blocks(L: int, S: int, causal: bool) -> list[tuple[int, int, int]]:
    """(first query, last query + 1, keys it needs) of every block."""
    if not causal:
        return [(0, L, S)]
    return [(a, min(a + _BLOCK, L), S - L + min(a + _BLOCK, L)) for a in range(0, L, _BLOCK)]


@functools.lru_cache(maxsize=8)
def _attention_function(causal: bool) -> Any:
    """Attention on q (B, G, R, L, K), k and v (B, G, 1, S, K); saves the exponentials for the gradient."""

    def biases(a: int, b: int, n: int, extra: mx.array | None) -> mx.array | None:
        bias = _causal_bias(b - a, n) if causal else None
        if extra is None:
            return bias
        extra = extra[..., :n, a:b]
        return extra if bias is None else bias + extra

    @mx.custom_function
    def attend(q: mx.array, k: mx.array, v: mx.array, *extra: mx.array) -> Any:
        outs, saved = [], []
        for a, b, n in _blocks(q.shape[-2], k.shape[-2], causal):
            bias = biases(a, b, n, extra[0] if extra else None)
            o, p, total = _forward(q[..., a:b, :], k[..., :n, :], v[..., :n, :], bias)
            outs.append(o)
            saved += [p, total]
        return [outs[0] if len(outs) == 1 else mx.concatenate(outs, axis=-2), *saved]

    @attend.vjp
    def _(primals: Any, d: Any, outputs: Any) -> Any:
        q, k, v, *extra = primals
        out, *saved = outputs
        dout = d[0]
        S = k.shape[-2]
        dqs, dk, dv, dextra = [], None, None, None
        for i, (a, b, n) in enumerate(_blocks(q.shape[-2], S, causal)):
            p, total = saved[2 * i : 2 * i + 2]
            do = dout[..., a:b, :]
            dot = (do * out[..., a:b, :]).sum(axis=-1)[..., None, :] / total
            do = do * (1 / total).swapaxes(-1, -2)  # p is not normalised, so the output's gradient is
            ds = _scores_grad(p, v[..., :n, :] @ do.swapaxes(-1, -2), dot)
            dqs.append(ds.swapaxes(-1, -2) @ k[..., :n, :])
            dk_i, dv_i = ((x).sum(axis=2, keepdims=True) for x in (ds @ q[..., a:b, :], p @ do))
            if n < S:
                pad = [(0, 0)] * 3 + [(0, S - n), (0, 0)]
                dk_i, dv_i = mx.pad(dk_i, pad), mx.pad(dv_i, pad)
            dk, dv = (dk_i, dv_i) if dk is None else (dk + dk_i, dv + dv_i)
            dextra = ds
        dq = dqs[0] if len(dqs) == 1 else mx.concatenate(dqs, axis=-2)
        rest = []
        if extra:
            axes = [i for i, n in enumerate(extra[0].shape) if n == 1]
            rest = [mx.zeros_like(extra[0]) if causal else dextra.sum(axis=axes, keepdims=True)]
        return [dq, dk, dv, *rest]

    return attend


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

    mask: "causal" (lower-right aligned when L != S), None, bool (True = may attend) or additive; arrays broadcast to
    (B, H, L, S). segments: (B, S) integer ids of packed documents, a query then attends only to keys of its own id
    (the queries are the last L positions). On CPU, queries that may attend to nothing give zeros.
    """
    (B, H, L, K), (_, G, S, _) = q_BHLK.shape, k_BGSK.shape
    same = None
    if segments is not None:
        if isinstance(mask, mx.array):
            raise ValueError("segments go with mask 'causal' or None")
        same = segments[:, None, S - L :, None] == segments[:, None, None, :]
    if not _cpu(q_BHLK) or L == 1:
        if same is not None:
            mask = same if mask is None else same & (mx.arange(S - L, S)[:, None] >= mx.arange(S)[None])
        return mx.fast.scaled_dot_product_attention(q_BHLK, k_BGSK, v_BGSK, scale=scale, mask=mask)
    extra = []
    if same is not None or isinstance(mask, mx.array):
        array = same if same is not None else mask
        if array.dtype == mx.bool_:
            array = mx.where(array, 0.0, -mx.inf)
        array = array.reshape(*[1] * (4 - array.ndim), *array.shape)
        array = mx.broadcast_to(array, (*array.shape[:2], L, S)).swapaxes(-1, -2)
        n_heads = array.shape[1]
        array = array[:, :, None] if n_heads == 1 else array.reshape(-1, G, H // G, S, L)
        extra = [array]
    attend = _attention_function(mask == "causal" if isinstance(mask, str) else False)
    q = (q_BHLK * scale).reshape(B, G, H // G, L, K)
    return attend(q, k_BGSK[:, :, None], v_BGSK[:, :, None], *extra)[0].reshape(B, H, L, K)
