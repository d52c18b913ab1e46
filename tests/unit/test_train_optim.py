"""What single optimizers promise beyond the contract: bytes that they save, and what they do at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import compile, mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.count import tensors
from tinygpt.model.lm import LM
from tinygpt.model.presets import preset
from tinygpt.train.optim import (
    adafactor,
    adam8bit,
    adamw,
    galore,
    lion,
    lisa,
    muon,
    sgd,
    sophia,
    sophia_light,
)
from tinygpt.train.protocols import Seen


def zeros(shapes: dict[str, tuple[int, ...]]) -> dict[str, mx.array]:
    """Arrays that nobody evaluates: only their shapes count."""
    return {name: mx.zeros(shape) for name, shape in shapes.items()}


def kept(optimizer: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of an optimizer's state."""
    return sum(value.nbytes for value in optimizer.init(zeros(shapes)).values())


def seen(gradients: dict[str, mx.array], step: int = 1, seed: int = 0) -> Seen:
    """What a refresh is shown, with these gradients at drawn targets too."""
    return Seen(
        gradients=gradients, tokens=mx.array(1.0), key=mx.random.key(1000 * seed + step),
        drawn=lambda: gradients,
    )  # fmt: skip


def huge() -> dict[str, tuple[int, ...]]:
    return tensors(LM(preset("huge", vocab_size=256)))


def test_states_are_as_small_as_announced() -> None:
    full = kept(adamw.build(adamw.Config()), huge())
    assert full == 8 * sum(int(np.prod(shape)) for shape in huge().values())
    assert kept(galore.build(galore.Config(rank=64)), huge()) < 0.4 * full
    assert kept(adam8bit.build(adam8bit.Config()), huge()) < 0.27 * full
    assert kept(lion.build(lion.Config()), huge()) == full / 2
    assert kept(adafactor.build(adafactor.Config()), huge()) < 0.005 * full
    assert kept(sophia.build(sophia.Config()), huge()) == full
    layers = preset("huge", vocab_size=256).num_hidden_layers
    outside = 8 * sum(int(np.prod(s)) for n, s in huge().items() if ".layers." not in n)
    one = (full - outside) // layers
    numbers = kept(lisa.build(lisa.Config(layers=2)), huge()) - outside - 2 * one
    assert 0 < numbers < 200, "the moments of two blocks, and which blocks these are"


# 8-bit Adam


def test_the_dynamic_codes_are_those_of_the_paper() -> None:
    """Seven decades, each twice as fine as the one below it; 0 and 1 themselves."""
    for signed in (True, False):
        codes = np.array(adam8bit.dynamic(signed))
        assert codes.size == 256 and (np.diff(codes) > 0).all() and {0.0, 1.0} <= set(codes)
        for i in range(7):
            inside = codes[(codes > 10.0 ** -(i + 1)) & (codes < 10.0**-i)]
            assert inside.size == 2 ** (6 - i) * (1 if signed else 2)
            assert inside.mean() == pytest.approx(0.55 * 10.0**-i)
            assert np.allclose(np.diff(inside), 0.9 * 10.0**-i / inside.size, rtol=1e-9, atol=0)
        negative = codes[codes < 0]
        assert set(-negative) == (set(codes[codes > 0]) - {1.0} if signed else set())


@pytest.mark.parametrize("table", [adam8bit.dynamic, adam8bit.linear])
@pytest.mark.parametrize("signed", [False, True])
def test_a_byte_is_the_nearest_code(table: Any, signed: bool) -> None:
    """For values of every size, and for the borders between codes and their neighbours."""
    values = np.array(table(signed))
    codes = adam8bit.Codes(table(signed))
    rng = np.random.default_rng(0)
    borders = np.array(codes.borders)[:-1]
    x = np.concatenate(
        [
            rng.uniform(0, 1, 4000),
            10 ** rng.uniform(-9, 0, 4000),
            *(borders, np.nextafter(borders, np.float32(2)), np.nextafter(borders, np.float32(-2)), values),
        ]
    ).astype(np.float32)
    x = np.concatenate([x, -x, [-1, 0]]).astype(np.float32) if signed else np.abs(x)
    found = np.array(codes.nearest(mx.array(x)))
    assert found.dtype == np.uint8
    distance = np.abs(values - x[:, None].astype(np.float64))
    assert (distance[np.arange(x.size), found] <= distance.min(axis=1) + 1e-7).all()


