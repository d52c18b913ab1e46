"""Every operator equals its plain-MLX twin, values and gradients, on ordinary and extreme inputs."""

from __future__ import annotations

import functools
import math

import pytest

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops

TOLERANCE = 2e-5  # relative to the largest entry of the twin's result
FLOOR = 0.2  # entries below this count as this large: some true gradients are 0 and both results are rounding


def close(got: mx.array, want: mx.array, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape
    assert mx.all(mx.isfinite(got)).item() or not mx.all(mx.isfinite(want)).item(), "not finite"
    size = mx.maximum(mx.abs(want).max(), FLOOR).item()
    error = mx.abs(got - want).max().item() / size
    assert error <= tolerance, f"relative error {error:.2e}"


def same_value_and_gradients(fast, plain, *inputs: mx.array, tolerance: float = TOLERANCE) -> None:
    """Compare outputs, and the gradients of a fixed random projection of them, for every input."""
    out = plain(*inputs)
    close(fast(*inputs), out, tolerance)
    weights = mx.random.normal(out.shape, key=mx.random.key(7))
    every = tuple(range(len(inputs)))
    got = mx.grad(lambda *x: (fast(*x) * weights).sum(), argnums=every)(*inputs)
    want = mx.grad(lambda *x: (plain(*x) * weights).sum(), argnums=every)(*inputs)
    for g, w in zip(got, want):
        close(g, w, tolerance)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)) * scale


SIZES = [(1, 1), (3, 7), (5, 130), (2, 3, 64)]
SCALES = [0.0, 1e-3, 1.0, 30.0]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("scale", SCALES)
def test_elementwise(shape, scale) -> None:
    x, y = normal(*shape, scale=scale), normal(*shape, seed=1)
    same_value_and_gradients(ops.swiglu, lambda a, b: nn.silu(a) * b, x, y)
    same_value_and_gradients(ops.gelu, nn.gelu, x)
    same_value_and_gradients(lambda a: ops.gelu(a, approximate=True), nn.gelu_approx, x)


def test_exp_and_tanh_are_exact_at_the_edges() -> None:
    from tinygpt.core.backend import compile

    edges = [0.0, -0.0, 1e-30, 88.0, 88.7, 89.0, 1e4, -87.0, -88.0, -1e4, math.inf, -math.inf, 0.6249, 0.6251]
    x = mx.concatenate([mx.array(edges), mx.linspace(-87, 88, 100_001)])
    exp = compile(lambda x: mx.exp(x * 1.0))(x)
    want = mx.array([math.exp(v) if v < 88.7228 else math.inf for v in x.tolist()])
    assert mx.array_equal(mx.isinf(exp), mx.isinf(want)).item()
    finite = mx.isfinite(want) & (want > 1.2e-38)  # below that: 0 instead of a subnormal
    ratio = mx.where(finite, exp, 1.0) / mx.where(finite, want, 1.0)
    assert mx.abs(ratio - 1).max().item() < 3e-7
    tanh = compile(lambda x: mx.tanh(x * 1.0))(x)
    want = mx.array([math.tanh(v) for v in x.tolist()])
    assert mx.abs(tanh - want).max().item() < 3e-7
    assert math.isnan(compile(lambda x: mx.exp(x * 1.0))(mx.array([math.nan])).item())
    assert math.isnan(compile(lambda x: mx.tanh(x * 1.0))(mx.array([math.nan])).item())


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_softmax(shape, scale) -> None:
    x = normal(*shape, scale=scale)
    same_value_and_gradients(ops.softmax, lambda x: mx.softmax(x, axis=-1), x)


def test_softmax_with_masked_entries() -> None:
    x = mx.where(mx.arange(12).reshape(3, 4) % 3 == 0, -mx.inf, normal(3, 4))
    close(ops.softmax(x), mx.softmax(x, axis=-1))
    assert mx.all(ops.softmax(x)[:, 0::3].sum() >= 0).item()


