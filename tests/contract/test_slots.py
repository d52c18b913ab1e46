"""What every attention, MLP, position, norm and residual technique promises inside a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.infer import decode
from tinygpt.infer.decode import Decoder
from tinygpt.model import checkpoint, config
from tinygpt.model.cache.full import KVCache
from tinygpt.model.lm import LM
from tinygpt.model.terms import Terms
from tinygpt.train.objective import response
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

FAMILIES = (
    config.ATTENTION, config.MLP, config.POSITION, config.NORM, config.RESIDUAL, config.DEPTH, config.HEAD,
)  # fmt: skip
SLOTS = [(family.kind, Pick(name)) for family in FAMILIES for name in family.names()]
SLOTS += [
    ("attention", Pick("gqa", {"key_shift": True})),
    ("attention", Pick("gqa", {"qk_norm": True})),
    ("attention", Pick("gqa", {"window": 4, "qk_norm": True})),
    ("attention", Pick("yoco", {"window": 4})),
    ("mlp", Pick("moe", {"experts": 4, "shared": 1, "bias_rate": 0.01})),
    ("attention", Pick("yoco", {"window": 4, "qk_norm": True})),
    ("attention", Pick("diff", {"window": 4, "qk_norm": True})),
    ("position", Pick("rope_linear", {"factor": 1.5, "theta": 100.0})),
    ("position", Pick("rope_yarn", {"attention_factor": 1.5, "truncate": False, "theta": 100.0})),
    ("attention", Pick("gqa", {"window": 4, "full_layers": [1], "softcap": 2.0, "scale": 0.7})),
    ("attention", Pick("gqa", {"qk_norm": True, "qk_norm_width": True, "output_bias": False})),
    ("mlp", Pick("moe", {"experts": 4, "renormalize": "never", "dense_layers": [1]})),
    ("residual", Pick("plain", {"scale": 0.5})),
    ("position", Pick("rope", {"share": 0.5, "theta": 100.0})),
    ("position", Pick("rope_longrope", {"long_factor": [2.0] * 4, "factor": 4.0})),
    ("second_position", Pick("nope", {})),
    ("second_position", Pick("rope_linear", {"factor": 4.0})),
    ("head", Pick("mtp", {"horizons": 3})),
    ("depth", Pick("mod", {"whole": 0, "capacity": 0.3})),
    ("embedding_norm", Pick("rmsnorm")),
    ("embedding_norm", Pick("layernorm")),
]
AGAIN = ("second_position", "embedding_norm")  # techniques of other slots, in another place
# Without rotation a key bias adds the same to every score of a query, which softmax takes out.
UNTURNED = ("learned", "alibi", "nope")
IDS = nano.tokens(3, 11)


@pytest.fixture(
    params=[
        pytest.param(s, marks=[pytest.mark.wide] if s[1].options or s[0] in AGAIN else []) for s in SLOTS
    ],
    ids=lambda s: "-".join((s[0], s[1].name, *(s[1].options or ()))),
)
def slot(request: pytest.FixtureRequest) -> tuple[str, Pick]:
    return request.param


@pytest.fixture
def model(slot: tuple[str, Pick]) -> LM:
    return nano.route_half(fresh(slot), IDS)


def fresh(slot: tuple[str, Pick]) -> LM:
    """A Llama-shaped nano model with one slot filled otherwise, biases included."""
    kind, pick = slot
    biased = pick.name not in ("moe", "moe_dense")  # experts have none
    more = {"second_layers": (1,)} if kind == "second_position" else {}
    return nano.model(attention_bias=True, mlp_bias=biased, **{kind: pick}, **more)


def run(model: LM, ids: np.ndarray, cache: list | None = None, **how: Any) -> np.ndarray:
    return np.array(model(mx.array(ids), cache, **how))


def test_causal(model: LM, slot: tuple[str, Pick]) -> None:
    changed = IDS.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % 64
    before, after = run(model, IDS), run(model, changed)
    # Where later tokens decide how many a block computes, products have other shapes and round otherwise.
    assert np.abs(before[:, :7] - after[:, :7]).max() <= (2e-6 if slot[0] == "depth" else 0)
    assert np.abs(before[:, 7:] - after[:, 7:]).max(axis=(0, 2)).min() > 1e-3


def test_a_batch_is_its_singles(model: LM) -> None:
    whole = run(model, IDS)
    for i in range(len(IDS)):
        nano.close(run(model, IDS[i : i + 1]), whole[i : i + 1], 2e-6)


def test_cached_is_uncached(model: LM) -> None:
    whole = run(model, IDS)
    cache = model.make_cache()
    parts = [run(model, IDS[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, 10), (10, 11))]
    nano.close(np.concatenate(parts, axis=1), whole, 5e-6)


@pytest.mark.wide
def test_a_cache_grows_past_its_blocks(model: LM) -> None:
    ids = nano.tokens(1, 100, seed=4)
    cache = model.make_cache()
    parts = [run(model, ids[:, a:b], cache) for a, b in ((0, 63), (63, 64), (64, 65), (65, 100))]
    nano.close(np.concatenate(parts, axis=1), run(model, ids), 5e-6)


@pytest.mark.wide
def test_a_trimmed_cache_is_a_shorter_one(model: LM) -> None:
    cache = model.make_cache()
    may = all(layer.is_trimmable() for layer in cache)  # asked of the empty cache, as mlx-lm does
    run(model, IDS[:, :9], cache)
    assert may == all(layer.is_trimmable() for layer in cache)
    if not may:
        assert any(layer.trim(3) == 0 for layer in cache)
        return
    for layer in cache:
        assert layer.trim(3) == 3
    nano.close(run(model, IDS[:, 6:], cache), run(model, IDS)[:, 6:], 5e-6)


def test_left_padded_rows_are_as_if_alone(model: LM) -> None:
    lengths, total = [3, 7, 5], 7
    padding = [total - n for n in lengths]
    prompts = np.zeros((3, total), np.int32)
    for i, n in enumerate(lengths):
        prompts[i, padding[i] :] = IDS[i, :n]
    cache = model.make_cache(left_padding=padding)
    got = [run(model, prompts, cache)]
    for step in range(2):
        got.append(
            run(model, np.stack([IDS[i, n + step : n + step + 1] for i, n in enumerate(lengths)]), cache)
        )
    joined = np.concatenate(got, axis=1)
    assert np.isfinite(joined).all(), "padding never spreads"
    for i, n in enumerate(lengths):
        nano.close(joined[i, padding[i] :], run(model, IDS[i : i + 1, : n + 2])[0], 5e-6)
    # Rows that are finished leave, and the others go on undisturbed.
    for layer in cache:
        layer.filter(mx.array([2, 0]))
    last = run(model, np.stack([IDS[2, 7:8], IDS[0, 5:6]]), cache)
    nano.close(last[0], run(model, IDS[2:3, :8])[0, -1:], 5e-6)
    nano.close(last[1], run(model, IDS[0:1, :6])[0, -1:], 5e-6)


@pytest.mark.wide
def test_rows_that_come_and_go_are_as_if_alone(model: LM) -> None:
    texts = nano.tokens(3, 90, seed=6)
    ends = [5, 3, 70]

    def read(rows: list[int]) -> Decoder:
        longest = max(ends[row] for row in rows)
        pads = [longest - ends[row] for row in rows]
        decoder = Decoder(model, pads, decode.fixed_step(model))
        padded = [[0] * pad + texts[row, : ends[row]].tolist() for pad, row in zip(pads, rows)]
        decoder.read(mx.array(padded))
        return decoder

    def step(decoder: Decoder, rows: list[int]) -> None:
        logits_BV = decoder.step(mx.array([int(texts[row, ends[row]]) for row in rows]))
        for logits_V, row in zip(logits_BV, rows, strict=True):
            ends[row] += 1
            nano.close(np.array(logits_V), run(model, texts[row : row + 1, : ends[row]])[0, -1], 5e-6)

    decoder = read([0, 1])
    step(decoder, [0, 1])
    decoder.extend(read([2]))  # longer than all that are there
    step(decoder, [0, 1, 2])
    decoder.filter([2, 0])
    step(decoder, [2, 0])
    if all(layer.is_trimmable() for layer in decoder.cache):
        decoder.rewind([0, 2])
        ends[0] -= 2
        step(decoder, [2, 0])
    decoder.filter([1])
    assert decoder.pads == [0] and decoder.cache[0].left_padding is None, "nothing is left to mask"
    for _ in range(2):
        step(decoder, [0])
    decoder.extend(read([1]))  # shorter
    step(decoder, [0, 1])


@pytest.mark.wide
def test_as_many_tokens_as_are_spare_are_taken_back(model: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "step", 8)  # so that windows move on
    texts, wrong, ends = nano.tokens(3, 70, seed=6), nano.tokens(3, 8, seed=7), [20, 16, 17]
    whole = run(model, texts)

    def read(rows: list[int]) -> Decoder:
        pads = [max(ends) - ends[row] for row in rows]
        made = Decoder(model, pads, decode.fixed_step(model), spare=8)
        padded = [[0] * pad + texts[row, : ends[row]].tolist() for pad, row in zip(pads, rows)]
        made.read(mx.array(padded))
        return made

    decoder = read([0, 1])
    decoder.extend(read([2]))
    for n_B in ([3, 1, 8], [8, 8, 8], [0, 5, 2], [4, 0, 7], [1, 2, 0]):
        rows = [np.r_[texts[i, ends[i] : ends[i] + 9 - n], wrong[i, :n]] for i, n in enumerate(n_B)]
        logits = np.array(decoder.read(mx.array(np.stack(rows))))
        for i, n in enumerate(n_B):
            nano.close(logits[i, : 9 - n], whole[i, ends[i] : ends[i] + 9 - n], 5e-6)
            ends[i] += 9 - n
        decoder.rewind(n_B)
    with pytest.raises(ValueError, match="cannot forget their last 90"):
        decoder.rewind([1, 90, 0])


def test_packed_documents_are_as_if_alone(model: LM) -> None:
    lengths = (4, 6)
    row = np.concatenate([IDS[0, :4], IDS[1, :6], [0]])[None]
    segments = np.array([[1] * 4 + [2] * 6 + [0]], np.int32)
    positions = np.array([[*range(4), *range(6), 0]], np.int32)
    packed = run(model, row, positions=mx.array(positions), segments=mx.array(segments))
    assert np.isfinite(packed).all()
    for i, (start, n) in enumerate(zip((0, 4), lengths)):
        nano.close(packed[0, start : start + n], run(model, IDS[i : i + 1, :n])[0], 5e-6)


def test_gradients_reach_every_parameter(model: LM, slot: tuple[str, Pick]) -> None:
    ids, targets = mx.array(IDS[:, :-1]), mx.array(IDS[:, 1:])

    def loss(m: LM) -> mx.array:
        terms = Terms()  # what only training uses learns by these
        return m.losses(ids, targets, terms=terms).mean() + terms.loss()

    gradients = nn.value_and_grad(model, loss)(model)[1]
    dead = {n for n, g in tree_flatten(gradients) if mx.abs(g).max().item() < 1e-6}
    dead -= {n for n in dead if n.endswith("balance_bias")}  # moves by the load, not by a gradient
    if slot[1].name in UNTURNED:
        dead -= {n for n in dead if n.endswith("k_proj.bias")}
    assert not dead


def test_every_parameter_is_saved_and_loaded(model: LM, tmp_path: Path) -> None:
    loaded = checkpoint.load(checkpoint.save(tmp_path / "m", model)).model
    before, after = nano.flat(model), nano.flat(loaded)
    assert before.keys() == after.keys() and all(np.array_equal(before[n], after[n]) for n in before)
    assert np.array_equal(run(loaded, IDS), run(model, IDS))


@pytest.mark.wide
def test_resumed_is_straight(slot: tuple[str, Pick], tmp_path: Path) -> None:
    def make(model: LM) -> Gradient:
        optimizer = adamw.build(adamw.Config())
        return Gradient(response.build(model), optimizer, lambda step: 3e-3, compiled=True)

    nano.resumes(tmp_path / "step", make, lambda: fresh(slot), stops=(2, 3))


@pytest.mark.wide
def test_half_precision_stays_half(model: LM) -> None:
    full = run(model, IDS)
    model.update(tree_map(lambda w: w.astype(mx.bfloat16), model.parameters()))
    assert model.hidden(mx.array(IDS)).dtype == mx.bfloat16
    logits = model(mx.array(IDS)).astype(mx.float32)
    assert np.isfinite(np.array(logits)).all()
    nano.close(logits, full, 0.15)


def test_losses_are_those_of_the_logits(model: LM) -> None:
    ids, targets = mx.array(IDS[:, :-1]), mx.array(IDS[:, 1:])
    segments = mx.array(np.repeat([[1, 2]], 5, axis=1).repeat(3, axis=0))
    for packed in ({}, {"segments": segments}):
        wanted = nn.losses.cross_entropy(model(ids, **packed), targets)
        nano.close(model.losses(ids, targets, **packed), wanted, 2e-5)


@pytest.mark.wide
def test_the_last_logits_are_those_of_all(model: LM) -> None:
    nano.close(run(model, IDS, last=2), run(model, IDS)[:, -2:], 2e-6)


def test_taps_see_and_change(model: LM) -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def look(name: str, x: mx.array) -> mx.array:
        seen[name] = x.shape
        return x

    assert np.array_equal(run(model, IDS, tap=look), run(model, IDS))
    for point in ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"):
        assert seen[f"blocks.0.{point}"] == seen[f"blocks.1.{point}"] == (3, 11, 32)
    assert seen["hook_embed"] == seen["ln_final.hook_normalized"] == (3, 11, 32)
    silent = run(model, IDS, tap=lambda name, x: x * 0 if name == "blocks.1.hook_mlp_out" else x)
    assert np.abs(silent - run(model, IDS)).max() > 1e-3


def test_learned_positions_refuse_what_does_not_fit() -> None:
    model = nano.model("gpt2", max_position_embeddings=8)
    with pytest.raises(ConfigError, match="9 tokens do not fit the model's 8 learned positions"):
        run(model, IDS[:, :9])
    cache = model.make_cache()
    run(model, IDS[:, :8], cache)
    with pytest.raises(ConfigError, match="9 tokens do not fit"):
        run(model, IDS[:, 8:9], cache)
    padded = model.make_cache(left_padding=[2, 0, 1])
    run(model, IDS[:, :8], padded)
    with pytest.raises(ConfigError, match="9 tokens do not fit"):
        run(model, IDS[:, 8:9], padded)


def test_learned_positions_count_real_tokens_only() -> None:
    """All rows are padded, so one more token still fits."""
    model = nano.model("gpt2", max_position_embeddings=8)
    padded = model.make_cache(left_padding=[2, 3, 1])
    run(model, IDS[:, :8], padded)
    run(model, IDS[:, 8:9], padded)