def test_large_tensors_are_kept_in_bytes_and_the_others_are_not() -> None:
    shapes = {"w": (64, 64), "embed_tokens.weight": (64, 64), "small": (63, 65), "vector": (5000,)}
    state = adam8bit.build(adam8bit.Config()).init(zeros(shapes))
    assert {n for n, value in state.items() if value.dtype == mx.uint8} == {
        "m.w",
        "v.w",
        "m.vector",
        "v.vector",
    }
    assert state["m.w"].shape == (2, 2048) and state["m_scale.w"].shape == (2, 1)
    assert state["m.vector"].shape == (3, 2048), "the last block is filled up"
    assert state["m.small"].shape == (63, 65) and state["v.embed_tokens.weight"].dtype == mx.float32


def test_a_weight_without_a_gradient_is_not_thrown_away() -> None:
    """A second moment too small for a byte would be zero, and its first moment be divided by eps."""
    optimizer = adam8bit.build(adam8bit.Config(weight_decay=0.0, minimum=1))
    weights = {"w": mx.zeros((1, 64))}
    gradient = {"w": mx.array([[1.0] * 63 + [1e-4]])}
    state = optimizer.init(weights)
    weights, state = optimizer.apply(weights, gradient, state, mx.array(0.01), mx.array(1.0))
    still = {"w": mx.zeros((1, 64))}
    after, _ = optimizer.apply(weights, still, state, mx.array(0.01), mx.array(2.0))
    assert mx.abs(after["w"] - weights["w"]).max() < 0.011


@pytest.mark.parametrize(
    "wrap",
    [pytest.param(lambda f: f, id="eager", marks=pytest.mark.wide), pytest.param(compile, id="compiled")],
)
def test_float32_moments_exist_a_few_at_a_time(wrap: Any) -> None:
    """Not those of all 64 tensors: then the step would take more memory than AdamW's."""
    weights = {f"layers.{i}.weight": mx.ones((128, 128)) for i in range(64)}
    gradients = {name: w * 0.5 for name, w in weights.items()}
    optimizer = adam8bit.build(adam8bit.Config())
    state, step = optimizer.init(weights), wrap(optimizer.apply)
    mx.eval(weights, gradients, state, step(weights, gradients, state, mx.array(0.1), mx.array(1.0)))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(step(weights, gradients, state, mx.array(0.1), mx.array(2.0)))
    results = sum(w.nbytes for w in (weights | state).values())
    moments_of_one = 2 * 128 * 128 * 4
    assert mx.get_peak_memory() - before < results + 20 * moments_of_one


# Muon


def test_stacked_experts_are_made_orthogonal_one_by_one() -> None:
    """As if each were a tensor of its own, with the scale of its own rows and columns."""
    optimizer, rng = muon.build(muon.Config()), np.random.default_rng(4)
    stack, gradient = ({"experts.up": mx.array(rng.normal(size=(7, 3, 5)).astype(np.float32))} for _ in "wg")
    alone, alone_gradient = ({str(i): t["experts.up"][i] for i in range(7)} for t in (stack, gradient))
    after = []
    for weights, g in ((stack, gradient), (alone, alone_gradient)):
        state = optimizer.init(weights)
        assert set(state) == {f"momentum.{n}" for n in weights}
        after.append(optimizer.apply(weights, g, state, mx.array(0.1), mx.array(1.0))[0])
    for i in range(7):
        nano.close(after[0]["experts.up"][i], after[1][str(i)], 1e-5)


def test_what_has_no_directions_takes_adamw() -> None:
    """A single row, as of a router that chooses tokens, and kernels of a depthwise convolution."""
    shapes = {"router": (1, 6), "column": (6, 1), "kernels": (6, 4, 1), "embed_tokens": (9, 6), "norm": (6,)}
    weights = {n: mx.ones(shape) for n, shape in shapes.items()}
    gradients = {n: 0.3 * w for n, w in weights.items()}
    after = []
    for module in (muon, adamw):
        optimizer = module.build(module.Config())
        new = optimizer.apply(weights, gradients, optimizer.init(weights), mx.array(0.1), mx.array(1.0))
        after.append(new[0] | new[1])
    assert after[0].keys() == after[1].keys()
    assert all(mx.array_equal(after[0][n], value) for n, value in after[1].items())


