"""YOCO: windowed layers, then layers that read one shared set of keys and values; only that set grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model import count
from tinygpt.model.lm import LM

IDS = nano.tokens(2, 50, seed=3)


def yoco(window: int = 8, qk_norm: bool = False, **changes: Any) -> LM:
    attention = Pick("yoco", {"window": window, "qk_norm": qk_norm})
    return nano.model(attention=attention, num_hidden_layers=4, **changes)


def rms(x: np.ndarray, module: Any) -> np.ndarray:
    return (
        x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + module.eps) * np.array(module.weight, np.float64)
    )


def softmax(s: np.ndarray) -> np.ndarray:
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int) -> np.ndarray:
    """q (L, H, K), k and v (L, G, K) -> (L, H K)."""
    L, H, K = q.shape
    k, v = (np.repeat(x, H // k.shape[1], axis=1) for x in (k, v))
    apart = np.arange(L)[:, None] - np.arange(L)
    scores = np.einsum("ihk,jhk->hij", q, k) / np.sqrt(K)
    scores = np.where((apart >= 0) & (apart < window), scores, -np.inf)
    return np.einsum("hij,jhk->ihk", softmax(scores), v).reshape(L, H * K)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_stack_is_its_equations(qk_norm: bool) -> None:
    """Eq. 1-3 in float64, without positions."""
    model = yoco(window=5, qk_norm=qk_norm, position=Pick("nope"))
    weights = {name: np.array(w, np.float64) for name, w in nano.flat(model).items()}
    x = weights["model.embed_tokens.weight"][IDS[0]]
    L, shared = len(x), None
    for i, layer in enumerate(model.layers):
        w = {n.removeprefix(f"model.layers.{i}."): v for n, v in weights.items()}
        h = rms(x, layer.input_layernorm)
        q = (h @ w["self_attn.q_proj.weight"].T).reshape(L, 4, 8)
        if i <= 2:
            given = h if i < 2 else rms(x, layer.self_attn.kv_norm)
            k, v = ((given @ w[f"self_attn.{n}_proj.weight"].T).reshape(L, 2, 8) for n in "kv")
            shared = rms(k, layer.self_attn.k_norm) if qk_norm else k, v
        assert shared is not None
        q = rms(q, layer.self_attn.q_norm) if qk_norm else q
        x = x + attend(q, *shared, 5 if i < 2 else L) @ w["self_attn.o_proj.weight"].T
        h = rms(x, layer.post_attention_layernorm)
        gate, up = (h @ w[f"mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w["mlp.down_proj.weight"].T
    wanted = rms(x, model.model.norm) @ weights["model.embed_tokens.weight"].T
    nano.close(model(mx.array(IDS[:1]))[0], wanted, 2e-5)


def test_nothing_is_there_that_is_not_used() -> None:
    own = [{n.split(".")[4] for n in nano.flat(yoco()) if f"layers.{i}.self_attn" in n} for i in range(4)]
    projections, crossing = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_proj", "o_proj"}
    assert own == [projections, projections, projections | {"kv_norm"}, crossing]
    plain = count.parameters(nano.config(num_hidden_layers=4))
    assert plain - count.parameters(yoco().config) == 2 * 32 * 16 - 32
    normed = count.parameters(yoco(qk_norm=True).config)
    assert normed - count.parameters(yoco().config) == (4 + 3) * 8, "queries of four layers, keys of three"


def test_only_one_cache_grows_and_bytes_are_as_announced() -> None:
    model, plain = yoco(window=8), nano.model(num_hidden_layers=4)
    ids = nano.tokens(1, 256, seed=2)
    cache, full = model.make_cache(), plain.make_cache()
    for i in range(0, 256, 32):
        model(mx.array(ids[:, i : i + 32]), cache)
        plain(mx.array(ids[:, i : i + 32]), full)
    held = sum(x.nbytes for layer in cache for x in layer.state)
    assert held == count.cache_bytes(model.config, 256) == (256 + 2 * 8) * 2 * 2 * 8 * 4
    assert count.cache_bytes(plain.config, 256) == sum(x.nbytes for layer in full for x in layer.state)
    allocated, of_plain = (sum(layer.nbytes for layer in layers) for layers in (cache, full))
    assert [layer.nbytes for layer in cache[2:]] == [256 * 128, 0]
    assert held < 0.3 * count.cache_bytes(plain.config, 256) and allocated < 0.5 * of_plain
    assert [layer.held for layer in cache] == [256] * 4


def test_without_a_window_it_is_a_quarter_of_the_context() -> None:
    assert [layer.self_attn.window for layer in yoco(0).layers] == [32, 32, 0, 0]
    odd = nano.model(attention=Pick("yoco"), num_hidden_layers=5)
    assert [layer.self_attn.window for layer in odd.layers] == [32, 32, 0, 0, 0]


@pytest.mark.parametrize("attention", [Pick("yoco", {"window": 6}), Pick("gqa", {"window": 6})])
@pytest.mark.parametrize("position", ["alibi", "rope_dynamic", "learned"])
@pytest.mark.parametrize("padded", [False, True])
def test_windows_go_with_positions_that_work_inside_attention(
    attention: Pick, position: str, padded: bool
) -> None:
    model = nano.model(attention=attention, position=Pick(position))
    whole = np.array(model(mx.array(IDS)))
    padding, ids = ([0, 9], IDS.copy()) if padded else (None, IDS)
    if padded:
        ids[1] = np.concatenate([np.zeros(9, np.int32), IDS[1, :41]])
    cache = model.make_cache(left_padding=padding)
    parts = [
        np.array(model(mx.array(ids[:, a:b]), cache)) for a, b in ((0, 20), (20, 21), (21, 40), (40, 50))
    ]
    joined = np.concatenate(parts, axis=1)
    nano.close(joined[0], whole[0], 2e-5)
    nano.close(joined[1, 9:] if padded else joined[1], whole[1, :41] if padded else whole[1], 2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"residual": Pick("canon"), "head": Pick("pointer")},
        {"residual": Pick("deepnorm"), "mlp": Pick("moe")},
    ],
)
def test_it_goes_with_other_slots(changes: dict[str, Any]) -> None:
    model = yoco(window=6, **changes)
    whole, cache = np.array(model(mx.array(IDS))), model.make_cache()
    parts = [np.array(model(mx.array(IDS[:, a:b]), cache)) for a, b in ((0, 20), (20, 21), (21, 50))]
    nano.close(np.concatenate(parts, axis=1), whole, 2e-5)


def test_work_is_counted_by_what_layers_read() -> None:
    config = yoco(window=8).config
    matrices = count.flops_per_token(config, 0)
    assert count.flops_per_token(config, 64) - matrices == 12 * 32 * (2 * 8 + 2 * 64)
    windowed = nano.config(attention=Pick("gqa", {"window": 8}))
    assert count.flops_per_token(windowed, 64) - count.flops_per_token(windowed, 0) == 12 * 32 * 2 * 8
    for knobs, reads in (({}, 64), ({"window": 8, "qk_norm": True}, 8)):
        diff = nano.config(attention=Pick("diff", knobs))
        assert count.flops_per_token(diff, 64) - count.flops_per_token(diff, 0) == 18 * 32 * 2 * reads


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="YOCO needs at least two layers"):
        nano.model(attention=Pick("yoco"), num_hidden_layers=1)
    with pytest.raises(ConfigError, match="attention.window must not be negative, got -2"):
        yoco(-2)