@pytest.mark.parametrize("shape", [(1, 2), (7, 33), (2, 5, 300)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_cross_entropy(shape, scale) -> None:
    logits = normal(*shape, scale=scale)
    targets = mx.random.randint(0, shape[-1], shape[:-1], key=mx.random.key(3))
    same_value_and_gradients(
        lambda x: ops.cross_entropy(x, targets), lambda x: nn.losses.cross_entropy(x, targets), logits
    )


def test_cross_entropy_in_half_precision_is_computed_in_float32() -> None:
    logits, targets = normal(4, 50).astype(mx.bfloat16), mx.array([0, 1, 2, 49])
    loss = ops.cross_entropy(logits, targets)
    assert loss.dtype == mx.float32
    close(loss, nn.losses.cross_entropy(logits.astype(mx.float32), targets))
    assert mx.grad(lambda x: ops.cross_entropy(x, targets).sum())(logits).dtype == mx.bfloat16


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 130)])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_norms(shape, scale) -> None:
    x, w, b = normal(*shape, scale=scale), normal(shape[-1], seed=1), normal(shape[-1], seed=2)
    eps = 1e-5

    def plain_rms(x, w):
        return x * mx.rsqrt((x * x).mean(axis=-1, keepdims=True) + eps) * w

    def plain_layer(x, w, b):
        c = x - x.mean(axis=-1, keepdims=True)
        return c * mx.rsqrt((c * c).mean(axis=-1, keepdims=True) + eps) * w + b

    same_value_and_gradients(lambda x, w: ops.rms_norm(x, w, eps), plain_rms, x, w, tolerance=1e-4)
    if shape[-1] > 1:  # of one entry the deviation is rounding noise
        same_value_and_gradients(
            lambda x, w, b: ops.layer_norm(x, w, b, eps), plain_layer, x, w, b, tolerance=1e-4
        )
    close(ops.rms_norm(x, None, eps), plain_rms(x, mx.ones(shape[-1])))


@pytest.mark.parametrize("L", [1, 7, 130])
@pytest.mark.parametrize(("K", "dims"), [(32, 32), (80, 40)])
@pytest.mark.parametrize("offset", [0, 5])
def test_rope(L, K, dims, offset) -> None:
    x = normal(2, 3, L, K)

    def plain(x):
        return mx.fast.rope(x, dims, traditional=False, base=10000.0, scale=1.0, offset=offset)

    def by_positions(x):
        return ops.rope(x, base=10000.0, positions=offset + mx.arange(L), dims=dims)

    same_value_and_gradients(lambda x: ops.rope(x, base=10000.0, offset=offset, dims=dims), plain, x)
    same_value_and_gradients(by_positions, plain, x)


def test_rope_takes_an_offset_and_positions_a_row() -> None:
    x = normal(2, 3, 5, 32)
    rows = [
        mx.fast.rope(x[i : i + 1], 32, traditional=False, base=1e4, scale=1.0, offset=o)
        for i, o in enumerate((2, 9))
    ]
    want = mx.concatenate(rows)
    close(ops.rope(x, base=1e4, offset=mx.array([2, 9])), want)
    close(ops.rope(x, base=1e4, positions=mx.array([[2], [9]]) + mx.arange(5)), want)
    freqs = mx.arange(1, 17).astype(mx.float32)
    want = mx.fast.rope(x, 32, traditional=False, base=None, scale=0.5, offset=3, freqs=freqs)
    close(ops.rope(x, freqs=freqs, scale=0.5, offset=3), want)


def plain_attention(q, k, v, scale, keep=None, bias=None, cap=0.0):
    """Scores, mask, softmax, values, written out; queries without keys give zeros."""
    R = q.shape[1] // k.shape[1]
    k, v = mx.repeat(k, R, axis=1), mx.repeat(v, R, axis=1)
    s = (q * scale) @ k.swapaxes(-1, -2)
    s = cap * mx.tanh(s / cap) if cap else s
    s = s if bias is None else s + bias
    if keep is not None:
        s = mx.where(keep, s, -1e30)
    p = mx.softmax(s, axis=-1)
    return (p if keep is None else mx.where(keep, p, 0.0)) @ v


def causal_keep(L: int, S: int) -> mx.array:
    return mx.arange(S - L, S)[:, None] >= mx.arange(S)[None]


CASES = [(1, 1, 32), (1, 9, 32), (7, 7, 32), (7, 20, 64), (130, 130, 32), (130, 300, 80), (300, 300, 64)]


@pytest.mark.parametrize(("L", "S", "K"), CASES)
@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 2), (3, 1)])
def test_attention(L, S, K, H, G) -> None:
    q, k, v = normal(2, H, L, K), normal(2, G, S, K, seed=1), normal(2, G, S, K, seed=2)
    scale = K**-0.5
    for mask, keep in (("causal", causal_keep(L, S)), (None, None)):
        same_value_and_gradients(
            functools.partial(ops.attention, scale=scale, mask=mask),
            functools.partial(plain_attention, scale=scale, keep=keep),
            q, k, v,
        )  # fmt: skip