# GaLore


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20), (3, 12, 30), (3, 30, 12)])
def test_the_directions_are_the_first_singular_vectors(shape: tuple[int, ...]) -> None:
    optimizer = galore.build(galore.Config(rank=5))
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    state = optimizer.refresh(optimizer.init({"w": mx.zeros(shape)}), seen({"w": mx.array(gradient)}))
    short = gradient if shape[-2] <= shape[-1] else gradient.swapaxes(-1, -2)
    expected = np.linalg.svd(short.astype(np.float64), full_matrices=False)[0][..., :5]
    found = np.array(state["projector.w"], np.float64)
    assert found.shape == expected.shape
    nano.close(np.abs((found * expected).sum(axis=-2)), np.ones((*shape[:-2], 5)), 1e-5)
    low = (5, shape[-1]) if shape[-2] <= shape[-1] else (shape[-2], 5)
    assert state["m.w"].shape == state["v.w"].shape == (*shape[:-2], *low)


def test_signs_follow_the_directions_before() -> None:
    """The same gradient, even turned round, leaves the directions where they are."""
    optimizer = galore.build(galore.Config(rank=2))
    gradient = mx.array(np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32))
    first = optimizer.refresh(optimizer.init({"w": gradient}), seen({"w": gradient}))
    flipped = {**first, "projector.w": -first["projector.w"]}
    for state, sign in ((first, 1), (flipped, -1)):
        for g in (gradient, -gradient):
            again = optimizer.refresh(state, seen({"w": g}, 2))
            nano.close(again["projector.w"], sign * first["projector.w"], 1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_leaves_the_directions(bad: float) -> None:
    optimizer = galore.build(galore.Config(rank=2))
    gradient = mx.array(np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32))
    state = optimizer.refresh(optimizer.init({"w": gradient}), seen({"w": gradient}))
    after = optimizer.refresh(state, seen({"w": mx.where(mx.arange(9) == 3, bad, gradient)}, 2))
    assert mx.array_equal(after["projector.w"], state["projector.w"])


def test_stacked_experts_learn_as_if_alone() -> None:
    optimizer = galore.build(galore.Config(rank=2))
    rng = np.random.default_rng(2)
    stack = {"w": mx.array(rng.normal(size=(3, 6, 9)).astype(np.float32))}
    gradient = {"w": mx.array(rng.normal(size=(3, 6, 9)).astype(np.float32))}
    alone = {f"w{i}": stack["w"][i] for i in range(3)}
    alone_gradient = {f"w{i}": gradient["w"][i] for i in range(3)}
    after = []
    for weights, g in ((stack, gradient), (alone, alone_gradient)):
        state = optimizer.refresh(optimizer.init(weights), seen(g))
        after.append(optimizer.apply(weights, g, state, mx.array(0.1), mx.array(1.0))[0])
    for i in range(3):
        nano.close(after[0]["w"][i], after[1][f"w{i}"], 1e-5)


def test_nothing_to_project_is_refused() -> None:
    """Token tables, the output matrix, vectors and narrow matrices take AdamW, and there is nothing else."""
    square = {"embed_tokens.weight": (512, 512), "lm_head.weight": (512, 512)}
    shapes = {"layers.0.weight": (64, 300), "norm.weight": (512,), **square}
    with pytest.raises(ConfigError, match="nothing to project: no hidden matrix is wider than 64"):
        galore.build(galore.Config()).init(zeros(shapes))


# LISA


BLOCKS = {f"model.layers.{i}.{n}.weight": (3, 4) for i in range(6) for n in ("up", "down")}


