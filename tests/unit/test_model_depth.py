"""Mixture of Depths: the paper's formula, its predictor, its cache, its company, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mlx import optimizers as adam
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model import count
from tinygpt.model.cache.full import KVCache
from tinygpt.model.depth import mod
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM
from tinygpt.model.terms import Terms
from tinygpt.train.objective import next_token
from tinygpt.train.update import arrays

EVERY = Pick("mod", {"whole": 0, "capacity": 0.4})
IDS = nano.tokens(3, 24)
COMPANY: dict[str, dict[str, Any]] = {
    "diff": {"attention": Pick("diff", {"qk_norm": True})},
    "diff-window": {"attention": Pick("diff", {"window": 4})},
    "window": {"attention": Pick("gqa", {"window": 4})},
    "moe": {"mlp": Pick("moe", {"experts": 4})},
    "alibi": {"position": Pick("alibi")},
    "learned": {"position": Pick("learned")},
    "yarn": {"position": Pick("rope_yarn", {"factor": 2.0})},
    "pointer": {"head": Pick("pointer")},
}


def routed(**how: Any) -> LM:
    return nano.route_half(nano.model(depth=EVERY, **how), IDS)


def test_training_is_equation_1_over_the_top_k() -> None:
    """Against numpy, with a block that mixes its tokens: f(x)_t = the mean of the chosen tokens up to t."""
    rule = mod.MixtureOfDepths(nano.config(depth=EVERY))
    rule.router.weight = mx.random.normal((1, 32), key=mx.random.key(1))
    x = np.random.default_rng(0).normal(size=(2, 11, 32))
    segments = np.array([[1] * 11, [1] * 3 + [0] * 8])
    frame = Frame(length=11, segments=mx.array(segments), terms=Terms())

    def block(x_BkD: mx.array, inner: Frame, cache: Any) -> mx.array:
        assert inner.length == 5 and inner.places is not None
        return x_BkD + mx.cumsum(x_BkD, axis=1) / mx.arange(1, 6)[:, None]

    got = np.array(rule(mx.array(x.astype(np.float32)), block, frame, None))
    r = x @ np.array(rule.router.weight, np.float64)[0]
    wanted = x.copy()
    for row in range(2):
        score = np.where(segments[row] > 0, r[row], -np.inf)
        chosen = np.sort(np.argsort(-score, kind="stable")[: math.ceil(0.4 * 11)])
        if row == 1:
            assert set(range(3)) <= set(chosen), "padding is routed last"
            continue
        f = np.cumsum(x[row, chosen], axis=0) / np.arange(1, 6)[:, None]
        wanted[row, chosen] += r[row, chosen, None] * f
    nano.close(got[0], wanted[0], 1e-5)
    nano.close(got[1, :3], (x + r[..., None] * np.cumsum(x, 1) / np.arange(1, 12)[:, None])[1, :3], 1e-5)


def test_the_predictor_learns_the_choice_and_teaches_nobody_else() -> None:
    model, ids = nano.model(depth=Pick("mod", {"capacity": 0.25, "predictor": 0.5})), mx.array(IDS)
    block = model.layers[1]
    seen: dict[str, mx.array] = {}
    model(ids, tap=lambda name, x: seen.setdefault(name, x))
    x = np.array(seen["blocks.1.hook_resid_pre"], np.float64)  # block 0 is the same in both ways

    def loss(model: LM) -> mx.array:
        terms = Terms()
        model.losses(ids, ids, terms=terms)
        facts.update(terms.facts())
        return terms.loss()

    facts: dict[str, mx.array] = {}
    value, gradients = nn.value_and_grad(model, loss)(model)
    p, r = block.depth.predictor, x @ np.array(block.depth.router.weight, np.float64)[0]
    pre = x @ np.array(p.up_proj.weight).T + np.array(p.up_proj.bias)
    hidden = np.maximum(pre, 0)
    z = (hidden @ np.array(p.down_proj.weight).T + np.array(p.down_proj.bias))[..., 0]
    member = r >= np.sort(r, axis=1)[:, -6:-5]
    bce = np.where(member, np.log1p(np.exp(-z)), np.log1p(np.exp(z))).mean()
    assert member.sum() == 18 and value.item() == pytest.approx(0.5 * bce, rel=1e-4)
    assert facts["mod_predictor"].item() == pytest.approx(bce, rel=1e-4)
    assert facts["mod_accuracy"].item() == pytest.approx(((z > 0) == member).mean(), abs=1e-6)
    assert facts["mod_routed"].item() == pytest.approx((z > 0).mean(), abs=1e-6)
    moved = {n for n, g in tree_flatten(gradients) if mx.abs(g).max().item() > 0}
    assert moved == {n for n in nano.flat(model) if "depth.predictor" in n}


def test_a_predictor_can_be_learned() -> None:
    rule = routed().layers[0].depth
    rule.router.weight = mx.random.normal((1, 32), key=mx.random.key(1))
    x, told = mx.random.normal((4, 64, 32), key=mx.random.key(2)), []

    def loss(rule: nn.Module) -> mx.array:
        frame = Frame(length=64, terms=Terms())
        rule(x, lambda x, inner, cache: x, frame, None)
        told.append(frame.terms.facts()["mod_accuracy"].item())
        return frame.terms.loss()

    optimizer = adam.Adam(0.03)
    for _ in range(60):
        optimizer.update(rule, nn.value_and_grad(rule, loss)(rule)[1])
    assert told[-1] > 0.9 > 0.7 > told[0]


@pytest.mark.parametrize(
    "company", [pytest.param(c, marks=[pytest.mark.wide] if i % 2 else []) for i, c in enumerate(COMPANY)]
)
def test_cached_padded_and_packed_with_others(company: str) -> None:
    model = routed(**COMPANY[company])
    whole = np.array(model(mx.array(IDS)))
    padding, cache = [2, 0, 5], model.make_cache(left_padding=[2, 0, 5])
    rows = np.stack([np.concatenate([np.zeros(n, np.int32), row[: 24 - n]]) for n, row in zip(padding, IDS)])
    cuts = [0, 9, 10, 11, 15, *range(16, 25)]
    got = [np.array(model(mx.array(rows[:, a:b]), cache)) for a, b in zip(cuts, cuts[1:])]
    for i, n in enumerate(padding):
        nano.close(np.concatenate(got, axis=1)[i, n:], whole[i, : 24 - n], 1e-5)
    segments, positions = np.repeat([[1, 2]], 12, axis=1), np.tile(np.arange(12), 2)[None]
    packed = model(mx.array(IDS[:1]), segments=mx.array(segments), positions=mx.array(positions))
    for part in (slice(0, 12), slice(12, 24)):
        nano.close(packed[0, part], model(mx.array(IDS[:1, part]))[0], 1e-5)


def test_a_cache_holds_the_routed_tokens_alone() -> None:
    model = routed(hidden_size=32)
    cache = model.make_cache()
    model(mx.array(IDS[:1]), cache)
    wide = nano.model().make_cache()
    nano.model()(mx.array(IDS[:1]), wide)
    for layer, plain in zip(cache, wide):
        assert layer.held == plain.held == layer.offset == 24
        assert layer.entries == layer.state[0].shape[2] and 0 < layer.entries < 24
        assert layer.nbytes == 64 * 2 * 16 * 4 + 24 * 5 - (24 - layer.entries) * 5, "room, and what each is"
    with pytest.raises(ValueError, match="cannot be restored"):
        cache[0].state = cache[0].state


@pytest.mark.parametrize("name", ["gqa", "diff"])
def test_a_window_bounds_the_cache(name: str) -> None:
    model, ids = routed(attention=Pick(name, {"window": 4})), mx.array(nano.tokens(2, 400, seed=3))
    cache = model.make_cache()
    parts = [model(ids[:, a : a + 20], cache) for a in range(0, 400, 20)]
    assert all(layer.entries < 110 and not layer.is_trimmable() and layer.trim(1) == 0 for layer in cache)
    nano.close(mx.concatenate(parts, axis=1), model(ids), 1e-5)


def test_a_window_of_routed_tokens_has_spare_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "step", 2)
    model, ids = routed(attention=Pick("gqa", {"window": 4})), mx.array(nano.tokens(2, 120, seed=3))
    whole, cache, at = model(ids), model.make_cache(), 0
    for layer in cache:
        layer.spare = 5
    while at < 100:
        nano.close(model(ids[:, at : at + 9], cache), whole[:, at : at + 9], 1e-5)
        at += 4
        for layer in cache:
            layer.rewind([5, 5])
    assert all(layer.entries < 40 for layer in cache)
    with pytest.raises(ValueError, match="cannot forget"):
        cache[0].rewind([60, 0])


def test_rows_that_stay_alone_keep_their_gaps() -> None:
    model = routed()
    cache = model.make_cache()
    model(mx.array(IDS[:, :12]), cache)
    for layer in cache:
        layer.filter(mx.array([1]))
    nano.close(model(mx.array(IDS[1:2, 12:]), cache), model(mx.array(IDS[1:2]))[:, 12:], 1e-5)
    for layer in cache:
        assert layer.trim(6) == 6
    nano.close(model(mx.array(IDS[1:2, 18:]), cache), model(mx.array(IDS[1:2]))[:, 18:], 1e-5)


def test_evaluation_asks_the_predictor_and_training_the_router() -> None:
    model, batch = routed(), arrays(nano.batch(3, 12))
    objective = next_token.build(model)
    plain = nn.losses.cross_entropy(model(batch["tokens"], segments=batch["segments"]), batch["targets"])
    wanted = (plain * objective.weights(batch)).sum() / objective.weights(batch).sum()
    nano.close(objective.measure(batch), wanted, 1e-5)
    assert abs(objective.loss(batch)[1]["loss"].item() - wanted.item()) > 1e-3


def test_full_capacity_is_the_weighted_block() -> None:
    model = nano.model(depth=Pick("mod", {"whole": 0, "capacity": 1.0}))
    soft = nano.model(depth=Pick("mod_soft"))
    plain, ids = nano.model(), mx.array(IDS)
    seen: dict[str, mx.array] = {}
    for name, other in (("hard", model), ("soft", soft)):
        for layer, source in zip(other.layers, plain.layers):
            for part in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
                layer[part].update(source[part].parameters())
        x = mx.random.normal((1, 24, 32), key=mx.random.key(5))
        frame = Frame.of(ids[:1])
        frame.position, frame.terms = other.model.embed_positions, Terms()
        seen[name] = other.layers[0](x, frame)
        seen["plain"] = plain.layers[0](x, frame)
    r = model.layers[0].depth.router(x)
    nano.close(seen["hard"], x + r * (seen["plain"] - x), 1e-5)
    gate = mx.sigmoid(soft.layers[0].depth.router(x))
    nano.close(seen["soft"], x + gate * (seen["plain"] - x), 1e-5)


@pytest.mark.parametrize("name", ["mod", "mod_soft"])
def test_what_it_does_not_go_with_is_refused(name: str) -> None:
    alone: dict[str, tuple[dict[str, Any], str]] = {
        "attention": ({"attention": Pick("gqa", {"key_shift": True})}, "features of the tokens before"),
        "canon": ({"residual": Pick("canon")}, "features of the tokens before"),
        "late": ({"position": Pick("rope_dynamic")}, "turn every key"),
    }
    both = {"deepnorm": ({"residual": Pick("deepnorm")}, "norms the stream")}
    for how, message in ({**alone, **both} if name == "mod" else both).values():
        with pytest.raises(ConfigError, match=message):
            LM(nano.config(depth=Pick(name), **how))
    if name == "mod_soft":
        for how, _ in alone.values():
            LM(nano.config(depth=Pick(name), **how))


@pytest.mark.parametrize(
    "knobs", [{"capacity": 0.0}, {"capacity": 1.5}, {"whole": 1}, {"predictor": 0.0}, {"width": -1}]
)
def test_knobs_that_cannot_be_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"depth.{next(iter(knobs))} must"):
        nano.config(depth=Pick("mod", knobs))


def test_counts_know_the_capacity() -> None:
    plain, half = nano.config(), nano.config(depth=Pick("mod", {"capacity": 0.5}))
    d, width = 32, 4
    extra = d + (d * width + width) + (width + 1)
    assert count.parameters(half) - count.parameters(plain) == extra
    sizes = count.tensors(LM(plain)).items()
    block = sum(math.prod(s) for n, s in sizes if ".layers.1." in n and len(s) == 2)
    saved = count.flops_per_token(plain, 64) - count.flops_per_token(half, 64)
    assert saved == 6 * block // 2 + 12 * 32 * 64 * 3 // 4 - 6 * (d + d * width + width)
    assert count.cache_bytes(half, 64) == count.cache_bytes(plain, 64) * 3 // 4


def test_the_share_of_a_row_is_exact() -> None:
    """0.55 * 100 is more than 55 in floats."""
    for capacity, length, most in ((0.55, 100, 55), (0.5, 11, 6), (1e-9, 4, 1), (1.0, 7, 7)):
        rule = mod.MixtureOfDepths(nano.config(depth=Pick("mod", {"capacity": capacity})))
        assert rule._most(mx.zeros((1, length)), Frame(length=length)).shape == (1, most)


def test_which_blocks_are_routed() -> None:
    for whole, routed_blocks in ((3, [1, 2, 4, 5]), (2, [1, 3, 5]), (0, [0, 1, 2, 3, 4, 5])):
        config = nano.config(num_hidden_layers=6, depth=Pick("mod", {"whole": whole}))
        found = [i for i, layer in enumerate(LM(config).layers) if "router" in layer.depth]
        assert found == routed_blocks == [i for i, s in enumerate(count.shares(config)) if s < 1]