@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("shape", [(20, 33), (2, 1, 20, 33), (2, 4, 20, 33), (1, 4, 1, 33), (20, 1)])
def test_attention_with_an_array_mask(H, G, shape) -> None:
    L, S, K = 20, 33, 32
    q, k, v = normal(2, H, L, K), normal(2, G, S, K, seed=1), normal(2, G, S, K, seed=2)
    keep = mx.random.bernoulli(0.7, shape, key=mx.random.key(5))
    keep = keep | (mx.arange(shape[-1]) == 0)  # at least one key
    bias = normal(*shape, seed=6)
    same_value_and_gradients(
        lambda q, k, v: ops.attention(q, k, v, scale=0.3, mask=keep),
        lambda q, k, v: plain_attention(q, k, v, 0.3, keep),
        q, k, v,
    )  # fmt: skip
    same_value_and_gradients(
        lambda q, k, v, b: ops.attention(q, k, v, scale=0.3, mask=b),
        lambda q, k, v, b: plain_attention(q, k, v, 0.3, bias=b),
        q, k, v, bias,
    )  # fmt: skip


@pytest.mark.parametrize(("L", "S"), [(1, 9), (7, 20), (130, 130), (130, 300)])
@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("shape", ["1HLS", "B1LS", "LS"])
def test_attention_with_a_bias(L, S, H, G, shape) -> None:
    """Beside every kind of mask; keys may lie first in memory, as position techniques make them."""
    q, k, v = normal(2, H, L, 32), normal(2, G, S, 32, seed=1), normal(2, G, S, 32, seed=2)
    sizes = {"B": 2, "H": H, "L": L, "S": S, "1": 1}
    bias = normal(*(sizes[n] for n in shape), seed=6)
    some = causal_keep(L, S) & (mx.random.bernoulli(0.7, (2, 1, L, S)) | (mx.arange(S) == 0))
    segments = mx.array([[i // 3 for i in range(S)], [i // 90 for i in range(S)]])
    same = (segments[:, None, S - L :, None] == segments[:, None, None, :]) & causal_keep(L, S)
    cases = [("causal", None, causal_keep(L, S)), (None, None, None), (some, None, some)]
    for mask, ids, keep in [*cases, ("causal", segments, same)]:
        fast = functools.partial(ops.attention, scale=0.2, mask=mask, segments=ids)
        plain = functools.partial(plain_attention, scale=0.2, keep=keep)
        same_value_and_gradients(
            lambda q, k, v, b, fast=fast: fast(q, k, v, bias=b),
            lambda q, k, v, b, plain=plain: plain(q, k, v, bias=b),
            q, k, v, bias,
        )  # fmt: skip
        turned = mx.contiguous(bias.swapaxes(-1, -2)).swapaxes(-1, -2)
        close(fast(q, k, v, bias=turned), plain(q, k, v, bias=bias))


@pytest.mark.parametrize(("L", "S"), [(1, 9), (7, 20), (130, 130)])
@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 2)])
def test_attention_with_a_cap(L, S, H, G) -> None:
    """Scores are bounded before bias and mask, beside a window and packed documents too."""
    q, k, v = normal(2, H, L, 32), normal(2, G, S, 32, seed=1), normal(2, G, S, 32, seed=2)
    bias, causal = normal(2, H, L, S, seed=6), causal_keep(L, S)
    near = causal & (mx.arange(S - L, S)[:, None] - mx.arange(S)[None] < 5)
    segments = mx.array([[i // 3 for i in range(S)], [i // 90 for i in range(S)]])
    same = (segments[:, None, S - L :, None] == segments[:, None, None, :]) & causal
    some = causal & (mx.random.bernoulli(0.7, (2, 1, L, S)) | (mx.arange(S) == 0))
    cases = [({}, causal), ({"window": 5}, near), ({"segments": segments}, same), ({"mask": some}, some)]
    for how, keep in [*cases, ({"mask": None}, None)]:
        same_value_and_gradients(
            lambda q, k, v, b, how=how: ops.attention(q, k, v, scale=0.5, cap=1.3, bias=b, **how),
            lambda q, k, v, b, keep=keep: plain_attention(q, k, v, 0.5, keep, b, 1.3),
            q, k, v, bias,
        )  # fmt: skip
        if "segments" not in how or L > 1:
            loose = plain_attention(q, k, v, 0.5, keep)
            assert mx.abs(ops.attention(q, k, v, scale=0.5, cap=1.3, **how) - loose).max().item() > 0.01


@pytest.mark.parametrize("L", [7, 200])
def test_attention_over_packed_documents(L) -> None:
    q, k, v = normal(2, 4, L, 32), normal(2, 2, L, 32, seed=1), normal(2, 2, L, 32, seed=2)
    segments = mx.array([[i // 3 for i in range(L)], [i // 90 for i in range(L)]])
    same = segments[:, None, :, None] == segments[:, None, None, :]
    for mask, keep in (("causal", same & causal_keep(L, L)), (None, same)):
        same_value_and_gradients(
            functools.partial(ops.attention, scale=0.2, mask=mask, segments=segments),
            functools.partial(plain_attention, scale=0.2, keep=keep),
            q, k, v,
        )  # fmt: skip


@pytest.mark.parametrize(("H", "G"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("shape", [(33,), (1, 33), (2, 1, 1, 33), (2, 4, 1, 33), (1, 4, 1, 33), (1, 1)])
def test_single_queries_of_many_rows(H, G, shape, monkeypatch) -> None:
    """They have a form of their own, as soon as they are many."""
    monkeypatch.setattr(ops, "FEW", 0)
    shape = tuple(H if n == 4 else n for n in shape)
    q, k, v = normal(2, H, 1, 32), normal(2, G, 33, 32, seed=1), normal(2, G, 33, 32, seed=2)
    keep = mx.random.bernoulli(0.7, shape, key=mx.random.key(5)) | (mx.arange(shape[-1]) == 0)
    bias = normal(*shape, seed=6)
    for mask, left in ((None, None), ("causal", None), (keep, keep)):
        for extra in (None, bias):
            same_value_and_gradients(
                lambda q, k, v, mask=mask, extra=extra: ops.attention(
                    q, k, v, scale=0.3, mask=mask, bias=extra
                ),
                lambda q, k, v, left=left, extra=extra: plain_attention(q, k, v, 0.3, left, extra),
                q, k, v,
            )  # fmt: skip
    close(ops.attention(q, k, v, scale=0.3, mask=bias), plain_attention(q, k, v, 0.3, bias=bias))
    nothing = ops.attention(q, k, v, scale=0.3, mask=mx.zeros((2, 1, 1, 33), mx.bool_))
    assert not mx.any(nothing).item()


def test_attention_without_any_key_gives_zeros_and_finite_gradients() -> None:
    q, k, v = normal(1, 2, 5, 32), normal(1, 2, 6, 32, seed=1), normal(1, 2, 6, 32, seed=2)
    keep = mx.arange(5)[:, None] != mx.zeros((1, 6))
    out = ops.attention(q, k, v, scale=1.0, mask=keep)
    assert mx.all(out[..., 0, :] == 0).item()
    same_value_and_gradients(
        lambda q, k, v: ops.attention(q, k, v, scale=1.0, mask=keep),
        lambda q, k, v: plain_attention(q, k, v, 1.0, keep),
        q, k, v,
    )  # fmt: skip


@pytest.mark.parametrize("size", [1e-4, 1e2])
def test_attention_with_extreme_scores(size) -> None:
    q, k, v = normal(1, 2, 150, 32, scale=size), normal(1, 2, 150, 32, seed=1), normal(1, 2, 150, 32, seed=2)
    same_value_and_gradients(
        lambda q, k, v: ops.attention(q, k, v, scale=1.0),
        lambda q, k, v: plain_attention(q, k, v, 1.0, causal_keep(150, 150)),
        q, k, v, tolerance=1e-4,
    )  # fmt: skip


def test_results_are_the_same_bits_every_time_and_compiled() -> None:
    q, k, v = normal(2, 4, 200, 32), normal(2, 2, 200, 32, seed=1), normal(2, 2, 200, 32, seed=2)

    def step(q, k, v):
        return mx.grad(
            lambda *x: (ops.attention(ops.rope(x[0]), x[1], x[2], scale=0.2) ** 2).sum(), (0, 1, 2)
        )(q, k, v)

    first = step(q, k, v)
    for again in (step(q, k, v), step(q, k, v)):
        assert all(mx.array_equal(a, b).item() for a, b in zip(first, again))
    for a, b in zip(first, mx.compile(step)(q, k, v)):
        close(a, b)