def walk(optimizer: Any, weights: dict[str, mx.array], steps: int, seed: int = 0) -> list[set[str]]:
    """Take steps with gradients of one, and return which tensors each of them moved."""
    state, moved = optimizer.init(weights), []
    for step in range(1, steps + 1):
        gradients = {n: mx.ones(w.shape) for n, w in weights.items()}
        if optimizer.due(step):
            state = optimizer.refresh(state, seen(gradients, step, seed))
        after, state = optimizer.apply(weights, gradients, state, mx.array(0.1), mx.array(float(step)))
        moved.append({n for n in weights if not mx.array_equal(after[n], weights[n])})
        weights = after
    return moved


def test_lisa_moves_the_drawn_blocks_and_all_that_is_no_block() -> None:
    """Whole blocks, the same ones until the next draw; in the long run each as often as the others."""
    weights = {
        n: mx.ones(s) for n, s in {**BLOCKS, "model.embed_tokens.weight": (5, 4), "norm": (4,)}.items()
    }
    moved = walk(lisa.build(lisa.Config(layers=2, every=2)), weights, 60)
    times = dict.fromkeys(range(6), 0)
    for step, names in enumerate(moved):
        assert {"model.embed_tokens.weight", "norm"} < names
        blocks = [n.split(".")[2] for n in names if n in BLOCKS]
        assert len(blocks) == 4 and len(set(blocks)) == 2
        assert step % 2 == 0 or names == moved[step - 1]
        for block in set(blocks):
            times[int(block)] += step % 2 == 0
    assert sum(times.values()) == 60 and all(4 <= n <= 18 for n in times.values())
    assert walk(lisa.build(lisa.Config(layers=2, every=2)), weights, 8, seed=1) != moved[:8]


def test_lisa_serves_blocks_that_differ() -> None:
    """A kind of tensor that few blocks have takes their places alone."""
    shapes = {**BLOCKS, "model.layers.1.router.weight": (2, 4), "model.layers.5.up.weight": (7, 4)}
    weights = {n: mx.ones(s) for n, s in shapes.items()}
    optimizer = lisa.build(lisa.Config(layers=3, every=1))
    state = optimizer.init(weights)
    assert state["m.places.router.weight.2x4"].shape == (1, 2, 4)
    assert (
        state["m.places.up.weight.3x4"].shape == (3, 3, 4) and state["m.places.up.weight.7x4"].shape[0] == 1
    )
    for names in walk(optimizer, weights, 12):
        blocks = {n.split(".")[2] for n in names}
        assert len(blocks) == 3 and names == {n for n in shapes if n.split(".")[2] in blocks}


def test_parts_of_the_weights_add_up_to_all_of_them() -> None:
    """The updater hands out tensors to several cores, and to groups."""
    weights = {n: mx.ones(s) for n, s in BLOCKS.items()}
    gradients = {n: mx.full(w.shape, i + 1.0) for i, (n, w) in enumerate(weights.items())}
    optimizer = lisa.build(lisa.Config(layers=2))
    state = optimizer.refresh(optimizer.init(weights), seen(gradients))
    whole = optimizer.apply(weights, gradients, state, mx.array(0.1), mx.array(1.0))
    parts = [
        optimizer.apply(
            {n: weights[n] for n in list(weights)[i::5]}, gradients, state, mx.array(0.1), mx.array(1.0)
        )
        for i in range(5)
    ]
    for name, value in whole[1].items():
        assert mx.array_equal(value, sum(part[name] for _, part in parts if name in part))
    assert all(mx.array_equal(w, whole[0][n]) for part, _ in parts for n, w in part.items())


def test_lisa_with_too_few_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="LISA draws 2 blocks, and 0 can learn"):
        lisa.build(lisa.Config()).init({"w": mx.ones((3, 4))})
    with pytest.raises(ConfigError, match="LISA draws 7 blocks, and 6 can learn"):
        lisa.build(lisa.Config(layers=7)).init(zeros(BLOCKS))


