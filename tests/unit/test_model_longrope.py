"""LongRoPE, heads turned in part, layers with positions of their own, and what cannot be."""

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
from tinygpt.model.lm import LM

IDS = nano.tokens(2, 90)


def run(model: LM, ids: np.ndarray, cache: list | None = None, **how: Any) -> np.ndarray:
    return np.array(model(mx.array(ids), cache, **how))


SHORT, LONG = (1.0, 1.2, 1.1, 1.6, 1.3, 2.0, 1.0, 1.4), (1.0, 2.0, 2.5, 3.0, 4.0, 4.5, 6.0, 8.0)


def listed(layers: int = 1, trained: int = 20) -> LM:
    options = {"short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": trained}
    return nano.model(position=Pick("rope_longrope", options), num_hidden_layers=layers, head_dim=16)


def with_list(model: LM, n: int) -> LM:
    """The same weights, every text turned by the one list that a text of n tokens has."""
    other = listed(len(model.layers), 1000 if n <= 20 else 2)
    other.update(model.parameters())
    other.model.embed_positions.gain = model.model.embed_positions.gain
    return other


def test_longrope_is_its_formula() -> None:
    """theta^(-2j/K) / lambda_j, times sqrt(1 + ln(s) / ln(n)); the list by the text's length."""
    position = listed().model.embed_positions
    plain = 10000.0 ** (-np.arange(0, 16, 2, dtype=np.float64) / 16)
    x = np.zeros((1, 1, 1, 16), np.float32)
    x[..., :8] = 1
    for n, divisors in ((20, SHORT), (21, LONG)):
        y = np.array(position.rotate(mx.array(x), 3, Frame(length=n)))[0, 0, 0]
        turned = np.arctan2(y[8:], y[:8]), np.hypot(y[8:], y[:8])
        assert np.abs(turned[0] - (3 * plain / np.array(divisors) + np.pi) % (2 * np.pi) + np.pi).max() < 1e-5
        assert np.abs(turned[1] - math.sqrt(1 + math.log(128 / 20) / math.log(20))).max() < 1e-5


def test_longrope_in_a_cache_a_batch_and_a_packed_row() -> None:
    """Each text has the list of its own length, as if it were alone and read at once."""
    model = listed()
    cache = model.make_cache()
    for a, b in ((0, 12), (12, 20), (20, 21), (21, 50)):
        nano.close(run(model, IDS[:, a:b], cache), run(with_list(model, b), IDS[:, :b])[:, a:], 5e-6)
    prompts = np.zeros((2, 40), np.int32)
    prompts[0, 22:], prompts[1] = IDS[0, :18], IDS[1, :40]
    padded = run(model, prompts, model.make_cache(left_padding=[22, 0]))
    row = np.concatenate([IDS[0, :15], IDS[1, :30]])[None]
    segments = mx.array(np.repeat([1, 2], [15, 30])[None].astype(np.int32))
    packed = run(model, row, segments=segments)
    for got, ids in (
        (padded[0, 22:], IDS[:1, :18]), (padded[1], IDS[1:2, :40]), (packed[0, :15], row[:, :15]),
        (packed[0, 15:], row[:, 15:]),
    ):  # fmt: skip
        nano.close(got, run(with_list(model, ids.shape[1]), ids)[0], 5e-6)


@pytest.mark.parametrize("name", ["rope", "rope_yarn", "rope_longrope", "rope_dynamic"])
def test_a_share_of_each_head_is_turned(name: str) -> None:
    """As a head of that width alone; the other features stay, without any gain."""
    context = {"max_position_embeddings": 16}
    part = LM(nano.config(position=Pick(name, {"share": 0.5}), head_dim=16, **context)).model.embed_positions
    whole = LM(nano.config(position=Pick(name), head_dim=8, **context)).model.embed_positions
    x = mx.random.normal((2, 3, 20, 16), key=mx.random.key(1))
    y = part.rotate(x, 0, Frame(length=20))
    nano.close(y[..., :8], whole.rotate(x[..., :8], 0, Frame(length=20)), 1e-6)
    assert mx.array_equal(y[..., 8:], x[..., 8:])


def test_second_positions_turn_their_layers_alone() -> None:
    """With all layers listed the second ones are the only ones; with one, neither of both."""
    pick = Pick("rope", {"theta": 50.0})
    plain, other = nano.model(num_hidden_layers=2), nano.model(num_hidden_layers=2, position=pick)
    other.update(plain.parameters())
    for layers, same in (((0, 1), other), ((1,), None)):
        mixed = nano.model(second_position=pick, second_layers=layers)
        mixed.update(plain.parameters())
        if same is not None:
            assert np.array_equal(run(mixed, IDS), run(same, IDS))
        else:
            both = [np.abs(run(mixed, IDS) - run(m, IDS)).max() for m in (plain, other)]
            assert min(both) > 1e-2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"second_position": Pick("nope")}, "second_position and second_layers mean nothing without"),
        ({"second_layers": (0,)}, "second_position and second_layers mean nothing without"),
        ({"second_position": Pick("nope"), "second_layers": (2,)}, "'second_layers' lists layer 2"),
        ({"second_position": Pick("learned"), "second_layers": (1,)}, "'learned' cannot be the second one"),
        ({"second_position": Pick("alibi"), "second_layers": (1,)}, "'alibi' cannot be the second one"),
        ({"second_position": Pick("rope_longrope"), "second_layers": (1,)}, "cannot be the second one"),
        (
            {"attention": Pick("gqa", {"window": 4, "full_layers": [5]})},
            "'attention.full_layers' lists layer 5",
        ),
        (
            {"attention": Pick("gqa", {"full_layers": [0]})},
            "full_layers means nothing without attention.window",
        ),
        ({"attention": Pick("gqa", {"qk_norm_width": True})}, "nothing without attention.qk_norm"),
        ({"attention": Pick("gqa", {"softcap": -1.0})}, "softcap must not be negative"),
        ({"attention": Pick("gqa", {"output_bias": False})}, "nothing where attention_bias is false"),
        ({"mlp": Pick("moe", {"dense_layers": [-1]})}, "'mlp.dense_layers' lists layer -1"),
        ({"residual": Pick("plain", {"scale": 0.0})}, "residual.scale must be positive, got 0"),
        ({"logit_cap": -1.0}, "'logit_cap' must not be negative"),
        ({"embedding_scale": 0.0}, "'embedding_scale' must be positive, got 0"),
    ],
)
def test_ways_of_other_stacks_that_cannot_be(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LM(nano.config(**changes))
