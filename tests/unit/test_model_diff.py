"""Differential attention equals its equations, computed one pair of heads at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model.frame import Frame

X = np.random.default_rng(5).normal(size=(2, 9, 32)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rms(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize(
    ("heads", "groups", "knobs"),
    [
        (4, 4, {}),
        (4, 2, {}),
        (8, 4, {"window": 3, "qk_norm": True}),
        (2, 2, {"qk_norm": True}),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else None,
)
@pytest.mark.parametrize("layer", [0, 1])
def test_it_is_one_map_less_lambda_of_the_other(
    heads: int, groups: int, knobs: dict[str, Any], layer: int
) -> None:
    model = nano.model(
        attention=Pick("diff", knobs), position=Pick("nope"), num_attention_heads=heads,
        num_key_value_heads=groups,
    )  # fmt: skip
    attn, d = model.layers[layer].self_attn, 32 // heads
    w = {n: np.array(v, np.float64) for n, v in nano.flat(attn).items()}
    q, k, v = (X.astype(np.float64) @ w[f"{n}_proj.weight"].T for n in "qkv")
    init = 0.8 - 0.6 * math.exp(-0.3 * layer)
    lam = np.exp(w["lambda_q1"] @ w["lambda_k1"]) - np.exp(w["lambda_q2"] @ w["lambda_k2"]) + init
    apart = np.arange(9)[:, None] - np.arange(9)
    reads = (apart >= 0) & (apart < (knobs.get("window") or 9))
    pairs = []
    for p in range(heads // 2):
        g = p // (heads // groups)
        maps = []
        for half in range(2):
            at, of = half * heads // 2 + p, half * groups // 2 + g
            query, key = q[..., at * d : (at + 1) * d], k[..., of * d : (of + 1) * d]
            if "qk_norm" in knobs:
                query, key = (rms(x) * w[f"{n}_norm.weight"] for n, x in (("q", query), ("k", key)))
            scores = query @ key.swapaxes(1, 2)
            maps.append(softmax(np.where(reads, scores / math.sqrt(d), -np.inf)))
        y = (maps[0] - lam * maps[1]) @ v[..., 2 * g * d : 2 * (g + 1) * d]
        pairs.append(rms(y) * w["pair_norm.weight"] * (1 - init))
    wanted = np.concatenate(pairs, axis=-1) @ w["o_proj.weight"].T
    frame = Frame(length=9, position=model.model.embed_positions)
    nano.close(attn(mx.array(X), frame), wanted, 1e-5)


def test_it_has_no_more_matrices_than_grouped_query_attention() -> None:
    one, two = (
        {n: w.shape for n, w in nano.flat(nano.model(attention=Pick(name))).items() if w.ndim > 1}
        for name in ("gqa", "diff")
    )
    assert one == two


def test_fresh_lambda_starts_near_its_initial_value() -> None:
    model = nano.initialize(nano.LM(nano.config(attention=Pick("diff"), head_dim=64)), 0)
    for layer, block in enumerate(model.layers):
        assert 0.05 < nano.flat(block.self_attn)["lambda_q1"].std() < 0.15
        assert abs(block.self_attn.mixing().item() - (0.8 - 0.6 * math.exp(-0.3 * layer))) < 0.3


def test_odd_numbers_of_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_key_value_heads must be even, got 1"):
        nano.model(attention=Pick("diff"), num_key_value_heads=1)