@pytest.mark.parametrize(
    ("config", "knobs", "message"),
    [
        (lisa.Config, {"layers": 0}, r"optimizer\.layers must be at least 1, got 0"),
        (lisa.Config, {"every": 0}, r"optimizer\.every must be at least 1, got 0"),
        (sophia.Config, {"beta1": 1.0}, r"optimizer\.beta1 must be in \[0, 1\)"),
        (sophia.Config, {"rho": 0.0}, r"optimizer\.rho must be positive"),
        (sophia.Config, {"eps": -1.0}, r"optimizer\.eps must be positive"),
        (sophia_light.Config, {"every": 0}, r"optimizer\.every must be at least 1"),
        (galore.Config, {"rank": 0}, r"optimizer\.rank must be at least 1, got 0"),
        (galore.Config, {"every": 0}, r"optimizer\.every must be at least 1"),
        (galore.Config, {"scale": 0.0}, r"optimizer\.scale must be positive"),
        (galore.Config, {"beta1": 1.0}, r"optimizer\.beta1 must be in \[0, 1\)"),
        (adam8bit.Config, {"block": 0}, r"optimizer\.block must be at least 1"),
        (adam8bit.Config, {"beta2": -0.1}, r"optimizer\.beta2 must be in \[0, 1\)"),
        (adafactor.Config, {"clip": 0.0}, r"optimizer\.clip must be positive"),
        (adafactor.Config, {"parameter_scale": -1.0}, r"optimizer\.parameter_scale must not be negative"),
        (lion.Config, {"beta2": 1.0}, r"optimizer\.beta2 must be in \[0, 1\)"),
        (muon.Config, {"beta1": 1.0}, r"optimizer\.beta1 must be in \[0, 1\)"),
        (muon.Config, {"momentum": -0.1}, r"optimizer\.momentum must be in \[0, 1\)"),
        (sgd.Config, {"momentum": 1.0}, r"optimizer\.momentum must be in \[0, 1\)"),
        *[
            (module.Config, {"eps": eps}, r"optimizer\.eps must be positive")
            for module in (adafactor, adam8bit, adamw, galore, lisa, muon, sophia)
            for eps in (0.0, -1e-8)
        ],
        *[
            (module.Config, {"weight_decay": -1.0}, r"optimizer\.weight_decay must not be negative, got -1")
            for module in (adafactor, adam8bit, adamw, galore, lion, lisa, muon, sgd, sophia, sophia_light)
        ],
    ],
)
def test_a_knob_out_of_range_is_refused(config: Any, knobs: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**knobs)


def test_stacks_are_factored_one_matrix_at_a_time() -> None:
    """Adafactor on a stack of equal-sized gradients is Adafactor on each of them."""
    optimizer = adafactor.build(adafactor.Config(parameter_scale=0.0, clip=100.0))
    rng = np.random.default_rng(3)
    one = rng.normal(size=(5, 7)).astype(np.float32)
    stack = {"w": mx.array(np.stack([one, -one]))}
    alone = {"w": mx.array(one)}
    steps = []
    for g in (stack, alone):
        weights = {"w": mx.zeros(g["w"].shape)}
        state = optimizer.init(weights)
        steps.append(optimizer.apply(weights, g, state, mx.array(0.01), mx.array(1.0))[0]["w"])
    nano.close(steps[0], np.stack([steps[1], -steps[1]]), 1e-6)


@pytest.mark.parametrize(("step", "rate"), [(1, 0.5), (4, 0.5), (16, 0.25), (10_000, 0.01)])
def test_the_relative_step_bounds_the_rate(step: int, rate: float) -> None:
    weights, gradient = {"w": mx.zeros((2, 3))}, {"w": mx.ones((2, 3))}
    after = []
    for relative, lr in ((True, 0.5), (False, rate)):
        optimizer = adafactor.build(adafactor.Config(relative_step=relative))
        state = optimizer.init(weights)
        after.append(optimizer.apply(weights, gradient, state, mx.array(lr), mx.array(float(step)))[0]["w"])
    nano.close(after[0], after[1], 1e-6)


def test_without_the_relative_step_the_rate_is_the_schedules() -> None:
    optimizer = adafactor.build(adafactor.Config(relative_step=False))
    weights, gradient = {"w": mx.zeros((2, 3))}, {"w": mx.ones((2, 3))}
    state = optimizer.init(weights)
    slow, fast = (
        optimizer.apply(weights, gradient, state, mx.array(lr), mx.array(16.0)) for lr in (0.1, 0.5)
    )
    nano.close(fast[0]["w"], 5 * slow[0]["w"], 1e-6)
