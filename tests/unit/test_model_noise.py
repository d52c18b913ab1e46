"""Training's noise: rates, scales, places, and one stream of numbers a row whatever the batch is."""

from __future__ import annotations

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.noise import Noise, row_keys
from tinygpt.model.terms import Terms
from tinygpt.train.objective import next_token
from tinygpt.train.update import arrays

KEYS = row_keys(3, 7, 4)


def test_dropout_sets_a_share_to_zero_and_keeps_the_mean() -> None:
    x = np.random.default_rng(0).normal(1, 0.1, (4, 64, 32)).astype(np.float32)
    y = np.array(Noise(dropout=0.25).of(KEYS).drop(mx.array(x), "here"))
    kept = y != 0
    assert abs(kept.mean() - 0.75) < 0.02
    nano.close(y[kept], (x / 0.75)[kept], 1e-6)
    assert Noise(dropout=0.25).of(KEYS).drop(mx.ones((4, 3, 2), mx.bfloat16), "a").dtype == mx.bfloat16
    assert Noise(layer_drop=0.5).of(KEYS).drop(mx.array(x), "here").shape == x.shape


def test_features_are_off_by_a_uniform_draw() -> None:
    noise = Noise(features=0.1)
    off = np.array(noise.of(KEYS).off(mx.ones((4, 64, 32)))) - 1
    assert 0.099 < off.max() <= 0.1 and -0.1 <= off.min() < -0.099 and abs(off.mean()) < 2e-3
    assert abs(off.std() - 0.1 / 3**0.5) < 1e-3  # of U(-0.1, 0.1)
    assert noise and noise.of(KEYS).off(mx.ones((4, 3, 2), mx.bfloat16)).dtype == mx.bfloat16
    with pytest.raises(ConfigError, match="feature-noise"):
        Noise(features=-0.1)


def test_a_row_meets_the_same_noise_alone_and_elsewhere() -> None:
    x, noise = mx.ones((4, 8, 16)), Noise(dropout=0.5, layer_drop=0.5, neftune=5.0, features=0.1)
    whole, part = noise.of(KEYS), noise.of(KEYS[2:3])
    for draw in (
        lambda n, rows: n.drop(rows, "blocks.0.attn"),
        lambda n, rows: n.disturb(rows, None),
        lambda n, rows: n.off(rows),
        lambda n, rows: n.kept("blocks.1"),
    ):
        assert mx.array_equal(draw(whole, x)[2:3], draw(part, x[2:3]))
    masks = [np.array(whole.drop(x, place)) for place in ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn")]
    assert all((a != b).any() for a, b in zip(masks, masks[1:]))
    assert (masks[0][0] != masks[0][1]).any(), "every row has its own"
    keys = {tuple(k) for step in range(9) for k in row_keys(0, step, 9).tolist()}
    assert len(keys) == 81 and not mx.array_equal(row_keys(1, 1, 2), row_keys(2, 1, 2))
    assert mx.array_equal(row_keys(1, 1, 2), row_keys(1, 1, 2))


def test_neftune_noise_has_the_papers_size_for_each_document() -> None:
    x, D = mx.zeros((2, 48, 64)), 64
    segments = mx.array([[1] * 36 + [2] * 9 + [0] * 3, [1] * 48])
    y = np.array(Noise(neftune=5.0).of(KEYS[:2]).disturb(x, segments))
    for row, part, n in ((0, slice(0, 36), 36), (0, slice(36, 45), 9), (1, slice(0, 48), 48)):
        most = 5 / np.sqrt(n * D)
        assert 0.97 * most < np.abs(y[row, part]).max() <= most
        assert y[row, part].std() == pytest.approx(most / np.sqrt(3), rel=0.05)
    alone = np.array(Noise(neftune=5.0).of(KEYS[:2]).disturb(x, None))
    assert np.abs(alone).max() <= 5 / np.sqrt(48 * D)


def test_a_row_skips_blocks_at_the_rate_and_keeps_its_stream() -> None:
    noise = Noise(layer_drop=0.3).of(row_keys(0, 1, 2000))
    kept = [np.array(noise.kept(f"blocks.{i}")) for i in range(2)]
    assert all(abs(k.mean() - 0.7) < 0.04 for k in kept) and (kept[0] != kept[1]).any()
    model = nano.model()
    model.noise = Noise(layer_drop=0.5)
    ids = mx.array(nano.tokens(4, 9))
    keys = next(k for k in (row_keys(s, 1, 4) for s in range(50)) if _mixed(k))
    rows = [np.array(model.noise.of(keys).kept(f"blocks.{i}")) for i in range(2)]
    losses = np.array(model.losses(ids[:, :-1], ids[:, 1:], terms=Terms(), keys=keys))
    for i in range(4):
        other = nano.model()
        other.model.layers = [layer for layer, kept in zip(other.layers, rows) if kept[i]]
        h = other.model.embed_tokens(ids[i : i + 1, :-1])
        if other.layers:
            assert (
                np.abs(losses[i] - np.array(other.losses(ids[i : i + 1, :-1], ids[i : i + 1, 1:]))).max()
                < 1e-4
            )
        else:
            logits = other.output(other.model.norm(h))
            wanted = (
                mx.logsumexp(logits, axis=-1)
                - mx.take_along_axis(logits, ids[i : i + 1, 1:, None], 2)[..., 0]
            )
            assert np.abs(losses[i] - np.array(wanted)).max() < 1e-4


def _mixed(keys: mx.array) -> bool:
    kept = [np.array(Noise(layer_drop=0.5).of(keys).kept(f"blocks.{i}")) for i in range(2)]
    return len({(bool(a), bool(b)) for a, b in zip(*kept)}) == 4


def test_only_training_is_noisy() -> None:
    model, ids = nano.model(), mx.array(nano.tokens(2, 9))
    objective, batch = next_token.build(model), arrays(nano.batch(2, 8))
    quiet = [np.array(model(ids)), objective.measure(batch).item(), objective.loss(batch)[0].item()]
    model.noise = Noise(dropout=0.2, layer_drop=0.2, neftune=5.0)
    noisy = batch | {"keys": KEYS[:2]}
    again = [np.array(model(ids)), objective.measure(noisy).item(), objective.loss(batch)[0].item()]
    assert np.array_equal(quiet[0], again[0]) and quiet[1:] == again[1:]
    assert objective.loss(noisy)[0].item() != quiet[2]
    assert objective.loss(noisy)[0].item() == objective.loss(noisy)[0].item()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1"),
        ({"layer_drop": -0.1}, "--layer-drop must be at least 0"),
        ({"neftune": -1.0}, "--neftune-alpha must not be negative"),
    ],
)
def test_rates_that_cannot_be_are_refused(how: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Noise(**how)
